// SPDX-License-Identifier: Apache-2.0

package archive

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/kbcli/kbcli/engine/pg"
	"github.com/kbcli/kbcli/internal/testpg"
)

// acknowledged is how far the server may forget its WAL.
func acknowledged(t *testing.T, s *testpg.Server) pg.LSN {
	t.Helper()
	var text string
	s.QueryRow(t, `select greatest((select restart_lsn from pg_replication_slots where slot_name = 'kbcli_t'),
		(select max(flush_lsn) from pg_stat_replication where application_name = 'kbcli_t'), '0/0')::text`, &text)
	lsn, err := pg.ParseLSN(text)
	if err != nil {
		t.Fatal(err)
	}
	return lsn
}

// have is where the WAL that repository and spool hold together ends, from segment
// first on.
func (r *rig) have(t *testing.T, first uint64) pg.LSN {
	t.Helper()
	size := r.lineage.Info().SegmentSize
	sp, err := openSpool(r.spool, size)
	if err != nil {
		t.Fatal(err)
	}
	for n := first; ; n++ {
		g := seg(1, n)
		got := max(int64(len(r.raw(t, g))), sp.held(g))
		if got < int64(size) {
			return size.Start(n) + pg.LSN(got)
		}
	}
}

// begun archives for a moment, and gives the segment that the archive begins with.
func (r *rig) begun(t *testing.T) uint64 {
	t.Helper()
	r.start(t)
	r.until(t, "streaming", 10*time.Second, func(st Status) bool { return st.State == Streaming })
	r.caughtUp(t)
	r.halt(t)
	segs := r.segments(t)
	if len(segs) > 0 {
		return segs[0].Number
	}
	return r.lineage.Info().SegmentSize.Number(r.Status().Repository)
}

// TestKilled kills the agent at random moments under load.
func TestKilled(t *testing.T) {
	t.Parallel()
	rounds := 8
	if long() {
		rounds = 50
	}
	s := testpg.Start(t, testpg.Options{SegmentSizeMB: 1, Settings: map[string]string{"wal_keep_size": "8GB", "max_wal_size": "1GB"}})
	r := newRig(t, s)
	s.Exec(t, ledgerTable)
	first := r.begun(t)
	load := beginLoad(t, s, 4, 30)
	for i := range rounds {
		cmd := r.agent(t, false)
		time.Sleep(time.Duration(150+rand.IntN(500)) * time.Millisecond)
		if i%4 == 3 {
			// what a kill leaves may have to wait for a store as well
			time.Sleep(300 * time.Millisecond)
		}
		acked := acknowledged(t, s)
		kill(t, cmd)
		acked = max(acked, acknowledged(t, s))
		if acked > mb.Start(first) {
			if end := r.have(t, first); end < acked {
				t.Fatalf("round %d: the server was told %s is safe, and spool and repository end at %s", i, acked, end)
			}
		}
	}
	acked := load.end()
	r.start(t)
	end := r.caughtUp(t)
	r.sameAsServer(t, s, first, end)
	r.halt(t)
	if n := missing(acked, r.commits(t, first, 1)); n > 0 {
		t.Errorf("%d of %d acknowledged commits are missing", n, len(acked))
	}
	indexed(t, r, first)
	tidy(t, r, end)
	t.Logf("%d kills over %d commits and %d segments", rounds, len(acked), mb.Number(end.lsn)-first)
}

// TestRestarted stops and starts the agent in order, over and over.
func TestRestarted(t *testing.T) {
	t.Parallel()
	s := testpg.Start(t, testpg.Options{SegmentSizeMB: 1, Settings: keep})
	r := newRig(t, s)
	s.Exec(t, ledgerTable)
	first := r.begun(t)
	load := beginLoad(t, s, 2, 30)
	for range 6 {
		r.start(t)
		time.Sleep(time.Duration(50+rand.IntN(250)) * time.Millisecond)
		st := r.Status()
		r.halt(t)
		// what was received went into the repository before it stopped
		if got := r.Status(); got.Repository < st.Received && st.State == Streaming {
			t.Errorf("stopped with %s in the repository, %s was received", got.Repository, st.Received)
		}
	}
	acked := load.end()
	r.start(t)
	end := r.caughtUp(t)
	r.sameAsServer(t, s, first, end)
	r.halt(t)
	indexed(t, r, first)
	tidy(t, r, end)
	if n := missing(acked, r.commits(t, first, 1)); n > 0 {
		t.Errorf("%d of %d acknowledged commits are missing", n, len(acked))
	}
}

// TestSpoolLost takes the spool away between two runs: the repository and the server
// are enough.
func TestSpoolLost(t *testing.T) {
	t.Parallel()
	s := testpg.Start(t, testpg.Options{SegmentSizeMB: 1, Settings: keep})
	r := newRig(t, s)
	s.Exec(t, ledgerTable)
	first := r.begun(t)
	load := beginLoad(t, s, 2, 30)
	for range 3 {
		r.start(t)
		time.Sleep(300 * time.Millisecond)
		r.halt(t)
		r.spool = t.TempDir()
	}
	load.end()
	r.start(t)
	end := r.caughtUp(t)
	r.sameAsServer(t, s, first, end)
	if st := r.Status(); len(st.Gaps) > 0 {
		t.Errorf("gaps %+v", st.Gaps)
	}
	r.halt(t)
	tidy(t, r, end)
}

// TestServerDies restarts the server in order and kills it.
func TestServerDies(t *testing.T) {
	t.Parallel()
	s := testpg.Start(t, testpg.Options{SegmentSizeMB: 1, Settings: keep})
	r := newRig(t, s)
	s.Exec(t, ledgerTable)
	r.start(t)
	first := mb.Number(r.caughtUp(t).lsn)
	var acked []pg.XID
	for i := range 4 {
		load := beginLoad(t, s, 2, 30)
		time.Sleep(300 * time.Millisecond)
		if i%2 == 0 {
			s.Stop(t, testpg.Fast)
		} else {
			s.Kill9(t)
		}
		acked = append(acked, load.end()...)
		r.until(t, "it is noticed", 5*time.Second, func(st Status) bool { return st.State == Connecting && st.LastError != nil })
		s.Start(t)
	}
	end := r.caughtUp(t)
	r.until(t, "it is forgotten", 5*time.Second, func(st Status) bool { return st.State == Streaming && st.LastError == nil })
	r.sameAsServer(t, s, first, end)
	r.halt(t)
	indexed(t, r, first)
	if n := missing(acked, r.commits(t, first, 1)); n > 0 {
		t.Errorf("%d of %d acknowledged commits are missing", n, len(acked))
	}
}
