// SPDX-License-Identifier: Apache-2.0

package walindex

import (
	"fmt"

	"github.com/kbcli/kbcli/engine/pg"
	"github.com/kbcli/kbcli/engine/pg/walscan"
)

// Index is what the records that end in one segment say.
type Index struct {
	Segment pg.Segment
	// First is where the first of these records starts: before the segment, if
	// that record spans its boundary. 0 if none ends here.
	First pg.LSN
	// Next is where the record after the last of these starts. What lies from there
	// to the segment's end belongs to the next index.
	Next pg.LSN
	// Last is where the last of these records starts; 0 if none ends here.
	Last pg.LSN
	// Partial is set when a record that began before the segment could not be
	// read: the archive began in its midst, or the segment before was not at
	// hand. Such an index may lack one record.
	Partial bool

	Transactions  []Transaction
	RestorePoints []RestorePoint
	Parameters    []Parameters
	Checkpoints   []Checkpoint
	Timelines     []TimelineChange
	BackupEnds    []BackupEnd
	Bytes         []RmgrBytes
	Tablespaces   []Tablespace
}

// Transaction is the end of one, or its being prepared.
type Transaction struct {
	Kind       walscan.XactKind
	Start, End pg.LSN
	XID        pg.XID
	Time       pg.Timestamp
	Subxacts   uint32
	Dropped    []pg.RelFileLocator
}

// RestorePoint is what pg_create_restore_point wrote.
type RestorePoint struct {
	Start pg.LSN
	Time  pg.Timestamp
	Name  string
}

// Parameters are settings that replay from Start on needs at least.
type Parameters struct {
	Start pg.LSN
	walscan.ParameterChange
}

// Checkpoint is a checkpoint record.
type Checkpoint struct {
	Start, Redo pg.LSN
	Time        pg.Timestamp
	Shutdown    bool
}

// TimelineChange is the end of a recovery, by a record of its own or a checkpoint.
type TimelineChange struct {
	Start    pg.LSN
	Timeline pg.TimelineID
	Previous pg.TimelineID
	Time     pg.Timestamp
}

// BackupEnd is where a backup that began at From was stopped.
type BackupEnd struct {
	Start, From pg.LSN
}

// Tablespace is one that was made: replay makes its directory where it stood.
type Tablespace struct {
	Start pg.LSN
	Oid   pg.Oid
	Path  string
}

// RmgrBytes is what one resource manager wrote.
type RmgrBytes struct {
	Rmgr    walscan.RmgrID
	Records uint64
	Bytes   uint64
}

// Builder gathers an Index from records. It is used by one goroutine.
type Builder struct {
	x     Index
	bytes [256]RmgrBytes
}

// Begin starts the index of g; partial as in Index.
func (b *Builder) Begin(g pg.Segment, partial bool) {
	b.x = Index{Segment: g, Partial: partial}
	b.bytes = [256]RmgrBytes{}
}

// Add takes a record that ends in the segment.
func (b *Builder) Add(r *walscan.Record) error {
	x := &b.x
	if x.First == 0 {
		x.First = r.Start
	}
	x.Last = r.Start
	n := &b.bytes[r.Rmgr]
	n.Records++
	n.Bytes += uint64(r.TotalLen)
	switch r.Rmgr {
	case walscan.RmgrTransaction:
		return b.addXact(r)
	case walscan.RmgrXLOG:
		return b.addXLOG(r)
	case walscan.RmgrTablespace:
		t, ok, err := r.TablespaceCreate()
		if err != nil || !ok {
			return wrap(r, err)
		}
		b.x.Tablespaces = append(b.x.Tablespaces, Tablespace{r.Start, t.Oid, t.Path})
	}
	return nil
}

func (b *Builder) addXact(r *walscan.Record) error {
	t, ok, err := r.Xact()
	if err != nil || !ok {
		return wrap(r, err)
	}
	b.x.Transactions = append(b.x.Transactions, Transaction{
		Kind: t.Kind, Start: r.Start, End: r.End, XID: t.XID, Time: t.Time,
		Subxacts: uint32(len(t.Subxacts)), Dropped: append([]pg.RelFileLocator(nil), t.Dropped...),
	})
	return nil
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
		return nil
	}
	if e, ok, err := r.EndOfRecovery(); err != nil {
		return wrap(r, err)
	} else if ok {
		x.Timelines = append(x.Timelines, TimelineChange{r.Start, e.Timeline, e.PrevTimeline, e.Time})
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
// Index is the caller's; the Builder begins anew.
func (b *Builder) Finish(next pg.LSN) *Index {
	x := b.x
	x.Next = next
	for id, n := range b.bytes {
		if n.Records > 0 {
			n.Rmgr = walscan.RmgrID(id)
			x.Bytes = append(x.Bytes, n)
		}
	}
	b.x = Index{}
	return &x
}
