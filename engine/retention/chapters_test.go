// SPDX-License-Identifier: Apache-2.0

package retention

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/kbcli/kbcli/engine/blob/mem"
	"github.com/kbcli/kbcli/engine/catalog"
	"github.com/kbcli/kbcli/engine/pg"
	"github.com/kbcli/kbcli/engine/repository"
	"github.com/kbcli/kbcli/engine/repository/walindex"
)

var errCut = errors.New("the power went")

// cutting deletes so many objects and then no more.
type cutting struct {
	*mem.Store
	left int
}

func (c *cutting) Delete(ctx context.Context, key string) error {
	if c.left == 0 {
		return errCut
	}
	c.left--
	return c.Store.Delete(ctx, key)
}

// Wherever a deletion is cut, no chapter tells of a segment or an index that is gone, and
// the next plan sees what is there.
func TestApplyDeletesChaptersFirst(t *testing.T) {
	for cut := 0; ; cut++ {
		s := &cutting{mem.New(nil), -1}
		must := func(err error) {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
		}
		repo, err := repository.Create(t.Context(), s, repository.Options{Clock: time.Now})
		must(err)
		l, err := repo.CreateLineage(t.Context(), repository.LineageInfo{Cluster: "c", SystemID: 1, Major: 15, SegmentSize: size, ChapterSegments: 4})
		must(err)
		for n := range uint64(17) {
			g := pg.Segment{Timeline: 1, Number: n}
			must(l.PutSegment(t.Context(), g, nil, 1))
			x := walindex.Index{Segment: g, Detailed: true}
			must(l.PutIndex(t.Context(), g, x.Encode()))
		}
		made, err := catalog.NewRoller(l, func() error { return nil }).Roll(t.Context())
		if made != 4 || err != nil {
			t.Fatalf("%d chapters, %v", made, err)
		}
		s.left = cut
		err = Apply(t.Context(), l, List{WAL: []Run{{1, 0, 6}, {1, 9, 10}}})
		if err != nil && !errors.Is(err, errCut) {
			t.Fatal(err)
		}
		in, lerr := Load(t.Context(), l, time.Now(), time.Hour)
		must(lerr)
		for what, runs := range map[string][]Run{"wal": in.WAL, "index": in.Indexed} {
			there := map[uint64]bool{}
			list := l.Segments
			if what == "index" {
				list = l.Indexed
			}
			for g, err := range list(t.Context(), pg.Segment{}) {
				must(err)
				there[g.Number] = true
			}
			for n := range uint64(17) {
				if told := join(runs).has(pg.Segment{Timeline: 1, Number: n}); told != there[n] {
					t.Errorf("cut after %d: %s of segment %d: there %t, told %t", cut, what, n, there[n], told)
				}
			}
		}
		if err == nil {
			left, err := l.Chapters(t.Context())
			must(err)
			if len(left) != 1 || left[0].First.Number != 12 || cut < 3+2*7 {
				t.Errorf("after %d deletions: %v", cut, left)
			}
			return
		}
	}
}
