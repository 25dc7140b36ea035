// SPDX-License-Identifier: Apache-2.0

package catalog

import (
	"context"
	"slices"
	"time"

	"github.com/kbcli/kbcli/engine/pg"
	"github.com/kbcli/kbcli/engine/repository/chapter"
	"github.com/kbcli/kbcli/engine/repository/walindex"
)

// abridger gives what is enough in place of a detailed index.
type abridger interface {
	// covers tells whether abridged may give something for a segment.
	covers(g pg.Segment) bool
	// abridged is called with one segment after another. nil is: read the index.
	abridged(ctx context.Context, n uint64) (*walindex.Index, error)
}

// covers: spikes need the ends of all transactions.
func (h *historian) covers(g pg.Segment) bool {
	if h.q.MinRows < chapter.Rows || h.spikes != nil {
		return false
	}
	_, ok := h.c.chapterName(g)
	return ok
}

// abridged is what the chapter of segment n tells of history.
func (h *historian) abridged(ctx context.Context, n uint64) (*walindex.Index, error) {
	g := h.p.Segment(n)
	if !h.covers(g) {
		return nil, nil
	}
	if first := h.c.l.ChapterOf(g); first != h.chapter {
		h.chapter, h.carried = first, h.open()
		h.c.prefetchChapters(ctx, h.p, n, h.last+1)
	}
	s, err := h.c.summary(ctx, g)
	if s == nil || err != nil || !s.Told || slices.ContainsFunc(h.carried, func(xid pg.XID) bool { return concerns(s, xid) }) {
		return nil, err
	}
	return s.Index, nil
}

// open are the transactions that something was noted of.
func (h *historian) open() []pg.XID {
	var out []pg.XID
	for xid := range h.made {
		if xid != 0 {
			out = append(out, xid)
		}
	}
	for xid := range h.truncated {
		out = append(out, xid)
	}
	for xid := range h.databases {
		out = append(out, xid)
	}
	return out
}

// concerns tells whether a segment may have an end that takes what was noted of a
// transaction before its chapter, which does not know of it.
func concerns(s *chapter.Segment, xid pg.XID) bool {
	return s.Mentions(xid) || s.Nested && older(s.MinXID, xid)
}

// sinceChapter is firstSince for the segments of one chapter, those before to. Where
// nothing is found the search goes on before at; that is to where they have no chapter.
func (c *Catalog) sinceChapter(ctx context.Context, p Path, since time.Time, first, to uint64) (at uint64, found bool, err error) {
	name, ok := c.chapterName(p.Segment(to - 1))
	if !ok || p.Segment(name.First.Number) != name.First {
		return to, false, ctx.Err()
	}
	from := max(first, name.First.Number)
	if !name.Stamped || !name.Min.Time().Before(since) {
		return from, false, ctx.Err()
	}
	for n := to; n > from; n-- {
		s, err := c.summary(ctx, p.Segment(n-1))
		switch {
		case err != nil:
			return 0, false, err
		case s == nil:
			return n, false, ctx.Err() // it was found to be damaged
		case s.Ended && s.Max.Time().Before(since):
			return n - 1, true, nil
		}
	}
	return from, false, ctx.Err()
}
