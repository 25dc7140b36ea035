// SPDX-License-Identifier: Apache-2.0

package catalog

import (
	"context"
	"fmt"
	"slices"
	"strconv"

	"github.com/kbcli/kbcli/engine/pg"
	"github.com/kbcli/kbcli/engine/repository/walindex"
)

// The numbers that PostgreSQL keeps for itself: relations and files below are of
// catalogues, and pg_class is always this one (access/transam.h, pg_class.h).
const (
	firstNormalOid = 16384
	classOid       = 1259
)

// xactEvents are the events of one transaction while they are made.
type xactEvents struct {
	*historian
	tx       *walindex.Transaction
	made     []walindex.Creation
	trunc    []relKey
	unlogged []relKey
	class    map[pg.Oid]walindex.RowCounts // what it did to pg_class, by database
	rewrote  map[relKey]bool               // files with the rows of files that went
	renewed  map[relKey]bool               // relations that have them, by oid
}

// transaction makes the events of one that ended.
func (h *historian) transaction(ctx context.Context, tx *walindex.Transaction) error {
	x := &xactEvents{historian: h, tx: tx, made: claim(h.made, tx), trunc: claim(h.truncated, tx), unlogged: claim(h.unlogged, tx), class: map[pg.Oid]walindex.RowCounts{}, rewrote: map[relKey]bool{}, renewed: map[relKey]bool{}}
	d := h.databases[tx.XID]
	if d == nil && tx.Changes == nil && len(tx.Dropped) == 0 && len(x.made) == 0 {
		return nil
	}
	delete(h.databases, tx.XID)
	if err := x.database(ctx, d); err != nil {
		return err
	}
	if tx.Changes != nil {
		for _, r := range tx.Changes.Rows {
			if r.Rel.Rel == x.classFile(r.Rel.DB) {
				x.class[r.Rel.DB] = r.RowCounts
			}
		}
	}
	if tx.Kind.Committed() {
		x.adopt()
		x.dropped()
		x.created(d)
	} else if x.q.Undone {
		if err := x.undone(ctx); err != nil {
			return err
		}
	}
	x.rows()
	return nil
}

// adopt takes files that were made before their transaction had a number, as CREATE INDEX
// does: it is the next that commits a new relation there.
func (x *xactEvents) adopt() {
	x.historian.made[0] = slices.DeleteFunc(x.historian.made[0], func(m walindex.Creation) bool {
		mine := x.class[m.Rel.DB].Inserted > 0
		if mine {
			x.made = append(x.made, m)
		}
		return mine
	})
}

// event is one of the transaction, without what it is about.
func (x *xactEvents) event(kind EventKind, what string) Event {
	return Event{LSN: x.tx.Start, Time: x.tx.Time.Time(), XID: x.tx.XID, Kind: kind, What: what, Rows: -1, RolledBack: !x.tx.Kind.Committed()}
}

// of says which relation an event is about.
func (x *xactEvents) of(e Event, db pg.Oid, r *RelationName) Event {
	e.Database = x.databaseName(db)
	e.Schema, e.Table, e.Object = r.Schema, r.Name, r.Kind
	return e
}

func (x *xactEvents) databaseName(db pg.Oid) string {
	return x.historian.databaseName(db, x.tx.Start)
}

// databaseName is what a database is called, or its number.
func (h *historian) databaseName(db pg.Oid, lsn pg.LSN) string {
	if name := h.names.database(db, lsn); name != "" {
		return name
	}
	if db == 0 {
		return ""
	}
	return strconv.FormatUint(uint64(db), 10)
}

// classFile is the file of a database's pg_class; it has its own number until it is rewritten.
func (x *xactEvents) classFile(db pg.Oid) pg.Oid {
	if r := x.names.relation(db, classOid, x.tx.Start); r != nil && r.File != 0 {
		return r.File
	}
	return classOid
}

func (x *xactEvents) database(ctx context.Context, d *databaseChange) error {
	if d == nil {
		return nil
	}
	for _, db := range d.made {
		if db < firstNormalOid {
			continue // by initdb
		}
		e := x.event(EventCreateDatabase, "CREATE DATABASE")
		e.Database = x.databaseName(db)
		x.add(e)
	}
	for _, db := range d.dropped {
		// its files go before the end of the transaction, and before they go nobody can
		// connect to it any more
		e := x.event(EventDropDatabase, "DROP DATABASE")
		e.RolledBack = false
		var err error
		if e.LSN, err = x.dropStart(ctx, x.tx.XID, d.start); err != nil && !isDamage(err) {
			return err
		}
		e.Database, e.at = x.databaseName(db), x.tx.Start
		x.add(e)
	}
	return nil
}

func isTable(kind byte) bool { return kind == 'r' || kind == 'm' || kind == 'p' }

// ours tells that a relation is PostgreSQL's own.
func (r *RelationName) ours() bool {
	return r.Schema == "pg_catalog" || r.Schema == "pg_toast" || r.Schema == "information_schema" || r.Oid < firstNormalOid
}

// dropped tells what became of the relations whose files went.
func (x *xactEvents) dropped() {
	type gone struct {
		db pg.Oid
		*RelationName
	}
	var known []gone
	var unknown []pg.RelFileLocator
	all := map[relKey]bool{}
	for _, f := range x.tx.Dropped {
		if r := x.names.file(f, x.tx.Start); r != nil {
			known = append(known, gone{f.DB, r})
			all[relKey{f.DB, r.Oid}] = true
		} else if f.Rel >= firstNormalOid && !slices.ContainsFunc(x.made, func(m walindex.Creation) bool { return m.Rel == f }) {
			unknown = append(unknown, f)
		}
	}
	for _, g := range known {
		if g.ours() || g.Kind == 't' || g.Owner != 0 && all[relKey{g.db, g.Owner}] {
			x.rewritten(g.db, g.RelationName)
			continue
		}
		if e, ok := x.judge(g.db, g.RelationName); ok {
			if isTable(g.Kind) && g.Rows > 0 && (e.Kind == EventDrop || e.Kind == EventTruncate) {
				e.Rows, e.About = g.Rows, true
			}
			x.add(x.of(e, g.db, g.RelationName))
		}
	}
	if len(unknown) == 0 || x.emptied(unknown[0].DB) {
		return
	}
	slices.SortFunc(unknown, func(a, b pg.RelFileLocator) int { return int(int64(a.Rel) - int64(b.Rel)) })
	first := unknown[0]
	e := x.event(EventDrop, "DROP TABLE or TRUNCATE")
	if c, ok := x.class[first.DB]; ok && c.Deleted == 0 {
		e.Kind, e.What = EventTruncate, "TRUNCATE"
	} else if len(x.made) == 0 {
		e.What = "DROP TABLE"
	}
	if len(unknown) > 1 {
		e.What += fmt.Sprintf(" (%d relation files)", len(unknown))
	}
	e.Database, e.Table = x.databaseName(first.DB), first.String()
	x.add(e)
}

// emptied tells of tables that were made after names were stored and have had names only
// since they were truncated, and whether there are such: no row of pg_class came or went.
func (x *xactEvents) emptied(db pg.Oid) (found bool) {
	if class, ok := x.class[db]; !ok || class.Inserted > 0 || class.Deleted > 0 {
		return false
	}
	for _, m := range x.made {
		if all := x.names.files[relKey{db, m.Rel.Rel}]; m.Rel.DB == db && len(all) > 0 && isTable(all[0].Kind) && !all[0].ours() {
			x.add(x.of(x.event(EventTruncate, "TRUNCATE"), db, all[0].RelationName))
			found = true
		}
	}
	return found
}

// rewritten notes the file that has the rows of one that went.
func (x *xactEvents) rewritten(db pg.Oid, r *RelationName) {
	if now, gone, known := x.names.became(db, r); known && !gone {
		x.renew(db, now.RelationName)
	}
}

func (x *xactEvents) renew(db pg.Oid, now *RelationName) {
	x.rewrote[relKey{db, now.File}], x.renewed[relKey{db, now.Oid}] = true, true
}

// judge tells what happened to a relation whose file went. DROP deletes its row of
// pg_class, and TRUNCATE changes it. What makes the rows anew does so in a relation of
// its own, whose row comes and goes within the transaction.
func (x *xactEvents) judge(db pg.Oid, r *RelationName) (Event, bool) {
	now, gone, known := x.names.became(db, r)
	class, counted := x.class[db]
	moved := known && !gone && now.Spc != r.Spc
	switch {
	case known && gone && r.Kind == 'i' && x.named(db, r):
		return x.event(EventRewrite, "REINDEX CONCURRENTLY"), true
	case slices.Contains(x.trunc, relKey{db, r.Oid}):
		return x.event(EventTruncate, "TRUNCATE"), true
	case known && gone && (!counted || class.Deleted > 0), !known && len(x.made) == 0:
		return x.event(EventDrop, "DROP "+object(r.Kind)), true
	case !isTable(r.Kind): // a sequence or an index that was made anew
		if r.Kind != 'i' {
			return Event{}, false
		}
		what := "REINDEX"
		if moved {
			what = "ALTER INDEX SET TABLESPACE"
		}
		return x.event(EventRewrite, what), true
	case moved && counted && class.Deleted == 0:
		x.renew(db, now.RelationName)
		return x.event(EventRewrite, "ALTER TABLE SET TABLESPACE"), true
	case counted && (class.Deleted == 0 || class.Inserted == 0 && known && !gone):
		return x.event(EventTruncate, "TRUNCATE"), true
	case !known:
		return x.event(EventDrop, "DROP "+object(r.Kind)+" or TRUNCATE"), true
	case now.rows <= 0 && r.Rows > 0 && x.inserted(db, now.File) == 0:
		return x.event(EventTruncate, "TRUNCATE"), true
	}
	x.renew(db, now.RelationName)
	what := "VACUUM FULL or CLUSTER"
	switch {
	case r.Kind == 'm':
		what = "REFRESH MATERIALIZED VIEW"
	case slices.Contains(x.unlogged, relKey{db, now.File}):
		what = "ALTER TABLE SET UNLOGGED"
	case x.inserted(db, now.File) > 0:
		what = "ALTER TABLE, which wrote all rows anew"
	}
	return x.event(EventRewrite, what), true
}

// named tells whether another relation has the name of one that is no more.
func (x *xactEvents) named(db pg.Oid, r *RelationName) bool {
	for _, m := range x.names.byName[relName{db, r.Schema, r.Name}] {
		if m != r.Oid {
			return true
		}
	}
	return false
}

// inserted is how many rows the transaction wrote into a file.
func (x *xactEvents) inserted(db, file pg.Oid) uint64 {
	if x.tx.Changes == nil {
		return 0
	}
	for _, r := range x.tx.Changes.Rows {
		if r.Rel.DB == db && r.Rel.Rel == file {
			return r.Inserted
		}
	}
	return 0
}

// object is SQL's word for a kind of relation.
func object(kind byte) string {
	switch kind {
	case 'i', 'I':
		return "INDEX"
	case 'm':
		return "MATERIALIZED VIEW"
	case 'S':
		return "SEQUENCE"
	}
	return "TABLE"
}

// created tells of relations that have a name since.
func (x *xactEvents) created(d *databaseChange) {
	made := map[relKey]bool{}
	var news []called
	var dbs []pg.Oid
	for _, m := range x.made {
		if class, counted := x.class[m.Rel.DB]; d != nil && slices.Contains(d.made, m.Rel.DB) || counted && class.Inserted == 0 {
			continue // a new file of what there was
		}
		all := x.names.files[relKey{m.Rel.DB, m.Rel.Rel}]
		if len(all) == 0 || all[0].ours() || all[0].Kind == 't' {
			continue
		}
		k := relKey{m.Rel.DB, all[0].Oid}
		if first := x.names.relations[k][0]; first.File != all[0].File {
			continue // it had another file before
		}
		made[k] = true
		news, dbs = append(news, all[0]), append(dbs, m.Rel.DB)
	}
	for i, r := range news {
		if k := (relKey{dbs[i], r.Owner}); made[k] || x.renewed[k] {
			continue
		}
		x.add(x.of(x.event(EventCreate, "CREATE "+object(r.Kind)), dbs[i], r.RelationName))
	}
}

// rows tells of rows that were changed, where they were many.
func (x *xactEvents) rows() {
	c := x.tx.Changes
	if c == nil {
		return
	}
	tell := func(n walindex.RowCounts, name func(Event) Event, fresh bool) {
		for _, k := range [...]struct {
			kind EventKind
			what string
			rows uint64
		}{{EventDelete, "DELETE", n.Deleted}, {EventUpdate, "UPDATE", n.Updated}, {EventInsert, "INSERT", n.Inserted}} {
			if k.rows == 0 || k.rows < x.q.MinRows || fresh && k.kind == EventInsert {
				continue
			}
			e := x.event(k.kind, k.what)
			e.Rows, e.AtLeast = int64(k.rows), c.AtLeast
			x.add(name(e))
		}
	}
	for _, r := range c.Rows {
		if r.Rel.DB == 0 || r.Rel.Rel < firstNormalOid {
			continue
		}
		rel := x.names.file(r.Rel, x.tx.Start)
		if rel != nil && (rel.ours() || !isTable(rel.Kind)) {
			continue
		}
		tell(r.RowCounts, func(e Event) Event {
			if rel != nil {
				return x.of(e, r.Rel.DB, rel)
			}
			e.Database, e.Table = x.databaseName(r.Rel.DB), r.Rel.String()
			return e
		}, x.rewrote[relKey{r.Rel.DB, r.Rel.Rel}])
	}
	tell(c.More, func(e Event) Event {
		e.Table = "other tables"
		return e
	}, false)
}
