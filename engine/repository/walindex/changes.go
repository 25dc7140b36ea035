// SPDX-License-Identifier: Apache-2.0

package walindex

import (
	"github.com/kbcli/kbcli/engine/pg"
	"github.com/kbcli/kbcli/engine/pg/walscan"
)

// Changes are the rows that one transaction changed, with its subtransactions but
// without those that were rolled back before it ended. On an abort they are what was
// undone; a subtransaction's own abort has its own.
type Changes struct {
	// Rows are at most 64 relations, those with most if there were more, in no
	// particular order. Catalogues and TOAST tables are relations like others.
	Rows []RelRows
	// More are rows of other relations.
	More RowCounts
	// AtLeast is set when the transaction may have changed more than is counted.
	AtLeast bool
	// Catalogs are the databases whose pg_class a transaction changed, when it
	// committed: names may have changed. Database 0 stands for pg_database. Where the
	// file of a pg_class is not known, what changed any catalogue counts.
	Catalogs []pg.Oid
}

// RowCounts are rows as written to the log: an update counts each time.
type RowCounts struct {
	Inserted, Updated, Deleted uint64
}

// RelRows are the rows of one relation.
type RelRows struct {
	Rel pg.RelFileLocator
	RowCounts
}

func (c *RowCounts) total() uint64 { return c.Inserted + c.Updated + c.Deleted }

func (c *RowCounts) add(d RowCounts) {
	c.Inserted += d.Inserted
	c.Updated += d.Updated
	c.Deleted += d.Deleted
}

// Open is what the index of a segment hands to the next.
type Open struct {
	// Since is where counting began, if there may be transactions that are older and
	// still open; else 0. Floor is the first transaction that is not older; 0 while
	// that is not known.
	Since pg.LSN
	Floor pg.XID
	Xacts []OpenXact
	// Classes are the files of pg_class by database, where known; of pg_database by
	// database 0.
	Classes []ClassFile
}

// OpenXact is a transaction or subtransaction that has changed rows and not ended.
type OpenXact struct {
	XID      pg.XID
	Top      pg.XID // the transaction it is a part of, where known; else 0
	Prepared bool
	Changes
	// Folded are rows of subtransactions up to FoldedTo that are no longer told
	// apart: if one of them is rolled back, all of these are given up.
	Folded     []RelRows
	FoldedMore RowCounts
	FoldedTo   pg.XID
}

// ClassFile is the file of a database's pg_class.
type ClassFile struct {
	DB, File pg.Oid
}

// ForkBlocks are changed blocks of one file.
type ForkBlocks struct {
	Rel  pg.RelFileLocator
	Fork pg.ForkNumber
	// From is the block from which on all count as changed; NoBlock if there is none.
	From uint32
	// Runs are the changed blocks before From, in order and apart.
	Runs []BlockRun
}

// NoBlock is no block's number.
const NoBlock = 1<<32 - 1

// BlockRun is Count blocks from Block on.
type BlockRun struct {
	Block, Count uint32
}

// Database is one database's directory in one tablespace.
type Database struct {
	Spc, DB pg.Oid
}

// Opaque is a record of an extension that changed files as only it knows.
type Opaque struct {
	Start pg.LSN
	Rmgr  walscan.RmgrID
}

// Creation is a relation's new file. XID is 0 where the transaction had none yet.
type Creation struct {
	Start pg.LSN
	XID   pg.XID
	Rel   pg.RelFileLocator
	Fork  pg.ForkNumber
}

// Truncation cuts a relation's files: vacuum does. Flags are walscan's Truncate….
type Truncation struct {
	Start  pg.LSN
	XID    pg.XID
	Rel    pg.RelFileLocator
	Blocks uint32
	Flags  uint32
}

// MapChange is a new pg_filenode.map.
type MapChange struct {
	Start   pg.LSN
	XID     pg.XID
	Spc, DB pg.Oid
	Class   pg.Oid // file of pg_class, or with DB 0 of pg_database
}

// DatabaseCreation is a database's new directory in one tablespace.
type DatabaseCreation struct {
	Start pg.LSN
	XID   pg.XID
	walscan.DatabaseCreate
}

// DatabaseDrop is the removal of a database's directories.
type DatabaseDrop struct {
	Start pg.LSN
	XID   pg.XID
	walscan.DatabaseDrop
}

// TablespaceDrop is the removal of a tablespace.
type TablespaceDrop struct {
	Start pg.LSN
	XID   pg.XID
	Oid   pg.Oid
}

// Truncate is the command, as wal_level logical tells it. Otherwise it shows as new
// files, and old ones dropped at the commit.
type Truncate struct {
	Start pg.LSN
	XID   pg.XID
	walscan.HeapTruncate
}
