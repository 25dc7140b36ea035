// SPDX-License-Identifier: Apache-2.0

package walindex

import (
	"github.com/kbcli/kbcli/engine/pg"
	"github.com/kbcli/kbcli/engine/pg/walscan"
	"github.com/kbcli/kbcli/internal/wire"
)

// decoder reads the sections from tagRelations on. Those it refers to come first.
type decoder struct {
	x       *Index
	rels    []pg.RelFileLocator
	changes []Changes
}

func (d *decoder) rel(r *wire.Reader, id uint64) pg.RelFileLocator {
	if id >= uint64(len(d.rels)) {
		r.Fail("relation is not in the table of relations")
		return pg.RelFileLocator{}
	}
	return d.rels[id]
}

func (d *deltas) readRecord(r *wire.Reader, start *pg.LSN, xid *pg.XID) {
	*start = pg.LSN(undiff(r, &d.lsn))
	*xid = pg.XID(undiff(r, &d.xid))
}

func readOids(r *wire.Reader) []pg.Oid {
	n := r.Count(1)
	if n == 0 {
		return nil
	}
	out := make([]pg.Oid, n)
	for i := range out {
		out[i] = pg.Oid(r.U32())
	}
	return out
}

func (d *decoder) rows(r *wire.Reader) []RelRows {
	n := r.Count(1)
	if n == 0 {
		return nil
	}
	out := make([]RelRows, n)
	for i := range out {
		v := r.Uvarint()
		out[i].Rel = d.rel(r, v>>rowBits)
		if v&hasInserted != 0 {
			out[i].Inserted = r.Uvarint()
		}
		if v&hasUpdated != 0 {
			out[i].Updated = r.Uvarint()
		}
		if v&hasDeleted != 0 {
			out[i].Deleted = r.Uvarint()
		}
		if r.Err() != nil {
			return nil
		}
	}
	return out
}

func readCounts(r *wire.Reader) RowCounts {
	return RowCounts{r.Uvarint(), r.Uvarint(), r.Uvarint()}
}

func (d *decoder) change(r *wire.Reader, c *Changes) (prepared bool) {
	flags := r.U8()
	c.AtLeast = flags&changeAtLeast != 0
	c.Rows = d.rows(r)
	if flags&changeMore != 0 {
		c.More = readCounts(r)
	}
	c.Catalogs = readOids(r)
	return flags&openPrepared != 0
}

func (d *decoder) section(tag uint64, r *wire.Reader) {
	x := d.x
	switch tag {
	case tagRelations:
		var last [3]int64
		d.rels = entries(r, 3, func(v *pg.RelFileLocator, _ *deltas) {
			v.Spc, v.DB, v.Rel = pg.Oid(undiff(r, &last[0])), pg.Oid(undiff(r, &last[1])), pg.Oid(undiff(r, &last[2]))
		})
	case tagChanges:
		d.changes = entries(r, 3, func(c *Changes, _ *deltas) { d.change(r, c) })
	case tagChanged:
		d.changed(r)
	case tagBlocks:
		x.Blocks = entries(r, 4, func(f *ForkBlocks, _ *deltas) { d.blocks(r, f) })
	case tagWhole:
		x.Whole = entries(r, 2, func(v *Database, _ *deltas) { v.Spc, v.DB = pg.Oid(r.U32()), pg.Oid(r.U32()) })
	case tagOpen:
		d.open(r)
	case tagOpaque:
		x.Opaque = entries(r, 2, func(v *Opaque, l *deltas) {
			v.Start = pg.LSN(undiff(r, &l.lsn))
			v.Rmgr = walscan.RmgrID(r.U8())
		})
	case tagOverwritten:
		x.Overwritten = pg.LSN(r.Uvarint())
	default:
		d.files(tag, r)
	}
}

// files reads the lists of files made, cut and removed.
func (d *decoder) files(tag uint64, r *wire.Reader) {
	x := d.x
	switch tag {
	case tagCreations:
		x.Creations = entries(r, 4, func(v *Creation, l *deltas) {
			l.readRecord(r, &v.Start, &v.XID)
			v.Rel, v.Fork = d.rel(r, r.Uvarint()), pg.ForkNumber(r.U8())
		})
	case tagTruncations:
		x.Truncations = entries(r, 5, func(v *Truncation, l *deltas) {
			l.readRecord(r, &v.Start, &v.XID)
			v.Rel, v.Blocks, v.Flags = d.rel(r, r.Uvarint()), r.U32(), r.U32()
		})
	case tagMaps:
		x.Maps = entries(r, 5, func(v *MapChange, l *deltas) {
			l.readRecord(r, &v.Start, &v.XID)
			v.Spc, v.DB, v.Class = pg.Oid(r.U32()), pg.Oid(r.U32()), pg.Oid(r.U32())
		})
	case tagDatabasesMade:
		x.DatabasesMade = entries(r, 7, func(v *DatabaseCreation, l *deltas) {
			l.readRecord(r, &v.Start, &v.XID)
			v.Spc, v.DB = pg.Oid(r.U32()), pg.Oid(r.U32())
			v.FileCopy = r.U8()&madeByCopy != 0
			v.SrcSpc, v.SrcDB = pg.Oid(r.U32()), pg.Oid(r.U32())
		})
	case tagDatabasesDropped:
		x.DatabasesDropped = entries(r, 4, func(v *DatabaseDrop, l *deltas) {
			l.readRecord(r, &v.Start, &v.XID)
			v.DB, v.Spc = pg.Oid(r.U32()), readOids(r)
		})
	case tagTablespacesDropped:
		x.TablespacesDropped = entries(r, 3, func(v *TablespaceDrop, l *deltas) {
			l.readRecord(r, &v.Start, &v.XID)
			v.Oid = pg.Oid(r.U32())
		})
	case tagTruncates:
		x.Truncates = entries(r, 4, func(v *Truncate, l *deltas) {
			l.readRecord(r, &v.Start, &v.XID)
			v.DB, v.Rels = pg.Oid(r.U32()), readOids(r)
		})
	default:
		r.B = nil // a section of a later version
	}
}

func (d *decoder) changed(r *wire.Reader) {
	for i := range d.x.Transactions {
		n := r.Uvarint()
		if n > uint64(len(d.changes)) {
			r.Fail("changes are not in the list of changes")
		}
		if r.Err() != nil {
			return
		}
		if n > 0 {
			d.x.Transactions[i].Changes = &d.changes[n-1]
		}
	}
}

func (d *decoder) blocks(r *wire.Reader, f *ForkBlocks) {
	f.Rel, f.Fork = d.rel(r, r.Uvarint()), pg.ForkNumber(r.U8())
	f.From = r.U32() - 1
	n := r.Count(1)
	if n == 0 {
		return
	}
	f.Runs = make([]BlockRun, n)
	next := uint32(0)
	for i := range f.Runs {
		v := r.Uvarint()
		if v>>1 > NoBlock {
			r.Fail("block number is too large")
		}
		run := &f.Runs[i]
		run.Block, run.Count = next+uint32(v>>1), 1
		if v&runSeveral != 0 {
			run.Count = r.U32()
		}
		if r.Err() != nil {
			f.Runs = nil
			return
		}
		next = run.Block + run.Count
	}
}

func (d *decoder) open(r *wire.Reader) {
	o := &d.x.Open
	o.Since, o.Floor = pg.LSN(r.Uvarint()), pg.XID(r.U32())
	var last int64
	o.Xacts = entries(r, 10, func(x *OpenXact, _ *deltas) {
		x.XID, x.Top = pg.XID(undiff(r, &last)), pg.XID(r.U32())
		x.Prepared = d.change(r, &x.Changes)
		x.Folded, x.FoldedMore, x.FoldedTo = d.rows(r), readCounts(r), pg.XID(r.U32())
	})
	o.Classes = entries(r, 2, func(c *ClassFile, _ *deltas) { c.DB, c.File = pg.Oid(r.U32()), pg.Oid(r.U32()) })
}
