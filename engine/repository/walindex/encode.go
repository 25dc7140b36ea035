// SPDX-License-Identifier: Apache-2.0

package walindex

import (
	"encoding/binary"

	"github.com/kbcli/kbcli/engine/pg"
)

const (
	indexMagic = "X1"

	flagPartial  = 1
	flagDetailed = 2
	flagCut      = 4
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
	tagRelations
	tagChanges
	tagChanged
	tagBlocks
	tagWhole
	tagCreations
	tagTruncations
	tagMaps
	tagDatabasesMade
	tagDatabasesDropped
	tagTablespacesDropped
	tagTruncates
	tagOpen
	tagOpaque
	tagOverwritten
)

// deltas writes or reads numbers as differences to the one before of their kind.
type deltas struct{ lsn, end, xid, time int64 }

func diff(b []byte, last *int64, v int64) []byte {
	b = binary.AppendVarint(b, v-*last)
	*last = v
	return b
}

// Encode writes the index as doc.go draws it.
func (x *Index) Encode() []byte {
	b := []byte(indexMagic)
	b = append(b, bits(x.Partial, x.Detailed, x.Cut))
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
	b = section(b, tagBytes, len(x.Bytes), func(b []byte, i int, _ *deltas) []byte {
		n := &x.Bytes[i]
		b = append(b, byte(n.Rmgr))
		b = binary.AppendUvarint(b, n.Records)
		return binary.AppendUvarint(b, n.Bytes)
	})
	return x.encodeDetails(b)
}

func section(b []byte, tag uint64, n int, entry func([]byte, int, *deltas) []byte) []byte {
	if n == 0 {
		return b
	}
	body := binary.AppendUvarint(make([]byte, 0, 16*n+16), uint64(n))
	var d deltas
	for i := range n {
		body = entry(body, i, &d)
	}
	return tagged(b, tag, body)
}

func tagged(b []byte, tag uint64, body []byte) []byte {
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
