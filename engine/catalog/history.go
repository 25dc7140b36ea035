// SPDX-License-Identifier: Apache-2.0

package catalog

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/kbcli/kbcli/engine/pg"
	"github.com/kbcli/kbcli/engine/repository"
	"github.com/kbcli/kbcli/engine/repository/walindex"
)

// EventKind says what sort of thing happened.
type EventKind string

// The kinds of events.
const (
	EventDrop           EventKind = "drop"
	EventTruncate       EventKind = "truncate"
	EventRewrite        EventKind = "rewrite" // new files with the same rows
	EventDelete         EventKind = "delete"
	EventUpdate         EventKind = "update"
	EventInsert         EventKind = "insert"
	EventCreate         EventKind = "create"
	EventCreateDatabase EventKind = "create-database"
	EventDropDatabase   EventKind = "drop-database"
	EventTablespace     EventKind = "tablespace"
	EventRestorePoint   EventKind = "restore-point"
	EventTimeline       EventKind = "timeline"
	EventParameters     EventKind = "parameters"
	EventSpike          EventKind = "spike"
	EventGap            EventKind = "gap" // the log is missing or cannot be read
)

// Event is something that the log says happened. One transaction may be several, with
// one LSN: one for each relation and kind.
type Event struct {
	// LSN names the event for good. A recovery that stops before the first record that
	// starts there has nothing of the event. For a transaction that is its end.
	LSN      pg.LSN
	Timeline pg.TimelineID
	Time     time.Time
	XID      pg.XID // 0: it is no transaction's
	Kind     EventKind
	What     string // in SQL's words: "DROP TABLE"
	Database string
	Schema   string
	Table    string // where its name is not known, the number of its file
	Object   byte   // pg_class.relkind; 0: unknown, or it is no relation
	Rows     int64  // -1: unknown
	AtLeast  bool   // there may be more rows
	About    bool   // Rows is what the server guessed
	// RolledBack: nothing of it is in any restore.
	RolledBack bool
	at         pg.LSN // of the record that told it
	Spike      *Spike // of a spike; Table and Rows are what had most of it, where that is known
}

// Destructive tells whether what there was is no more.
func (e *Event) Destructive() bool { return e.Weight() > 0 && !e.RolledBack }

// Weight orders events by how much they may have destroyed; 0 is nothing.
func (e *Event) Weight() int {
	switch e.Kind {
	case EventDropDatabase:
		return 5
	case EventDrop:
		if e.Object == 'i' || e.Object == 'S' {
			return 0
		}
		return 4
	case EventTruncate:
		return 4
	case EventDelete:
		return 2
	case EventUpdate:
		return 1
	}
	return 0
}

// HistoryQuery says which events are wanted. A zero field does not limit.
type HistoryQuery struct {
	Timeline     pg.TimelineID // of the path; 0 is the newest
	Since, Until time.Time     // both included
	From, To     pg.LSN        // the first that is wanted, and what lies behind the last
	// MinRows is how many rows of one relation a transaction must have inserted,
	// updated or deleted; 0 is 1.
	MinRows uint64
	// Undone also finds out which tables a DROP or TRUNCATE that was rolled back was of:
	// the log of those transactions is read itself.
	Undone bool
	Spikes bool // also looks for them
	// Going reads a history that grows, part by part: each query with the same one goes
	// on where the one before ended, and Since is when the first begins. Of a transaction
	// for which fn had an error everything is told again.
	Going *Going
}

// Going is how far a history that grows was read.
type Going struct {
	// Settled ends the part before the first event that is stamped later: its names may
	// not be stored yet. It is set before each query.
	Settled time.Time

	Next   pg.LSN // before which everything was told; with it another Going goes on
	spikes spikes
}

// historyReach is how far a clock may have been set back so that what was stamped before
// the end of a query is still found behind what was stamped after.
const historyReach = time.Hour

// History hands the events of one path of timelines to fn, in the order of the log,
// those that were rolled back too. What of the log is missing or cannot be read is an
// event. Names are those of the time, as far as they were stored; an error of fn ends it.
func (c *Catalog) History(ctx context.Context, q HistoryQuery, fn func(Event) error) error {
	p, err := c.Path(q.Timeline)
	if err != nil {
		return err
	}
	first, last, ok := c.extent(p)
	if !ok {
		return nil
	}
	earliest := first
	size := c.inv.size
	if q.From != 0 {
		first = max(first, size.Number(q.From))
	}
	if q.To != 0 {
		last = min(last, size.Number(q.To-1)+1) // a record may end in the segment after
	}
	if q.Going != nil && q.Going.Next != 0 {
		// from the segment before on: there a transaction may have begun that ends now
		q.Since, first = time.Time{}, max(first, size.Number(q.Going.Next)-min(1, size.Number(q.Going.Next)))
	}
	if !q.Since.IsZero() {
		if first, err = c.firstSince(ctx, p, q.Since, first, last); err != nil {
			return err
		}
	}
	h := &historian{c: c, p: p, q: q, last: last, made: map[pg.XID][]walindex.Creation{}, truncated: map[pg.XID][]relKey{}, unlogged: map[pg.XID][]relKey{}, databases: map[pg.XID]*databaseChange{}, clock: q.Since}
	if q.Spikes {
		h.spikes = &spikes{}
		if q.Going != nil {
			h.spikes = &q.Going.spikes
			h.spikes.growing = true
		}
		if err := h.usually(ctx, first, earliest); err != nil {
			return err
		}
	}
	if h.names, err = c.namesFor(ctx, p, size.Start(first), size.End(last)); err != nil {
		return err
	}
	err = c.eachDetailed(ctx, p, first, last, h, func(n uint64, x *walindex.Index, err error) error {
		var missing *repository.MissingWALError
		switch {
		case x == nil && err == nil || errors.As(err, &missing) || isDamage(err):
			err = h.hole(n, err)
			x = nil
		case err == nil:
			err = h.segment(ctx, x)
		}
		if err != nil {
			return err
		}
		if err := h.tell(fn); err != nil {
			return err
		}
		if g := q.Going; g != nil {
			if x != nil {
				g.Next = max(g.Next, x.Next)
			} else {
				g.Next = max(g.Next, size.Start(n+1))
			}
		}
		if !q.Until.IsZero() && h.clock.After(q.Until.Add(historyReach)) {
			return errEnough
		}
		return nil
	})
	if err != nil && !errors.Is(err, errEnough) {
		return err
	}
	h.endSpikes()
	return h.tell(fn)
}

// historian makes events of indexes.
type historian struct {
	c     *Catalog
	p     Path
	q     HistoryQuery
	names *naming

	// by transaction or subtransaction, until it ends
	made      map[pg.XID][]walindex.Creation
	unlogged  map[pg.XID][]relKey // files of unlogged tables that were made
	truncated map[pg.XID][]relKey
	databases map[pg.XID]*databaseChange

	clock  time.Time // of the newest transaction that ended so far
	events []Event
	inHole bool
	ended  bool // by Going
	spikes *spikes

	creation, truncate int // of the index, the next that is to be noted

	last    uint64     // segment that is asked for
	chapter pg.Segment // the first segment of the one that was looked at last
	carried []pg.XID   // what was noted before it and has not ended
}

// databaseChange is what a transaction did to databases.
type databaseChange struct {
	made, dropped []pg.Oid
	start         pg.LSN
}

func (h *historian) add(e Event) {
	if e.Time.IsZero() {
		e.Time = h.clock
	}
	if e.Timeline = h.p.TimelineAt(e.LSN); e.at == 0 {
		e.at = e.LSN
	}
	h.events = append(h.events, e)
}

// tell hands over what was gathered and is wanted.
func (h *historian) tell(fn func(Event) error) error {
	q := &h.q
	slices.SortStableFunc(h.events, func(a, b Event) int {
		if q.Going != nil {
			return cmp.Compare(a.at, b.at) // what was told is all that came before
		}
		return cmp.Or(cmp.Compare(a.LSN, b.LSN), cmp.Compare(a.at, b.at))
	})
	defer func() { h.events = h.events[:0] }()
	for _, e := range h.events {
		if g := q.Going; g != nil {
			if e.Time.After(g.Settled) && e.at >= g.Next {
				g.Next = e.at
				return errEnough
			}
			if e.at < g.Next {
				continue
			}
		}
		if q.From != 0 && e.LSN < q.From || q.To != 0 && e.LSN >= q.To {
			continue
		}
		if !q.Since.IsZero() && e.Time.Before(q.Since) || !q.Until.IsZero() && e.Time.After(q.Until) {
			continue
		}
		if err := fn(e); err != nil {
			if q.Going != nil {
				q.Going.Next = e.at // with what else its transaction did
			}
			return err
		}
	}
	return nil
}

// hole notes that a segment is not there or cannot be read, once for several.
func (h *historian) hole(n uint64, err error) error {
	if !h.inHole {
		e := Event{LSN: h.c.inv.size.Start(n), Kind: EventGap, What: "WAL is missing", Rows: -1}
		if g := h.c.declaredAt(e.LSN); g != nil {
			e.What += ": " + g.Reason
		} else if err != nil {
			e.What = err.Error()
		}
		h.add(e)
	}
	h.inHole = true
	if h.spikes != nil {
		if b := h.spikes.stop(); b != nil {
			h.spike(h.c.inv.size.Start(n), b)
		}
	}
	clear(h.made)
	clear(h.truncated)
	clear(h.unlogged)
	clear(h.databases)
	return nil
}

// declaredAt is the gap that was declared around a position, or nil.
func (c *Catalog) declaredAt(lsn pg.LSN) *repository.Gap {
	for _, g := range c.gaps {
		if g.From <= lsn+pg.LSN(c.inv.size) && lsn < g.To {
			return &g
		}
	}
	return nil
}

func (h *historian) segment(ctx context.Context, x *walindex.Index) error {
	h.inHole, h.creation, h.truncate = false, 0, 0
	of := func(xid pg.XID, at pg.LSN) *databaseChange {
		d := h.databases[xid]
		if d == nil {
			d = &databaseChange{start: at}
			h.databases[xid] = d
		}
		return d
	}
	for _, d := range x.DatabasesMade {
		if d.FileCopy && d.SrcDB == d.DatabaseCreate.DB {
			continue // it moves, and what it left goes by nobody's number
		}
		m := of(d.XID, d.Start)
		m.made = append(m.made, d.DB)
	}
	for _, d := range x.DatabasesDropped {
		if d.XID == 0 {
			continue
		}
		m := of(d.XID, d.Start)
		m.dropped = append(m.dropped, d.DB)
	}
	for i := range x.Transactions {
		tx := &x.Transactions[i]
		if !tx.Kind.Ends() {
			continue
		}
		h.clock = tx.Time.Time()
		h.upTo(x, tx.Start)
		h.count(tx)
		if err := h.transaction(ctx, tx); err != nil {
			return err
		}
	}
	h.upTo(x, x.Next)
	h.others(x)
	return nil
}

// upTo notes which files were made, and tables emptied, by an LSN.
func (h *historian) upTo(x *walindex.Index, end pg.LSN) {
	for ; h.creation < len(x.Creations) && x.Creations[h.creation].Start < end; h.creation++ {
		switch m := x.Creations[h.creation]; m.Fork {
		case pg.MainFork:
			h.made[m.XID] = append(h.made[m.XID], m)
		case pg.InitFork:
			h.unlogged[m.XID] = append(h.unlogged[m.XID], relKey{m.Rel.DB, m.Rel.Rel})
		}
	}
	for ; h.truncate < len(x.Truncates) && x.Truncates[h.truncate].Start < end; h.truncate++ {
		t := x.Truncates[h.truncate]
		for _, oid := range t.Rels {
			h.truncated[t.XID] = append(h.truncated[t.XID], relKey{t.DB, oid})
		}
	}
}

// others are the events that are no transactions'.
func (h *historian) others(x *walindex.Index) {
	for _, r := range x.RestorePoints {
		h.add(Event{LSN: r.Start, Time: r.Time.Time(), Kind: EventRestorePoint, What: fmt.Sprintf("restore point %q", r.Name), Rows: -1})
	}
	for _, t := range x.Timelines {
		h.add(Event{LSN: t.Start, Time: t.Time.Time(), Kind: EventTimeline, What: fmt.Sprintf("timeline %s began, from %s", t.Timeline, t.Previous), Rows: -1})
	}
	for _, p := range x.Parameters {
		h.add(Event{LSN: p.Start, Kind: EventParameters, Rows: -1, What: fmt.Sprintf("max_connections=%d max_worker_processes=%d max_wal_senders=%d max_prepared_transactions=%d max_locks_per_transaction=%d",
			p.MaxConnections, p.MaxWorkerProcesses, p.MaxWalSenders, p.MaxPreparedXacts, p.MaxLocksPerXact)})
	}
	for _, d := range x.DatabasesMade {
		if d.FileCopy && d.SrcDB == d.DatabaseCreate.DB {
			h.add(Event{LSN: d.Start, XID: d.XID, Kind: EventRewrite, What: "ALTER DATABASE SET TABLESPACE", Database: h.databaseName(d.DatabaseCreate.DB, d.Start), Rows: -1})
		}
	}
	for _, t := range x.Tablespaces {
		h.add(Event{LSN: t.Start, Kind: EventTablespace, What: "CREATE TABLESPACE at " + t.Path, Rows: -1})
	}
	for _, t := range x.TablespacesDropped {
		h.add(Event{LSN: t.Start, XID: t.XID, Kind: EventTablespace, What: fmt.Sprintf("DROP TABLESPACE %d", t.Oid), Rows: -1})
	}
}

// claim takes what a transaction and its subtransactions did. Which those are the index
// does not say: they have later numbers, and what other transactions with later numbers
// that are open did may be taken for theirs.
func claim[T any](all map[pg.XID][]T, tx *walindex.Transaction) []T {
	out := all[tx.XID]
	delete(all, tx.XID)
	if tx.Subxacts > 0 && tx.Kind.Committed() {
		for xid, more := range all {
			if xid != 0 && older(tx.XID, xid) {
				out = append(out, more...)
				delete(all, xid)
			}
		}
	}
	return out
}
