// SPDX-License-Identifier: Apache-2.0

package chapter

import (
	"fmt"
	"slices"

	"github.com/kbcli/kbcli/engine/pg"
	"github.com/kbcli/kbcli/engine/pg/walscan"
	"github.com/kbcli/kbcli/engine/repository/walindex"
)

// Rows is how many rows of one relation a transaction must have inserted, updated or
// deleted to be told for that alone.
const Rows = 1000

// pgClass is the file of pg_class until that is rewritten.
const pgClass = 1259

// Builder makes a chapter of the indexes of consecutive segments.
type Builder struct {
	c Chapter
	// pending are the transactions that did something which is listed, and have not
	// ended: files made and tables emptied go to who ends, or to a transaction with
	// subtransactions that is older, since an index does not say whose parts they are.
	pending  map[pg.XID]bool
	database map[pg.XID]bool // that made or dropped one
	sizes    []int
	size     int
}

// NewBuilder begins a chapter at a segment.
func NewBuilder(first pg.Segment) *Builder {
	return &Builder{c: Chapter{First: first}, pending: map[pg.XID]bool{}, database: map[pg.XID]bool{}}
}

// Add takes the index of the next segment, which must be complete. It keeps nothing of it
// but what it lists.
func (b *Builder) Add(x *walindex.Index) error {
	want := pg.Segment{Timeline: b.c.First.Timeline, Number: b.c.First.Number + uint64(len(b.c.Segments))}
	if x.Segment != want || x.Partial || !x.Detailed {
		return fmt.Errorf("chapter: the index of segment %d of timeline %s is not complete, or another's", want.Number, want.Timeline)
	}
	s := Segment{Brief: true, Told: true}
	s.note(x.Transactions)
	s.Index = &walindex.Index{
		Segment: x.Segment, First: x.First, Next: x.Next, Last: x.Last, Detailed: true, Cut: x.Cut,
		Transactions: b.transactions(x), RestorePoints: x.RestorePoints, Parameters: x.Parameters, Timelines: x.Timelines,
		Tablespaces: x.Tablespaces, DatabasesMade: x.DatabasesMade, DatabasesDropped: x.DatabasesDropped,
		TablespacesDropped: x.TablespacesDropped, Truncates: x.Truncates,
	}
	for _, m := range x.Creations {
		if m.Fork == pg.MainFork {
			s.Index.Creations = append(s.Index.Creations, m)
		}
	}
	b.c.Segments = append(b.c.Segments, s)
	b.sizes = append(b.sizes, encodedSize(s.Index))
	b.size += b.sizes[len(b.sizes)-1]
	b.fit()
	return nil
}

func encodedSize(x *walindex.Index) int { return len(x.Encode()) + 32 }

func (s *Segment) note(txs []walindex.Transaction) {
	var clock *pg.Timestamp // the latest end so far
	for i := range txs {
		tx := &txs[i]
		if !s.Ended {
			s.Ended, s.Min, s.Max, s.MinXID, s.MaxXID = true, tx.Time, tx.Time, tx.XID, tx.XID
		}
		s.Min, s.Max = min(s.Min, tx.Time), max(s.Max, tx.Time)
		s.MinXID, s.MaxXID = min(s.MinXID, tx.XID), max(s.MaxXID, tx.XID)
		if tx.Kind.Committed() {
			s.Committed = true
			s.Nested = s.Nested || tx.Subxacts > 0
		}
		if tx.Kind.Ends() {
			if clock != nil {
				s.Back = max(s.Back, *clock-tx.Time)
			}
			if clock == nil || tx.Time > *clock {
				clock = &tx.Time
			}
		}
	}
}

// marks are the places of those transactions that are listed whatever they did: in two
// phases, and the last that committed, the last two that ended, the first of those that
// ended latest by the clock.
func marks(txs []walindex.Transaction) map[int]bool {
	out := map[int]bool{}
	commit, end, before, latest := -1, -1, -1, -1
	for i := range txs {
		k := txs[i].Kind
		if k == walscan.Prepare || k == walscan.CommitPrepared || k == walscan.AbortPrepared {
			out[i] = true
		}
		if !k.Ends() {
			continue
		}
		before, end = end, i
		if k.Committed() {
			commit = i
		}
		if latest < 0 || txs[i].Time > txs[latest].Time {
			latest = i
		}
	}
	for _, i := range []int{commit, end, before, latest} {
		out[i] = true
	}
	return out
}

// transactions picks those that are listed. Those that are no more than a mark of when
// the last one ended have no changes.
func (b *Builder) transactions(x *walindex.Index) []walindex.Transaction {
	for _, d := range x.DatabasesMade {
		b.database[d.XID] = true
	}
	for _, d := range x.DatabasesDropped {
		b.database[d.XID] = true
	}
	var out []walindex.Transaction
	marked := marks(x.Transactions)
	made, emptied := x.Creations, x.Truncates
	upTo := func(end pg.LSN) {
		for ; len(made) > 0 && made[0].Start < end; made = made[1:] {
			if m := made[0]; m.XID != 0 && m.Fork == pg.MainFork {
				b.pending[m.XID] = true
			}
		}
		for ; len(emptied) > 0 && emptied[0].Start < end; emptied = emptied[1:] {
			b.pending[emptied[0].XID] = true
		}
	}
	for i := range x.Transactions {
		tx := &x.Transactions[i]
		upTo(tx.Start)
		switch {
		case b.tells(tx):
			out = append(out, *tx)
		case marked[i]:
			mark := *tx
			mark.Changes = nil
			out = append(out, mark)
		}
	}
	upTo(x.Next)
	return out
}

// tells tells whether an end of a transaction is listed for what the transaction did.
func (b *Builder) tells(tx *walindex.Transaction) bool {
	if !tx.Kind.Ends() {
		return false
	}
	told := len(tx.Dropped) > 0 || b.pending[tx.XID] || b.database[tx.XID]
	delete(b.pending, tx.XID)
	delete(b.database, tx.XID)
	if tx.Subxacts > 0 && tx.Kind.Committed() {
		for xid := range b.pending {
			if older(tx.XID, xid) {
				delete(b.pending, xid)
				told = true
			}
		}
	}
	c := tx.Changes
	if told || c == nil {
		return told
	}
	return len(c.Catalogs) > 0 || many(c.More) || slices.ContainsFunc(c.Rows, func(r walindex.RelRows) bool {
		return many(r.RowCounts) || r.Rel.Rel == pgClass
	})
}

func many(n walindex.RowCounts) bool {
	return n.Inserted >= Rows || n.Updated >= Rows || n.Deleted >= Rows
}

// older tells whether a was given out before b, as PostgreSQL compares numbers that
// come round.
func older(a, b pg.XID) bool { return int32(a-b) < 0 }

// fit leaves out of the segments that take most until all fit, the first of several.
func (b *Builder) fit() {
	for b.size > Limit {
		at := -1
		for i := range b.c.Segments {
			if b.c.Segments[i].Brief && (at < 0 || b.sizes[i] > b.sizes[at]) {
				at = i
			}
		}
		if at < 0 {
			return
		}
		b.c.Segments[at].abridge()
		b.size -= b.sizes[at]
		b.sizes[at] = encodedSize(b.c.Segments[at].Index)
		b.size += b.sizes[at]
	}
}

// abridge leaves out what is told, and if that was before, what is brief.
func (s *Segment) abridge() {
	x := s.Index
	less := &walindex.Index{Segment: x.Segment, First: x.First, Next: x.Next, Last: x.Last, Cut: x.Cut}
	if s.Told {
		less.RestorePoints, less.Parameters, less.Timelines, less.Tablespaces = x.RestorePoints, x.Parameters, x.Timelines, x.Tablespaces
		marked := marks(x.Transactions)
		for i := range x.Transactions {
			if marked[i] {
				mark := x.Transactions[i]
				mark.Changes = nil
				less.Transactions = append(less.Transactions, mark)
			}
		}
	}
	s.Brief, s.Told, s.Index = s.Told, false, less
}

// Chapter is what was added. The Builder is not used any more.
func (b *Builder) Chapter() *Chapter { return &b.c }
