// SPDX-License-Identifier: Apache-2.0

package catalog

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kbcli/kbcli/engine/pg"
	"github.com/kbcli/kbcli/engine/pg/walscan"
	"github.com/kbcli/kbcli/engine/repository"
	"github.com/kbcli/kbcli/engine/repository/walindex"
)

func after(backup string, tx walindex.Transaction, lost string) string {
	return fmt.Sprintf("%s: after %s, next %s, kept %s, lost %s", backup, tx.Start, tx.End, tx.Start, lost)
}

func TestResolveXID(t *testing.T) {
	w := story(t)
	w.backup("b", 1, at(2, 110), at(2, 250), 16)
	c := w.load()
	x := func(lsn pg.LSN) pg.XID { return pg.XID(lsn) } // as commit has it
	for _, test := range []struct {
		name   string
		target Target
		want   string
	}{
		{"a commit", Target{XID: x(at(1, 400))}, after("a", commit(at(1, 400), 0), at(1, 500).String())},
		{"exclusive", Target{XID: x(at(1, 400)), Exclusive: true}, before("a", at(1, 400), at(1, 300))},
		{"of the second phase", Target{XID: x(at(2, 200))}, after("a", commit(at(2, 200), 0), at(2, 300).String())},
		{"after the second backup", Target{XID: x(at(4, 200))}, after("b", commit(at(4, 200), 0), "-")},
		{"the rolled back", Target{XID: x(at(1, 350))}, fmt.Sprintf("a: after %s, next %s, kept %s, lost %s", at(1, 350), at(1, 390), at(1, 300), at(1, 400))},
		{"within the backup", Target{XID: x(at(1, 150))}, fmt.Sprintf("transaction %d ended at %s, before the first consistent point", x(at(1, 150)), at(1, 150))},
	} {
		r, err := c.Resolve(t.Context(), test.target)
		if diff := cmp.Diff(test.want, brief(r, err)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", test.name, diff)
		}
		if warned := r != nil && strings.Contains(strings.Join(r.Warnings, "\n"), "rolled back"); warned != (test.name == "the rolled back") {
			t.Errorf("%s: warned %t", test.name, warned)
		}
	}
}

// Where the clock was set back PostgreSQL's answer is given, and the others are told.
func TestClockSetBackIsTold(t *testing.T) {
	w := newWorld(t, repository.LineageInfo{})
	w.segment(1, 1, commits(commit(at(1, 300), 20), commit(at(1, 400), 40), commit(at(1, 500), 60)))
	w.segment(1, 2, commits(commit(at(2, 300), 30), commit(at(2, 400), 50)))                         // set back by 30 s
	w.segment(1, 3, commits(commit(at(3, 300), 45), commit(at(3, 400), 46), commit(at(3, 500), 55))) // and by 5
	w.backup("a", 1, at(1, 100), at(1, 200), 10)
	c := w.load()
	for _, test := range []struct {
		at    float64
		stop  pg.LSN
		other []pg.LSN // where one would stop elsewhere
	}{
		{15, at(1, 300), nil},
		{25, at(1, 400), nil},
		{35, at(1, 400), []pg.LSN{at(2, 400)}},
		{45, at(1, 500), []pg.LSN{at(2, 400), at(3, 400)}},
		{47, at(1, 500), []pg.LSN{at(2, 400), at(3, 500)}},
		{52, at(1, 500), []pg.LSN{at(3, 500)}},
	} {
		r, err := c.Resolve(t.Context(), Target{Time: clock(test.at)})
		if err != nil || r.Stop.LSN != test.stop {
			t.Errorf("%g: %s", test.at, brief(r, err))
			continue
		}
		if len(r.Warnings) != len(test.other) {
			t.Errorf("%g: %q", test.at, r.Warnings)
			continue
		}
		for i, lsn := range test.other {
			if !strings.Contains(r.Warnings[i], "before LSN "+lsn.String()+",") {
				t.Errorf("%g: %s is not in %q", test.at, lsn, r.Warnings[i])
			}
		}
	}
	// later than the window's end by its last commits, and in the log all the same
	if r, err := c.Resolve(t.Context(), Target{Time: clock(58)}); err != nil || r.Stop.LSN != at(1, 500) {
		t.Errorf("hidden: %s", brief(r, err))
	}
	if r, err := c.Resolve(t.Context(), Target{Time: clock(60), Exclusive: true}); err != nil || r.Stop.LSN != at(1, 500) {
		t.Errorf("hidden, exclusive: %s", brief(r, err))
	}
	var outside *OutsideWindowError
	if _, err := c.Resolve(t.Context(), Target{Time: clock(61)}); !errors.As(err, &outside) {
		t.Errorf("later than all: %v", err)
	}

	// a second backup since: it is what a time after its end starts from
	w.backup("b", 1, at(2, 100), at(2, 200), 25)
	c = w.load()
	ws, err := c.Windows(t.Context(), 0)
	if err != nil || len(ws) != 1 || !ws[0].From.Equal(clock(10)) {
		t.Errorf("%+v, %v", ws, err)
	}
	r, err := c.Resolve(t.Context(), Target{Time: clock(35)})
	if err != nil || r.Backup.Name != "b" || r.Stop.LSN != at(2, 400) || len(r.Warnings) != 1 || !strings.Contains(r.Warnings[0], "before LSN "+at(1, 400).String()) {
		t.Errorf("%s, %q", brief(r, err), r.Warnings)
	}
	// a moment that only came before it
	if r, err := c.Resolve(t.Context(), Target{Time: clock(58)}); err != nil || r.Backup.Name != "a" || r.Stop.LSN != at(1, 500) {
		t.Errorf("before the second backup: %s", brief(r, err))
	}
}

// A session that is held up between its stamp and its record is no clock set back.
func TestDisorderIsNoClock(t *testing.T) {
	r, err := story(t).load().Resolve(t.Context(), Target{Time: clock(12)})
	if err != nil || len(r.Warnings) != 0 {
		t.Errorf("%s, %q", brief(r, err), r.Warnings)
	}
}

func TestBranches(t *testing.T) {
	w := newWorld(t, repository.LineageInfo{})
	ctx := t.Context()
	w.segment(1, 1, commits(commit(at(1, 300), 11)))
	w.segment(1, 2, commits(commit(at(2, 300), 12)))
	w.segment(1, 3, commits(commit(at(3, 300), 14)))
	w.segment(2, 3, commits(commit(at(3, 100), 13)))
	w.segment(2, 5, commits(commit(at(5, 100), 25)))
	w.must(w.l.PutHistory(ctx, 2, []byte(fmt.Sprintf("1\t%s\tx\n", at(3, 0)))))
	w.must(w.l.PutGap(ctx, repository.Gap{Timeline: 2, From: at(4, 0), ToTimeline: 2, To: at(5, 0), Reason: "the spool was full"}))
	w.backup("a", 1, at(1, 100), at(1, 200), 10)
	w.backup("b", 2, at(5, 20), at(5, 60), 20)
	c := w.load()
	got, err := c.Branches(ctx)
	first := Window{Timeline: 2, Backup: "a", From: clock(10), To: clock(13), FromLSN: at(1, 200), ToLSN: at(4, 0)}
	second := Window{Timeline: 2, Backup: "b", From: clock(20), To: clock(25), FromLSN: at(5, 60), ToLSN: at(6, 0)}
	want := []Branch{
		{Timeline: 2, Default: true, Windows: []Window{first, second}, Holes: []Hole{{first, second, "the spool was full"}}},
		{Timeline: 1, Windows: []Window{{Timeline: 1, Backup: "a", From: clock(10), To: clock(14), FromLSN: at(1, 200), ToLSN: at(4, 0)}}},
	}
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
	// a moment that only the branch has is told where it is
	var outside *OutsideWindowError
	var gap *GapError
	if _, err := c.Resolve(ctx, Target{Time: clock(14)}); !errors.As(err, &gap) {
		t.Errorf("%v", err)
	}
	for _, tx := range []Target{{LSN: at(4, 100)}, {LSN: at(5, 10)}} {
		if _, err := c.Resolve(ctx, tx); !errors.As(err, &gap) || gap.Gap == nil {
			t.Errorf("%s: %v", tx, err)
		}
	}
	if _, err := c.Resolve(ctx, Target{Time: clock(9)}); !errors.As(err, &outside) || len(outside.Elsewhere) != 0 {
		t.Errorf("%v", err)
	}
}

func TestSharedTo(t *testing.T) {
	stray := Path{pg.History{Timeline: 3, Entries: []pg.HistoryEntry{{Timeline: 1, End: at(1, 7)}}}, mib}
	for _, test := range []struct {
		p, q Path
		want pg.LSN
	}{
		{pathTo(), pathTo(at(2, 7)), at(2, 7)},
		{pathTo(at(2, 7)), pathTo(at(2, 7)), ^pg.LSN(0)},
		{pathTo(at(2, 7)), pathTo(at(2, 7), at(3, 7)), at(3, 7)},
		{pathTo(at(2, 7)), stray, at(1, 7)},
		{pathTo(at(1, 7)), stray, at(1, 7)},
	} {
		if got, back := sharedTo(test.p, test.q), sharedTo(test.q, test.p); got != test.want || back != test.want {
			t.Errorf("%v and %v: %s and %s, want %s", test.p.History, test.q.History, got, back, test.want)
		}
	}
}

func TestPathUntil(t *testing.T) {
	p := pathTo(at(2, 7), at(2, 9))
	for tli, want := range map[pg.TimelineID]Path{1: pathTo(), 2: pathTo(at(2, 7)), 3: p} {
		if diff := cmp.Diff(want.Segment(2), p.Until(tli).Segment(2)); diff != "" || p.Until(tli).Timeline != tli || len(p.Until(tli).Entries) != int(tli)-1 {
			t.Errorf("until %s: %+v", tli, p.Until(tli))
		}
	}
}

func TestEarliest(t *testing.T) {
	w := story(t)
	w.backup("b", 1, at(2, 110), at(2, 250), 16)
	r, err := w.load().Resolve(t.Context(), Target{Earliest: true})
	if err != nil || r.Backup.Name != "a" || !r.Stop.Immediate || !r.Target.Earliest {
		t.Errorf("%s", brief(r, err))
	}
}

// What recovery notes as the last transaction is not the one that it stops at.
func TestLastEnded(t *testing.T) {
	c := story(t).load()
	for _, test := range []struct {
		target Target
		want   pg.LSN
	}{
		{Target{XID: pg.XID(at(1, 400))}, at(1, 370)},
		{Target{XID: pg.XID(at(1, 400)), Exclusive: true}, at(1, 370)},
		{Target{Time: clock(11)}, at(1, 300)},
		{Target{Latest: true}, at(4, 100)},
	} {
		r, err := c.Resolve(t.Context(), test.target)
		if err != nil || r.LastEnded == nil || r.LastEnded.Start != test.want || r.LastEnded.Kind == walscan.Prepare {
			t.Errorf("%s: %s, %+v", test.target, brief(r, err), r.LastEnded)
		}
	}
}
