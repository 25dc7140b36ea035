// SPDX-License-Identifier: Apache-2.0

package walindex

import (
	"fmt"

	"github.com/kbcli/kbcli/engine/pg"
	"github.com/kbcli/kbcli/engine/pg/walscan"
	"github.com/kbcli/kbcli/internal/wire"
)

func undiff(r *wire.Reader, last *int64) int64 {
	*last += r.Varint()
	return *last
}

// Decode reads what Encode wrote.
func Decode(b []byte) (*Index, error) { return decode(b, true) }

// Brief reads of what Encode wrote the sections that every version has: it is for
// who wants to know when transactions ended, of much WAL, and the result is not Detailed.
func Brief(b []byte) (*Index, error) { return decode(b, false) }

func decode(b []byte, detailed bool) (*Index, error) {
	if len(b) < 3 || string(b[:2]) != indexMagic {
		return nil, fmt.Errorf("WAL index: it does not begin as one")
	}
	r := &wire.Reader{B: b[3:]}
	x := &Index{Partial: b[2]&flagPartial != 0, Detailed: detailed && b[2]&flagDetailed != 0, Cut: b[2]&flagCut != 0}
	details := decoder{x: x}
	x.Segment = pg.Segment{Timeline: pg.TimelineID(r.U32()), Number: r.Uvarint()}
	x.First, x.Next, x.Last = pg.LSN(r.Uvarint()), pg.LSN(r.Uvarint()), pg.LSN(r.Uvarint())
	for r.Len() > 0 {
		tag := r.Uvarint()
		body := &wire.Reader{B: r.Bytes(r.Uvarint())}
		if r.Err() != nil {
			break
		}
		switch {
		case tag <= tagTablespaces:
			x.decodeSection(tag, body)
		case detailed:
			details.section(tag, body)
		default:
			body.B = nil
		}
		if err := body.Done(); err != nil {
			return nil, fmt.Errorf("WAL index: section %d: %w", tag, err)
		}
	}
	if err := r.Done(); err != nil {
		return nil, fmt.Errorf("WAL index: %w", err)
	}
	return x, nil
}

// entries reads n entries of at least size bytes each.
func entries[T any](r *wire.Reader, size int, entry func(*T, *deltas)) []T {
	n := r.Count(size)
	if n == 0 {
		return nil
	}
	out := make([]T, 0, n)
	var d deltas
	for range n {
		var v T
		entry(&v, &d)
		if r.Err() != nil {
			return nil
		}
		out = append(out, v)
	}
	return out
}

func (x *Index) decodeSection(tag uint64, r *wire.Reader) {
	switch tag {
	case tagTransactions:
		x.Transactions = entries(r, 7, func(t *Transaction, d *deltas) {
			t.Kind = walscan.XactKind(r.U8())
			t.Start = pg.LSN(undiff(r, &d.lsn))
			t.End = t.Start + pg.LSN(r.Uvarint())
			t.XID = pg.XID(undiff(r, &d.xid))
			t.Time = pg.Timestamp(undiff(r, &d.time))
			t.Subxacts = r.U32()
			for range r.Count(3) {
				t.Dropped = append(t.Dropped, pg.RelFileLocator{Spc: pg.Oid(r.U32()), DB: pg.Oid(r.U32()), Rel: pg.Oid(r.U32())})
			}
		})
	case tagRestorePoints:
		x.RestorePoints = entries(r, 3, func(p *RestorePoint, d *deltas) {
			p.Start = pg.LSN(undiff(r, &d.lsn))
			p.Time = pg.Timestamp(undiff(r, &d.time))
			p.Name = string(r.Bytes(r.Uvarint()))
		})
	case tagParameters:
		x.Parameters = entries(r, 8, func(p *Parameters, d *deltas) {
			p.Start = pg.LSN(undiff(r, &d.lsn))
			for _, v := range []*int{&p.MaxConnections, &p.MaxWorkerProcesses, &p.MaxWalSenders, &p.MaxPreparedXacts, &p.MaxLocksPerXact} {
				*v = int(r.Varint())
			}
			p.WalLevel = walscan.WalLevel(r.Varint())
			flags := r.U8()
			p.WalLogHints, p.TrackCommitTimestamp = flags&1 != 0, flags&2 != 0
		})
	case tagCheckpoints:
		x.Checkpoints = entries(r, 4, func(c *Checkpoint, d *deltas) {
			c.Start = pg.LSN(undiff(r, &d.lsn))
			c.Redo = pg.LSN(undiff(r, &d.end))
			c.Time = pg.Timestamp(undiff(r, &d.time))
			c.Shutdown = r.U8()&1 != 0
		})
	case tagTimelines:
		x.Timelines = entries(r, 4, func(c *TimelineChange, d *deltas) {
			c.Start = pg.LSN(undiff(r, &d.lsn))
			c.Timeline, c.Previous = pg.TimelineID(r.U32()), pg.TimelineID(r.U32())
			c.Time = pg.Timestamp(undiff(r, &d.time))
		})
	case tagBackupEnds:
		x.BackupEnds = entries(r, 2, func(e *BackupEnd, d *deltas) {
			e.Start = pg.LSN(undiff(r, &d.lsn))
			e.From = pg.LSN(undiff(r, &d.end))
		})
	case tagBytes:
		x.Bytes = entries(r, 3, func(n *RmgrBytes, _ *deltas) {
			n.Rmgr = walscan.RmgrID(r.U8())
			n.Records = r.Uvarint()
			n.Bytes = r.Uvarint()
		})
	case tagTablespaces:
		x.Tablespaces = entries(r, 3, func(t *Tablespace, d *deltas) {
			t.Start = pg.LSN(undiff(r, &d.lsn))
			t.Oid = pg.Oid(r.U32())
			t.Path = string(r.Bytes(r.Uvarint()))
		})
	default:
		r.B = nil // a section of a later version
	}
}
