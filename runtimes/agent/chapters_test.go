// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"io"
	"log/slog"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kbcli/kbcli/engine/blob/mem"
	"github.com/kbcli/kbcli/engine/catalog"
	"github.com/kbcli/kbcli/engine/pg"
	"github.com/kbcli/kbcli/engine/repository"
	"github.com/kbcli/kbcli/engine/repository/walindex"
)

// Chapters are made when archiving begins and when one is complete, and what stands in
// the way is tried again.
func TestRoller(t *testing.T) {
	defer func(d time.Duration) { rollInterval = d }(rollInterval)
	rollInterval = time.Millisecond
	repo, err := repository.Create(t.Context(), mem.New(nil), repository.Options{Clock: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	l, err := repo.CreateLineage(t.Context(), repository.LineageInfo{Cluster: "c", SystemID: 1, Major: 15, SegmentSize: 1 << 20, ChapterSegments: 4})
	if err != nil {
		t.Fatal(err)
	}
	var at atomic.Uint64
	archive := func(to uint64) {
		for n := at.Load(); n < to; n++ {
			g := pg.Segment{Timeline: 1, Number: n}
			x := walindex.Index{Segment: g, Detailed: true}
			if err := l.PutSegment(t.Context(), g, nil, 1); err != nil {
				t.Fatal(err)
			}
			if err := l.PutIndex(t.Context(), g, x.Encode()); err != nil {
				t.Fatal(err)
			}
		}
		at.Store(to)
	}
	var asked atomic.Int64
	p := New(Config{Log: slog.New(slog.NewTextHandler(io.Discard, nil))})
	p.lineage = l
	rolls := p.newRoller()
	rolls.Roller = catalog.NewRoller(l, func() error {
		if asked.Add(1) == 1 {
			return errNotHeld
		}
		return nil
	})
	rolls.at = func() pg.Segment { return pg.Segment{Timeline: 1, Number: at.Load()} }
	want := func(n int) {
		t.Helper()
		for range 2000 {
			all, err := l.Chapters(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if len(all) == n {
				return
			}
			time.Sleep(5 * time.Millisecond)
		}
		t.Fatalf("there are not %d chapters", n)
	}
	archive(10)
	stop := rolls.start(context.WithoutCancel(t.Context()))
	defer stop()
	want(2)
	archive(13)
	want(3)
	p.arch = &archiving{chapters: rolls}
	resume := p.suspendRolling()
	archive(17)
	time.Sleep(20 * time.Millisecond)
	want(3)
	resume()
	want(4)
	if asked.Load() < 5 {
		t.Errorf("the right to write was asked for %d times", asked.Load())
	}
}
