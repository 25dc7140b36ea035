// SPDX-License-Identifier: Apache-2.0

package basebackup

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/kbcli/kbcli/engine/pg"
	"github.com/kbcli/kbcli/engine/repository"
)

// base is the backup that another builds on.
type base struct {
	m     *repository.Manifest
	files *repository.Files
}

func newBase(m *repository.Manifest, files *repository.Files) *base { return &base{m, files} }

// file is what the base has under the path of an entry; nil if that is no file.
func (b *base) file(p string) *repository.File {
	if b == nil {
		return nil
	}
	i, ok := slices.BinarySearchFunc(b.files.Files, p, func(f repository.File, p string) int { return strings.Compare(f.Path, p) })
	if !ok || b.files.Files[i].Kind != repository.RegularFile {
		return nil
	}
	return &b.files.Files[i]
}

// same finds the base's frame that has exactly what a frame of this backup has, at the
// same places of the same files.
func (b *base) same(entries []entry, inside []held, id frameID) (uint32, bool) {
	if b == nil {
		return 0, false
	}
	found := uint32(0)
	for k, h := range inside {
		f := b.file(entries[h.entry].Path)
		if f == nil || f.Size < h.offset+int64(h.length) {
			return 0, false
		}
		var at int64
		ok := false
		for _, x := range f.Extents {
			if end := at + int64(x.Length); h.offset < end {
				ok = h.offset+int64(h.length) <= end && int64(x.Skip)+h.offset-at == int64(h.skip) && (k == 0 || x.Frame == found)
				found = x.Frame
				break
			}
			at += int64(x.Length)
		}
		if !ok {
			return 0, false
		}
	}
	fr := &b.files.Frames[found]
	return found, len(inside) > 0 && fr.Raw == id.raw && fr.Sum == id.sum
}

// share is how one file is divided: what is read, and what is taken from the base's file.
type share struct {
	base *repository.File // nil: nothing
	read []span
}

// kept calls fn for each stretch that is taken from the base.
func (s *share) kept(size int64, fn func(offset int64, x repository.Extent)) {
	if s.base == nil {
		return
	}
	size = min(size, s.base.Size)
	read := s.read
	var at int64
	for _, x := range s.base.Extents {
		end := min(at+int64(x.Length), size)
		for from := at; from < end; {
			for len(read) > 0 && read[0].end <= from {
				read = read[1:]
			}
			to := end
			if len(read) > 0 {
				if read[0].from <= from {
					from = read[0].end
					continue
				}
				to = min(to, read[0].from)
			}
			fn(from, repository.Extent{Length: uint32(to - from), Frame: x.Frame, Skip: x.Skip + uint32(from-at)})
			from = to
		}
		if at += int64(x.Length); at >= size {
			return
		}
	}
}

// sure is how much older than the base a file's last change must be for its time to
// tell that it has not changed since.
const sure = 2 * time.Second

// divide says how each entry is divided. Without knowing what changed everything is read.
func (b *backup) divide(entries []entry) []share {
	out := make([]share, len(entries))
	for i := range entries {
		e := &entries[i]
		if e.Kind != repository.RegularFile || e.Path == controlPath || e.Size == 0 {
			continue
		}
		f := b.base.file(e.Path)
		fork, segment, relation := locate(e.Path)
		switch {
		case f == nil || b.changed == nil || !relation:
		case fork.fork == pg.FSMFork:
			// WAL does not tell of it, and to be wrong about it does no harm
			if f.Size == e.Size && f.ModTime == e.ModTime && time.UnixMicro(f.ModTime).Before(b.base.m.StartTime.Add(-sure)) {
				out[i].base = f
				continue
			}
		default:
			both := min(f.Size, e.Size)
			read := appendSpan(b.changed.spans(fork, segment, both), span{both, e.Size})
			if len(read) != 1 || read[0] != (span{0, e.Size}) {
				out[i] = share{f, read}
				continue
			}
		}
		out[i].read = []span{{0, e.Size}}
	}
	b.renew(entries, out)
	return out
}

// Frames are kept whole as long as anything of them is used. A restore reads them whole,
// so that what is not used of them must stay little.
const (
	mostDead  = 5  // a fifth of the data
	mostRenew = 10 // a tenth of the data is stored anew by one backup
)

// renew chooses frames of the base of which little is used, and has what is be read like
// what changed: if a restore would read a fifth more than there is, those of which less
// than three quarters are used, and all that lie in packs which are mostly dead; the
// deadest first, and at most a tenth of the data.
func (b *backup) renew(entries []entry, list []share) {
	if b.changed == nil {
		return
	}
	frames := b.base.files.Frames
	live := make([]int64, len(frames))
	var data, dead int64
	for i := range list {
		data += entries[i].Size
		list[i].kept(entries[i].Size, func(_ int64, x repository.Extent) { live[x.Frame] += int64(x.Length) })
	}
	type use struct{ size, live uint64 }
	packs := make([]use, len(b.base.files.Packs))
	for i, fr := range frames {
		p := &packs[fr.Pack]
		p.size = max(p.size, fr.Offset+uint64(fr.Stored))
		if live[i] > 0 {
			dead += int64(fr.Raw) - live[i]
			p.live += uint64(fr.Stored) * uint64(live[i]) / uint64(fr.Raw)
		}
	}
	lonely := func(i uint32) bool {
		p := packs[frames[i].Pack]
		return p.live*4 < p.size
	}
	var candidates []uint32
	for i, fr := range frames {
		if live[i] > 0 && (live[i]*4 < int64(fr.Raw)*3 || lonely(uint32(i))) {
			candidates = append(candidates, uint32(i))
		}
	}
	slices.SortStableFunc(candidates, func(x, y uint32) int {
		return cmp.Compare(live[x]*int64(frames[y].Raw), live[y]*int64(frames[x].Raw))
	})
	chosen := map[uint32]bool{}
	room := data / mostRenew
	for _, i := range candidates {
		if dead*mostDead <= data && !lonely(i) {
			continue
		}
		if room -= live[i]; room < 0 {
			break
		}
		dead -= int64(frames[i].Raw) - live[i]
		chosen[i] = true
	}
	if len(chosen) == 0 {
		return
	}
	for i := range list {
		s := &list[i]
		var more []span
		s.kept(entries[i].Size, func(at int64, x repository.Extent) {
			if chosen[x.Frame] {
				more = append(more, span{at, at + int64(x.Length)})
			}
		})
		if len(more) > 0 {
			s.read = mergeSpans(append(more, s.read...))
		}
	}
}

func mergeSpans(list []span) []span {
	slices.SortFunc(list, func(a, b span) int { return cmp.Compare(a.from, b.from) })
	out := list[:0]
	for _, s := range list {
		out = appendSpan(out, s)
	}
	return out
}

// badPages are those of the base that this backup takes from it.
func (b *base) badPages(entries []entry, list []share) []repository.BadPage {
	if b == nil {
		return nil
	}
	var out []repository.BadPage
	for _, bad := range b.m.BadPages {
		i, ok := slices.BinarySearchFunc(entries, bad.Path, func(e entry, p string) int { return strings.Compare(e.Path, p) })
		if !ok || list[i].base == nil {
			continue
		}
		at := int64(bad.Block-entries[i].segment*pg.RelSegBlocks) * pg.BlockSize
		list[i].kept(entries[i].Size, func(from int64, x repository.Extent) {
			if from <= at && at < from+int64(x.Length) {
				out = append(out, bad)
			}
		})
	}
	return out
}
