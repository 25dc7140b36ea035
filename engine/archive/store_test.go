// SPDX-License-Identifier: Apache-2.0

package archive

import (
	"context"
	"errors"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/kbcli/kbcli/engine/blob"
	"github.com/kbcli/kbcli/engine/blob/fault"
	"github.com/kbcli/kbcli/engine/blob/s3"
	"github.com/kbcli/kbcli/engine/pg"
	"github.com/kbcli/kbcli/engine/repository"
	"github.com/kbcli/kbcli/internal/testdisk"
	"github.com/kbcli/kbcli/internal/testpg"
	"github.com/kbcli/kbcli/internal/tests3"
)

func walsender(t *testing.T, s *testpg.Server) (pid int) {
	t.Helper()
	s.QueryRow(t, "select coalesce(max(pid), 0) from pg_stat_replication where application_name = 'kbcli_t'", &pid)
	return pid
}

// TestStoreHangs lets every upload hang for longer than the server waits for a sign
// of life.
func TestStoreHangs(t *testing.T) {
	t.Parallel()
	s := testpg.Start(t, testpg.Options{SegmentSizeMB: 1, Settings: map[string]string{"wal_sender_timeout": "2s", "wal_keep_size": "1GB"}})
	r := newRig(t, s)
	s.Exec(t, ledgerTable)
	r.start(t)
	first := mb.Number(r.caughtUp(t).lsn)
	pid := walsender(t, s)
	load := beginLoad(t, s, 2, 30)
	r.store.Set(fault.Rule{Verb: blob.VerbPut, Action: fault.Delay(6 * time.Second)})
	time.Sleep(6 * time.Second)
	r.store.Set()
	acked := load.end()
	end := r.caughtUp(t)
	if now := walsender(t, s); pid == 0 || now != pid {
		t.Errorf("walsender was %d and is %d", pid, now)
	}
	r.sameAsServer(t, s, first, end)
	if n := missing(acked, r.commits(t, first, 1)); n > 0 {
		t.Errorf("%d of %d acknowledged commits are missing", n, len(acked))
	}
}

// TestStoreAway breaks everything for a while, and then some of it for good.
func TestStoreAway(t *testing.T) {
	t.Parallel()
	s := testpg.Start(t, testpg.Options{SegmentSizeMB: 1, Settings: keep})
	r := newRig(t, s)
	s.Exec(t, ledgerTable)
	r.start(t)
	first := mb.Number(r.caughtUp(t).lsn)
	load := beginLoad(t, s, 2, 30)
	r.store.Set(fault.Rule{Action: fault.Fail(nil)})
	st := r.until(t, "the error is shown", 5*time.Second, func(st Status) bool { return st.LastError != nil })
	time.Sleep(time.Second)
	if got := r.Status(); got.State != Streaming || got.Spooled <= st.Spooled {
		t.Errorf("without a store: %+v", got)
	}
	// a restart meanwhile
	r.stop()
	if err := <-r.done; err != nil {
		t.Fatal(err)
	}
	r.start(t)
	time.Sleep(300 * time.Millisecond)
	r.store.Set(
		fault.Rule{Chance: 0.1, Action: fault.FailAfter(nil)},
		fault.Rule{Chance: 0.1, Action: fault.Fail(nil)},
	)
	time.Sleep(time.Second)
	load.end()
	r.store.Set()
	end := r.caughtUp(t)
	r.until(t, "the error is forgotten", 10*time.Second, func(st Status) bool { return st.LastError == nil })
	r.sameAsServer(t, s, first, end)
	r.halt(t)
	indexed(t, r, first)
	tidy(t, r, end)
}

// TestMayNot takes the right to write away for a while: nothing reaches the repository
// meanwhile, and nothing is lost.
func TestMayNot(t *testing.T) {
	t.Parallel()
	s := testpg.Start(t, testpg.Options{SegmentSizeMB: 1, Settings: keep})
	r := newRig(t, s)
	var refused atomic.Bool
	not := errors.New("another writes here")
	r.more = func(cfg *Config) {
		cfg.May = func() error {
			if refused.Load() {
				return not
			}
			return nil
		}
	}
	s.Exec(t, ledgerTable)
	r.start(t)
	first := mb.Number(r.caughtUp(t).lsn)
	refused.Store(true)
	load := beginLoad(t, s, 2, 30)
	// what was under way when the right was lost may still arrive
	st := r.until(t, "the reason is shown", 10*time.Second, func(st Status) bool { return errors.Is(st.LastError, not) })
	time.Sleep(time.Second)
	if got := r.Status(); got.State != Streaming || got.Spooled <= st.Spooled || got.Repository != st.Repository {
		t.Errorf("at first %+v and then %+v", st, got)
	}
	refused.Store(false)
	acked := load.end()
	end := r.caughtUp(t)
	r.until(t, "the reason is forgotten", 10*time.Second, func(st Status) bool { return st.LastError == nil })
	r.sameAsServer(t, s, first, end)
	if n := missing(acked, r.commits(t, first, 1)); n > 0 {
		t.Errorf("%d of %d acknowledged commits are missing", n, len(acked))
	}
}

// TestDeadS3 kills an S3 server and starts it again.
func TestDeadS3(t *testing.T) {
	t.Parallel()
	s := testpg.Start(t, testpg.Options{SegmentSizeMB: 1, Settings: keep})
	d := tests3.Start(t)
	store, err := s3.Open(t.Context(), s3.Config{
		Endpoint: d.Endpoint, Bucket: d.NewBucket(t), Region: d.Region, AccessKey: d.AccessKey, SecretKey: s3.NewSecret(d.SecretKey),
	})
	if err != nil {
		t.Fatal(err)
	}
	r := newRigIn(t, s, store)
	s.Exec(t, ledgerTable)
	r.start(t)
	first := mb.Number(r.caughtUp(t).lsn)
	load := beginLoad(t, s, 2, 30)
	for range 2 {
		time.Sleep(300 * time.Millisecond)
		d.Stop()
		r.until(t, "the error is shown", 10*time.Second, func(st Status) bool { return st.LastError != nil })
		time.Sleep(300 * time.Millisecond)
		if st := r.Status(); st.State != Streaming {
			t.Errorf("without a store: %+v", st)
		}
		d.Restart()
	}
	acked := load.end()
	end := r.caughtUp(t)
	r.sameAsServer(t, s, first, end)
	r.halt(t)
	if n := missing(acked, r.commits(t, first, 1)); n > 0 {
		t.Errorf("%d of %d acknowledged commits are missing", n, len(acked))
	}
}

func bulk(t *testing.T, s *testpg.Server, megabytes int) {
	t.Helper()
	for range megabytes {
		s.Exec(t, "insert into ledger (pad) select repeat('x', 1000) from generate_series(1, 900)")
	}
}

// TestSpoolFullWait fills the spool: the server keeps the rest, can be stopped in
// order, and all arrives when the store is back.
func TestSpoolFullWait(t *testing.T) {
	t.Parallel()
	s := testpg.Start(t, testpg.Options{SegmentSizeMB: 1, Settings: map[string]string{"max_wal_size": "32MB", "wal_keep_size": "1GB"}})
	r := newRig(t, s)
	r.more = func(c *Config) { c.SpoolLimit = 6 << 20 }
	s.Exec(t, ledgerTable)
	r.start(t)
	first := mb.Number(r.caughtUp(t).lsn)
	r.store.Set(fault.Rule{Verb: blob.VerbPut, Action: fault.Fail(nil)})
	bulk(t, s, 14)
	st := r.until(t, "blocked", 10*time.Second, func(st Status) bool { return st.State == Blocked })
	if st.SpoolBytes > 7<<20 {
		t.Errorf("%d bytes in the spool", st.SpoolBytes)
	}
	began := time.Now()
	s.Restart(t)
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("the server could not be restarted in %s", took)
	}
	if st := r.Status(); st.State != Blocked {
		t.Errorf("state %s", st.State)
	}
	r.store.Set()
	end := r.caughtUp(t)
	r.sameAsServer(t, s, first, end)
	if st := r.Status(); st.State != Streaming || len(st.Gaps) > 0 {
		t.Errorf("healed: %+v", st)
	}
	r.halt(t)
	indexed(t, r, first)
}

// TestSpoolDiskFull fills the disk that the spool is on, below the spool's own limit:
// archiving ends and says so, the server keeps its WAL, and all arrives once what
// is in the spool can be put away.
func TestSpoolDiskFull(t *testing.T) {
	t.Parallel()
	s := testpg.Start(t, testpg.Options{SegmentSizeMB: 1, Settings: keep})
	r := newRig(t, s)
	r.spool = filepath.Join(testdisk.Start(t, "ext4", 16<<20), "spool")
	s.Exec(t, ledgerTable)
	r.start(t)
	first := mb.Number(r.caughtUp(t).lsn)
	r.store.Set(fault.Rule{Verb: blob.VerbPut, Action: fault.Fail(nil)})
	bulk(t, s, 24)
	if err := r.died(t); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("archiving ended with %v", err)
	}
	r.store.Set()
	// as the agent does: again and again
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		r.start(t)
		at := flushed(t, s)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		err := r.Wait(ctx, at.tli, at.lsn)
		cancel()
		if err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%v; %+v", err, r.Status())
		}
		r.stop()
		<-r.done
	}
	end := r.caughtUp(t)
	r.sameAsServer(t, s, first, end)
	if st := r.Status(); len(st.Gaps) > 0 {
		t.Errorf("gaps: %+v", st.Gaps)
	}
}

// TestSpoolFullGap fills the spool where the policy is not to wait.
func TestSpoolFullGap(t *testing.T) {
	t.Parallel()
	s := testpg.Start(t, testpg.Options{SegmentSizeMB: 1, Settings: keep})
	r := newRig(t, s)
	r.more = func(c *Config) { c.SpoolLimit, c.WhenFull = 5<<20, GapWhenFull }
	s.Exec(t, ledgerTable)
	r.start(t)
	r.caughtUp(t)
	r.store.Set(fault.Rule{Verb: blob.VerbPut, Action: fault.Fail(nil)})
	for i := range 3 {
		bulk(t, s, 6)
		at := flushed(t, s)
		st := r.until(t, "all is received", 10*time.Second, func(st Status) bool { return st.Received >= at.lsn })
		if st.SpoolBytes > 8<<20 || st.State != Streaming {
			t.Errorf("without a store: %+v", st)
		}
		if i == 1 { // what was given up is known to the next run
			r.stop()
			if err := <-r.done; err != nil {
				t.Fatal(err)
			}
			r.start(t)
		}
	}
	r.store.Set()
	r.caughtUp(t)
	st := r.Status()
	gaps, err := r.lineage.Gaps(t.Context())
	if err != nil || len(gaps) == 0 || len(st.Gaps) == 0 {
		t.Fatalf("gaps %+v, status %+v: %v", gaps, st, err)
	}
	last := gaps[len(gaps)-1]
	for _, g := range gaps {
		if g.To > last.To {
			last = g
		}
	}
	s.Exec(t, "insert into ledger (pad) values ('after')")
	bulk(t, s, 2)
	end := r.caughtUp(t)
	r.sameAsServer(t, s, mb.Number(last.To), end)
	r.halt(t)
	holes(t, r, gaps)
}

// holes finds segments that are missing and not declared.
func holes(t *testing.T, r *rig, declared []repository.Gap) {
	t.Helper()
	size := r.lineage.Info().SegmentSize
	segs := r.segments(t)
	for i := 1; i < len(segs); i++ {
		a, b := segs[i-1], segs[i]
		if a.Timeline != b.Timeline || a.Number+1 == b.Number {
			continue
		}
		ok := false
		for _, g := range declared {
			ok = ok || g.From <= size.End(a.Number)+pg.LSN(size) && g.To >= size.Start(b.Number)
		}
		if !ok {
			t.Errorf("nothing between %s and %s, and no gap is declared: %+v", size.Name(a), size.Name(b), declared)
		}
	}
}
