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

	heapLock = 0x60

	heap2MultiInsert = 0x50
	heap2LockUpdated = 0x60

	heapDeleteIsSuper = 0x08

	heapVisibilityCleared    = 0x01 // of the only page, or of an update's old one
	heapVisibilityClearedNew = 0x02 // of an update's new page
)

// HeapOp decodes the records that insert, update and delete rows; ok is false
// for all others, also those that only lock, prune or freeze. It is quick enough
// to be asked of each record.
//
//	delete        xmax u32 │ offnum u16 │ infobits u8 │ flags u8
//	multi-insert  flags u8 │ – │ ntuples u16 │ …
func (r *Record) HeapOp() (op HeapOp, ok bool, err error) {
	op.Inserted, op.Updated, op.Deleted, op.Retracted, ok, err = r.HeapRows()
	if ok {
		op.Rel = r.Blocks[0].Rel
	}
	return op, ok, err
}

// HeapRows is HeapOp for who is in a hurry: the relation is that of Blocks[0].
func (r *Record) HeapRows() (inserted, updated, deleted, retracted int, ok bool, err error) {
	if r.Rmgr != RmgrHeap && r.Rmgr != RmgrHeap2 || len(r.Blocks) == 0 {
		return 0, 0, 0, 0, false, nil
	}
	need := 0
	switch kind := r.Info & heapOpMask; {
	case r.Rmgr == RmgrHeap2 && kind == heap2MultiInsert:
		if need = 4; len(r.Main) >= need {
			inserted = int(le.Uint16(r.Main[2:]))
		}
	case r.Rmgr == RmgrHeap2:
		return 0, 0, 0, 0, false, nil
	case kind == heapInsert:
		inserted = 1
	case kind == heapUpdate || kind == heapHotUpdate:
		updated = 1
	case kind == heapDelete:
		if need = 8; len(r.Main) >= need && r.Main[7]&heapDeleteIsSuper != 0 {
			retracted = 1
		} else {
			deleted = 1
		}
	default:
		return 0, 0, 0, 0, false, nil
	}
	if len(r.Main) < need {
		c := cursor{short: true}
		err = c.err(r, "heap")
	}
	return inserted, updated, deleted, retracted, true, err
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

// ClearsVisibility tells for which of the first two Blocks redo clears the bits of
// the visibility map as well: bit 0 is Blocks[0], bit 1 Blocks[1]. These pages of the
// map are not among Blocks. It is quick enough to be asked of each record.
//
//	insert, multi-insert  offnum u16 │ flags u8;  flags u8 │ …
//	delete, lock          xmax u32 │ offnum u16 │ infobits u8 │ flags u8
//	update                as delete; Blocks are the new page and, if another, the old
func (r *Record) ClearsVisibility() uint8 {
	if r.Rmgr != RmgrHeap && r.Rmgr != RmgrHeap2 || len(r.Blocks) == 0 {
		return 0
	}
	at := 7
	kind := r.Info & heapOpMask
	switch {
	case r.Rmgr == RmgrHeap2 && kind == heap2MultiInsert:
		at = 0
	case r.Rmgr == RmgrHeap2 && kind != heap2LockUpdated:
		return 0
	case r.Rmgr == RmgrHeap2:
	case kind == heapInsert:
		at = 2
	case kind != heapDelete && kind != heapUpdate && kind != heapHotUpdate && kind != heapLock:
		return 0
	}
	if at >= len(r.Main) {
		return 0
	}
	flags := r.Main[at]
	if r.Rmgr != RmgrHeap || kind != heapUpdate && kind != heapHotUpdate {
		return flags & heapVisibilityCleared
	}
	pages := flags & heapVisibilityClearedNew >> 1
	if flags&heapVisibilityCleared != 0 {
		pages |= 1 << min(len(r.Blocks)-1, 1)
	}
	return pages
}
