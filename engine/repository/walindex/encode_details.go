// SPDX-License-Identifier: Apache-2.0

package walindex

import (
	"encoding/binary"

	"github.com/kbcli/kbcli/engine/pg"
)

const (
	changeAtLeast = 1 << iota
	changeMore
	openPrepared
)

// The bits of a relation's rows say which counts follow.
const (
	hasInserted = 1 << iota
	hasUpdated
	hasDeleted
	rowBits = iota
)

const (
	runSeveral = 1
	madeByCopy = 1
)

// relations gives every relation that an index names a number.
type relations struct {
	cache [256]struct {
		rel pg.RelFileLocator
		id  uint32 // + 1
	}
	ids  map[pg.RelFileLocator]uint32
	list []pg.RelFileLocator
}

func (t *relations) id(rel pg.RelFileLocator) uint64 {
	c := &t.cache[(uint32(rel.Rel)*0x9E3779B1^uint32(rel.DB)*0x85EBCA6B)>>24]
	if c.id != 0 && c.rel == rel {
		return uint64(c.id - 1)
	}
	id, ok := t.ids[rel]
	if !ok {
		id = uint32(len(t.list))
		t.ids[rel] = id
		t.list = append(t.list, rel)
	}
	c.rel, c.id = rel, id+1
	return uint64(id)
}

func uvarints(b []byte, vs ...uint64) []byte {
	for _, v := range vs {
		b = binary.AppendUvarint(b, v)
	}
	return b
}

// encodeDetails appends the sections from tagRelations on.
func (x *Index) encodeDetails(b []byte) []byte {
	t := &relations{ids: map[pg.RelFileLocator]uint32{}}
	rest := t.blocks(nil, x.Blocks) // first: they are in order
	rest = t.changes(rest, x.Transactions)
	rest = section(rest, tagWhole, len(x.Whole), func(b []byte, i int, _ *deltas) []byte {
		return uvarints(b, uint64(x.Whole[i].Spc), uint64(x.Whole[i].DB))
	})
	rest = section(rest, tagCreations, len(x.Creations), func(b []byte, i int, d *deltas) []byte {
		c := &x.Creations[i]
		b = d.record(b, c.Start, c.XID)
		return append(binary.AppendUvarint(b, t.id(c.Rel)), byte(c.Fork))
	})
	rest = section(rest, tagTruncations, len(x.Truncations), func(b []byte, i int, d *deltas) []byte {
		c := &x.Truncations[i]
		b = d.record(b, c.Start, c.XID)
		return uvarints(b, t.id(c.Rel), uint64(c.Blocks), uint64(c.Flags))
	})
	rest = section(rest, tagMaps, len(x.Maps), func(b []byte, i int, d *deltas) []byte {
		c := &x.Maps[i]
		b = d.record(b, c.Start, c.XID)
		return uvarints(b, uint64(c.Spc), uint64(c.DB), uint64(c.Class))
	})
	rest = section(rest, tagDatabasesMade, len(x.DatabasesMade), func(b []byte, i int, d *deltas) []byte {
		c := &x.DatabasesMade[i]
		b = d.record(b, c.Start, c.XID)
		b = uvarints(b, uint64(c.Spc), uint64(c.DB))
		b = append(b, bits(c.FileCopy))
		return uvarints(b, uint64(c.SrcSpc), uint64(c.SrcDB))
	})
	rest = section(rest, tagDatabasesDropped, len(x.DatabasesDropped), func(b []byte, i int, d *deltas) []byte {
		c := &x.DatabasesDropped[i]
		b = d.record(b, c.Start, c.XID)
		return oids(binary.AppendUvarint(b, uint64(c.DB)), c.Spc)
	})
	rest = section(rest, tagTablespacesDropped, len(x.TablespacesDropped), func(b []byte, i int, d *deltas) []byte {
		c := &x.TablespacesDropped[i]
		return binary.AppendUvarint(d.record(b, c.Start, c.XID), uint64(c.Oid))
	})
	rest = section(rest, tagTruncates, len(x.Truncates), func(b []byte, i int, d *deltas) []byte {
		c := &x.Truncates[i]
		b = d.record(b, c.Start, c.XID)
		return oids(binary.AppendUvarint(b, uint64(c.DB)), c.Rels)
	})
	rest = t.open(rest, &x.Open)
	rest = section(rest, tagOpaque, len(x.Opaque), func(b []byte, i int, d *deltas) []byte {
		return append(diff(b, &d.lsn, int64(x.Opaque[i].Start)), byte(x.Opaque[i].Rmgr))
	})
	if x.Overwritten != 0 {
		rest = tagged(rest, tagOverwritten, binary.AppendUvarint(nil, uint64(x.Overwritten)))
	}
	var last [3]int64
	b = section(b, tagRelations, len(t.list), func(b []byte, i int, _ *deltas) []byte {
		r := t.list[i]
		b = diff(b, &last[0], int64(r.Spc))
		b = diff(b, &last[1], int64(r.DB))
		return diff(b, &last[2], int64(r.Rel))
	})
	return append(b, rest...)
}

func (d *deltas) record(b []byte, start pg.LSN, xid pg.XID) []byte {
	return diff(diff(b, &d.lsn, int64(start)), &d.xid, int64(xid))
}

func oids(b []byte, list []pg.Oid) []byte {
	b = binary.AppendUvarint(b, uint64(len(list)))
	for _, o := range list {
		b = binary.AppendUvarint(b, uint64(o))
	}
	return b
}

func (t *relations) rows(b []byte, rows []RelRows) []byte {
	b = binary.AppendUvarint(b, uint64(len(rows)))
	for i := range rows {
		r := &rows[i]
		which := bits(r.Inserted != 0, r.Updated != 0, r.Deleted != 0)
		b = binary.AppendUvarint(b, t.id(r.Rel)<<rowBits|uint64(which))
		for _, n := range [...]uint64{r.Inserted, r.Updated, r.Deleted} {
			if n != 0 {
				b = binary.AppendUvarint(b, n)
			}
		}
	}
	return b
}

func counts(b []byte, c RowCounts) []byte { return uvarints(b, c.Inserted, c.Updated, c.Deleted) }

// change writes c; prepared is a flag of those that are open.
func (t *relations) change(b []byte, c *Changes, prepared bool) []byte {
	more := c.More != RowCounts{}
	b = append(b, bits(c.AtLeast, more, prepared))
	b = t.rows(b, c.Rows)
	if more {
		b = counts(b, c.More)
	}
	return oids(b, c.Catalogs)
}

// changes writes what transactions changed, each different one once, and then by its
// number for every transaction.
func (t *relations) changes(b []byte, txs []Transaction) []byte {
	ids := map[*Changes]uint64{}
	var list []*Changes
	var last *Changes
	id := uint64(0)
	refs := make([]byte, 0, len(txs)+16)
	for i := range txs {
		c := txs[i].Changes
		if c == nil {
			refs = append(refs, 0)
			continue
		}
		if c != last {
			last = c
			if id = ids[c]; id == 0 {
				list = append(list, c)
				id = uint64(len(list))
				ids[c] = id
			}
		}
		refs = binary.AppendUvarint(refs, id)
	}
	if len(list) == 0 {
		return b
	}
	b = section(b, tagChanges, len(list), func(b []byte, i int, _ *deltas) []byte {
		return t.change(b, list[i], false)
	})
	return tagged(b, tagChanged, refs)
}

func (t *relations) blocks(b []byte, forks []ForkBlocks) []byte {
	return section(b, tagBlocks, len(forks), func(b []byte, i int, _ *deltas) []byte {
		f := &forks[i]
		b = append(binary.AppendUvarint(b, t.id(f.Rel)), byte(f.Fork))
		b = uvarints(b, uint64(f.From+1), uint64(len(f.Runs)))
		next := uint32(0)
		for _, r := range f.Runs {
			gap := uint64(r.Block-next) << 1
			if r.Count == 1 {
				b = binary.AppendUvarint(b, gap)
			} else {
				b = uvarints(b, gap|runSeveral, uint64(r.Count))
			}
			next = r.Block + r.Count
		}
		return b
	})
}

func (t *relations) open(b []byte, o *Open) []byte {
	if o.Since == 0 && o.Floor == 0 && len(o.Xacts) == 0 && len(o.Classes) == 0 {
		return b
	}
	body := uvarints(nil, uint64(o.Since), uint64(o.Floor), uint64(len(o.Xacts)))
	last := int64(0)
	for i := range o.Xacts {
		x := &o.Xacts[i]
		body = diff(body, &last, int64(x.XID))
		body = binary.AppendUvarint(body, uint64(x.Top))
		body = t.change(body, &x.Changes, x.Prepared)
		body = t.rows(body, x.Folded)
		body = counts(body, x.FoldedMore)
		body = binary.AppendUvarint(body, uint64(x.FoldedTo))
	}
	body = binary.AppendUvarint(body, uint64(len(o.Classes)))
	for _, c := range o.Classes {
		body = uvarints(body, uint64(c.DB), uint64(c.File))
	}
	return tagged(b, tagOpen, body)
}
