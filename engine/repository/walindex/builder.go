// SPDX-License-Identifier: Apache-2.0

package walindex

import (
	"fmt"
	"slices"

	"github.com/kbcli/kbcli/engine/pg"
	"github.com/kbcli/kbcli/engine/pg/walscan"
)

// Builder gathers an Index from records. It is used by one goroutine.
//
// Segment after segment it goes on counting the rows of transactions that are open.
// A Builder that begins elsewhere than where the last Finish ended counts anew,
// unless Resume gave it the index of the segment before.
type Builder struct {
	x      Index
	bytes  [256]RmgrBytes
	blocks blockLog
	open   openSet
	latest pg.Timestamp
	named  []pg.Oid // what Named has not told

	at    pg.Segment // that open is right after; timeline 0: none
	room  int        // how many more files the lists may name
	guess int        // transactions of the segment before
}

// maxFiles bounds the files that the lists of one Index name.
const maxFiles = 1 << 18

// Resume takes up the transactions that were open at the end of prev. It tells
// whether prev knew of them.
func (b *Builder) Resume(prev *Index) bool {
	b.at = pg.Segment{}
	if !prev.Detailed {
		return false
	}
	b.open.load(&prev.Open)
	b.at = prev.Segment
	return true
}

// Begin starts the index of g; partial as in Index.
func (b *Builder) Begin(g pg.Segment, partial bool) {
	if follows := b.at.Timeline != 0 && b.at.Number+1 == g.Number && b.at.Timeline <= g.Timeline; !follows || partial {
		b.open.forget()
	}
	b.at = pg.Segment{} // until Finish, what is open is that of a part of a segment
	b.x = Index{Segment: g, Partial: partial, Detailed: true}
	b.x.Transactions = make([]Transaction, 0, b.guess)
	b.bytes = [256]RmgrBytes{}
	b.blocks.reset()
	b.open.arena = arena{}
	b.room = maxFiles
}

// Latest is the greatest time at which a transaction ended in all that was added.
func (b *Builder) Latest() pg.Timestamp { return b.latest }

// Named are the databases in which a transaction that was added since the last call
// committed a change of names: as Changes.Catalogs. It is for who wants to ask the server
// for the new ones before the segment ends.
func (b *Builder) Named() []pg.Oid {
	n := b.named
	b.named = nil
	return n
}

// Add takes a record that ends in the segment.
func (b *Builder) Add(r *walscan.Record) error {
	x := &b.x
	if x.First == 0 {
		x.First = r.Start
		b.open.begin(r.Start)
	}
	x.Last = r.Start
	n := &b.bytes[r.Rmgr]
	n.Records++
	n.Bytes += uint64(r.TotalLen)
	for i := range r.Blocks {
		k := &r.Blocks[i]
		b.blocks.add(k.Rel, k.Fork, k.Block)
	}
	switch r.Rmgr {
	case walscan.RmgrHeap, walscan.RmgrHeap2:
		return b.addHeap(r)
	case walscan.RmgrTransaction:
		return b.addXact(r)
	case walscan.RmgrXLOG:
		return b.addXLOG(r)
	case walscan.RmgrStorage:
		return b.addStorage(r)
	case walscan.RmgrDatabase:
		return b.addDatabase(r)
	case walscan.RmgrTablespace:
		return b.addTablespace(r)
	case walscan.RmgrRelMap:
		return b.addMap(r)
	case walscan.RmgrStandby:
		next, oldest, ok, err := r.RunningXacts()
		if ok && err == nil {
			b.open.running(next, oldest)
		}
		return wrap(r, err)
	}
	if r.SpecialChange() {
		b.opaque(r)
	}
	return nil
}

func (b *Builder) addHeap(r *walscan.Record) error {
	if len(r.Blocks) == 0 {
		t, ok, err := r.HeapTruncate()
		if ok && err == nil && b.has(len(t.Rels)+1) {
			b.x.Truncates = append(b.x.Truncates, Truncate{r.Start, r.XID, t})
		}
		return wrap(r, err)
	}
	if pages := r.ClearsVisibility(); pages != 0 {
		for i := range min(len(r.Blocks), 2) {
			if k := &r.Blocks[i]; pages>>i&1 != 0 {
				b.blocks.add(k.Rel, pg.VMFork, k.Block/heapBlocksPerVM)
			}
		}
	}
	inserted, updated, deleted, retracted, ok, err := r.HeapRows()
	if ok && err == nil {
		if c := b.open.of(r); c != nil {
			c.Inserted += uint64(inserted)
			c.Updated += uint64(updated)
			c.Deleted += uint64(deleted)
			if retracted > 0 {
				b.open.retract(c)
			}
		}
	}
	return wrap(r, err)
}

func (b *Builder) addXact(r *walscan.Record) error {
	t, ok, err := r.Xact()
	if err != nil {
		return wrap(r, err)
	}
	if !ok {
		top, subs, ok, err := r.Assignment()
		if ok && err == nil {
			b.open.assign(top, subs)
		}
		return wrap(r, err)
	}
	b.latest = max(b.latest, t.Time)
	var dropped []pg.RelFileLocator
	if n := len(t.Dropped); n > 0 {
		if !b.has(n) {
			n = b.room
			b.room = 0
		}
		dropped = append(dropped, t.Dropped[:n]...)
	}
	changes := b.open.end(&t)
	if changes != nil {
		for _, db := range changes.Catalogs {
			if len(b.named) < maxClass && !slices.Contains(b.named, db) {
				b.named = append(b.named, db)
			}
		}
	}
	b.x.Transactions = append(b.x.Transactions, Transaction{
		Kind: t.Kind, Start: r.Start, End: r.End, XID: t.XID, Time: t.Time,
		Subxacts: uint32(len(t.Subxacts)), Dropped: dropped, Changes: changes,
	})
	return nil
}

// has takes room for n files in the lists; without, the index is Cut.
func (b *Builder) has(n int) bool {
	if n > b.room {
		b.x.Cut = true
		return false
	}
	b.room -= n
	return true
}

func wrap(r *walscan.Record, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("record at %s: %w", r.Start, err)
}

func (b *Builder) addXLOG(r *walscan.Record) error {
	x := &b.x
	if p, ok, err := r.RestorePoint(); err != nil {
		return wrap(r, err)
	} else if ok {
		x.RestorePoints = append(x.RestorePoints, RestorePoint{r.Start, p.Time, p.Name})
		return nil
	}
	if p, ok, err := r.ParameterChange(); err != nil {
		return wrap(r, err)
	} else if ok {
		x.Parameters = append(x.Parameters, Parameters{r.Start, p})
		return nil
	}
	if c, ok, err := r.Checkpoint(); err != nil {
		return wrap(r, err)
	} else if ok {
		x.Checkpoints = append(x.Checkpoints, Checkpoint{r.Start, c.Redo, c.Time, c.Shutdown})
		if c.Timeline != c.PrevTimeline {
			x.Timelines = append(x.Timelines, TimelineChange{r.Start, c.Timeline, c.PrevTimeline, c.Time})
		}
		if c.Shutdown { // or the end of a crash's recovery
			b.open.stopped(pg.XID(c.NextXID))
		}
		return nil
	}
	if o, ok, err := r.OverwriteContrecord(); err != nil {
		return wrap(r, err)
	} else if ok {
		if x.First == r.Start {
			x.Overwritten = o.Overwritten
		}
		return nil
	}
	if e, ok, err := r.EndOfRecovery(); err != nil {
		return wrap(r, err)
	} else if ok {
		x.Timelines = append(x.Timelines, TimelineChange{r.Start, e.Timeline, e.PrevTimeline, e.Time})
		b.open.stopped(0)
		return nil
	}
	if e, ok, err := r.BackupEnd(); err != nil {
		return wrap(r, err)
	} else if ok {
		x.BackupEnds = append(x.BackupEnds, BackupEnd{r.Start, e.Start})
	}
	return nil
}

// Finish gives the index. next is where the record after the last starts. The
// Index is the caller's; the Builder goes on with the segment after.
func (b *Builder) Finish(next pg.LSN) *Index {
	x := b.x
	x.Next = next
	for id, n := range b.bytes {
		if n.Records > 0 {
			n.Rmgr = walscan.RmgrID(id)
			x.Bytes = append(x.Bytes, n)
		}
	}
	if b.guess = len(x.Transactions); b.guess == 0 {
		x.Transactions = nil
	}
	b.guess += b.guess / 8
	b.open.begin(next)
	x.Blocks, x.Whole = b.blocks.finish()
	x.Open = b.open.snapshot()
	b.at = x.Segment
	b.x = Index{}
	return &x
}
