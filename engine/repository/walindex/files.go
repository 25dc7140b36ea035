// SPDX-License-Identifier: Apache-2.0

package walindex

import (
	"github.com/kbcli/kbcli/engine/pg"
	"github.com/kbcli/kbcli/engine/pg/walscan"
)

// heapBlocksPerVM is how many blocks of a table one block of its visibility map
// tells of: two bits each, after the page header (access/visibilitymap.c).
const heapBlocksPerVM = (pg.BlockSize - 24) * 4

func (b *Builder) addStorage(r *walscan.Record) error {
	c, ok, err := r.SmgrCreate()
	if err != nil {
		return wrap(r, err)
	}
	if ok {
		b.blocks.from(c.Rel, c.Fork, 0)
		if b.has(1) {
			b.x.Creations = append(b.x.Creations, Creation{r.Start, r.XID, c.Rel, c.Fork})
		}
		return nil
	}
	t, ok, err := r.SmgrTruncate()
	if err != nil {
		return wrap(r, err)
	}
	if !ok {
		b.opaque(r)
		return nil
	}
	if t.Flags&walscan.TruncateHeap != 0 {
		b.blocks.from(t.Rel, pg.MainFork, t.Blocks)
	}
	if t.Flags&walscan.TruncateVM != 0 { // and bits are cleared in the last block that stays
		b.blocks.from(t.Rel, pg.VMFork, t.Blocks/heapBlocksPerVM)
	}
	if b.has(1) {
		b.x.Truncations = append(b.x.Truncations, Truncation{r.Start, r.XID, t.Rel, t.Blocks, t.Flags})
	}
	return nil
}

func (b *Builder) addDatabase(r *walscan.Record) error {
	c, ok, err := r.DatabaseCreate()
	if err != nil {
		return wrap(r, err)
	}
	if ok {
		if c.FileCopy && !b.blocks.all(Database{c.Spc, c.DB}) {
			b.opaque(r)
		}
		if b.has(1) {
			b.x.DatabasesMade = append(b.x.DatabasesMade, DatabaseCreation{r.Start, r.XID, c})
		}
		return nil
	}
	d, ok, err := r.DatabaseDrop()
	if err != nil {
		return wrap(r, err)
	}
	if !ok {
		b.opaque(r)
		return nil
	}
	if b.has(1 + len(d.Spc)) {
		b.x.DatabasesDropped = append(b.x.DatabasesDropped, DatabaseDrop{r.Start, r.XID, d})
	}
	return nil
}

func (b *Builder) addTablespace(r *walscan.Record) error {
	t, ok, err := r.TablespaceCreate()
	if err != nil {
		return wrap(r, err)
	}
	if ok {
		b.x.Tablespaces = append(b.x.Tablespaces, Tablespace{r.Start, t.Oid, t.Path})
		return nil
	}
	d, ok, err := r.TablespaceDrop()
	if err == nil && ok && b.has(1) {
		b.x.TablespacesDropped = append(b.x.TablespacesDropped, TablespaceDrop{r.Start, r.XID, d.Oid})
	}
	return wrap(r, err)
}

// Object identifiers of catalogues.
const (
	pgClass    pg.Oid = 1259
	pgDatabase pg.Oid = 1262
)

func (b *Builder) addMap(r *walscan.Record) error {
	m, ok, err := r.RelMapUpdate()
	if err != nil || !ok {
		return wrap(r, err)
	}
	class := m.Files[pgClass]
	if m.DB == 0 {
		class = m.Files[pgDatabase]
	}
	b.open.setClass(m.DB, class)
	if b.has(1) {
		b.x.Maps = append(b.x.Maps, MapChange{r.Start, r.XID, m.Spc, m.DB, class})
	}
	return nil
}

// maxOpaque is enough to know that an extension did it.
const maxOpaque = 100

func (b *Builder) opaque(r *walscan.Record) {
	if len(b.x.Opaque) < maxOpaque {
		b.x.Opaque = append(b.x.Opaque, Opaque{r.Start, r.Rmgr})
	}
}
