// SPDX-License-Identifier: Apache-2.0

package catalog

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sync/errgroup"

	"github.com/kbcli/kbcli/engine/pg"
	"github.com/kbcli/kbcli/engine/pg/walscan"
	"github.com/kbcli/kbcli/engine/repository"
	"github.com/kbcli/kbcli/engine/repository/chapter"
	"github.com/kbcli/kbcli/engine/repository/walindex"
)

// errEnough ends a walk without being its error.
var errEnough = errors.New("enough")

// batch is how many indexes are fetched at once: storage answers slowly, not narrowly.
const batch = 16

// enough tells whether what a chapter says of a segment will do for its index.
type enough func(s *chapter.Segment) bool

func never(*chapter.Segment) bool { return false }

func always(*chapter.Segment) bool { return true }

// eachIndex hands the indexes of segments [from, to) on p to fn, in order, as far as
// end: what a chapter says of one where that is enough. An index that cannot be had is
// nil, with its error.
func (c *Catalog) eachIndex(ctx context.Context, p Path, from, to uint64, end pg.LSN, will enough, fn func(n uint64, x *walindex.Index, err error) error) error {
	ahead, told := from, from
	for n := from; n < to; n++ {
		if err := ctx.Err(); err != nil {
			return err
		}
		if length := c.l.ChapterLength(); n >= told {
			c.prefetchChapters(ctx, p, n, to)
			told = n - n%length + length
		}
		x, err := c.summed(ctx, p, n, end, will)
		if x == nil && err == nil {
			if n == ahead && n > from { // the answer is often near: the first is fetched alone
				ahead = min(n+batch, to)
				c.prefetch(ctx, p, n, ahead, will)
			}
			x, err = c.index(ctx, p, n, end)
		}
		ahead = max(ahead, n+1)
		if err := fn(n, x, err); errors.Is(err, errEnough) {
			return nil
		} else if err != nil {
			return err
		}
	}
	return nil
}

// summed is what a chapter says of segment n on p in place of its index, nil if that is not
// enough or more than is asked for.
func (c *Catalog) summed(ctx context.Context, p Path, n uint64, end pg.LSN, will enough) (*walindex.Index, error) {
	if end < c.inv.size.End(n) {
		return nil, nil
	}
	s, err := c.summary(ctx, p.Segment(n))
	if s == nil || err != nil || !will(s) {
		return nil, err
	}
	return briefOf(s), nil
}

// briefly is index, or what a chapter says where that is enough.
func (c *Catalog) briefly(ctx context.Context, p Path, n uint64, end pg.LSN, will enough) (*walindex.Index, error) {
	if x, err := c.summed(ctx, p, n, end, will); x != nil || err != nil {
		return x, err
	}
	return c.index(ctx, p, n, end)
}

// prefetch brings stored indexes into memory at once, of segments of which chapters do
// not say enough. What cannot be had is left to index, which then says why.
func (c *Catalog) prefetch(ctx context.Context, p Path, from, to uint64, will enough) {
	var g errgroup.Group
	for n := from; n < to; n++ {
		seg := p.Segment(n)
		c.mu.Lock()
		want := c.indexes[seg] == nil && c.inv.has(seg)
		c.mu.Unlock()
		if want {
			s, err := c.summary(ctx, seg)
			want = err == nil && (s == nil || !s.Brief || !will(s))
		}
		if !want {
			continue
		}
		g.Go(func() error {
			b, err := c.l.Index(ctx, seg)
			if err != nil {
				return nil
			}
			if x, err := walindex.Brief(b); err == nil && !x.Partial && x.Segment == seg {
				c.keep(seg, x)
			}
			return nil
		})
	}
	_ = g.Wait() // no goroutine has an error
}

// walk hands the records of p to fn, in order, from the first that ends in segment n
// to the last that ends by end. It stops without an error where fn says errEnough.
func (c *Catalog) walk(ctx context.Context, p Path, n uint64, end pg.LSN, fn func(*walscan.Record) error) error {
	size := c.inv.size
	var s *walscan.Scanner
	for ; size.Start(n) < end; n++ {
		if err := ctx.Err(); err != nil {
			return err
		}
		raw, err := c.raw(ctx, p, n)
		if err != nil {
			return err
		}
		want := min(end, size.End(n))
		if have := size.Start(n) + pg.LSN(len(raw)); have < want {
			return &repository.MissingWALError{Timeline: p.Segment(n).Timeline, From: have, To: want}
		}
		raw = raw[:want-size.Start(n)]
		if s == nil {
			if s, _, err = c.primed(ctx, p, n, raw); err != nil {
				return err
			}
		}
		err = s.Feed(raw, fn)
		var ended *walscan.EndError
		switch {
		case errors.Is(err, errEnough):
			return nil
		case errors.As(err, &ended) && size.End(n) < end:
			return fmt.Errorf("read WAL segment %s: %w", size.Name(p.Segment(n)),
				&walscan.CorruptError{LSN: ended.LSN, Reason: "it ends there, and more of it is archived"})
		case ended != nil:
			return nil
		case err != nil:
			return fmt.Errorf("read WAL segment %s: %w", size.Name(p.Segment(n)), err)
		}
	}
	return nil
}

// place is one record and its neighbours, by where they start; 0 is none.
type place struct {
	start, end pg.LSN
	before     pg.LSN // of the record before it
	beforeEnd  pg.LSN
}

// recordAt finds the first record on p that starts at or after at and ends by end.
// Without one, start is 0 and before is the last record there is.
func (c *Catalog) recordAt(ctx context.Context, p Path, at, end pg.LSN) (place, error) {
	var f place
	n := c.inv.size.Number(at)
	err := c.walk(ctx, p, n, end, func(r *walscan.Record) error {
		if r.Start >= at {
			f.start, f.end = r.Start, r.End
			return errEnough
		}
		f.before, f.beforeEnd = r.Start, r.End
		return nil
	})
	if err != nil || f.before != 0 {
		return f, err
	}
	// the record before is in a segment before, if that is there
	for n > 0 && f.before == 0 && c.has(p.Segment(n-1)) {
		n--
		x, err := c.index(ctx, p, n, c.inv.size.End(n))
		if isDamage(err) || errors.Is(err, repository.ErrSealed) {
			return f, nil
		}
		if err != nil {
			return f, err
		}
		f.before, f.beforeEnd = x.Last, x.Next
	}
	return f, nil
}
