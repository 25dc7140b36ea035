// SPDX-License-Identifier: Apache-2.0

package catalog

import (
	"context"
	"errors"
	"fmt"

	"github.com/kbcli/kbcli/engine/blob"
	"github.com/kbcli/kbcli/engine/pg"
	"github.com/kbcli/kbcli/engine/pg/walscan"
	"github.com/kbcli/kbcli/engine/repository"
	"github.com/kbcli/kbcli/engine/repository/walindex"
)

// keepIndexes bounds how many decoded indexes are kept, and keepHeld how many
// transactions in them, of some 100 bytes each.
const (
	keepIndexes = 1024
	keepHeld    = 500_000
)

// keepDetails bounds how many detailed indexes that had to be made are kept: whoever
// reads one segment after another wants the one before.
const keepDetails = 4

// Index says everything that the records of segment n on p say, as far as end: what
// rows each transaction changed, which files and blocks. Where the stored index is
// missing, partial or damaged, or of a version that did not say it, and for a segment
// that is not whole, it is made from the WAL. Of transactions that were open before it
// the segment before tells, from its index or its own WAL; then what is not known is
// marked in the Index. The Index is not to be changed.
func (c *Catalog) Index(ctx context.Context, p Path, n uint64, end pg.LSN) (*walindex.Index, error) {
	g := p.Segment(n)
	whole := c.has(g) && end >= c.inv.size.End(n)
	if whole {
		x, err := c.detailed(ctx, g)
		if x != nil || err != nil {
			return x, err
		}
	}
	var prev *walindex.Index
	if n > 0 {
		var err error
		if prev, err = c.before(ctx, p, n-1); err != nil {
			return nil, err
		}
	}
	x, err := c.scanSegment(ctx, p, n, end, prev)
	if err != nil {
		return nil, err
	}
	if whole {
		c.keepDetailed(g, x)
	}
	return x, nil
}

// before is the index of the segment before the one that is to be made, nil if that
// cannot be had.
func (c *Catalog) before(ctx context.Context, p Path, n uint64) (*walindex.Index, error) {
	g := p.Segment(n)
	if !c.has(g) {
		return nil, nil
	}
	x, err := c.detailed(ctx, g)
	if x == nil && err == nil {
		if x, err = c.scanSegment(ctx, p, n, c.inv.size.End(n), nil); isDamage(err) {
			return nil, nil
		}
	}
	return x, err
}

// detailed is the index of a whole segment if it was made or is stored with details,
// else nil.
func (c *Catalog) detailed(ctx context.Context, g pg.Segment) (*walindex.Index, error) {
	c.mu.Lock()
	x := c.details[g]
	c.mu.Unlock()
	if x != nil {
		return x, nil
	}
	b, err := c.l.Index(ctx, g)
	if err != nil {
		if errors.Is(err, blob.ErrNotExist) || isDamage(err) {
			err = nil
		}
		return nil, err
	}
	if x, err := walindex.Decode(b); err == nil && x.Detailed && !x.Partial && x.Segment == g {
		return x, nil
	}
	return nil, nil
}

func (c *Catalog) keepDetailed(g pg.Segment, x *walindex.Index) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.details == nil || len(c.details) >= keepDetails {
		c.details = map[pg.Segment]*walindex.Index{}
	}
	c.details[g] = x
}

// index says when transactions ended in segment n on p, as far as end, and what else
// walindex.Brief tells. A whole segment's index is read; where it is missing, partial
// or damaged, and for a segment that is not whole, the WAL is.
func (c *Catalog) index(ctx context.Context, p Path, n uint64, end pg.LSN) (*walindex.Index, error) {
	g := p.Segment(n)
	c.mu.Lock()
	x, whole := c.indexes[g], c.inv.has(g) && end >= c.inv.size.End(n)
	c.mu.Unlock()
	switch {
	case whole && x != nil:
		return x, nil
	case whole:
		b, err := c.l.Index(ctx, g)
		switch {
		case err == nil:
			x, err := walindex.Brief(b)
			if err == nil && !x.Partial && x.Segment == g {
				return c.keep(g, x), nil
			}
		case !errors.Is(err, blob.ErrNotExist) && !isDamage(err):
			return nil, err
		}
	}
	x, err := c.scanSegment(ctx, p, n, end, nil)
	if err != nil {
		return nil, err
	}
	if whole {
		if x, err = walindex.Brief(x.Encode()); err != nil {
			return nil, err
		}
		c.keep(g, x)
	}
	return x, nil
}

// has tells whether a whole segment is there.
func (c *Catalog) has(g pg.Segment) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.inv.has(g)
}

func (c *Catalog) keep(g pg.Segment, x *walindex.Index) *walindex.Index {
	c.mu.Lock()
	defer c.mu.Unlock()
	if old := c.indexes[g]; old != nil {
		return old
	}
	if len(c.indexes) >= keepIndexes || c.held+len(x.Transactions) > keepHeld {
		clear(c.indexes)
		c.held = 0
	}
	c.indexes[g] = x
	c.held += len(x.Transactions)
	return x
}

// raw reads the bytes of segment n on p: the whole segment, or what tails there are.
func (c *Catalog) raw(ctx context.Context, p Path, n uint64) ([]byte, error) {
	return ReadSegment(ctx, c.l, p, n, nil)
}

// ReadSegment reads the raw bytes of segment n on p, whole or as far as its tails
// reach; none at all is an empty slice. Only what the store says is absent counts as
// absent. A whole segment is in room if that is large enough.
func ReadSegment(ctx context.Context, l *repository.Lineage, p Path, n uint64, room []byte) ([]byte, error) {
	g := p.Segment(n)
	b, err := readPiece(ctx, l, g, room)
	if err != nil {
		return nil, err
	}
	size := l.Info().SegmentSize
	if len(b) == int(size) {
		return b, nil
	}
	// where timelines ended, their own pieces may reach further
	for _, old := range p.earlier(n) {
		was, err := readPiece(ctx, l, pg.Segment{Timeline: old.Timeline, Number: n}, nil)
		if err != nil {
			return nil, err
		}
		if keep := int(old.End - size.Start(n)); len(was) > keep {
			was = was[:keep]
		}
		if len(was) > len(b) {
			b = was
		}
	}
	return b, nil
}

// readPiece reads a segment, or what tails there are.
func readPiece(ctx context.Context, l *repository.Lineage, g pg.Segment, room []byte) ([]byte, error) {
	raw, err := l.Segment(ctx, g, room)
	if !errors.Is(err, blob.ErrNotExist) {
		return raw, err
	}
	b, tailErr := l.ReadTail(ctx, g)
	// It may have been completed since, and its tails deleted: then what was read of
	// them is less than there is, or a tail was gone that had just been listed.
	if raw, err := l.Segment(ctx, g, room); !errors.Is(err, blob.ErrNotExist) {
		return raw, err
	}
	if tailErr != nil {
		return nil, fmt.Errorf("read the tails of WAL segment %s: %w", l.Info().SegmentSize.Name(g), tailErr)
	}
	return b, nil
}

// scanSegment makes the index of segment n from the WAL. prev, the index of the segment
// before, tells which transactions are open; without it rows are counted from there on.
func (c *Catalog) scanSegment(ctx context.Context, p Path, n uint64, end pg.LSN, prev *walindex.Index) (*walindex.Index, error) {
	raw, err := c.raw(ctx, p, n)
	if err != nil {
		return nil, err
	}
	size := c.inv.size
	want := min(end, size.End(n))
	if have := size.Start(n) + pg.LSN(len(raw)); have < want {
		return nil, &repository.MissingWALError{Timeline: p.Segment(n).Timeline, From: have, To: want}
	}
	raw = raw[:want-size.Start(n)]
	s, partial, err := c.primed(ctx, p, n, raw)
	if err != nil {
		return nil, err
	}
	var b walindex.Builder
	if prev != nil {
		b.Resume(prev)
	}
	b.Begin(p.Segment(n), partial)
	err = s.Feed(raw, b.Add)
	var ended *walscan.EndError
	if errors.As(err, &ended) && size.End(n) < end {
		err = &walscan.CorruptError{LSN: ended.LSN, Reason: "it ends there, and more of it is archived"}
	} else if ended != nil {
		err = nil // as far as it goes
	}
	if err != nil {
		return nil, fmt.Errorf("read WAL segment %s: %w", size.Name(p.Segment(n)), err)
	}
	return b.Finish(s.NextRecord()), nil
}

// primed makes a scanner that stands at the start of segment n, fed with the record
// that spans its boundary if there is one and it can be had.
func (c *Catalog) primed(ctx context.Context, p Path, n uint64, raw []byte) (s *walscan.Scanner, partial bool, err error) {
	size := c.inv.size
	fresh := func(n uint64) *walscan.Scanner {
		return walscan.New(walscan.Options{SegmentSize: size, Start: size.Start(n), SystemID: c.l.Info().SystemID})
	}
	s = fresh(n)
	if err := s.Feed(raw[:min(len(raw), pg.BlockSize)], ignore); err != nil || !s.SkippedPartial() {
		return fresh(n), false, nil // its own scan tells the error
	}
	// A record may be longer than a segment: go back until its start is seen. Damage
	// on the way leaves it unread.
	from := n
	for more := true; more; {
		if from == 0 || n-from > maxRecord/uint64(size) {
			return fresh(n), true, nil
		}
		from--
		if !c.has(p.Segment(from)) {
			return fresh(n), true, nil
		}
		before, err := c.raw(ctx, p, from)
		if isDamage(err) || err == nil && len(before) < pg.BlockSize {
			return fresh(n), true, nil
		}
		if err != nil {
			return nil, false, err
		}
		s = fresh(from)
		_ = s.Feed(before[:pg.BlockSize], ignore) // the scan below sees the error again
		more = s.SkippedPartial() && s.NextRecord() > size.End(from)
	}
	s = fresh(from)
	for ; from < n; from++ {
		raw, err := c.raw(ctx, p, from)
		if err == nil {
			err = s.Feed(raw, ignore)
		}
		var ended *walscan.EndError
		switch {
		case isDamage(err), errors.As(err, &ended):
			return fresh(n), true, nil
		case err != nil:
			return nil, false, err
		}
	}
	return s, s.NextRecord() >= size.Start(n), nil
}

// maxRecord is more than any record of WAL takes (XLogRecordMaxSize is 1020 MiB).
const maxRecord = 1 << 30

func ignore(*walscan.Record) error { return nil }
