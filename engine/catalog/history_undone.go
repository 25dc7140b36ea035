// SPDX-License-Identifier: Apache-2.0

package catalog

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"slices"

	"github.com/kbcli/kbcli/engine/pg"
	"github.com/kbcli/kbcli/engine/pg/walscan"
	"github.com/kbcli/kbcli/engine/repository"
	"github.com/kbcli/kbcli/engine/repository/walindex"
)

// undoneReach is how many segments are read at most to find what a transaction that was
// rolled back had locked.
const undoneReach = 16

// undone tells of relations that a transaction dropped or truncated that was rolled back
// then. No file went, so that pg_class tells what was done, and the locks to which: both
// lock what they are about against everybody, which standbys are told. Without any lock of
// a relation that has a name it is left out.
func (x *xactEvents) undone(ctx context.Context) error {
	for db, class := range x.class {
		drop := class.Deleted > class.Inserted
		truncate := class.Deleted+class.Inserted == 0 && class.Updated > 0 && slices.ContainsFunc(x.made, func(m walindex.Creation) bool { return m.Rel.DB == db })
		if !drop && !truncate {
			continue
		}
		locked, err := x.locked(ctx, x.tx.XID, x.tx.Start)
		if err != nil {
			return err
		}
		var tables, indexes []*RelationName
		for _, k := range locked {
			r := x.names.relation(db, k.oid, x.tx.Start)
			switch {
			case k.db != db || r == nil || r.ours():
			case isTable(r.Kind):
				tables = append(tables, r)
			case r.Kind == 'i':
				indexes = append(indexes, r)
			}
		}
		kind, what := EventDrop, "DROP"
		switch {
		case truncate:
			kind, what = EventTruncate, "TRUNCATE"
			tables = slices.DeleteFunc(tables, func(r *RelationName) bool {
				return !slices.ContainsFunc(x.made, func(m walindex.Creation) bool { return m.Rel.Spc == r.Spc }) // it was to move
			})
		case class.Deleted == uint64(len(indexes)):
			tables = indexes // whose table is locked too
		}
		for _, r := range tables {
			e := x.event(kind, what)
			if drop {
				e.What += " " + object(r.Kind)
			}
			if isTable(r.Kind) && r.Rows > 0 {
				e.Rows, e.About = r.Rows, true
			}
			x.add(x.of(e, db, r))
		}
	}
	return nil
}

// locked lists what a transaction that ended at lsn had locked against everybody. What
// cannot be read is left out.
func (h *historian) locked(ctx context.Context, xid pg.XID, lsn pg.LSN) ([]relKey, error) {
	size := h.c.inv.size
	last := size.Number(lsn)
	from := last
	for from > 0 && last-from < undoneReach && h.c.has(h.p.Segment(from-1)) {
		x, err := h.c.Index(ctx, h.p, from-1, size.End(from-1))
		if unreadable(err) {
			break
		}
		if err != nil {
			return nil, err
		}
		from--
		// it locks before it changes the first row
		if !slices.ContainsFunc(x.Open.Xacts, func(o walindex.OpenXact) bool { return o.XID == xid }) {
			break
		}
	}
	var out []relKey
	err := h.c.walk(ctx, h.p, from, h.c.endOf(h.p, last), func(r *walscan.Record) error {
		if r.Start >= lsn {
			return errEnough
		}
		for _, k := range locks(r, xid) {
			if !slices.Contains(out, k) {
				out = append(out, k)
			}
		}
		return nil
	})
	slices.SortFunc(out, func(a, b relKey) int { return cmp.Or(cmp.Compare(a.db, b.db), cmp.Compare(a.oid, b.oid)) })
	if unreadable(err) {
		err = nil
	}
	return out, err
}

// unreadable tells that what is stored cannot be read here, or is not there.
func unreadable(err error) bool {
	var missing *repository.MissingWALError
	return isDamage(err) || errors.As(err, &missing) || errors.Is(err, repository.ErrSealed)
}

// locks lists what a record says that xid locked (xl_standby_locks, storage/standbydefs.h).
//
//	n u32 │ n × { xid u32, database u32, relation u32 }
func locks(r *walscan.Record, xid pg.XID) (out []relKey) {
	const size = 12
	if r.Rmgr != walscan.RmgrStandby || r.Op()&0xF0 != 0 || len(r.Main) < 4 {
		return nil
	}
	for b := r.Main[4:]; len(b) >= size; b = b[size:] {
		if pg.XID(binary.LittleEndian.Uint32(b)) == xid {
			out = append(out, relKey{pg.Oid(binary.LittleEndian.Uint32(b[4:])), pg.Oid(binary.LittleEndian.Uint32(b[8:]))})
		}
	}
	return out
}
