// SPDX-License-Identifier: Apache-2.0

package disasters

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/kbcli/kbcli/engine/catalog"
	"github.com/kbcli/kbcli/internal/testpg"
)

// TestOracle restores random moments and holds each against the clients' ledger.
func TestOracle(t *testing.T) {
	moments := 20
	if long() {
		moments = 200
	}
	r := newRig(t, false, map[string]string{"track_commit_timestamp": "on"})
	load := begin(t, r.server, 4, 4*time.Millisecond)
	time.Sleep(3 * time.Second)
	entries := load.end(t)
	source := stamps(t, r.server, true)
	end := time.Now()
	for deadline := time.Now().Add(30 * time.Second); r.archiver.Status().Proven.Before(end); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not proven to %s: %+v", end, r.archiver.Status())
		}
	}
	c, err := catalog.Load(t.Context(), r.lineage)
	if err != nil {
		t.Fatal(err)
	}
	st := r.archiver.Status()
	c.Grow(st.RepositoryTimeline, st.Repository, st.Proven)
	windows, err := c.Windows(t.Context(), 0)
	if err != nil || len(windows) != 1 {
		t.Fatalf("windows %+v: %v", windows, err)
	}
	w := windows[0]
	var took time.Duration
	for i := range moments {
		at := moment(w, entries, source, i)
		began := time.Now()
		x := r.restore(t, c, catalog.Target{Time: at})
		have := stamps(t, x.Server, true)
		took += time.Since(began)
		judge(t, at, entries, source, have)
		if i == moments-1 {
			x.sound(t)
		} else {
			x.Stop(t, testpg.Immediate)
		}
		if t.Failed() {
			t.Fatalf("moment %d, %s: plan %+v", i, at.Format(time.RFC3339Nano), x.plan)
		}
	}
	t.Logf("%d moments over %d commits, %s a restore", moments, len(source), took/time.Duration(moments))
}

// moment is a random one, or one at the edge of a commit.
func moment(w catalog.Window, entries []entry, source map[int64]time.Time, i int) time.Time {
	span := w.To.Sub(w.From)
	at := w.From.Add(time.Duration(rand.Int64N(int64(span)))).Truncate(time.Microsecond)
	stamp, ok := source[entries[rand.IntN(len(entries))].id]
	if !ok || !w.Contains(stamp.Add(-time.Microsecond)) || !w.Contains(stamp) {
		return at
	}
	switch i % 4 {
	case 1:
		return stamp
	case 2:
		return stamp.Add(-time.Microsecond)
	}
	return at
}

// judge holds what was restored for at against what must, may and must not be there.
func judge(t *testing.T, at time.Time, entries []entry, source, have map[int64]time.Time) {
	t.Helper()
	for _, e := range entries {
		stamp, there := have[e.id]
		committed, known := source[e.id]
		switch {
		case there && stamp.After(at):
			t.Errorf("%s: a commit stamped %s is there", at, stamp)
		case there && known && !stamp.Equal(committed):
			t.Errorf("%s: commit %x is stamped %s, on the source %s", at, e.id, stamp, committed)
		case !there && !e.acked.IsZero() && !e.acked.After(at):
			t.Errorf("%s: a commit acknowledged at %s is missing", at, e.acked)
		}
	}
	for id := range have {
		if _, ok := source[id]; !ok {
			t.Errorf("%s: row %x is not on the source", at, id)
		}
	}
}
