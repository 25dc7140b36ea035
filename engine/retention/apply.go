// SPDX-License-Identifier: Apache-2.0

package retention

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/kbcli/kbcli/engine/basebackup"
	"github.com/kbcli/kbcli/engine/catalog"
	"github.com/kbcli/kbcli/engine/pg"
	"github.com/kbcli/kbcli/engine/repository"
)

// Load reads what Plan must know of a lineage. Whatever cannot be read, a damaged
// manifest or a store that does not answer, is an error that comes with nothing: what
// is not seen might be what serves the promise. The caller sets Keep and the numbers.
func Load(ctx context.Context, l *repository.Lineage, now time.Time, ttl time.Duration) (Input, error) {
	in := Input{Now: now, TTL: ttl, SegmentSize: l.Info().SegmentSize, Tails: map[pg.Segment]pg.LSN{}}
	// WAL first: that of a backup which ends meanwhile is missed, and then it is
	// no base yet, rather than a base without WAL
	tails, err := l.Tails(ctx, nil)
	if err != nil {
		return Input{}, err
	}
	for i := 0; i < len(tails); {
		g, j := tails[i].Segment, i
		for j < len(tails) && tails[j].Segment == g {
			j++
		}
		_, in.Tails[g] = repository.Chain(tails[i:j], in.SegmentSize.Start(g.Number))
		i = j
	}
	chapters, err := l.Chapters(ctx)
	if err != nil {
		return Input{}, err
	}
	wal, err := l.SegmentRuns(ctx, chapters)
	if err != nil {
		return Input{}, err
	}
	indexed, err := l.IndexedRuns(ctx, chapters)
	if err != nil {
		return Input{}, err
	}
	for _, r := range wal {
		in.WAL = append(in.WAL, Run(r))
	}
	for _, r := range indexed {
		in.Indexed = append(in.Indexed, Run(r))
	}
	cat, err := catalog.Load(ctx, l)
	if err != nil {
		return Input{}, err
	}
	for _, m := range cat.Backups() {
		in.Backups = append(in.Backups, Backup{m.Name, m.Manual, m.Timeline, m.StartLSN, m.StopLSN, m.StopTime})
	}
	in.Absent = map[string]bool{}
	for _, m := range cat.Absent() {
		in.Backups = append(in.Backups, Backup{m.Name, m.Manual, m.Timeline, m.StartLSN, m.StopLSN, m.StopTime})
		in.Absent[m.Name] = true
	}
	return in, in.loadPaths(ctx, cat)
}

// loadPaths finds the ways through the timelines and when those that were left end.
func (in *Input) loadPaths(ctx context.Context, cat *catalog.Catalog) error {
	var all []pg.TimelineID
	for _, r := range slices.Concat(in.WAL, in.Indexed) {
		all = append(all, r.Timeline)
	}
	for g := range in.Tails {
		all = append(all, g.Timeline)
	}
	newest := pg.TimelineID(0)
	if len(all) > 0 {
		newest = slices.Max(all)
	}
	histories, err := cat.Lineage().Histories(ctx)
	if err != nil {
		return err
	}
	all = append(all, histories...)
	for _, b := range in.Backups {
		all = append(all, b.Timeline)
	}
	slices.Sort(all)
	for _, tli := range slices.Compact(all) {
		p := Path{History: pg.History{Timeline: tli}}
		known, err := cat.Path(tli)
		switch {
		case err == nil:
			p.History = known.History
		case slices.Contains(histories, tli):
			return err
		}
		// a host that cannot read its archive does not know the last commit
		if err == nil && tli < newest && cat.Lineage().Repository().Readable() {
			windows, err := cat.Windows(ctx, tli)
			if err != nil {
				return fmt.Errorf("end of timeline %s: %w", tli, err)
			}
			p.Ended = true
			for _, w := range windows {
				if w.To.After(p.End) {
					p.End = w.To
				}
			}
		}
		in.Paths = append(in.Paths, p)
	}
	return nil
}

// Apply deletes what is on the list: the backups, leftovers, then the WAL, oldest first. Packs that
// other backups use stay. Interrupted anywhere, or run again, it leaves nothing
// broken; a list that is older than the newest change of the lineage must not be applied.
func Apply(ctx context.Context, l *repository.Lineage, list List) error {
	if len(list.Backups) > 0 {
		if err := applyBackups(ctx, l, list.Backups); err != nil {
			return err
		}
	}
	for _, name := range list.Leftovers {
		if err := l.Sweep(ctx, name); err != nil {
			return fmt.Errorf("sweep what is left of backup %s: %w", name, err)
		}
	}
	if len(list.WAL) == 0 {
		return nil
	}
	tails, err := l.Tails(ctx, nil)
	if err != nil {
		return err
	}
	tailed := map[pg.Segment]bool{}
	for _, t := range tails {
		tailed[t.Segment] = true
	}
	for _, r := range list.WAL {
		for n := r.From; n < r.To; n++ {
			g := pg.Segment{Timeline: r.Timeline, Number: n}
			err := ctx.Err()
			if first := l.ChapterOf(g); err == nil && (g == first || n == r.From) {
				err = l.DeleteChapters(ctx, first) // it tells of segments that are there
			}
			if err == nil && tailed[g] {
				err = l.DeleteTails(ctx, g)
			}
			if err == nil {
				err = l.DeleteSegment(ctx, g)
			}
			if err != nil {
				return fmt.Errorf("expire WAL segment %s: %w", l.Info().SegmentSize.Name(g), err)
			}
		}
	}
	return nil
}

func applyBackups(ctx context.Context, l *repository.Lineage, names []string) error {
	for _, name := range names {
		all, err := l.Manifests(ctx)
		if err != nil {
			return err // one that cannot be read may use any pack
		}
		var snapshot *repository.Manifest
		for _, m := range all {
			if m.Name == name && m.Snapshot != nil {
				snapshot = m
			}
		}
		if err := l.RemoveBackup(ctx, name); err != nil {
			return fmt.Errorf("expire backup %s: %w", name, err)
		}
		if snapshot == nil {
			continue
		}
		remove := l.Repository().RemoveSnapshot(ctx, l.Info().ID, snapshot)
		if snapshot.Snapshot.Path != "" {
			remove = basebackup.RemoveSnapshot(snapshot.Snapshot.Path, l.Info().ID, name)
		}
		if remove != nil {
			return fmt.Errorf("expire backup %s: %w", name, remove)
		}
	}
	return nil
}
