// SPDX-License-Identifier: Apache-2.0

package catalog

import (
	"context"
	"slices"
	"time"

	"github.com/kbcli/kbcli/engine/pg"
	"github.com/kbcli/kbcli/engine/repository/walindex"
)

// extent is the first and the last segment of a path that there is anything of.
func (c *Catalog) extent(p Path) (first, last uint64, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	on := []pg.TimelineID{p.Timeline}
	for _, e := range p.Entries {
		on = append(on, e.Timeline)
	}
	note := func(from, to uint64) {
		if !ok || from < first {
			first = from
		}
		if !ok || to > last {
			last = to
		}
		ok = true
	}
	for _, tli := range on {
		for _, s := range c.inv.whole[tli] {
			note(s.from, s.to-1)
		}
	}
	for g, to := range c.inv.tails {
		if slices.Contains(on, g.Timeline) && to > c.inv.size.Start(g.Number) {
			note(g.Number, g.Number)
		}
	}
	return first, last, ok
}

// endOf is how far segment n on p goes; its start if there is nothing of it.
func (c *Catalog) endOf(p Path, n uint64) pg.LSN {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.inv.has(p.Segment(n)) {
		return c.inv.size.End(n)
	}
	return min(p.reach(c.inv, c.inv.size.Start(n)), c.inv.size.End(n))
}

// firstSince finds a segment from which on everything that happened since a moment is.
func (c *Catalog) firstSince(ctx context.Context, p Path, since time.Time, first, last uint64) (uint64, error) {
	for to := last + 1; to > first; {
		at, found, err := c.sinceChapter(ctx, p, since, first, to)
		if err != nil || found {
			return at, err
		}
		if at < to {
			to = at
			continue
		}
		from := first
		if to-first > batch {
			from = to - batch
		}
		c.prefetch(ctx, p, from, to, never)
		for n := to; n > from; n-- {
			end := c.endOf(p, n-1)
			if end == c.inv.size.Start(n-1) {
				continue
			}
			x, err := c.index(ctx, p, n-1, end)
			if isDamage(err) {
				continue
			}
			if err != nil {
				return 0, err
			}
			var newest pg.Timestamp
			for i := range x.Transactions {
				newest = max(newest, x.Transactions[i].Time)
			}
			if newest != 0 && newest.Time().Before(since) {
				return n - 1, nil
			}
		}
		to = from
	}
	return first, ctx.Err()
}

// eachDetailed hands the detailed indexes of segments first to last to fn, in order,
// and fetches some ahead: what short gives in place of one, where it gives any. nil
// without an error is a segment of which there is nothing.
func (c *Catalog) eachDetailed(ctx context.Context, p Path, first, last uint64, short abridger, fn func(n uint64, x *walindex.Index, err error) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var ahead [keepFetched]chan *walindex.Index
	fetch := func(n uint64) {
		ch := make(chan *walindex.Index, 1)
		ahead[n%keepFetched] = ch
		go func() {
			var x *walindex.Index
			if g := p.Segment(n); n <= last && c.has(g) && !short.covers(g) {
				x, _ = c.detailed(ctx, g) // what is wrong is told when it is its turn
			}
			ch <- x
		}()
	}
	for n := first; n <= last && n < first+keepFetched; n++ {
		fetch(n)
	}
	for n := first; n <= last; n++ {
		x, err := <-ahead[n%keepFetched], ctx.Err()
		if err != nil {
			return err
		}
		if x == nil {
			x, err = short.abridged(ctx, n)
		}
		if end := c.endOf(p, n); x == nil && err == nil && end > c.inv.size.Start(n) {
			x, err = c.Index(ctx, p, n, end)
		}
		if n+keepFetched <= last {
			fetch(n + keepFetched)
		}
		if err := fn(n, x, err); err != nil {
			return err
		}
	}
	return nil
}
