// SPDX-License-Identifier: Apache-2.0

package archive

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kbcli/kbcli/engine/blob"
	"github.com/kbcli/kbcli/engine/blob/fault"
	"github.com/kbcli/kbcli/engine/blob/fs"
	"github.com/kbcli/kbcli/internal/testpg"
)

func TestLag(t *testing.T) {
	begin := time.Unix(1000, 0)
	now := begin
	var g lag
	st := Status{Timeline: 1, RepositoryTimeline: 1, Repository: 100, ServerLSN: 100}
	for i, c := range []struct {
		at     time.Duration // since the beginning
		change func()
		want   time.Duration // the age; -1: none
	}{
		{0, func() {}, -1},
		{10 * time.Second, func() { st.ServerLSN = 200 }, 0},
		{10500 * time.Millisecond, func() { st.ServerLSN = 210 }, 500 * time.Millisecond},
		{20 * time.Second, func() { st.ServerLSN = 300 }, 10 * time.Second},
		{25 * time.Second, func() { st.Repository = 209 }, 15 * time.Second}, // a byte is missing still
		{25 * time.Second, func() { st.Repository = 210 }, 5 * time.Second},
		{30 * time.Second, func() { st.Repository = 300 }, -1},
		{time.Hour, func() {}, -1},                                       // idle
		{time.Hour, func() { st.ServerLSN, st.Received = 250, 250 }, -1}, // streamed again
		{time.Hour, func() { st.Received = 400 }, 0},
		{2 * time.Hour, func() { st.Timeline, st.ServerLSN, st.Received = 2, 350, 350 }, time.Hour},
		{3 * time.Hour, func() { st.RepositoryTimeline, st.Repository = 2, 340 }, time.Hour}, // the old timeline's end is nobody's
		{3 * time.Hour, func() { st.Repository = 350 }, -1},
	} {
		now = begin.Add(c.at)
		c.change()
		g.follow(&st, func() time.Time { return now })
		got := time.Duration(-1)
		if at := g.since(); !at.IsZero() {
			got = now.Sub(at)
		}
		if got != c.want {
			t.Errorf("step %d: age %s, want %s", i, got, c.want)
		}
	}
}

// TestLagIsBounded lets the repository stand still for days.
func TestLagIsBounded(t *testing.T) {
	now := time.Unix(1000, 0)
	var g lag
	st := Status{Timeline: 1, RepositoryTimeline: 1, Repository: 1, ServerLSN: 1}
	for range 100_000 {
		now = now.Add(2 * time.Second)
		st.ServerLSN += 10
		g.follow(&st, func() time.Time { return now })
	}
	if n := len(g.marks); n > lagMarks || cap(g.marks) > 4*lagMarks {
		t.Errorf("%d marks", n)
	}
	if diff := cmp.Diff(time.Unix(1002, 0), g.since()); diff != "" {
		t.Error(diff)
	}
	st.Repository = 500_000 // the half of it
	g.follow(&st, func() time.Time { return now })
	if age := now.Sub(g.since()); age < 100_000*time.Second-time.Second || age > 102_000*time.Second {
		t.Errorf("age %s of WAL that is 100000 s old", age)
	}
}

// TestToldWhileTried has a store that is tried for an hour before it is given up: what
// is wrong is shown at once, and forgotten when it works again.
func TestToldWhileTried(t *testing.T) {
	t.Parallel()
	s := testpg.Start(t, testpg.Options{SegmentSizeMB: 1, Settings: keep})
	place, err := fs.Create(filepath.Join(t.TempDir(), "repo"))
	if err != nil {
		t.Fatal(err)
	}
	broken := fault.New(place, 1)
	r := newRigIn(t, s, blob.Retry(broken, blob.RetryOptions{Max: time.Second, MaxElapsed: time.Hour}))
	s.Exec(t, ledgerTable)
	r.start(t)
	r.caughtUp(t)
	r.until(t, "nothing is behind", 20*time.Second, func(st Status) bool { return st.LagSince.IsZero() && st.LastError == nil })

	broken.Set(fault.Rule{Verb: blob.VerbPut, Action: fault.Fail(fmt.Errorf("%w: connection refused", blob.ErrUnreachable))})
	s.Exec(t, "insert into ledger (pad) values ('1')")
	st := r.until(t, "the error is shown", 10*time.Second, func(st Status) bool { return st.LastError != nil })
	if !errors.Is(st.LastError, blob.ErrUnreachable) || !strings.Contains(st.LastError.Error(), "connection refused") || st.LagSince.IsZero() {
		t.Errorf("%+v", st)
	}
	since := st.LagSince
	time.Sleep(1200 * time.Millisecond)
	s.Exec(t, "insert into ledger (pad) values ('2')")
	if st = r.Status(); !st.LagSince.Equal(since) {
		t.Errorf("behind since %s, and then since %s", since, st.LagSince)
	}
	broken.Set()
	r.caughtUp(t)
	r.until(t, "the error is forgotten", 20*time.Second, func(st Status) bool { return st.LastError == nil && st.LagSince.IsZero() })

	// a store that says nothing at all
	broken.Set(fault.Rule{Verb: blob.VerbPut, Action: fault.Delay(12 * time.Second)})
	s.Exec(t, "insert into ledger (pad) values ('3')")
	st = r.until(t, "that it is slow is shown", 10*time.Second, func(st Status) bool { return st.LastError != nil })
	if !errors.Is(st.LastError, ErrSlow) {
		t.Errorf("%+v", st)
	}
	broken.Set()
	r.caughtUp(t)
	r.until(t, "that it was slow is forgotten", 20*time.Second, func(st Status) bool { return st.LastError == nil })
}
