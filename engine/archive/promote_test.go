// SPDX-License-Identifier: Apache-2.0

package archive

import (
	"fmt"
	"testing"
	"time"

	"github.com/kbcli/kbcli/engine/blob"
	"github.com/kbcli/kbcli/engine/blob/fault"
	"github.com/kbcli/kbcli/engine/pg"
	"github.com/kbcli/kbcli/internal/testpg"
)

// historyFirst checks that no WAL of a timeline was stored before its history file.
func (r *rig) historyFirst(t *testing.T, tlis ...pg.TimelineID) {
	t.Helper()
	for _, tli := range tlis {
		content, err := r.lineage.History(t.Context(), tli)
		if err != nil {
			t.Errorf("history of timeline %s: %v", tli, err)
			continue
		}
		if _, err := pg.ParseHistory(tli, content); err != nil {
			t.Error(err)
		}
	}
}

func (r *rig) fork(t *testing.T, tli pg.TimelineID) pg.LSN {
	t.Helper()
	content, err := r.lineage.History(t.Context(), tli)
	if err != nil {
		t.Fatal(err)
	}
	h, err := pg.ParseHistory(tli, content)
	if err != nil {
		t.Fatal(err)
	}
	return h.Entries[len(h.Entries)-1].End
}

// TestPromoted archives from a standby that is promoted under load.
func TestPromoted(t *testing.T) {
	t.Parallel()
	for _, major := range []int{15, 13} {
		t.Run(fmt.Sprint(major), func(t *testing.T) {
			p := testpg.Start(t, testpg.Options{Major: major, SegmentSizeMB: 1, Settings: keep})
			p.Exec(t, ledgerTable)
			s := testpg.Standby(t, p)
			r := newRig(t, s)
			r.start(t)
			r.until(t, "streaming", 10*time.Second, func(st Status) bool { return st.State == Streaming && st.Repository != 0 })
			first := mb.Number(r.Status().Repository)
			load := beginLoad(t, p, 2, 30)
			time.Sleep(500 * time.Millisecond)
			if at := r.Status().Proven; time.Since(at) < 0 {
				t.Errorf("proven %s", at)
			}
			// history files cannot be stored for a while: nor may what follows
			r.store.Set(fault.Rule{Verb: blob.VerbPut, Key: "/history/", Action: fault.Fail(nil)})
			p.Kill9(t)
			load.end()
			s.Promote(t)
			load = beginLoad(t, s, 2, 30)
			time.Sleep(400 * time.Millisecond)
			for _, g := range r.segments(t) {
				if g.Timeline > 1 {
					t.Errorf("segment %s without its history", mb.Name(g))
				}
			}
			r.store.Set()
			acked := load.end()
			end := r.caughtUp(t)
			if end.tli != 2 {
				t.Fatalf("timeline %s", end.tli)
			}
			r.historyFirst(t, 2)
			r.sameAsServer(t, s, mb.Number(r.fork(t, 2)), end)
			if n := missing(acked, r.commits(t, first, 1, 2)); n > 0 {
				t.Errorf("%d of %d acknowledged commits are missing", n, len(acked))
			}
			if st := r.Status(); len(st.Gaps) > 0 || st.LastError != nil {
				t.Errorf("status %+v", st)
			}
			r.halt(t)
		})
	}
}

// TestStandbyProvesNothing: what a standby has not heard of may be acknowledged.
func TestStandbyProvesNothing(t *testing.T) {
	t.Parallel()
	p := testpg.Start(t, testpg.Options{SegmentSizeMB: 1, Settings: keep})
	s := testpg.Standby(t, p)
	p.Exec(t, ledgerTable)
	s.CatchUp(t, p)
	r := newRig(t, s)
	r.start(t)
	r.until(t, "streaming", 10*time.Second, func(st Status) bool { return st.State == Streaming && st.Repository != 0 })
	s.Exec(t, "select pg_wal_replay_pause()")
	time.Sleep(1500 * time.Millisecond)
	if st := r.Status(); !st.Proven.IsZero() && time.Since(st.Proven) < time.Second {
		t.Errorf("an idle standby proves %s", st.Proven)
	}
}

// failover kills the primary that is archived and promotes its standby. With ahead the
// archive then has more than the standby, by so many megabytes; else less.
func failover(t *testing.T, ahead int) {
	p := testpg.Start(t, testpg.Options{SegmentSizeMB: 1, Settings: keep})
	p.Exec(t, ledgerTable)
	s := testpg.Standby(t, p)
	r := newRig(t, p)
	r.start(t)
	first := mb.Number(r.caughtUp(t).lsn)
	bulk(t, p, 1)
	s.CatchUp(t, p)
	var stray pg.LSN
	if ahead >= 0 {
		s.Stop(t, testpg.Fast)
		p.Exec(t, "insert into ledger (pad) values ('never heard of again')")
		bulk(t, p, ahead)
		stray = r.caughtUp(t).lsn
		p.Kill9(t)
		s.Start(t)
	} else {
		r.halt(t)
		bulk(t, p, -ahead)
		s.CatchUp(t, p)
		p.Kill9(t)
	}
	s.Promote(t)
	var acked []pg.XID
	load := beginLoad(t, s, 1, 30)
	time.Sleep(200 * time.Millisecond)
	acked = load.end()
	if ahead >= 0 {
		r.halt(t)
	}
	r.server = s
	r.start(t)
	end := r.caughtUp(t)
	if end.tli != 2 {
		t.Fatalf("timeline %s", end.tli)
	}
	r.historyFirst(t, 2)
	fork := r.fork(t, 2)
	if ahead >= 0 {
		if fork >= stray {
			t.Fatalf("no stray branch: left at %s, archived to %s", fork, stray)
		}
		// the branch is still there
		g := seg(1, mb.Number(stray))
		if got := mb.Start(g.Number) + pg.LSN(len(r.raw(t, g))); got < stray {
			t.Errorf("of the stray branch to %s there is WAL to %s", stray, got)
		}
	}
	r.sameAsServer(t, s, mb.Number(fork), end)
	if n := missing(acked, r.commits(t, first, 1, 2)); n > 0 && ahead <= 0 {
		t.Errorf("%d of %d acknowledged commits are missing", n, len(acked))
	}
	if st := r.Status(); len(st.Gaps) > 0 || st.LastError != nil {
		t.Errorf("status %+v", st)
	}
	r.halt(t)
	// and the next run goes on there
	r.start(t)
	s.Exec(t, "insert into ledger (pad) values ('x')")
	end = r.caughtUp(t)
	r.sameAsServer(t, s, mb.Number(fork), end)
	r.halt(t)
}

func TestFailover(t *testing.T) {
	t.Parallel()
	t.Run("archive has more, in the same segment", func(t *testing.T) { failover(t, 0) })
	t.Run("archive has more, by segments", func(t *testing.T) { failover(t, 3) })
	t.Run("archive has less", func(t *testing.T) { failover(t, -3) })
}

// TestPromotedTwice fails over, and over again, the second time without an archiver
// and with a store that takes nothing at the first.
func TestPromotedTwice(t *testing.T) {
	t.Parallel()
	a := testpg.Start(t, testpg.Options{SegmentSizeMB: 1, Settings: keep})
	a.Exec(t, ledgerTable)
	b := testpg.Standby(t, a)
	r := newRig(t, a)
	r.start(t)
	first := mb.Number(r.caughtUp(t).lsn)
	bulk(t, a, 1)
	b.CatchUp(t, a)
	r.store.Set(fault.Rule{Verb: blob.VerbPut, Action: fault.Fail(nil)})
	a.Kill9(t)
	r.stop()
	if err := <-r.done; err != nil {
		t.Fatal(err)
	}
	b.Promote(t)
	bulk(t, b, 2)
	r.server = b
	r.start(t)
	at := flushed(t, b)
	r.until(t, "spooled", 10*time.Second, func(st Status) bool { return st.Timeline == 2 && st.Spooled >= at.lsn })
	// a new run must find both timelines in the spool, and the way between them
	r.stop()
	if err := <-r.done; err != nil {
		t.Fatal(err)
	}
	r.start(t)
	r.until(t, "spooled", 10*time.Second, func(st Status) bool { return st.Timeline == 2 && st.Spooled >= at.lsn })
	c := testpg.Standby(t, b)
	at = flushed(t, b)
	r.until(t, "spooled", 10*time.Second, func(st Status) bool { return st.Spooled >= at.lsn })
	b.Kill9(t)
	r.stop()
	<-r.done
	c.Promote(t)
	bulk(t, c, 1)
	r.server = c
	r.start(t)
	time.Sleep(300 * time.Millisecond)
	r.store.Set()
	end := r.caughtUp(t)
	if end.tli != 3 {
		t.Fatalf("timeline %s", end.tli)
	}
	r.historyFirst(t, 2, 3)
	r.sameAsServer(t, c, mb.Number(r.fork(t, 3)), end)
	have := r.commits(t, first, 1, 2, 3)
	var rows int
	c.QueryRow(t, "select count(distinct xmin::text) from ledger", &rows)
	if len(have) < rows {
		t.Errorf("%d commits, and the table has rows of %d", len(have), rows)
	}
	if st := r.Status(); len(st.Gaps) > 0 {
		t.Errorf("gaps %+v", st.Gaps)
	}
	r.halt(t)
}
