// SPDX-License-Identifier: Apache-2.0

package basebackup

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kbcli/kbcli/engine/pg"
	"github.com/kbcli/kbcli/engine/repository"
	"github.com/kbcli/kbcli/engine/repository/walindex"
)

func TestLocate(t *testing.T) {
	for _, c := range []struct {
		path    string
		want    fork
		segment uint32
		ok      bool
	}{
		{"base/5/16384", fork{pg.RelFileLocator{Spc: 1663, DB: 5, Rel: 16384}, pg.MainFork}, 0, true},
		{"base/5/16384_vm.2", fork{pg.RelFileLocator{Spc: 1663, DB: 5, Rel: 16384}, pg.VMFork}, 2, true},
		{"base/5/16384_fsm", fork{pg.RelFileLocator{Spc: 1663, DB: 5, Rel: 16384}, pg.FSMFork}, 0, true},
		{"global/1262.1", fork{pg.RelFileLocator{Spc: 1664, Rel: 1262}, pg.MainFork}, 1, true},
		{"pg_tblspc/16400/PG_15_202209061/5/7_init", fork{pg.RelFileLocator{Spc: 16400, DB: 5, Rel: 7}, pg.InitFork}, 0, true},
		{"base/5/99999999999", fork{}, 0, false},
		{"base/5/4294967296", fork{}, 0, false},
		{"base/5/t3_16384", fork{}, 0, false},
		{"base/5/PG_VERSION", fork{}, 0, false},
		{"global/pg_filenode.map", fork{}, 0, false},
		{"pg_xact/0000", fork{}, 0, false},
		{"log/5/1", fork{}, 0, false},
	} {
		f, segment, ok := locate(c.path)
		if ok != c.ok || ok && (f != c.want || segment != c.segment) {
			t.Errorf("%s: %+v, segment %d, %v", c.path, f, segment, ok)
		}
	}
}

// TestSpans compares the spans of random changes with a list of blocks.
func TestSpans(t *testing.T) {
	rel := pg.RelFileLocator{Spc: 1663, DB: 5, Rel: 1}
	f := fork{rel, pg.MainFork}
	r := rand.New(rand.NewPCG(3, 4))
	for range 300 {
		c := newChanged()
		want := map[uint32]bool{}
		from := uint32(walindex.NoBlock)
		const around = pg.RelSegBlocks // blocks on both sides of a file's end
		for range 1 + r.IntN(4) {
			x := &walindex.Index{Blocks: []walindex.ForkBlocks{{Rel: rel, Fork: pg.MainFork, From: walindex.NoBlock}}}
			b := &x.Blocks[0]
			if r.IntN(6) == 0 {
				b.From = around - 300 + r.Uint32N(600)
				from = min(from, b.From)
			}
			at := uint32(around - 300)
			for range r.IntN(20) {
				at += r.Uint32N(40)
				run := walindex.BlockRun{Block: at, Count: 1 + r.Uint32N(90)}
				b.Runs = append(b.Runs, run)
				for n := run.Block; n < run.Block+run.Count; n++ {
					want[n] = true
				}
				at += run.Count
			}
			c.add(x)
		}
		for file, first := range []uint32{0, around} {
			size := uint32(around)
			if file == 1 {
				size = r.Uint32N(500)
			}
			got := map[uint32]bool{}
			last := int64(-1)
			for _, s := range c.spans(f, uint32(file), int64(size)*pg.BlockSize) {
				if s.from <= last || s.from >= s.end || s.from%pg.BlockSize != 0 || s.end%pg.BlockSize != 0 {
					t.Fatalf("span %+v after %d", s, last)
				}
				for at := s.from; at < s.end; at += pg.BlockSize {
					got[first+uint32(at/pg.BlockSize)] = true
				}
				last = s.end
			}
			for n := first; n < first+size; n++ {
				if w := want[n] || n >= from; got[n] != w {
					t.Fatalf("block %d: %v, want %v (all from %d on)", n, got[n], w, from)
				}
				delete(got, n)
			}
			if len(got) > 0 {
				t.Fatalf("blocks past the end: %v", got)
			}
		}
	}
}

// A file may have the name of another that was dropped: then all its forks are new.
func TestSpansOfNewFiles(t *testing.T) {
	rel, other := pg.RelFileLocator{Spc: 1663, DB: 5, Rel: 1}, pg.RelFileLocator{Spc: 1700, DB: 6, Rel: 2}
	for _, c := range []struct {
		name string
		x    walindex.Index
		rel  pg.RelFileLocator
		want []span
	}{
		{"nothing", walindex.Index{}, rel, nil},
		{"created", walindex.Index{Blocks: []walindex.ForkBlocks{{Rel: rel, From: 0}}}, rel, []span{{0, 16384}}},
		{"another", walindex.Index{Blocks: []walindex.ForkBlocks{{Rel: rel, From: 0}}}, other, nil},
		{"dropped", walindex.Index{Transactions: []walindex.Transaction{{Dropped: []pg.RelFileLocator{rel}}}}, rel, []span{{0, 16384}}},
		{"whole", walindex.Index{Whole: []walindex.Database{{Spc: 1700, DB: 6}}}, other, []span{{0, 16384}}},
		{"another whole", walindex.Index{Whole: []walindex.Database{{Spc: 1663, DB: 6}}}, other, nil},
		{"everything", walindex.Index{Whole: []walindex.Database{{}}}, other, []span{{0, 16384}}},
		{"database dropped", walindex.Index{DatabasesDropped: dropped(6, 1663, 1700)}, other, []span{{0, 16384}}},
	} {
		ch := newChanged()
		ch.add(&c.x)
		if diff := cmp.Diff(c.want, ch.spans(fork{c.rel, pg.VMFork}, 0, 16384), cmp.AllowUnexported(span{})); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.name, diff)
		}
	}
}

func dropped(db pg.Oid, spc ...pg.Oid) []walindex.DatabaseDrop {
	var d walindex.DatabaseDrop
	d.DB, d.Spc = db, spc
	return []walindex.DatabaseDrop{d}
}

// A hostile index must not take much memory.
func TestWideRun(t *testing.T) {
	c := newChanged()
	f := fork{pg.RelFileLocator{Rel: 1}, pg.MainFork}
	c.set(f).add(walindex.BlockRun{Block: 5, Count: walindex.NoBlock})
	c.set(f).add(walindex.BlockRun{Block: walindex.NoBlock - 1, Count: 2})
	if s := c.set(f); s.from != 5 || len(s.bits) > 0 {
		t.Errorf("from %d, %d words", s.from, len(s.bits))
	}
}

// TestShare divides files at random and looks that each byte is read or kept, once.
func TestShare(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	for range 500 {
		f := &repository.File{}
		for range r.IntN(6) {
			x := repository.Extent{Length: 1 + r.Uint32N(50), Frame: r.Uint32N(9), Skip: r.Uint32N(1000)}
			f.Extents = append(f.Extents, x)
			f.Size += int64(x.Length)
		}
		size := f.Size + int64(r.IntN(100)) - int64(r.IntN(100))
		size = max(size, 0)
		s := share{base: f}
		var at int64
		for at < min(size, f.Size) {
			at += int64(r.IntN(30))
			end := min(at+int64(r.IntN(30)), size)
			s.read = appendSpan(s.read, span{at, end})
			at = max(end, at)
		}
		if both := min(size, f.Size); both < size {
			s.read = mergeSpans(append(s.read, span{both, size}))
		}
		from := make([]string, size)
		for _, p := range s.read {
			for i := p.from; i < p.end; i++ {
				from[i] += "read"
			}
		}
		s.kept(size, func(at int64, x repository.Extent) {
			for i := range x.Length {
				from[at+int64(i)] += fmt.Sprint(x.Frame, "+", x.Skip+i)
			}
		})
		want := make([]string, 0, f.Size)
		for _, x := range f.Extents {
			for i := range x.Length {
				want = append(want, fmt.Sprint(x.Frame, "+", x.Skip+i))
			}
		}
		for i, got := range from {
			if got != "read" && (i >= len(want) || got != want[i]) {
				t.Fatalf("byte %d is %q; read %v of %d, base %+v", i, got, s.read, size, f.Extents)
			}
		}
	}
}

// TestRenew looks that frames of which little is used are read again, the deadest first
// and not too many at once.
func TestRenew(t *testing.T) {
	const frame = repository.FrameSize
	files := &repository.Files{Packs: []repository.PackRef{{Backup: "b", Number: 1}}}
	f := repository.File{Path: "base/5/1", Size: 40 * frame}
	for i := range 40 {
		files.Frames = append(files.Frames, repository.Frame{FrameInfo: repository.FrameInfo{Offset: uint64(i * frame), Stored: frame, Raw: frame}})
		f.Extents = append(f.Extents, repository.Extent{Length: frame, Frame: uint32(i)})
	}
	files.Files = []repository.File{f}
	entries := []entry{{File: f, relation: true}}
	for _, c := range []struct {
		name string
		read []span
		want []span
	}{
		{"nothing", nil, nil},
		{"little", []span{{0, frame / 2}, {frame, frame + frame/2}}, []span{{0, frame / 2}, {frame, frame + frame/2}}},
		{
			// each frame is half used: a tenth of all is 4 frames' worth, and the deadest come first
			"half of all", half(40, 2), append([]span{{0, 8 * frame}}, half(40, 2)[8:]...),
		},
	} {
		b := &backup{base: newBase(&repository.Manifest{}, files), changed: newChanged()}
		list := []share{{&files.Files[0], c.read}}
		b.renew(entries, list)
		want := mergeSpans(append([]span(nil), c.want...))
		if diff := cmp.Diff(want, mergeSpans(append([]span(nil), list[0].read...)), cmp.AllowUnexported(span{})); diff != "" && len(want)+len(list[0].read) > 0 {
			t.Errorf("%s (-want +got):\n%s", c.name, diff)
		}
	}
}

// half of each of n frames.
func half(n int, part int64) []span {
	var out []span
	for i := range int64(n) {
		out = append(out, span{i * repository.FrameSize, i*repository.FrameSize + repository.FrameSize/part})
	}
	return out
}
