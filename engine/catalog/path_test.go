// SPDX-License-Identifier: Apache-2.0

package catalog

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kbcli/kbcli/engine/pg"
	"github.com/kbcli/kbcli/engine/repository"
)

// pathTo leads over these switch points to the timeline after them, 1, 2, 3 and so on.
func pathTo(switches ...pg.LSN) Path {
	p := Path{History: pg.History{Timeline: pg.TimelineID(len(switches) + 1)}, size: mib}
	for i, l := range switches {
		p.Entries = append(p.Entries, pg.HistoryEntry{Timeline: pg.TimelineID(i + 1), End: l})
	}
	return p
}

func TestPathSegment(t *testing.T) {
	for _, test := range []struct {
		name string
		path Path
		want []pg.TimelineID // of segments 0, 1, 2 and so on
	}{
		{"one timeline", pathTo(), []pg.TimelineID{1, 1, 1}},
		{"a switch within a segment", pathTo(at(2, 100)), []pg.TimelineID{1, 1, 2, 2}},
		{"a switch at a boundary", pathTo(at(2, 0)), []pg.TimelineID{1, 1, 2, 2}},
		{"just before a boundary", pathTo(at(2, 0) - 1), []pg.TimelineID{1, 2, 2}},
		{"two switches", pathTo(at(1, 7), at(3, 0)), []pg.TimelineID{1, 2, 2, 3}},
		{"two switches in one segment", pathTo(at(2, 7), at(2, 9)), []pg.TimelineID{1, 1, 3, 3}},
		{"twice at one place", pathTo(at(2, 7), at(2, 7)), []pg.TimelineID{1, 1, 3}},
		{"in the first segment", pathTo(at(0, 7)), []pg.TimelineID{2, 2}},
	} {
		var got []pg.TimelineID
		for n := range test.want {
			got = append(got, test.path.Segment(uint64(n)).Timeline)
		}
		if diff := cmp.Diff(test.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", test.name, diff)
		}
	}
}

func TestPathOwns(t *testing.T) {
	p := pathTo(at(2, 100), at(5, 0))
	for _, test := range []struct {
		tli      pg.TimelineID
		from, to pg.LSN
		want     bool
	}{
		{1, at(0, 5), at(2, 100), true},
		{1, at(0, 5), at(2, 101), false},
		{1, at(2, 99), at(2, 99), true},
		{1, at(2, 100), at(2, 100), false},
		{2, at(2, 100), at(5, 0), true},
		{2, at(2, 99), at(5, 0), false},
		{2, at(2, 100), at(5, 1), false},
		{3, at(5, 0), at(900, 0), true},
		{4, at(5, 0), at(6, 0), false}, // a stray branch
	} {
		if got := p.owns(test.tli, test.from, test.to); got != test.want {
			t.Errorf("timeline %d from %s to %s: %t", test.tli, test.from, test.to, got)
		}
	}
}

func TestPathReach(t *testing.T) {
	type spans map[pg.TimelineID][]span
	type tails map[pg.Segment]pg.LSN
	for _, test := range []struct {
		name  string
		path  Path
		whole spans
		tails tails
		at    pg.LSN
		want  pg.LSN
	}{
		{"nothing", pathTo(), nil, nil, at(1, 5), at(1, 5)},
		{"whole segments", pathTo(), spans{1: {{1, 4}}}, nil, at(1, 5), at(4, 0)},
		{"from before them", pathTo(), spans{1: {{1, 4}}}, nil, at(0, 5), at(0, 5)},
		{"one missing", pathTo(), spans{1: {{1, 2}, {3, 4}}}, nil, at(1, 5), at(2, 0)},
		{"and a tail", pathTo(), spans{1: {{1, 4}}}, tails{{Timeline: 1, Number: 4}: at(4, 9)}, at(1, 5), at(4, 9)},
		{"a tail alone", pathTo(), nil, tails{{Timeline: 1, Number: 4}: at(4, 9)}, at(4, 5), at(4, 9)},
		{"a tail that ends before", pathTo(), nil, tails{{Timeline: 1, Number: 4}: at(4, 3)}, at(4, 5), at(4, 5)},
		{"a tail after a hole", pathTo(), spans{1: {{1, 3}}}, tails{{Timeline: 1, Number: 4}: at(4, 9)}, at(1, 5), at(3, 0)},
		{"a full tail", pathTo(), spans{1: {{5, 6}}}, tails{{Timeline: 1, Number: 4}: at(5, 0)}, at(4, 5), at(5, 0)},
		{"over a switch within a segment", pathTo(at(2, 100)), spans{1: {{0, 2}}, 2: {{2, 4}}}, nil, at(0, 5), at(4, 0)},
		{"over a switch at a boundary", pathTo(at(2, 0)), spans{1: {{0, 2}}, 2: {{2, 4}}}, nil, at(0, 5), at(4, 0)},
		{"the old one's last segment is missing", pathTo(at(2, 100)), spans{1: {{0, 1}}, 2: {{2, 4}}}, nil, at(0, 5), at(1, 0)},
		{"the new one is not there yet", pathTo(at(2, 100)), spans{1: {{0, 2}}}, nil, at(0, 5), at(2, 0)},
		{"the old one's tail ends at the switch", pathTo(at(2, 100)), spans{1: {{0, 2}}}, tails{{Timeline: 1, Number: 2}: at(2, 100)}, at(0, 5), at(2, 100)},
		{"the old one wrote on", pathTo(at(2, 100)), spans{1: {{0, 9}}}, nil, at(0, 5), at(2, 100)},
		{"the new one's tail is shorter", pathTo(at(2, 100)), spans{1: {{0, 3}}}, tails{{Timeline: 2, Number: 2}: at(2, 50)}, at(0, 5), at(2, 100)},
		{"the new one's tail is longer", pathTo(at(2, 100)), spans{1: {{0, 3}}}, tails{{Timeline: 2, Number: 2}: at(2, 150)}, at(0, 5), at(2, 150)},
		{"a stray branch does not help", pathTo(), spans{1: {{0, 2}}, 2: {{2, 9}}}, nil, at(0, 5), at(2, 0)},
		{"along the branch that was left", pathTo(), spans{1: {{0, 4}}, 2: {{2, 9}}}, tails{{Timeline: 1, Number: 4}: at(4, 1)}, at(0, 5), at(4, 1)},
		{"two switches in one segment", pathTo(at(2, 7), at(2, 9)), spans{1: {{0, 2}}, 3: {{2, 4}}}, nil, at(0, 5), at(4, 0)},
		{"the last of two has nothing yet", pathTo(at(2, 7), at(2, 90)), spans{1: {{0, 3}}, 2: {{2, 3}}}, nil, at(0, 5), at(2, 90)},
		{"the last of two has less", pathTo(at(2, 7), at(2, 90)), spans{1: {{0, 2}}}, tails{{Timeline: 2, Number: 2}: at(2, 80), {Timeline: 3, Number: 2}: at(2, 50)}, at(0, 5), at(2, 80)},
	} {
		t.Run(test.name, func(t *testing.T) {
			inv := &inventory{size: mib, whole: test.whole, tails: test.tails}
			if got := test.path.reach(inv, test.at); got != test.want {
				t.Errorf("reaches %s, want %s", got, test.want)
			}
		})
	}
}

// An inventory knows what was added to it, in whatever order, and keeps it in as
// few spans as can be.
func TestInventoryAdd(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 1000 {
		inv := &inventory{size: mib, whole: map[pg.TimelineID][]span{}}
		var naive [40]bool
		for range r.IntN(60) {
			from := uint64(r.IntN(40))
			to := min(40, from+1+uint64(r.IntN(3))*uint64(r.IntN(4)))
			if to == from+1 {
				inv.addSpan(1, span{from, from + 1})
			} else {
				inv.addSpan(1, span{from, to})
			}
			for n := from; n < to; n++ {
				naive[n] = true
			}
		}
		var want []span
		for n, there := range naive {
			if inv.has(pg.Segment{Timeline: 1, Number: uint64(n)}) != there || inv.has(pg.Segment{Timeline: 2, Number: uint64(n)}) {
				t.Fatalf("segment %d: %t; %v", n, !there, inv.whole)
			}
			if there && (n == 0 || !naive[n-1]) {
				want = append(want, span{from: uint64(n)})
			}
			if there {
				want[len(want)-1].to = uint64(n) + 1
			}
		}
		if !slices.Equal(want, inv.whole[1]) {
			t.Fatalf("got %v, want %v", inv.whole[1], want)
		}
	}
}

// Growing step by step comes to what loading anew does.
func TestGrow(t *testing.T) {
	history := []byte(fmt.Sprintf("1\t%s\tx\n", at(4, 100)))
	for _, test := range []struct {
		name  string
		build func(w *world)
		tli   pg.TimelineID
		lsn   pg.LSN
		want  map[pg.TimelineID][]span
		tail  pg.LSN
	}{
		{"empty", func(w *world) {}, 1, at(3, 7), map[pg.TimelineID][]span{}, at(3, 7)},
		{"on", func(w *world) { w.put(pg.Segment{Timeline: 1, Number: 1}, nothing) }, 1, at(3, 7), map[pg.TimelineID][]span{1: {{1, 3}}}, at(3, 7)},
		{"to a boundary", func(w *world) { w.put(pg.Segment{Timeline: 1, Number: 1}, nothing) }, 1, at(3, 0), map[pg.TimelineID][]span{1: {{1, 3}}}, 0},
		{"from a tail", func(w *world) { w.tail(1, 2, 0, 5, nil) }, 1, at(4, 7), map[pg.TimelineID][]span{1: {{2, 4}}}, at(4, 7)},
		{"from a tail behind a gap", func(w *world) {
			w.put(pg.Segment{Timeline: 1, Number: 0}, nothing)
			w.tail(1, 2, 0, 5, nil)
		}, 1, at(4, 7), map[pg.TimelineID][]span{1: {{0, 1}, {2, 4}}}, at(4, 7)},
		{"over a gap that nothing follows yet", func(w *world) {
			w.put(pg.Segment{Timeline: 1, Number: 0}, nothing)
			w.must(w.l.PutGap(w.Context(), repository.Gap{Timeline: 1, From: at(1, 5), ToTimeline: 1, To: at(3, 0)}))
		}, 1, at(5, 7), map[pg.TimelineID][]span{1: {{0, 1}, {3, 5}}}, at(5, 7)},
		{"over a gap, to within its end's segment", func(w *world) {
			w.put(pg.Segment{Timeline: 1, Number: 0}, nothing)
			w.must(w.l.PutGap(w.Context(), repository.Gap{Timeline: 1, From: at(1, 5), ToTimeline: 1, To: at(3, 0)}))
		}, 1, at(3, 7), map[pg.TimelineID][]span{1: {{0, 1}}}, at(3, 7)},
		{"a gap that lies behind", func(w *world) {
			w.must(w.l.PutGap(w.Context(), repository.Gap{Timeline: 1, From: at(1, 5), ToTimeline: 1, To: at(3, 0)}))
			w.put(pg.Segment{Timeline: 1, Number: 3}, nothing)
		}, 1, at(5, 7), map[pg.TimelineID][]span{1: {{3, 5}}}, at(5, 7)},
		{"nothing new", func(w *world) {
			w.put(pg.Segment{Timeline: 1, Number: 1}, nothing)
			w.put(pg.Segment{Timeline: 1, Number: 2}, nothing)
		}, 1, at(1, 7), map[pg.TimelineID][]span{1: {{1, 3}}}, at(1, 7)},
		{"less of a tail", func(w *world) { w.tail(1, 2, 0, 50, nil) }, 1, at(2, 7), map[pg.TimelineID][]span{}, at(2, 50)},
		{"an unknown timeline", func(w *world) { w.put(pg.Segment{Timeline: 1, Number: 1}, nothing) }, 2, at(4, 7), map[pg.TimelineID][]span{1: {{1, 2}}}, 0},
		{"a known timeline", func(w *world) { w.must(w.l.PutHistory(w.Context(), 2, history)) }, 2, at(4, 107), map[pg.TimelineID][]span{}, at(4, 107)},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t, repository.LineageInfo{})
			test.build(w)
			c := w.load()
			c.Grow(test.tli, test.lsn, clock(1))
			if diff := cmp.Diff(test.want, c.inv.whole, cmp.AllowUnexported(span{})); diff != "" {
				t.Errorf("whole (-want +got):\n%s", diff)
			}
			g := pg.Segment{Timeline: test.tli, Number: mib.Number(test.lsn)}
			if got := c.inv.tails[g]; got != test.tail {
				t.Errorf("the tail reaches %s, want %s", got, test.tail)
			}
		})
	}
}

func TestLoadToleratesDamage(t *testing.T) {
	w := newWorld(t, repository.LineageInfo{})
	w.segment(1, 1, commits(commit(at(1, 600), 20)))
	w.must(w.l.PutHistory(t.Context(), 2, []byte(fmt.Sprintf("1\t%s\tx\n", at(1, 700)))))
	w.must(w.l.PutHistory(t.Context(), 3, []byte("not a history\n")))
	w.must(w.l.PutBeat(t.Context(), repository.Beat{Timeline: 1, LSN: at(2, 0), Time: clock(30)}))
	w.must(w.l.PutGap(t.Context(), repository.Gap{Timeline: 1, From: 1, To: 2, ToTimeline: 1}))
	w.backup("a", 1, at(1, 100), at(1, 200), 10)
	w.backup("b", 1, at(1, 300), at(1, 400), 11)
	for _, part := range []string{"/manifest/a", "/history/00000002", "/beat", "/gap/"} {
		w.damage(part)
	}
	c, err := Load(t.Context(), w.l)
	var corrupt *repository.CorruptError
	if c == nil || !errors.As(err, &corrupt) {
		t.Fatalf("got %v", err)
	}
	for _, part := range []string{"/manifest/a", "/history/00000002", "/beat", "/gap/", "timeline 3"} {
		if !bytes.Contains([]byte(err.Error()), []byte(part)) {
			t.Errorf("%s is not named in %v", part, err)
		}
	}
	ws, err := c.Windows(t.Context(), 1)
	if err != nil || len(ws) != 1 || ws[0].Backup != "b" || !ws[0].To.Equal(clock(20)) {
		t.Errorf("%+v, %v", ws, err)
	}
	for _, tli := range []pg.TimelineID{2, 3} {
		if _, err := c.Path(tli); err == nil {
			t.Errorf("the way to timeline %d is known", tli)
		}
	}
	if _, err := c.Path(4); err == nil {
		t.Error("there is a timeline 4")
	}
}
