// SPDX-License-Identifier: Apache-2.0

package archive

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kbcli/kbcli/engine/pg"
	"github.com/kbcli/kbcli/internal/testpg"
)

// supplied lets a standby's restore_command ask a Supply, as an agent beside it would.
type supplied struct {
	Supply
	all   atomic.Bool // the standby becomes the primary
	asked atomic.Int64
}

func (s *supplied) command(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "supply")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	stop, ended := make(chan struct{}), make(chan struct{})
	t.Cleanup(func() {
		close(stop)
		<-ended
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	go func() {
		defer close(ended)
		for {
			wants, _ := filepath.Glob(filepath.Join(dir, "want-*"))
			for _, w := range wants {
				s.answer(t, dir, strings.TrimPrefix(filepath.Base(w), "want-"))
				if err := os.Remove(w); err != nil {
					t.Error(err)
				}
			}
			select {
			case <-stop:
				return
			case <-time.After(5 * time.Millisecond):
			}
		}
	}()
	return fmt.Sprintf(`cd "%s" && touch want-%%f && while [ -f want-%%f ]; do sleep 0.02; done; [ -f %%f ] && mv %%f "$OLDPWD/%%p"`, dir)
}

func (s *supplied) answer(t *testing.T, dir, name string) {
	s.asked.Add(1)
	b, err := s.File(t.Context(), name, Wanted{Running: true, All: s.all.Load()})
	if errors.Is(err, ErrNotSupplied) {
		return
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, name), b, 0o644)
	}
	if err == nil {
		uid, gid := testpg.Owner(t)
		err = os.Chown(filepath.Join(dir, name), uid, gid)
	}
	if err != nil {
		t.Error(err)
	}
}

// TestSupplyPromoted: a standby was cut off, the primary went on and is lost with its
// disk. What it acknowledged in sync mode the archive has; the standby asks for it when it
// is promoted, and gets it then and not before.
func TestSupplyPromoted(t *testing.T) {
	t.Parallel()
	for _, major := range []int{13, 15, 18} {
		t.Run(fmt.Sprint(major), func(t *testing.T) {
			p := testpg.Start(t, testpg.Options{Major: major, SegmentSizeMB: 1, Settings: keep})
			p.Exec(t, ledgerTable)
			s := testpg.Standby(t, p)
			r := newRig(t, p)
			r.more = func(c *Config) { c.Sync = true }
			r.start(t)
			r.caughtUp(t)
			p.Exec(t, "alter system set synchronous_standby_names = 'kbcli_t'")
			p.Exec(t, "select pg_reload_conf()")
			give := &supplied{Supply: Supply{Lineage: r.lineage, Data: s.DataDir}}
			// it asks once in a minute, and when it is promoted
			s.Set(t, map[string]string{"primary_conninfo": "host=/nowhere", "restore_command": give.command(t), "wal_retrieve_retry_interval": "60s"})
			s.Restart(t)
			r.until(t, "streaming", 5*time.Second, func(st Status) bool { return st.State == Streaming })
			var before int
			s.QueryRow(t, "select count(*) from ledger", &before)
			load := beginLoad(t, p, 2, 30)
			time.Sleep(time.Second)
			bulk(t, p, 2)
			time.Sleep(time.Second)
			p.Kill9(t)
			acked := load.end()
			r.stop()
			for deadline := time.Now().Add(time.Minute); give.asked.Load() == 0; time.Sleep(50 * time.Millisecond) {
				if time.Now().After(deadline) {
					t.Fatal("the standby asked for nothing")
				}
			}
			time.Sleep(time.Second) // and has what it got
			var got int
			if s.QueryRow(t, "select count(*) from ledger", &got); got >= len(acked)+before {
				t.Errorf("a standby that only follows was given the unfinished segment: %d rows", got)
			}
			give.all.Store(true)
			s.Promote(t)
			there := map[int64]bool{}
			rows, err := s.Conn(t, "postgres").Query(t.Context(), "select xmin::text::int8 from ledger")
			if err != nil {
				t.Fatal(err)
			}
			for rows.Next() {
				var xid int64
				if err := rows.Scan(&xid); err != nil {
					t.Fatal(err)
				}
				there[xid] = true
			}
			if err := rows.Err(); err != nil {
				t.Fatal(err)
			}
			lost := 0
			for _, xid := range acked {
				if !there[int64(xid)] {
					lost++
				}
			}
			t.Logf("the standby had %d rows, then %d; %d were acknowledged meanwhile, %d are there; it asked %d times", before, got, len(acked), len(there), give.asked.Load())
			if lost > 0 || len(acked) < 20 {
				t.Errorf("%d of %d acknowledged rows are not there", lost, len(acked))
			}
		})
	}
}

// TestSupply: nothing is given that is less than what the standby has, or that its
// successors do not follow.
func TestSupply(t *testing.T) {
	t.Parallel()
	p := testpg.Start(t, testpg.Options{SegmentSizeMB: 1, Settings: keep})
	p.Exec(t, ledgerTable)
	s := testpg.Standby(t, p)
	r := newRig(t, p)
	r.start(t)
	r.caughtUp(t)
	bulk(t, p, 3)
	end := r.caughtUp(t)
	s.CatchUp(t, p)
	s.Stop(t, testpg.Fast)
	r.halt(t)
	give := Supply{Lineage: r.lineage, Data: s.DataDir}
	last := pg.Segment{Timeline: 1, Number: mb.Number(end.lsn - 1)}
	path := func(g pg.Segment) string { return filepath.Join(s.DataDir, "pg_wal", mb.Name(g)) }
	file := func(name string, w Wanted) ([]byte, error) { return give.File(t.Context(), name, w) }
	refused := func(what, name string, w Wanted) {
		t.Helper()
		if b, err := file(name, w); !errors.Is(err, ErrNotSupplied) {
			t.Errorf("%s: %d bytes, %v", what, len(b), err)
		}
	}
	all := Wanted{All: true}
	refused("it has as much", mb.Name(last), all)
	refused("it has the whole one", mb.Name(pg.Segment{Timeline: 1, Number: last.Number - 1}), all)
	refused("no segment", "000000010000000000000003.partial", all)
	refused("no such timeline", "00000002.history", all)
	at, err := give.Path(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := give.End(t.Context(), at, mb.Start(last.Number)); got != end.lsn || err != nil {
		t.Errorf("the archive ends at %s, %v; want %s", got, err, end.lsn)
	}

	// less than the archive has: the file is padded, and goes on where the standby's ends
	has, err := os.ReadFile(path(last))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path(last), append(has[:8192:8192], make([]byte, len(has)-8192)...), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := file(mb.Name(last), all)
	if n := mb.Offset(end.lsn); err != nil || len(got) != len(has) || !bytes.Equal(got[:n], has[:n]) || len(bytes.Trim(got[n:], "\x00")) > 0 {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	refused("it only follows", mb.Name(last), Wanted{Running: true})
	// it starts, and was to have come further before it serves
	control, err := give.control()
	if err != nil {
		t.Fatal(err)
	}
	got, err = file(mb.Name(last), Wanted{})
	switch n := mb.Offset(control.MinRecoveryPoint); {
	case mb.Number(control.MinRecoveryPoint) != last.Number || n <= 8192:
		t.Errorf("the standby stopped at %s, of no use here", control.MinRecoveryPoint)
	case err != nil || !bytes.Equal(got[:n], has[:n]) || len(bytes.Trim(got[n:], "\x00")) > 0:
		t.Errorf("a server that needs WAL up to %s gets %d bytes, %v", control.MinRecoveryPoint, len(got), err)
	}
	// a file of another place in the log under this name is nothing
	if err := os.WriteFile(path(last), bytes.Repeat([]byte{7}, len(has)), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := file(mb.Name(last), all); err != nil || len(got) != len(has) {
		t.Errorf("%d bytes, %v", len(got), err)
	}

	// a new primary left timeline 1 in the middle of it: what came after is nobody's
	fork := mb.Start(last.Number) + 8192
	if err := r.lineage.PutHistory(t.Context(), 2, fmt.Appendf(nil, "1\t%s\tno recovery target specified\n", fork)); err != nil {
		t.Fatal(err)
	}
	if got, err := file(mb.Name(last), all); err != nil || !bytes.Equal(got[:8192], has[:8192]) || len(bytes.Trim(got[8192:], "\x00")) > 0 {
		t.Errorf("WAL behind the end of its timeline is given, %v", err)
	}
	refused("the standby is beyond the fork, and starts", "00000002.history", Wanted{})
	if _, err := file("00000002.history", Wanted{Running: true}); err != nil {
		t.Errorf("a server that runs sees for itself: %v", err)
	}
	// a timeline that left before is not followed by the archive
	if err := r.lineage.PutHistory(t.Context(), 3, fmt.Appendf(nil, "1\t%s\tno recovery target specified\n", mb.Start(last.Number))); err != nil {
		t.Fatal(err)
	}
	refused("the archive left before", mb.Name(last), all)
	refused("not its timeline", mb.Name(pg.Segment{Timeline: 2, Number: last.Number}), all)
}

// TestSupplyCrashed: a primary that crashed is given nothing before it has recovered.
func TestSupplyCrashed(t *testing.T) {
	t.Parallel()
	p := testpg.Start(t, testpg.Options{SegmentSizeMB: 1, Settings: keep})
	p.Exec(t, ledgerTable)
	r := newRig(t, p)
	r.start(t)
	r.caughtUp(t)
	bulk(t, p, 2)
	r.caughtUp(t)
	r.halt(t)
	p.Kill9(t)
	if err := r.lineage.PutHistory(t.Context(), 2, []byte("1\t0/FF000000\tx\n")); err != nil {
		t.Fatal(err)
	}
	give := Supply{Lineage: r.lineage, Data: p.DataDir}
	for _, name := range []string{"00000002.history", mb.Name(r.segments(t)[0])} {
		if _, err := give.File(t.Context(), name, Wanted{All: true}); !errors.Is(err, ErrNotSupplied) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestPromotedWithHole: the primary is lost, and with it WAL that nobody has any more: the
// server that takes its place no longer keeps what the archive has not. That is a declared
// gap, from one timeline to the other, with a reason; the archive goes on behind it.
func TestPromotedWithHole(t *testing.T) {
	t.Parallel()
	p := testpg.Start(t, testpg.Options{SegmentSizeMB: 1, Settings: map[string]string{"max_wal_size": "4MB", "min_wal_size": "2MB"}})
	p.Exec(t, ledgerTable)
	s := testpg.Standby(t, p)
	r := newRig(t, p)
	r.start(t)
	bulk(t, p, 2)
	at := r.caughtUp(t)
	r.halt(t)
	for range 3 {
		forgetWAL(t, p, 5)
		s.CatchUp(t, p)
		s.Exec(t, "checkpoint") // a restartpoint: it forgets as well
	}
	p.Kill9(t)
	s.Promote(t)
	forgetWAL(t, s, 5)
	// another machine: it has neither the spool nor what the first agent remembered
	r.server, r.spool = s, filepath.Join(t.TempDir(), "spool")
	r.start(t)
	st := r.until(t, "a gap", 20*time.Second, func(st Status) bool { return len(st.Gaps) == 1 && st.State == Streaming })
	g := st.Gaps[0]
	if g.Timeline != 1 || g.ToTimeline != 2 || g.From > at.lsn || g.From < mb.Floor(at.lsn) || g.To <= g.From || g.Reason == "" {
		t.Errorf("gap %+v after %+v", g, at)
	}
	r.caughtUp(t)
	stored, err := r.lineage.Gaps(t.Context())
	if err != nil || len(stored) != 1 || stored[0].To != g.To || stored[0].Reason != g.Reason {
		t.Errorf("the archive has %+v, %v", stored, err)
	}
}
