// SPDX-License-Identifier: Apache-2.0

package walindex

import (
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
	// Overwritten is where a record began, in a segment before, that a crash left
	// unfinished and that the first of these took the place of; 0 if there was none. The
	// Next of the index before is then that.
	Overwritten pg.LSN
	// Partial is set when a record that began before the segment could not be
	// read: the archive began in its midst, or the segment before was not at
	// hand. Such an index may lack one record.
	Partial bool
	// Detailed is set unless an earlier version wrote the index: then everything
	// below Tablespaces, and the Changes of Transactions, are not known.
	Detailed bool
	// Cut is set when there were more files made, dropped or truncated than are listed.
	Cut bool

	Transactions  []Transaction
	RestorePoints []RestorePoint
	Parameters    []Parameters
	Checkpoints   []Checkpoint
	Timelines     []TimelineChange
	BackupEnds    []BackupEnd
	Bytes         []RmgrBytes
	Tablespaces   []Tablespace

	// What a backup must copy again: see doc.go.
	Blocks []ForkBlocks
	Whole  []Database
	Opaque []Opaque

	Creations          []Creation
	Truncations        []Truncation
	Maps               []MapChange
	DatabasesMade      []DatabaseCreation
	DatabasesDropped   []DatabaseDrop
	TablespacesDropped []TablespaceDrop
	Truncates          []Truncate

	// Open is what is known of the transactions that are open after Last.
	Open Open
}

// Transaction is the end of one, or its being prepared.
type Transaction struct {
	Kind       walscan.XactKind
	Start, End pg.LSN
	XID        pg.XID
	Time       pg.Timestamp
	Subxacts   uint32
	Dropped    []pg.RelFileLocator
	// Changes are what the transaction did to rows: nil if nothing that is known,
	// and with Prepare, when they go on until it ends. Transactions that did the same
	// share them.
	Changes *Changes
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
