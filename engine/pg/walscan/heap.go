// SPDX-License-Identifier: Apache-2.0

package walscan

import "github.com/kbcli/kbcli/engine/pg"

// HeapOp is what a record does to the rows of one table. Its catalogue and
// TOAST tables are tables like others.
type HeapOp struct {
	Rel      pg.RelFileLocator
	Inserted int
	Updated  int
	// Deleted counts rows that are gone. A row moved to another partition is
	// deleted here and inserted there.
	Deleted int
	// Retracted counts rows inserted on trial by INSERT … ON CONFLICT, and taken
	// back because there was a conflict after all: to subtract from those inserted.
	Retracted int
}

// Operations of the resource managers Heap and Heap2 (access/heapam_xlog.h).
const (
	heapOpMask = 0x70

	heapInsert    = 0x00
	heapDelete    = 0x10
	heapUpdate    = 0x20
	heapTruncate  = 0x30
	heapHotUpdate = 0x40

	heap2MultiInsert = 0x50

	heapDeleteIsSuper = 0x08
)

// HeapOp decodes the records that insert, update and delete rows; ok is false
// for all others, also those that only lock, prune or freeze. It is quick enough
// to be asked of each record.
//
//	delete        xmax u32 │ offnum u16 │ infobits u8 │ flags u8
//	multi-insert  flags u8 │ – │ ntuples u16 │ …
func (r *Record) HeapOp() (op HeapOp, ok bool, err error) {
	if r.Rmgr != RmgrHeap && r.Rmgr != RmgrHeap2 || len(r.Blocks) == 0 {
		return HeapOp{}, false, nil
	}
	op.Rel = r.Blocks[0].Rel
	c := cursor{b: r.Main}
	switch kind := r.Info & heapOpMask; {
	case r.Rmgr == RmgrHeap2 && kind == heap2MultiInsert:
		c.take(2)
		op.Inserted = int(c.u16())
	case r.Rmgr == RmgrHeap2:
		return HeapOp{}, false, nil
	case kind == heapInsert:
		op.Inserted = 1
	case kind == heapUpdate || kind == heapHotUpdate:
		op.Updated = 1
	case kind == heapDelete:
		c.take(7)
		if c.u8()&heapDeleteIsSuper != 0 {
			op.Retracted = 1
		} else {
			op.Deleted = 1
		}
	default:
		return HeapOp{}, false, nil
	}
	return op, true, c.err(r, "heap")
}

// HeapTruncate is a TRUNCATE as logical decoding sees it: written only with
// wal_level logical, beside the records that make the new files.
type HeapTruncate struct {
	DB   pg.Oid
	Rels []pg.Oid // object identifiers, not file numbers
}

// HeapTruncate decodes the record of a TRUNCATE.
//
//	database u32 │ nrelids u32 │ flags u8 │ – │ 12 relids
func (r *Record) HeapTruncate() (HeapTruncate, bool, error) {
	if r.Rmgr != RmgrHeap || r.Info&heapOpMask != heapTruncate {
		return HeapTruncate{}, false, nil
	}
	c := cursor{b: r.Main}
	h := HeapTruncate{DB: c.oid()}
	n := c.u32()
	c.take(4)
	h.Rels = c.oids(n)
	return h, true, c.err(r, "heap truncate")
}
