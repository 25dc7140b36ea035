// SPDX-License-Identifier: Apache-2.0

package archive

import (
	"context"
	"errors"
	"regexp"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/kbcli/kbcli/engine/blob"
	"github.com/kbcli/kbcli/engine/blob/fault"
	"github.com/kbcli/kbcli/internal/testpg"
)

var ours = regexp.MustCompile(`archive\.\(\*(Archiver|shipper|link|spool|scan)\)\.[^\n]*`)

// leaked are the goroutines of an archiver that are still there.
func leaked() []string {
	b := make([]byte, 4<<20)
	return ours.FindAllString(string(b[:runtime.Stack(b, true)]), -1)
}

// TestStop stops an archiver in whatever it is waiting for. It does not run beside
// other tests: it counts goroutines.
func TestStop(t *testing.T) {
	s := testpg.Start(t, testpg.Options{SegmentSizeMB: 1, Settings: keep})
	s.Exec(t, ledgerTable)
	tests := []struct {
		name  string
		rules []fault.Rule
		more  func(*Config)
		load  int
	}{
		{name: "idle"},
		{name: "uploads hang", rules: []fault.Rule{{Verb: blob.VerbPut, Action: fault.Delay(time.Hour)}}, load: 3},
		{name: "uploads fail", rules: []fault.Rule{{Verb: blob.VerbPut, Action: fault.Fail(nil)}}, load: 3},
		{name: "tails cannot be deleted", rules: []fault.Rule{{Verb: blob.VerbDelete, Action: fault.Fail(nil)}}, load: 3},
		{name: "spool full", rules: []fault.Rule{{Verb: blob.VerbPut, Action: fault.Fail(nil)}}, load: 8, more: func(c *Config) { c.SpoolLimit = 1 }},
	}
	for _, tt := range tests {
		r := newRig(t, s)
		r.more = tt.more
		r.start(t)
		r.caughtUp(t)
		r.store.Set(tt.rules...)
		bulk(t, s, tt.load)
		time.Sleep(200 * time.Millisecond)
		began := time.Now()
		r.stop()
		if err := <-r.done; err != nil {
			t.Errorf("%s: %v", tt.name, err)
		}
		if took := time.Since(began); took > 3*time.Second {
			t.Errorf("%s: the stop took %s", tt.name, took)
		}
		if left := leaked(); len(left) > 0 {
			t.Errorf("%s: left running: %q", tt.name, left)
		}
		if err := r.Wait(t.Context(), 9, 0); err == nil {
			t.Errorf("%s: Wait waits", tt.name)
		}
		dropSlot(t, s)
	}

	// a walsender that takes and gives nothing
	r := newRig(t, s)
	r.start(t)
	r.caughtUp(t)
	pid := walsender(t, s)
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	time.Sleep(300 * time.Millisecond)
	r.halt(t)
	if left := leaked(); len(left) > 0 {
		t.Errorf("frozen server: left running: %q", left)
	}
	if err := syscall.Kill(pid, syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}

	// before there is a server, and before there is a store
	r.server.Stop(t, testpg.Fast)
	r.store.Set(fault.Rule{Action: fault.Fail(nil)})
	r.start(t)
	time.Sleep(200 * time.Millisecond)
	r.halt(t)
	r.store.Set()
	r.spool = t.TempDir()
	r.start(t)
	time.Sleep(200 * time.Millisecond)
	r.halt(t)
	if left := leaked(); len(left) > 0 {
		t.Errorf("nothing to connect to: left running: %q", left)
	}
}

// TestSpoolShared lets a second archiver wait for the spool.
func TestSpoolShared(t *testing.T) {
	t.Parallel()
	s := testpg.Start(t, testpg.Options{SegmentSizeMB: 1, Settings: keep})
	s.Exec(t, ledgerTable)
	r := newRig(t, s)
	r.start(t)
	r.caughtUp(t)
	b, err := New(r.config(t))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if err := b.Run(ctx); err != nil {
		t.Errorf("the second: %v", err)
	}
	if st := b.Status(); st.LastError == nil || st.Repository != 0 {
		t.Errorf("the second: %+v", st)
	}
	first := r.Archiver
	stop, done := r.stop, r.done
	r.start(t)
	bulk(t, s, 2)
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
	bulk(t, s, 2)
	end := r.caughtUp(t)
	r.sameAsServer(t, s, mb.Number(end.lsn)-3, end)
	if err := first.Wait(t.Context(), 9, 0); !errors.Is(err, context.Canceled) {
		t.Errorf("the first: %v", err)
	}
	r.halt(t)
}
