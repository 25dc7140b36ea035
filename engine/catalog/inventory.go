// SPDX-License-Identifier: Apache-2.0

package catalog

import (
	"cmp"
	"context"
	"slices"

	"github.com/kbcli/kbcli/engine/pg"
	"github.com/kbcli/kbcli/engine/repository"
	"github.com/kbcli/kbcli/engine/repository/chapter"
)

// span is a run of whole segments of one timeline: the numbers [from, to).
type span struct{ from, to uint64 }

// inventory says which WAL there is.
type inventory struct {
	size     pg.SegmentSize
	whole    map[pg.TimelineID][]span
	tails    map[pg.Segment]pg.LSN // how far the tails of a segment reach from its start
	chapters map[pg.Segment]chapter.Name
}

func loadInventory(ctx context.Context, l *repository.Lineage) (*inventory, error) {
	inv := &inventory{size: l.Info().SegmentSize, whole: map[pg.TimelineID][]span{}, tails: map[pg.Segment]pg.LSN{}, chapters: map[pg.Segment]chapter.Name{}}
	// tails first: one that becomes a segment meanwhile is seen as both, not as neither
	ts, err := l.Tails(ctx, nil)
	if err != nil {
		return nil, err
	}
	for i := 0; i < len(ts); {
		j := i
		for j < len(ts) && ts[j].Segment == ts[i].Segment {
			j++
		}
		g := ts[i].Segment
		_, inv.tails[g] = repository.Chain(ts[i:j], inv.size.Start(g.Number))
		i = j
	}
	// chapters before segments: they go before their segments do
	chapters, err := l.Chapters(ctx)
	if err != nil {
		return nil, err
	}
	runs, err := l.SegmentRuns(ctx, chapters)
	if err != nil {
		return nil, err
	}
	for _, r := range runs {
		inv.addSpan(r.Timeline, span{r.From, r.To})
	}
	for _, n := range chapters {
		if inv.has(n.First) {
			inv.chapters[n.First] = n
		}
	}
	return inv, nil
}

func (inv *inventory) addSpan(tli pg.TimelineID, s span) {
	spans := inv.whole[tli]
	if n := len(spans); n > 0 && spans[n-1].to == s.from {
		spans[n-1].to = s.to
		return
	}
	spans = append(spans, s)
	slices.SortFunc(spans, func(a, b span) int { return cmp.Compare(a.from, b.from) })
	merged := spans[:1]
	for _, s := range spans[1:] {
		if last := &merged[len(merged)-1]; s.from <= last.to {
			last.to = max(last.to, s.to)
		} else {
			merged = append(merged, s)
		}
	}
	inv.whole[tli] = merged
}

// end is where the newest WAL of a timeline is known to lie: the number of the
// segment that grows. It is false if there is none.
func (inv *inventory) end(tli pg.TimelineID) (n uint64, ok bool) {
	if spans := inv.whole[tli]; len(spans) > 0 {
		n, ok = spans[len(spans)-1].to, true
	}
	for g, to := range inv.tails {
		if g.Timeline == tli && to > inv.size.Start(g.Number) && (!ok || g.Number > n) {
			n, ok = g.Number, true
		}
	}
	return n, ok
}

func (inv *inventory) has(g pg.Segment) bool { return inv.wholeTo(g) > g.Number }

// wholeTo is how far whole segments go on from g: the number of the first that is not
// there.
func (inv *inventory) wholeTo(g pg.Segment) uint64 {
	spans := inv.whole[g.Timeline]
	i, _ := slices.BinarySearchFunc(spans, g.Number, func(s span, n uint64) int {
		if s.to <= n {
			return -1
		}
		return 1
	})
	if i < len(spans) && spans[i].from <= g.Number {
		return spans[i].to
	}
	return g.Number
}

// timelines lists those of which there is any WAL, ascending.
func (inv *inventory) timelines() []pg.TimelineID {
	seen := map[pg.TimelineID]bool{}
	for t := range inv.whole {
		seen[t] = true
	}
	for g := range inv.tails {
		seen[g.Timeline] = true
	}
	var out []pg.TimelineID
	for t := range seen {
		out = append(out, t)
	}
	slices.Sort(out)
	return out
}
