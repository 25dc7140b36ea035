// SPDX-License-Identifier: Apache-2.0

package archive

import (
	"context"
	"errors"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kbcli/kbcli/engine/blob"
	"github.com/kbcli/kbcli/engine/blob/fault"
	"github.com/kbcli/kbcli/internal/testpg"
)

// TestSync makes the archiver a synchronous standby: what was acknowledged is in the
// repository when the server's host is lost.
func TestSync(t *testing.T) {
	t.Parallel()
	s := testpg.Start(t, testpg.Options{SegmentSizeMB: 1})
	r := newRig(t, s)
	r.more = func(c *Config) { c.Sync = true }
	s.Exec(t, ledgerTable)
	s.Set(t, map[string]string{"synchronous_standby_names": "kbcli_t"})
	s.Restart(t) // a reload takes its time
	r.start(t)
	first := mb.Number(r.caughtUp(t).lsn)
	r.until(t, "streaming", 5*time.Second, func(st Status) bool { return st.State == Streaming })
	load := beginLoad(t, s, 4, 30)
	time.Sleep(time.Second)
	s.Kill9(t)
	if err := os.RemoveAll(s.DataDir); err != nil {
		t.Fatal(err)
	}
	acked := load.end()
	if len(acked) < 20 {
		t.Errorf("only %d commits in a second", len(acked))
	}
	// looked at as it was when the host was lost: nothing is put any more
	r.store.Set(fault.Rule{Verb: blob.VerbPut, Action: fault.Fail(nil)})
	if n := missing(acked, r.commits(t, first, 1)); n > 0 {
		t.Errorf("%d of %d acknowledged commits are missing", n, len(acked))
	}
	t.Logf("%d commits were acknowledged in a second", len(acked))
}

// TestSyncStoreAway: without a store no commit is acknowledged, and with it all are.
func TestSyncStoreAway(t *testing.T) {
	t.Parallel()
	s := testpg.Start(t, testpg.Options{SegmentSizeMB: 1})
	r := newRig(t, s)
	r.more = func(c *Config) { c.Sync = true }
	s.Exec(t, ledgerTable)
	s.Set(t, map[string]string{"synchronous_standby_names": "kbcli_t"})
	s.Restart(t) // a reload takes its time
	r.start(t)
	s.Exec(t, "insert into ledger (pad) values ('x')")
	r.store.Set(fault.Rule{Verb: blob.VerbPut, Action: fault.Fail(nil)})
	c := s.Conn(t, "postgres")
	done := make(chan error, 1)
	go func() {
		_, err := c.Exec(context.Background(), "insert into ledger (pad) values ('y')")
		done <- err
	}()
	select {
	case err := <-done:
		t.Fatalf("acknowledged without a store: %v", err)
	case <-time.After(500 * time.Millisecond):
	}
	r.store.Set()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Error("not acknowledged")
	}
}

// TestSyncFenced: a tail arrives after the right to write was lost. Another may have looked
// before that how far the archive reaches: the commit is not acknowledged.
func TestSyncFenced(t *testing.T) {
	t.Parallel()
	s := testpg.Start(t, testpg.Options{SegmentSizeMB: 1})
	r := newRig(t, s)
	var lost atomic.Bool
	r.more = func(c *Config) {
		c.Sync = true
		c.May = func() error {
			if lost.Load() {
				return errors.New("another writes here")
			}
			return nil
		}
	}
	s.Exec(t, ledgerTable)
	s.Set(t, map[string]string{"synchronous_standby_names": "kbcli_t"})
	s.Restart(t) // a reload takes its time
	r.start(t)
	s.Exec(t, "insert into ledger (pad) values ('x')")
	before := r.caughtUp(t)
	r.store.Set(fault.Rule{Verb: blob.VerbPut, Action: fault.Delay(time.Second)})
	c := s.Conn(t, "postgres")
	done := make(chan error, 1)
	go func() {
		_, err := c.Exec(context.Background(), "insert into ledger (pad) values ('y')")
		done <- err
	}()
	// once the server has written it, the put is under way
	r.until(t, "received", 10*time.Second, func(st Status) bool { return st.Received > before.lsn })
	time.Sleep(300 * time.Millisecond)
	lost.Store(true)
	r.until(t, "put", 10*time.Second, func(st Status) bool { return st.Repository > before.lsn })
	select {
	case err := <-done:
		t.Fatalf("acknowledged without the right to: %v", err)
	case <-time.After(time.Second):
	}
	lost.Store(false)
	r.store.Set()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Error("not acknowledged")
	}
}
