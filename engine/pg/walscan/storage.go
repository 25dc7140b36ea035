// SPDX-License-Identifier: Apache-2.0

package walscan

import "github.com/kbcli/kbcli/engine/pg"

// Operations of the resource managers Storage, Database, Tablespace and RelMap.
const (
	smgrCreate   = 0x10
	smgrTruncate = 0x20

	tablespaceCreate = 0x00
	tablespaceDrop   = 0x10

	relmapUpdate = 0x00

	databaseCreate        = 0x00 // by copying files; since 15 one of two ways
	databaseCreateByLog15 = 0x10
	databaseDrop13        = 0x10
	databaseDrop15        = 0x20
)

// SmgrCreate is the creation of a relation's file.
type SmgrCreate struct {
	Rel  pg.RelFileLocator
	Fork pg.ForkNumber
}

// SmgrCreate decodes the record of a file's creation.
func (r *Record) SmgrCreate() (SmgrCreate, bool, error) {
	c, ok := r.fixed(RmgrStorage, smgrCreate)
	if !ok {
		return SmgrCreate{}, false, nil
	}
	s := SmgrCreate{Rel: c.rel(), Fork: pg.ForkNumber(c.u32())}
	return s, true, c.err(r, "storage create")
}

// SmgrTruncate cuts a relation to its first Blocks pages.
type SmgrTruncate struct {
	Rel    pg.RelFileLocator
	Blocks uint32 // of the main fork
	Flags  uint32 // which forks: TruncateHeap, TruncateVM, TruncateFSM
}

// Flags of SmgrTruncate.
const (
	TruncateHeap = 1 << iota
	TruncateVM
	TruncateFSM
)

// SmgrTruncate decodes the record of a truncation, such as vacuum's of empty
// pages. The command TRUNCATE makes new files instead.
func (r *Record) SmgrTruncate() (SmgrTruncate, bool, error) {
	c, ok := r.fixed(RmgrStorage, smgrTruncate)
	if !ok {
		return SmgrTruncate{}, false, nil
	}
	s := SmgrTruncate{Blocks: c.u32(), Rel: c.rel(), Flags: c.u32()}
	return s, true, c.err(r, "storage truncate")
}

// DatabaseCreate is the creation of a database's directory in one tablespace.
type DatabaseCreate struct {
	DB, Spc pg.Oid
	// FileCopy: the files are copied at redo from SrcDB in SrcSpc, as they are
	// then; no record tells their blocks. Otherwise the blocks are in the WAL.
	FileCopy      bool
	SrcDB, SrcSpc pg.Oid
}

// DatabaseCreate decodes the record of a database's creation, or of its arrival
// in another tablespace.
func (r *Record) DatabaseCreate() (DatabaseCreate, bool, error) {
	if c, ok := r.fixed(RmgrDatabase, databaseCreate); ok {
		d := DatabaseCreate{FileCopy: true, DB: c.oid(), Spc: c.oid(), SrcDB: c.oid(), SrcSpc: c.oid()}
		return d, true, c.err(r, "database create")
	}
	if c, ok := r.fixed(RmgrDatabase, databaseCreateByLog15); ok && r.Major >= 15 {
		d := DatabaseCreate{DB: c.oid(), Spc: c.oid()}
		return d, true, c.err(r, "database create")
	}
	return DatabaseCreate{}, false, nil
}

// DatabaseDrop is the removal of a database's directories.
type DatabaseDrop struct {
	DB  pg.Oid
	Spc []pg.Oid
}

// DatabaseDrop decodes the record of a database's removal, or of its departure
// from a tablespace.
func (r *Record) DatabaseDrop() (DatabaseDrop, bool, error) {
	op := uint8(databaseDrop15)
	if r.Major < 15 {
		op = databaseDrop13
	}
	c, ok := r.fixed(RmgrDatabase, op)
	if !ok {
		return DatabaseDrop{}, false, nil
	}
	d := DatabaseDrop{DB: c.oid()}
	d.Spc = c.oids(c.u32())
	return d, true, c.err(r, "database drop")
}

// TablespaceCreate is the creation of a tablespace. Redo makes the symbolic link
// to Path again, an absolute path on the machine that recovers.
type TablespaceCreate struct {
	Oid  pg.Oid
	Path string
}

// TablespaceCreate decodes the record of a tablespace's creation.
func (r *Record) TablespaceCreate() (TablespaceCreate, bool, error) {
	c, ok := r.fixed(RmgrTablespace, tablespaceCreate)
	if !ok {
		return TablespaceCreate{}, false, nil
	}
	s := TablespaceCreate{Oid: c.oid(), Path: c.zstring()}
	return s, true, c.err(r, "tablespace create")
}

// TablespaceDrop is the removal of a tablespace.
type TablespaceDrop struct {
	Oid pg.Oid
}

// TablespaceDrop decodes the record of a tablespace's removal.
func (r *Record) TablespaceDrop() (TablespaceDrop, bool, error) {
	c, ok := r.fixed(RmgrTablespace, tablespaceDrop)
	if !ok {
		return TablespaceDrop{}, false, nil
	}
	s := TablespaceDrop{Oid: c.oid()}
	return s, true, c.err(r, "tablespace drop")
}

// RelMapUpdate gives new files to catalogues whose files no catalogue names:
// pg_filenode.map of one database, or with DB 0 the global one.
type RelMapUpdate struct {
	DB, Spc pg.Oid
	Files   map[pg.Oid]pg.Oid // file number by object identifier: the whole map; nil if its format is not known
}

const (
	relmapMagic = 0x592717
	relmapMost  = 64 // mappings of any release's file
)

// RelMapUpdate decodes the record of a new pg_filenode.map (utils/cache/relmapper.c).
//
//	database u32 │ tablespace u32 │ bytes u32 │ magic u32 │ n u32 │ n × { oid u32, file u32 } │ …
func (r *Record) RelMapUpdate() (RelMapUpdate, bool, error) {
	c, ok := r.fixed(RmgrRelMap, relmapUpdate)
	if !ok {
		return RelMapUpdate{}, false, nil
	}
	m := RelMapUpdate{DB: c.oid(), Spc: c.oid()}
	c.take(4)
	if magic, n := c.u32(), c.u32(); magic == relmapMagic && n <= relmapMost {
		m.Files = map[pg.Oid]pg.Oid{}
		for range n {
			oid := c.oid()
			m.Files[oid] = c.oid()
		}
	}
	return m, true, c.err(r, "relation map update")
}
