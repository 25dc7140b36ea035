// SPDX-License-Identifier: Apache-2.0

package basebackup

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/kbcli/kbcli/engine/blob"
	"github.com/kbcli/kbcli/engine/repository"
)

// files gathers what the workers stored and what is taken from the base, in the order of
// paths. Frames and packs that nothing is left of are not listed.
func (c *copier) files() (*repository.Files, error) {
	out := &repository.Files{}
	for i := range c.entries {
		if c.gone[i] {
			continue
		}
		f := c.entries[i].File
		ps := c.pieces[i]
		slices.SortFunc(ps, func(a, b piece) int { return int(a.offset - b.offset) })
		var at int64
		for _, p := range ps {
			if p.offset != at {
				return nil, fmt.Errorf("backup of %s has a hole at %d", f.Path, at)
			}
			at += int64(p.extent.Length)
			f.Extents = appendExtent(f.Extents, p.extent)
		}
		if at != f.Size {
			return nil, fmt.Errorf("backup of %s has %d bytes, not %d", f.Path, at, f.Size)
		}
		out.Files = append(out.Files, f)
	}
	c.number(out)
	return out, nil
}

// appendExtent adds an extent, or makes the last one longer.
func appendExtent(list []repository.Extent, x repository.Extent) []repository.Extent {
	if n := len(list); n > 0 && list[n-1].Frame == x.Frame && list[n-1].Skip+list[n-1].Length == x.Skip {
		list[n-1].Length += x.Length
		return list
	}
	return append(list, x)
}

// number lists the frames and packs that the files use.
func (c *copier) number(out *repository.Files) {
	frames := make([]uint32, len(c.frames)) // new number and 1
	packs := make([]uint32, len(c.refs))
	for i := range out.Files {
		for k := range out.Files[i].Extents {
			frames[out.Files[i].Extents[k].Frame] = 1
		}
	}
	for n, used := range frames {
		if used == 0 {
			continue
		}
		fr := c.frames[n]
		if packs[fr.Pack] == 0 {
			out.Packs = append(out.Packs, c.refs[fr.Pack])
			packs[fr.Pack] = uint32(len(out.Packs))
		}
		fr.Pack = packs[fr.Pack] - 1
		out.Frames = append(out.Frames, fr)
		frames[n] = uint32(len(out.Frames))
	}
	for i := range out.Files {
		for k := range out.Files[i].Extents {
			x := &out.Files[i].Extents[k]
			x.Frame = frames[x.Frame] - 1
		}
	}
}

// uses lists the packs of other backups.
func uses(name string, f *repository.Files) map[string][]uint32 {
	var out map[string][]uint32
	for _, p := range f.Packs {
		if p.Backup == name {
			continue
		}
		if out == nil {
			out = map[string][]uint32{}
		}
		out[p.Backup] = append(out[p.Backup], p.Number)
	}
	for _, numbers := range out {
		slices.Sort(numbers)
	}
	return out
}

// tidy removes packs that an interrupted try left and that are not used, and counts
// those that are.
func (b *backup) tidy(ctx context.Context, m *repository.Manifest, f *repository.Files, tried bool) error {
	if !tried {
		return nil
	}
	used := map[uint32]bool{}
	for _, p := range f.Packs {
		if p.Backup == m.Name {
			used[p.Number] = true
		}
	}
	numbers, _, err := b.cfg.Lineage.Packs(ctx, m.Name)
	if err != nil {
		return err
	}
	for _, n := range numbers {
		if used[n] {
			continue
		}
		if err := b.cfg.Lineage.DeletePack(ctx, repository.PackRef{Backup: m.Name, Number: n}); err != nil {
			return err
		}
	}
	_, m.Stored, err = b.cfg.Lineage.Packs(ctx, m.Name)
	return err
}

// list lists the backup. Somebody may have deleted a backup that it uses while it was
// taken: then it is not listed, or not any more.
func (b *backup) list(ctx context.Context, m *repository.Manifest, f *repository.Files) error {
	if err := b.packsThere(ctx, f.Packs); err != nil {
		return fmt.Errorf("backup %s: %w", m.Name, err)
	}
	if err := b.cfg.Lineage.PutBackup(ctx, m, f); err != nil {
		return err
	}
	if len(m.Uses) == 0 {
		return nil
	}
	err := b.packsThere(ctx, f.Packs)
	if errors.Is(err, blob.ErrNotExist) {
		gone := b.cfg.Lineage.DeleteBackup(ctx, m.Name, func(uint32) bool { return true })
		err = errors.Join(fmt.Errorf("backup %s: %w", m.Name, err), gone)
	}
	return err
}
