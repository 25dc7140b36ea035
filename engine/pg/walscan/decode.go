// SPDX-License-Identifier: Apache-2.0

package walscan

import (
	"bytes"
	"fmt"

	"github.com/kbcli/kbcli/engine/pg"
)

// cursor reads a record's main data from front to back. Reading past the end
// yields zeros and is remembered.
type cursor struct {
	b     []byte
	short bool
}

func (c *cursor) take(n int) []byte {
	if n < 0 || n > len(c.b) {
		c.short = true
		c.b = nil
		return nil
	}
	b := c.b[:n]
	c.b = c.b[n:]
	return b
}

// skip passes over n items of size bytes each.
func (c *cursor) skip(n uint32, size int) { c.take(int(n) * size) }

func (c *cursor) u8() uint8 {
	if b := c.take(1); b != nil {
		return b[0]
	}
	return 0
}

func (c *cursor) u16() uint16 {
	if b := c.take(2); b != nil {
		return le.Uint16(b)
	}
	return 0
}

func (c *cursor) u32() uint32 {
	if b := c.take(4); b != nil {
		return le.Uint32(b)
	}
	return 0
}

func (c *cursor) u64() uint64 {
	if b := c.take(8); b != nil {
		return le.Uint64(b)
	}
	return 0
}

func (c *cursor) oid() pg.Oid             { return pg.Oid(c.u32()) }
func (c *cursor) xid() pg.XID             { return pg.XID(c.u32()) }
func (c *cursor) lsn() pg.LSN             { return pg.LSN(c.u64()) }
func (c *cursor) timeline() pg.TimelineID { return pg.TimelineID(c.u32()) }
func (c *cursor) timestamp() pg.Timestamp { return pg.Timestamp(c.u64()) }

func (c *cursor) rel() pg.RelFileLocator {
	return pg.RelFileLocator{Spc: c.oid(), DB: c.oid(), Rel: c.oid()}
}

// rels reads n relation names; nothing is allocated before they are known to be there.
func (c *cursor) rels(n uint32) []pg.RelFileLocator {
	sub := cursor{b: c.take(int(n) * 12)}
	if len(sub.b) == 0 {
		return nil
	}
	out := make([]pg.RelFileLocator, n)
	for i := range out {
		out[i] = sub.rel()
	}
	return out
}

func (c *cursor) xids(n uint32) []pg.XID {
	sub := cursor{b: c.take(int(n) * 4)}
	if len(sub.b) == 0 {
		return nil
	}
	out := make([]pg.XID, n)
	for i := range out {
		out[i] = sub.xid()
	}
	return out
}

// zstring reads a string and the zero byte that ends it.
func (c *cursor) zstring() string {
	i := bytes.IndexByte(c.b, 0)
	if i < 0 {
		c.short = true
		return ""
	}
	return string(c.take(i + 1)[:i])
}

// err is nil unless the data was too short. what names the record.
func (c *cursor) err(r *Record, what string) error {
	if !c.short {
		return nil
	}
	return fmt.Errorf("%s record at %s: %d bytes of data are too few", what, r.Start, len(r.Main))
}

// fixed is a cursor over the main data of r if r is the operation op of rmgr.
func (r *Record) fixed(rmgr RmgrID, op uint8) (cursor, bool) {
	return cursor{b: r.Main}, r.Rmgr == rmgr && r.Op() == op
}

func (c *cursor) oids(n uint32) []pg.Oid {
	sub := cursor{b: c.take(int(n) * 4)}
	if len(sub.b) == 0 {
		return nil
	}
	out := make([]pg.Oid, n)
	for i := range out {
		out[i] = sub.oid()
	}
	return out
}
