// SPDX-License-Identifier: Apache-2.0

package walindex

import (
	"encoding/binary"
	"fmt"

	"github.com/kbcli/kbcli/engine/pg"
	"github.com/kbcli/kbcli/engine/pg/walscan"
	"github.com/kbcli/kbcli/internal/wire"
)

const (
	indexMagic  = "X1"
	flagPartial = 1
)

const (
	tagTransactions = iota + 1
	tagRestorePoints
	tagParameters
	tagCheckpoints
	tagTimelines
	tagBackupEnds
	tagBytes
	tagTablespaces
)

// deltas writes or reads numbers as differences to the one before of their kind.
type deltas struct{ lsn, end, xid, time int64 }

func diff(b []byte, last *int64, v int64) []byte {
	b = binary.AppendVarint(b, v-*last)
	*last = v
	return b
}

func undiff(r *wire.Reader, last *int64) int64 {
	*last += r.Varint()
	return *last
}

// Encode writes the index as doc.go draws it.
func (x *Index) Encode() []byte {
	b := []byte(indexMagic)
	var flags byte
	if x.Partial {
		flags |= flagPartial
	}
	b = append(b, flags)
	for _, v := range []uint64{uint64(x.Segment.Timeline), x.Segment.Number, uint64(x.First), uint64(x.Next), uint64(x.Last)} {
		b = binary.AppendUvarint(b, v)
	}
	b = section(b, tagTransactions, len(x.Transactions), func(b []byte, i int, d *deltas) []byte {
		t := &x.Transactions[i]
		b = append(b, byte(t.Kind))
		b = diff(b, &d.lsn, int64(t.Start))
		b = binary.AppendUvarint(b, uint64(t.End-t.Start))
		b = diff(b, &d.xid, int64(t.XID))
		b = diff(b, &d.time, int64(t.Time))
		b = binary.AppendUvarint(b, uint64(t.Subxacts))
		b = binary.AppendUvarint(b, uint64(len(t.Dropped)))
		for _, r := range t.Dropped {
			for _, v := range []pg.Oid{r.Spc, r.DB, r.Rel} {
				b = binary.AppendUvarint(b, uint64(v))
			}
		}
		return b
	})
	b = section(b, tagRestorePoints, len(x.RestorePoints), func(b []byte, i int, d *deltas) []byte {
		p := &x.RestorePoints[i]
		b = diff(b, &d.lsn, int64(p.Start))
		b = diff(b, &d.time, int64(p.Time))
		b = binary.AppendUvarint(b, uint64(len(p.Name)))
		return append(b, p.Name...)
	})
	b = section(b, tagParameters, len(x.Parameters), func(b []byte, i int, d *deltas) []byte {
		p := &x.Parameters[i]
		b = diff(b, &d.lsn, int64(p.Start))
		for _, v := range []int{p.MaxConnections, p.MaxWorkerProcesses, p.MaxWalSenders, p.MaxPreparedXacts, p.MaxLocksPerXact, int(p.WalLevel)} {
			b = binary.AppendVarint(b, int64(v))
		}
		return append(b, bits(p.WalLogHints, p.TrackCommitTimestamp))
	})
	b = section(b, tagCheckpoints, len(x.Checkpoints), func(b []byte, i int, d *deltas) []byte {
		c := &x.Checkpoints[i]
		b = diff(b, &d.lsn, int64(c.Start))
		b = diff(b, &d.end, int64(c.Redo))
		b = diff(b, &d.time, int64(c.Time))
		return append(b, bits(c.Shutdown))
	})
	b = section(b, tagTimelines, len(x.Timelines), func(b []byte, i int, d *deltas) []byte {
		c := &x.Timelines[i]
		b = diff(b, &d.lsn, int64(c.Start))
		b = binary.AppendUvarint(b, uint64(c.Timeline))
		b = binary.AppendUvarint(b, uint64(c.Previous))
		return diff(b, &d.time, int64(c.Time))
	})
	b = section(b, tagBackupEnds, len(x.BackupEnds), func(b []byte, i int, d *deltas) []byte {
		b = diff(b, &d.lsn, int64(x.BackupEnds[i].Start))
		return diff(b, &d.end, int64(x.BackupEnds[i].From))
	})
	b = section(b, tagTablespaces, len(x.Tablespaces), func(b []byte, i int, d *deltas) []byte {
		t := &x.Tablespaces[i]
		b = diff(b, &d.lsn, int64(t.Start))
		b = binary.AppendUvarint(b, uint64(t.Oid))
		b = binary.AppendUvarint(b, uint64(len(t.Path)))
		return append(b, t.Path...)
	})
	return section(b, tagBytes, len(x.Bytes), func(b []byte, i int, _ *deltas) []byte {
		n := &x.Bytes[i]
		b = append(b, byte(n.Rmgr))
		b = binary.AppendUvarint(b, n.Records)
		return binary.AppendUvarint(b, n.Bytes)
	})
}

func section(b []byte, tag uint64, n int, entry func([]byte, int, *deltas) []byte) []byte {
	if n == 0 {
		return b
	}
	body := binary.AppendUvarint(nil, uint64(n))
	var d deltas
	for i := range n {
		body = entry(body, i, &d)
	}
	b = binary.AppendUvarint(b, tag)
	b = binary.AppendUvarint(b, uint64(len(body)))
	return append(b, body...)
}

func bits(flags ...bool) byte {
	var b byte
	for i, f := range flags {
		if f {
			b |= 1 << i
		}
	}
	return b
}

// Decode reads what Encode wrote.
func Decode(b []byte) (*Index, error) {
	if len(b) < 3 || string(b[:2]) != indexMagic {
		return nil, fmt.Errorf("WAL index: it does not begin as one")
	}
	r := &wire.Reader{B: b[3:]}
	x := &Index{Partial: b[2]&flagPartial != 0}
	x.Segment = pg.Segment{Timeline: pg.TimelineID(r.U32()), Number: r.Uvarint()}
	x.First, x.Next, x.Last = pg.LSN(r.Uvarint()), pg.LSN(r.Uvarint()), pg.LSN(r.Uvarint())
	for r.Len() > 0 {
		tag := r.Uvarint()
		body := &wire.Reader{B: r.Bytes(r.Uvarint())}
		if r.Err() != nil {
			break
		}
		x.decodeSection(tag, body)
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
