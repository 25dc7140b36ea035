// SPDX-License-Identifier: Apache-2.0

package archive

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kbcli/kbcli/engine/pg"
	"github.com/kbcli/kbcli/engine/pg/walscan"
	"github.com/kbcli/kbcli/engine/repository/walindex"
	"github.com/kbcli/kbcli/internal/testpg"
)

// keep is for servers whose pg_wal is compared afterwards.
var keep = map[string]string{"wal_keep_size": "1GB"}

func TestStream(t *testing.T) {
	for _, major := range []int{15, 13, 18} {
		t.Run(fmt.Sprint(major), func(t *testing.T) {
			t.Parallel()
			stream(t, major)
		})
	}
}

func stream(t *testing.T, major int) {
	set := map[string]string{"wal_keep_size": "1GB"}
	s := testpg.Start(t, testpg.Options{Major: major, Settings: set})
	r := newRig(t, s)
	s.Exec(t, "create table t (i int, pad text)")
	r.start(t)
	first := r.until(t, "streaming", 10*time.Second, func(st Status) bool { return st.State == Streaming })
	n := pg.DefaultSegmentSize.Number(first.Repository)

	// load in bulk, in little pieces, and a segment that is left half empty
	s.Exec(t, "insert into t select i, repeat(md5(i::text), 8) from generate_series(1, 90000) i")
	for i := range 20 {
		s.Exec(t, fmt.Sprintf("insert into t values (%d, 'x')", i))
	}
	s.Exec(t, "select pg_switch_wal()")
	s.Exec(t, "insert into t values (0, 'after')")
	end := r.caughtUp(t)
	r.sameAsServer(t, s, n, end)
	if whole := pg.DefaultSegmentSize.Number(end.lsn) - n; whole < 2 {
		t.Errorf("only %d whole segments", whole)
	}
	r.halt(t)
	indexed(t, r, n)
	tidy(t, r, end)
	if st := r.Status(); st.LastError != nil || len(st.Gaps) > 0 || st.State != Stopped {
		t.Errorf("status %+v", st)
	}
}

// indexed holds each segment's index against a scan of the whole: also what it says of
// transactions that span segments, whoever archived the one before.
func indexed(t *testing.T, r *rig, first uint64) {
	t.Helper()
	size := r.lineage.Info().SegmentSize
	s := walscan.New(walscan.Options{SegmentSize: size, Start: size.Start(first)})
	var want walindex.Builder
	for _, g := range r.segments(t) {
		if g.Number < first {
			continue
		}
		want.Begin(g, g.Number == first)
		if err := s.Feed(r.raw(t, g), want.Add); err != nil {
			t.Fatal(err)
		}
		b, err := r.lineage.Index(t.Context(), g)
		if err != nil {
			t.Fatal(err)
		}
		got, err := walindex.Decode(b)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want.Finish(s.NextRecord()), got); diff != "" {
			t.Errorf("index of %s (-want +got):\n%s", size.Name(g), diff)
		}
	}
}

// tidy finds what should be gone: tails of whole segments, shipped segments in the spool.
func tidy(t *testing.T, r *rig, end place) {
	t.Helper()
	ts, err := r.lineage.Tails(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	size := r.lineage.Info().SegmentSize
	for _, x := range ts {
		if size.End(x.Segment.Number) <= end.lsn && x.Segment.Timeline == end.tli {
			t.Errorf("tail %s of whole segment %s is still there", x.From, size.Name(x.Segment))
		}
	}
	sp, err := openSpool(r.spool, size)
	if err != nil {
		t.Fatal(err)
	}
	for _, g := range sp.segments() {
		if size.End(g.Number) <= end.lsn {
			t.Errorf("segment %s is still in the spool", size.Name(g))
		}
	}
}

func TestTails(t *testing.T) {
	t.Parallel()
	s := testpg.Start(t, testpg.Options{Settings: map[string]string{"autovacuum": "off", "checkpoint_timeout": "1h"}})
	r := newRig(t, s)
	s.Exec(t, "create table t (i int)")
	r.start(t)
	r.caughtUp(t)
	var worst time.Duration
	for i := range 8 {
		s.Exec(t, fmt.Sprintf("insert into t values (%d)", i))
		at, began := flushed(t, s), time.Now()
		r.until(t, "a tail", 5*time.Second, func(st Status) bool { return st.Repository >= at.lsn })
		worst = max(worst, time.Since(began))
		time.Sleep(50 * time.Millisecond)
	}
	t.Logf("a commit was in the repository after %s at most; the tail interval is %s", worst, tailInterval)
	if worst > tailInterval+time.Second {
		t.Errorf("a commit waited %s for its tail", worst)
	}
	// a server logs its running transactions now and then; then it is idle
	time.Sleep(time.Second)
	before, err := r.lineage.Tails(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	at := flushed(t, s)
	time.Sleep(5 * tailInterval)
	after, err := r.lineage.Tails(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if at == flushed(t, s) && len(after) != len(before) {
		t.Errorf("%d tails were put while nothing happened", len(after)-len(before))
	}
	// idle time is proven, and told by the beat
	now := time.Now()
	r.until(t, "proof", 5*time.Second, func(st Status) bool { return st.Proven.After(now) })
	time.Sleep(1200 * time.Millisecond)
	beat, err := r.lineage.Beat(t.Context())
	if err != nil || beat.Time.Before(now) || beat.LSN == 0 {
		t.Errorf("beat %+v: %v; now %s", beat, err, now)
	}
	s.Exec(t, "select pg_switch_wal()")
	s.Exec(t, "insert into t values (9)")
	end := r.caughtUp(t)
	r.halt(t)
	tidy(t, r, end)
}
