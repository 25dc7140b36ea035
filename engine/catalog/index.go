// SPDX-License-Identifier: Apache-2.0

package catalog

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/kbcli/kbcli/engine/blob"
	"github.com/kbcli/kbcli/engine/pg"
	"github.com/kbcli/kbcli/engine/pg/walscan"
	"github.com/kbcli/kbcli/engine/repository"
	"github.com/kbcli/kbcli/engine/repository/walindex"
)

// keepIndexes bounds how many decoded indexes are kept.
const keepIndexes = 1024

// index says what the records of segment n on p say, as far as end. A whole
// segment's index is read; where it is missing, partial or damaged, and for a
// segment that is not whole, the WAL is.
func (c *Catalog) index(ctx context.Context, p Path, n uint64, end pg.LSN) (*walindex.Index, error) {
	g := p.Segment(n)
	c.mu.Lock()
	x, whole := c.indexes[g], c.inv.has(g)
	c.mu.Unlock()
	if x != nil {
		return x, nil
	}
	if whole {
		b, err := c.l.Index(ctx, g)
		if err == nil {
			if x, err = walindex.Decode(b); err == nil && !x.Partial && x.Segment == g {
				return c.keep(g, x), nil
			}
		}
		var corrupt *repository.CorruptError
		if err != nil && !errors.Is(err, blob.ErrNotExist) && !errors.As(err, &corrupt) && x == nil {
			return nil, err
		}
	}
	x, err := c.scanSegment(ctx, p, n, end)
	if err != nil {
		return nil, err
	}
	if whole {
		c.keep(g, x)
	}
	return x, nil
}

func (c *Catalog) keep(g pg.Segment, x *walindex.Index) *walindex.Index {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.indexes) >= keepIndexes {
		clear(c.indexes)
	}
	c.indexes[g] = x
	return x
}

// raw reads the bytes of segment n on p: the whole segment, or what tails there are.
func (c *Catalog) raw(ctx context.Context, p Path, n uint64) ([]byte, error) {
	return ReadSegment(ctx, c.l, p, n)
}

// ReadSegment reads the raw bytes of segment n on p, whole or as far as its tails
// reach; none at all is an empty slice. Only what the store says is absent counts as
// absent.
func ReadSegment(ctx context.Context, l *repository.Lineage, p Path, n uint64) ([]byte, error) {
	g := p.Segment(n)
	var buf bytes.Buffer
	err := l.Segment(ctx, g, &buf)
	if err == nil {
		return buf.Bytes(), nil
	}
	if !errors.Is(err, blob.ErrNotExist) {
		return nil, err
	}
	b, err := l.ReadTail(ctx, g)
	if err != nil {
		return nil, err
	}
	if len(b) == 0 {
		// it may have been completed between the two questions
		buf.Reset()
		if err := l.Segment(ctx, g, &buf); err == nil {
			return buf.Bytes(), nil
		} else if !errors.Is(err, blob.ErrNotExist) {
			return nil, err
		}
	}
	size := l.Info().SegmentSize
	old := p.TimelineAt(size.Start(n))
	if old == g.Timeline {
		return b, nil
	}
	// where a timeline ended, its own piece may reach further
	own := pg.Segment{Timeline: old, Number: n}
	limit, _ := p.SwitchPoint(old)
	buf.Reset()
	err = l.Segment(ctx, own, &buf)
	was := buf.Bytes()
	if errors.Is(err, blob.ErrNotExist) {
		was, err = l.ReadTail(ctx, own)
	}
	if err != nil {
		return nil, err
	}
	if keep := int(limit - size.Start(n)); len(was) > keep {
		was = was[:keep]
	}
	if len(was) > len(b) {
		return was, nil
	}
	return b, nil
}

// scanSegment makes the index of segment n from the WAL.
func (c *Catalog) scanSegment(ctx context.Context, p Path, n uint64, end pg.LSN) (*walindex.Index, error) {
	raw, err := c.raw(ctx, p, n)
	if err != nil {
		return nil, err
	}
	start := c.inv.size.Start(n)
	if over := int64(start) + int64(len(raw)) - int64(end); over > 0 && int64(len(raw)) >= over {
		raw = raw[:int64(len(raw))-over]
	}
	s, partial, err := c.primed(ctx, p, n, raw)
	if err != nil {
		return nil, err
	}
	var b walindex.Builder
	b.Begin(p.Segment(n), partial)
	err = s.Feed(raw, b.Add)
	var ended *walscan.EndError
	if err != nil && !errors.As(err, &ended) {
		return nil, fmt.Errorf("read WAL segment %s: %w", c.inv.size.Name(p.Segment(n)), err)
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
	if err := s.Feed(raw[:min(len(raw), pg.BlockSize)], func(*walscan.Record) error { return nil }); err != nil || !s.SkippedPartial() {
		return fresh(n), false, nil // its own scan tells the error
	}
	// a record may be longer than a segment: go back until its start is seen
	from := n
	for from > 0 {
		c.mu.Lock()
		have := c.inv.has(p.Segment(from - 1))
		c.mu.Unlock()
		if !have {
			return fresh(n), true, nil
		}
		from--
		if s, err = c.feedFrom(ctx, p, fresh(from), from, n); err != nil {
			return nil, false, err
		}
		if s.NextRecord() < size.Start(n) {
			return s, false, nil
		}
	}
	return fresh(n), true, nil
}

func (c *Catalog) feedFrom(ctx context.Context, p Path, s *walscan.Scanner, from, to uint64) (*walscan.Scanner, error) {
	for ; from < to; from++ {
		raw, err := c.raw(ctx, p, from)
		if err != nil {
			return nil, err
		}
		if err := s.Feed(raw, func(*walscan.Record) error { return nil }); err != nil {
			return nil, fmt.Errorf("read WAL segment %s: %w", c.inv.size.Name(p.Segment(from)), err)
		}
	}
	return s, nil
}
