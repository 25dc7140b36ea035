// SPDX-License-Identifier: Apache-2.0

package walindex

import (
	"cmp"
	"slices"

	"github.com/kbcli/kbcli/engine/pg"
	"github.com/kbcli/kbcli/engine/pg/walscan"
)

// openSet counts the rows of transactions and subtransactions that have not ended,
// each by its own number: a subtransaction's are its transaction's only when that
// ends and names it. xids are given out one after another, so that those which are
// open together fall into different places of a small table.
type openSet struct {
	places [1 << placeBits]*openXact
	n      int // open
	rows   int // relations of all of them
	folded []*openXact
	free   *openXact
	last   *openXact // the one counted last

	unknown  bool // from the next record on, of what is older nothing is known
	since    pg.LSN
	floor    pg.XID
	classes  map[pg.Oid]pg.Oid
	class    ClassFile                     // the one asked for last
	assigned [64]struct{ sub, top pg.XID } // the last of each assignment: it may write later
	arena    arena
}

type openXact struct {
	xid, top pg.XID
	prepared bool
	atLeast  bool
	rowSet
	catalogs []pg.Oid
	folded   rowSet
	foldedTo pg.XID
	next     *openXact // in its place
}

const (
	placeBits = 12
	maxOpen   = 1 << 15 // open transactions and subtransactions
	maxRows   = 1 << 16 // relations of all of them
	keptRels  = 256     // relations kept apart of a transaction that has very many
	maxClass  = 1 << 12 // databases whose pg_class is known
)

// precedes compares two xids of one age: they wrap around.
func precedes(a, b pg.XID) bool { return int32(a-b) < 0 }

func (s *openSet) place(x pg.XID) **openXact { return &s.places[x&(1<<placeBits-1)] }

// find gives the open transaction x, nil if it has changed nothing so far.
func (s *openSet) find(x pg.XID) *openXact {
	for o := *s.place(x); o != nil; o = o.next {
		if o.xid == x {
			return o
		}
	}
	return nil
}

// spare gives one that counts nothing yet and is in no place.
func (s *openSet) spare() *openXact {
	o := s.free
	if o == nil {
		return &openXact{}
	}
	s.free, o.next = o.next, nil
	return o
}

func (s *openSet) insert(x pg.XID) *openXact {
	o := s.spare()
	p := s.place(x)
	o.xid, o.next = x, *p
	*p = o
	s.n++
	return o
}

// take removes x from the set; release gives it back when it is no longer needed.
func (s *openSet) take(x pg.XID) *openXact {
	for p := s.place(x); *p != nil; p = &(*p).next {
		if o := *p; o.xid == x {
			*p = o.next
			s.n--
			s.rows -= len(o.rels) + len(o.folded.rels)
			if s.last == o {
				s.last = nil
			}
			if o.foldedTo != 0 {
				s.folded = slices.DeleteFunc(s.folded, func(f *openXact) bool { return f == o })
			}
			return o
		}
	}
	return nil
}

func (s *openSet) release(o *openXact) {
	rels := o.rels
	if cap(rels) > 4*fewRels {
		rels = nil
	}
	*o = openXact{rowSet: rowSet{rels: rels[:0]}, next: s.free}
	s.free = o
}

// drop removes those that are over without a word.
func (s *openSet) drop(over func(*openXact) bool) {
	if s.n == 0 {
		return
	}
	for i := range s.places {
		for o := s.places[i]; o != nil; {
			next := o.next
			if over(o) {
				s.release(s.take(o.xid))
			}
			o = next
		}
	}
}

// of gives the counts of the relation whose rows a record changes, in the transaction
// it belongs to; nil if it belongs to none.
func (s *openSet) of(r *walscan.Record) *RelRows {
	o := s.last
	if o == nil || o.xid != r.XID {
		if r.XID == 0 {
			return nil
		}
		if o = s.find(r.XID); o == nil {
			if s.n >= maxOpen {
				s.relieve(r.Start)
			}
			o = s.insert(r.XID)
			if a := s.assigned[r.XID%64]; a.sub == r.XID {
				o.top = a.top
			}
		}
		if r.TopXID != 0 {
			o.top = r.TopXID
		}
		s.last = o
	}
	rel := &r.Blocks[0].Rel
	c := o.find(rel)
	if c == nil {
		if s.rows >= maxRows {
			s.relieve(r.Start)
			return s.of(r) // o may be gone
		}
		before := len(o.rels)
		c = o.insert(rel)
		s.rows += len(o.rels) - before
		if s.isClass(rel) && !slices.Contains(o.catalogs, rel.DB) {
			o.catalogs = append(o.catalogs, rel.DB)
		}
	}
	return c
}

// retract takes back a row that was inserted on trial, by the record just counted.
func (s *openSet) retract(c *RelRows) {
	switch more := &s.last.more; {
	case c.Inserted > 0:
		c.Inserted--
	case more.Inserted > 0:
		more.Inserted--
	}
}

// isClass tells whether rel is a pg_class, or pg_database. Each has its identifier
// as its file number until it is rewritten, which is logged as a new map.
func (s *openSet) isClass(rel *pg.RelFileLocator) bool {
	first := pgClass
	if rel.DB == 0 {
		first = pgDatabase
	}
	if rel.Rel == first {
		s.setClass(rel.DB, rel.Rel)
		return true
	}
	if s.class.DB != rel.DB {
		s.class = ClassFile{rel.DB, s.classes[rel.DB]}
	}
	return rel.Rel == s.class.File // no relation has number 0
}

func (s *openSet) setClass(db, file pg.Oid) {
	if s.classes == nil || len(s.classes) >= maxClass && s.classes[db] == 0 {
		s.classes = map[pg.Oid]pg.Oid{}
	}
	s.classes[db] = file
	s.class = ClassFile{db, file}
}

// assign notes whose subtransactions some are.
func (s *openSet) assign(top pg.XID, subs []pg.XID) {
	for _, x := range subs {
		if o := s.find(x); o != nil {
			o.top = top
		}
	}
	if n := len(subs); n > 0 {
		a := &s.assigned[subs[n-1]%64]
		a.sub, a.top = subs[n-1], top
	}
}

// end takes out the transaction that ended and gives its changes. One that is
// prepared stays.
func (s *openSet) end(x *walscan.Xact) *Changes {
	o := s.take(x.XID)
	undone := !x.Kind.Committed() && x.Kind.Ends()
	if o == nil && undone {
		s.unfold(x.XID)
	}
	for _, sub := range x.Subxacts {
		if s.n == 0 {
			break
		}
		switch u := s.take(sub); {
		case u == nil && undone:
			s.unfold(sub)
		case u == nil:
		case o == nil:
			o = u
		default:
			o.merge(u)
			s.release(u)
		}
	}
	if x.Kind == walscan.Prepare {
		if o != nil {
			s.put(x.XID, o)
			o.prepared = true
		}
		return nil
	}
	atLeast := s.since != 0 && (s.floor == 0 || precedes(x.XID, s.floor))
	committed := x.Kind.Committed()
	unknown := committed && x.Invalidations > 0 && x.DB != 0 && s.classes[x.DB] == 0
	if o == nil {
		if !atLeast && !unknown {
			return nil
		}
		o = s.spare()
	}
	if unknown && !slices.Contains(o.catalogs, x.DB) {
		o.catalogs = append(o.catalogs, x.DB)
	}
	if o.foldedTo != 0 {
		o.rowSet.merge(&o.folded)
	}
	var catalogs []pg.Oid
	if committed && o.catalogs != nil {
		catalogs = o.catalogs
		slices.Sort(catalogs)
	}
	c := s.arena.emit(&o.rowSet, atLeast || o.atLeast, catalogs)
	s.release(o)
	return c
}

// put makes o, which was taken out, the open transaction x.
func (s *openSet) put(x pg.XID, o *openXact) {
	p := s.place(x)
	o.xid, o.top, o.next = x, 0, *p
	*p = o
	s.n++
	s.rows += len(o.rels) + len(o.folded.rels)
	if o.foldedTo != 0 {
		s.folded = append(s.folded, o)
	}
}

func (o *openXact) merge(u *openXact) {
	o.rowSet.merge(&u.rowSet)
	o.rowSet.merge(&u.folded)
	o.atLeast = o.atLeast || u.atLeast
	for _, d := range u.catalogs {
		if !slices.Contains(o.catalogs, d) {
			o.catalogs = append(o.catalogs, d)
		}
	}
}

// running is the server's word about what is open: see walscan's RunningXacts.
func (s *openSet) running(next, oldest pg.XID) {
	s.drop(func(o *openXact) bool { return !o.prepared && precedes(o.xid, oldest) })
	if s.since == 0 {
		return
	}
	if s.floor == 0 {
		s.floor = next
	}
	if !precedes(oldest, s.floor) {
		s.since, s.floor = 0, 0
	}
}

// stopped: the server was, so that only prepared transactions are open, and those
// from next on, where told, had not begun.
func (s *openSet) stopped(next pg.XID) {
	s.drop(func(o *openXact) bool { return !o.prepared })
	if s.since != 0 && s.floor == 0 {
		s.floor = next
	}
}

// forget lets go of everything.
func (s *openSet) forget() {
	s.places = [len(s.places)]*openXact{}
	s.n, s.rows, s.folded, s.free, s.last = 0, 0, nil, nil, nil
	s.unknown, s.since, s.floor = true, 0, 0
	s.classes, s.class = nil, ClassFile{}
	clear(s.assigned[:])
}

// begin tells where the record is from which on things are known.
func (s *openSet) begin(at pg.LSN) {
	if s.unknown {
		s.unknown, s.since, s.floor = false, at, 0
	}
}

// snapshot is the state as the index has it. What an index does not have is forgotten,
// so that it makes no difference whether the next one begins with it or goes on.
func (s *openSet) snapshot() Open {
	clear(s.assigned[:])
	out := Open{Since: s.since, Floor: s.floor}
	for i := range s.places {
		for o := s.places[i]; o != nil; o = o.next {
			x := OpenXact{XID: o.xid, Top: o.top, Prepared: o.prepared, FoldedTo: o.foldedTo}
			x.AtLeast = o.atLeast
			x.Rows, x.More = slices.Clone(o.rels), o.more
			x.Catalogs = slices.Clone(o.catalogs)
			x.Folded, x.FoldedMore = slices.Clone(o.folded.rels), o.folded.more
			if len(x.Rows) == 0 {
				x.Rows = nil
			}
			out.Xacts = append(out.Xacts, x)
		}
	}
	slices.SortFunc(out.Xacts, func(a, b OpenXact) int { return cmp.Compare(a.XID, b.XID) })
	for db, file := range s.classes {
		out.Classes = append(out.Classes, ClassFile{db, file})
	}
	slices.SortFunc(out.Classes, func(a, b ClassFile) int { return cmp.Compare(a.DB, b.DB) })
	return out
}

// load takes a state from an index.
func (s *openSet) load(from *Open) {
	s.forget()
	s.unknown, s.since, s.floor = false, from.Since, from.Floor
	for _, c := range from.Classes {
		s.setClass(c.DB, c.File)
	}
	for i := range from.Xacts {
		x := &from.Xacts[i]
		if s.n >= maxOpen || s.find(x.XID) != nil {
			continue
		}
		o := s.insert(x.XID)
		o.top, o.prepared, o.atLeast = x.Top, x.Prepared, x.AtLeast
		o.rels, o.more = slices.Clone(x.Rows), x.More
		o.catalogs = slices.Clone(x.Catalogs)
		if o.foldedTo = x.FoldedTo; o.foldedTo != 0 {
			o.folded.rels, o.folded.more = slices.Clone(x.Folded), x.FoldedMore
			s.folded = append(s.folded, o)
		}
		s.rows += len(o.rels) + len(o.folded.rels)
	}
}
