// SPDX-License-Identifier: Apache-2.0

package archive

import (
	"context"
	"errors"

	"github.com/kbcli/kbcli/engine/blob"
	"github.com/kbcli/kbcli/engine/pg"
	"github.com/kbcli/kbcli/engine/pg/walscan"
	"github.com/kbcli/kbcli/engine/repository"
	"github.com/kbcli/kbcli/engine/repository/walindex"
)

// longHeader is the size of the page header that a segment begins with.
const longHeader = 40

// scan reads the records of what is shipped and builds each segment's index. WAL
// that cannot be read is archived all the same, without an index: the catalog
// reads such a segment itself and says what is wrong with it.
type scan struct {
	a       *Archiver
	s       *walscan.Scanner
	b       walindex.Builder
	partial bool
	fault   error
}

func newScan(a *Archiver) *scan { return &scan{a: a} }

// begin readies the scanner for g. It goes on from the segment before, or reads
// back as far as the record that spans the boundary.
func (c *scan) begin(ctx context.Context, p *shipper, g pg.Segment) error {
	start := c.a.size.Start(g.Number)
	c.partial = false
	if c.s == nil || c.s.Position() != start || c.fault != nil {
		c.fault = nil
		if err := c.prime(ctx, p, g); err != nil {
			return err
		}
	}
	c.b.Begin(g, c.partial)
	return nil
}

// prime makes a scanner that stands at g's start, fed with the record that began
// before it, if that can be read; and a Builder that knows of the transactions that
// are open there.
func (c *scan) prime(ctx context.Context, p *shipper, g pg.Segment) error {
	size := c.a.size
	fresh := func(at pg.LSN) *walscan.Scanner {
		return walscan.New(walscan.Options{SegmentSize: size, Start: at, SystemID: c.a.cfg.Lineage.Info().SystemID})
	}
	c.s, c.partial = fresh(size.Start(g.Number)), true
	if err := p.settle(ctx); err != nil {
		return err
	}
	if g.Number == 0 || !c.a.cfg.Lineage.Repository().Readable() {
		return nil
	}
	var before *pg.Segment
	var raw []byte
	err := c.a.retry(ctx, "read the WAL segment before", func(ctx context.Context) (err error) {
		before, raw, err = c.before(ctx, g)
		return err
	})
	if err != nil || before == nil {
		return err
	}
	resumed, err := c.resume(ctx, *before)
	if err != nil {
		return err
	}
	s := fresh(size.Start(before.Number))
	each := func(*walscan.Record) error { return nil }
	if !resumed { // count at least from there on
		c.b.Begin(*before, true)
		each = c.b.Add
	}
	if err := s.Feed(raw, each); err != nil {
		return nil // the catalog will say so
	}
	if !resumed {
		c.b.Finish(s.NextRecord())
	}
	// A record longer than the segment before began even earlier: that is rare,
	// the index stays partial and is made again when it is read. Without one the
	// next record begins after the header.
	c.s, c.partial = s, s.SkippedPartial() && s.NextRecord() > s.Position()+longHeader
	return nil
}

// resume has the Builder go on from the index of a segment. It tells whether there is
// one that knows what was open.
func (c *scan) resume(ctx context.Context, g pg.Segment) (bool, error) {
	var b []byte
	err := c.a.retry(ctx, "read the WAL index before", func(ctx context.Context) (err error) {
		b, err = c.a.cfg.Lineage.Index(ctx, g)
		var corrupt *repository.CorruptError
		if errors.Is(err, blob.ErrNotExist) || errors.Is(err, repository.ErrSealed) || errors.As(err, &corrupt) {
			b, err = nil, nil
		}
		return err
	})
	if err != nil || b == nil {
		return false, err
	}
	x, err := walindex.Decode(b)
	return err == nil && x.Segment == g && c.b.Resume(x), nil
}

// before reads the segment before g, on g's timeline or the one it came from.
func (c *scan) before(ctx context.Context, g pg.Segment) (*pg.Segment, []byte, error) {
	tlis := []pg.TimelineID{g.Timeline}
	h, err := c.a.history(ctx, g.Timeline)
	if err != nil {
		return nil, nil, err
	}
	if t := h.TimelineAt(c.a.size.Start(g.Number) - 1); t != g.Timeline {
		tlis = append(tlis, t)
	}
	for _, tli := range tlis {
		b := pg.Segment{Timeline: tli, Number: g.Number - 1}
		raw, err := c.a.cfg.Lineage.Segment(ctx, b, nil)
		var corrupt *repository.CorruptError
		switch {
		case err == nil:
			return &b, raw, nil
		case errors.Is(err, blob.ErrNotExist), errors.Is(err, repository.ErrSealed), errors.As(err, &corrupt):
		default:
			return nil, nil, err
		}
	}
	return nil, nil, nil
}

// feed scans raw. What is wrong with it is kept for finish.
func (c *scan) feed(raw []byte) {
	if c.fault != nil {
		return
	}
	add := c.b.Add
	if c.a.instead != nil {
		add = c.a.instead
	}
	err := c.s.Feed(raw, add)
	if dbs := c.b.Named(); len(dbs) > 0 && c.a.cfg.Named != nil {
		c.a.cfg.Named(dbs)
	}
	if err != nil {
		c.fault = err
		c.a.cfg.Log.Error("WAL cannot be read; it is archived without an index", "error", err)
	}
}

// lastCommit is the greatest time at which a transaction ended in what was scanned.
func (c *scan) lastCommit() pg.Timestamp { return c.b.Latest() }

// finish gives the encoded index of the segment that is now whole, or nil if
// its WAL could not be read, and the greatest time of a transaction's end so far.
func (c *scan) finish() ([]byte, pg.Timestamp) {
	if c.fault != nil || c.a.instead != nil {
		return nil, c.b.Latest()
	}
	return c.b.Finish(c.s.NextRecord()).Encode(), c.b.Latest()
}

// leave forgets where the scanner stood: the next segment is of another stretch.
func (c *scan) leave() { c.s = nil }
