// SPDX-License-Identifier: Apache-2.0

package chapter

import (
	"encoding/binary"
	"fmt"

	"github.com/kbcli/kbcli/engine/pg"
	"github.com/kbcli/kbcli/engine/repository/walindex"
	"github.com/kbcli/kbcli/internal/wire"
)

// Limit bounds an encoded chapter of 4 GiB of WAL or less. Only the heads of very many
// segments may take more.
const Limit = 1 << 20

// Chapter is what the indexes of consecutive segments of one timeline say.
type Chapter struct {
	First    pg.Segment
	Segments []Segment
}

// Segment is what a chapter says of one segment.
type Segment struct {
	// Ended tells whether any transaction ended or was prepared in it. If so, Min and Max
	// are the earliest and the latest time of those, MinXID and MaxXID, as numbers, the
	// smallest and the greatest of their xids.
	Ended          bool
	Committed      bool // some committed
	Nested         bool // some committed with subtransactions
	Min, Max       pg.Timestamp
	Back           pg.Timestamp // how far an end was stamped before one that precedes it, at most
	MinXID, MaxXID pg.XID
	// Brief and Told say what Index has: see doc.go.
	Brief, Told bool
	// Index has the segment's own First, Next and Last, and is Detailed where it is Told.
	Index *walindex.Index
}

// Mentions tells whether the end of a transaction may lie in the segment.
func (s *Segment) Mentions(xid pg.XID) bool { return s.Ended && xid >= s.MinXID && xid <= s.MaxXID }

// Name is the chapter's name.
func (c *Chapter) Name() Name {
	n := Name{First: c.First}
	for i := range c.Segments {
		s := &c.Segments[i]
		if !s.Ended {
			continue
		}
		if !n.Stamped {
			n.Stamped, n.Min, n.Max = true, s.Min, s.Max
		}
		n.Min, n.Max = min(n.Min, s.Min), max(n.Max, s.Max)
	}
	return n
}

const magic = "C1"

const (
	flagEnded = 1 << iota
	flagCommitted
	flagNested
	flagBrief
	flagTold
)

// Encode writes the chapter as doc.go draws it.
func (c *Chapter) Encode() []byte {
	b := []byte(magic)
	for _, v := range []uint64{uint64(c.First.Timeline), c.First.Number, uint64(len(c.Segments))} {
		b = binary.AppendUvarint(b, v)
	}
	last := pg.Timestamp(0)
	for i := range c.Segments {
		s := &c.Segments[i]
		flags := byte(0)
		for j, set := range []bool{s.Ended, s.Committed, s.Nested, s.Brief, s.Told} {
			if set {
				flags |= 1 << j
			}
		}
		b = append(b, flags)
		if s.Ended {
			b = binary.AppendVarint(b, int64(s.Min-last))
			b = binary.AppendUvarint(b, uint64(s.Max-s.Min))
			b = binary.AppendUvarint(b, uint64(s.Back))
			b = binary.AppendUvarint(b, uint64(s.MinXID))
			b = binary.AppendUvarint(b, uint64(s.MaxXID-s.MinXID))
			last = s.Min
		}
		x := s.Index.Encode()
		b = binary.AppendUvarint(b, uint64(len(x)))
		b = append(b, x...)
	}
	return b
}

// Decode reads what Encode wrote.
func Decode(b []byte) (*Chapter, error) {
	if len(b) < len(magic) || string(b[:len(magic)]) != magic {
		return nil, fmt.Errorf("chapter: it does not begin as one")
	}
	r := &wire.Reader{B: b[len(magic):]}
	c := &Chapter{First: pg.Segment{Timeline: pg.TimelineID(r.U32()), Number: r.Uvarint()}}
	n := r.Count(10)
	last := pg.Timestamp(0)
	for i := range n {
		var s Segment
		flags := r.U8()
		if flags >= flagTold<<1 {
			r.Fail("unknown flags")
		}
		s.Ended, s.Committed, s.Nested = flags&flagEnded != 0, flags&flagCommitted != 0, flags&flagNested != 0
		s.Brief, s.Told = flags&flagBrief != 0, flags&flagTold != 0
		if s.Ended {
			s.Min = last + pg.Timestamp(r.Varint())
			s.Max = s.Min + pg.Timestamp(r.Uvarint())
			s.Back = pg.Timestamp(r.Uvarint())
			s.MinXID = pg.XID(r.U32())
			s.MaxXID = s.MinXID + pg.XID(r.U32())
			last = s.Min
			if s.Max < s.Min || s.Back < 0 || s.MaxXID < s.MinXID {
				r.Fail("a range runs backwards")
			}
		}
		x, err := walindex.Decode(r.Bytes(r.Uvarint()))
		switch {
		case r.Err() != nil:
			return nil, fmt.Errorf("chapter: %w", r.Err())
		case err != nil:
			return nil, fmt.Errorf("chapter: segment %d: %w", i, err)
		case x.Segment != (pg.Segment{Timeline: c.First.Timeline, Number: c.First.Number + uint64(i)}) || x.Partial || x.Detailed != s.Told || s.Told && !s.Brief:
			return nil, fmt.Errorf("chapter: segment %d: it is another's", i)
		}
		s.Index = x
		c.Segments = append(c.Segments, s)
	}
	if err := r.Done(); err != nil {
		return nil, fmt.Errorf("chapter: %w", err)
	}
	return c, nil
}
