// SPDX-License-Identifier: Apache-2.0

package archive

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/kbcli/kbcli/engine/pg"
	"github.com/kbcli/kbcli/engine/repository"
	"github.com/kbcli/kbcli/internal/testpg"
)

// dropSlot drops the archiver's slot once the server has noticed that it is gone.
func dropSlot(t *testing.T, s *testpg.Server) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		var active bool
		s.QueryRow(t, "select active from pg_replication_slots where slot_name = 'kbcli_t'", &active)
		if !active {
			break
		}
	}
	s.Exec(t, "select pg_drop_replication_slot('kbcli_t')")
}

// forgetWAL makes the server remove what no slot keeps.
func forgetWAL(t *testing.T, s *testpg.Server, switches int) {
	t.Helper()
	for range switches {
		s.Exec(t, "insert into ledger (pad) values ('x')")
		s.Exec(t, "select pg_switch_wal()")
	}
	s.Exec(t, "checkpoint")
	s.Exec(t, "checkpoint")
}

// afterGap waits for the gap and checks that archiving goes on behind it.
func (r *rig) afterGap(t *testing.T, s *testpg.Server, lost pg.LSN) {
	t.Helper()
	began := time.Now()
	r.until(t, "a gap is declared", 10*time.Second, func(st Status) bool { return len(st.Gaps) == 1 })
	s.Exec(t, "insert into ledger (pad) values ('after')")
	s.Exec(t, "select pg_switch_wal()")
	end := r.caughtUp(t)
	t.Logf("declared, and archiving again, after %s", time.Since(began))
	gaps, err := r.lineage.Gaps(t.Context())
	if err != nil || len(gaps) != 1 {
		t.Fatalf("gaps %+v: %v", gaps, err)
	}
	if g := gaps[0]; g.From < lost || g.From >= g.To || g.To > end.lsn {
		t.Errorf("gap %+v, archived to %s before", g, lost)
	}
	r.sameAsServer(t, s, mb.Number(gaps[0].To), end)
	holes(t, r, gaps)
	// the next run sees no other, and knows where it was
	r.halt(t)
	r.start(t)
	s.Exec(t, "select pg_switch_wal()")
	s.Exec(t, "insert into ledger (pad) values ('after')")
	end = r.caughtUp(t)
	if st := r.Status(); len(st.Gaps) > 0 {
		t.Errorf("again a gap: %+v", st.Gaps)
	}
	r.sameAsServer(t, s, mb.Number(gaps[0].To), end)
	var status string
	s.QueryRow(t, "select wal_status from pg_replication_slots where slot_name = 'kbcli_t'", &status)
	if status != "reserved" {
		t.Errorf("the slot is %s", status)
	}
}

func TestSlotDropped(t *testing.T) {
	t.Parallel()
	for _, major := range []int{15, 13} {
		t.Run(fmt.Sprint(major), func(t *testing.T) {
			s := testpg.Start(t, testpg.Options{Major: major, SegmentSizeMB: 1, Settings: map[string]string{"max_wal_size": "4MB", "min_wal_size": "2MB"}})
			r := newRig(t, s)
			s.Exec(t, ledgerTable)
			r.start(t)
			at := r.caughtUp(t)
			r.halt(t)
			dropSlot(t, s)
			forgetWAL(t, s, 12)
			r.start(t)
			r.afterGap(t, s, at.lsn)
		})
	}
}

// TestSlotDroppedInTime loses the slot and no WAL: that is no gap.
func TestSlotDroppedInTime(t *testing.T) {
	t.Parallel()
	s := testpg.Start(t, testpg.Options{SegmentSizeMB: 1, Settings: keep})
	r := newRig(t, s)
	s.Exec(t, ledgerTable)
	r.start(t)
	first := mb.Number(r.caughtUp(t).lsn)
	r.halt(t)
	dropSlot(t, s)
	forgetWAL(t, s, 5)
	r.start(t)
	end := r.caughtUp(t)
	if st := r.Status(); len(st.Gaps) > 0 {
		t.Errorf("gaps %+v", st.Gaps)
	}
	r.sameAsServer(t, s, first, end)
}

// TestSlotLost lets the slot fall behind what the server may keep: until 17 it lets a
// physical client begin again as if nothing were.
func TestSlotLost(t *testing.T) {
	t.Parallel()
	for _, major := range []int{15, 18} {
		t.Run(fmt.Sprint(major), func(t *testing.T) {
			s := testpg.Start(t, testpg.Options{Major: major, SegmentSizeMB: 1, Settings: map[string]string{
				"max_wal_size": "4MB", "min_wal_size": "2MB", "max_slot_wal_keep_size": "3MB",
			}})
			r := newRig(t, s)
			s.Exec(t, ledgerTable)
			r.start(t)
			at := r.caughtUp(t)
			r.halt(t)
			forgetWAL(t, s, 15)
			var status string
			s.QueryRow(t, "select wal_status from pg_replication_slots", &status)
			if status != "lost" {
				t.Fatalf("the slot is %s", status)
			}
			r.start(t)
			r.afterGap(t, s, at.lsn)
		})
	}
}

func TestOtherServer(t *testing.T) {
	t.Parallel()
	s := testpg.Start(t, testpg.Options{SegmentSizeMB: 1})
	r := newRig(t, s)
	r.server = testpg.Start(t, testpg.Options{SegmentSizeMB: 1})
	r.start(t)
	var mismatch *repository.MismatchError
	if err := r.died(t); !errors.As(err, &mismatch) || mismatch.Field != "system identifier" {
		t.Errorf("another server: %v", err)
	}
	if st := r.Status(); st.State != Stopped || !errors.As(st.LastError, &mismatch) {
		t.Errorf("status %+v", st)
	}
	if segs := r.segments(t); len(segs) > 0 {
		t.Errorf("written: %v", segs)
	}
	ts, err := r.lineage.Tails(t.Context(), nil)
	if err != nil || len(ts) > 0 {
		t.Errorf("written: %v %v", ts, err)
	}
	var slots int
	r.server.QueryRow(t, "select count(*) from pg_replication_slots", &slots)
	if slots > 0 {
		t.Error("a slot was made")
	}
	if err := r.Wait(t.Context(), 1, 1<<40); err == nil {
		t.Error("Wait waits for an archiver that has stopped")
	}
}

// wound archives a server, puts an old copy of its directory in place of the new, and
// gives the server back, running.
func wound(t *testing.T, halt bool) (*rig, *testpg.Server) {
	s := testpg.Start(t, testpg.Options{SegmentSizeMB: 1, Settings: keep})
	r := newRig(t, s)
	s.Exec(t, ledgerTable)
	r.start(t)
	bulk(t, s, 2)
	r.caughtUp(t)
	s.Stop(t, testpg.Fast)
	old := filepath.Join(t.TempDir(), "old")
	if out, err := exec.Command("cp", "-a", s.DataDir, old).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	s.Start(t)
	bulk(t, s, 2)
	s.Exec(t, "insert into ledger (pad) values ('then')")
	r.caughtUp(t)
	if halt {
		r.halt(t)
	}
	s.Stop(t, testpg.Fast)
	if err := errors.Join(os.RemoveAll(s.DataDir), os.Rename(old, s.DataDir)); err != nil {
		t.Fatal(err)
	}
	s.Start(t)
	return r, s
}

func wantDiverged(t *testing.T, r *rig) {
	t.Helper()
	var diverged *DivergedError
	if err := r.died(t); !errors.As(err, &diverged) {
		t.Errorf("wound back: %v", err)
	}
	if st := r.Status(); !errors.As(st.LastError, &diverged) {
		t.Errorf("status %+v", st)
	}
}

func TestWoundBack(t *testing.T) {
	t.Parallel()
	t.Run("behind", func(t *testing.T) {
		r, _ := wound(t, false)
		wantDiverged(t, r)
	})
	// the server has written past the archive's end before anybody looks
	t.Run("past", func(t *testing.T) {
		r, s := wound(t, true)
		for flushed(t, s).lsn <= r.Status().Repository {
			bulk(t, s, 1)
		}
		r.start(t)
		wantDiverged(t, r)
	})
	t.Run("past, without a spool", func(t *testing.T) {
		r, s := wound(t, true)
		for flushed(t, s).lsn <= r.Status().Repository {
			bulk(t, s, 1)
		}
		r.spool = t.TempDir()
		r.start(t)
		wantDiverged(t, r)
	})
}
