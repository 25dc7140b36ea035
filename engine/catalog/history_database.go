// SPDX-License-Identifier: Apache-2.0

package catalog

import (
	"context"
	"encoding/binary"
	"slices"

	"github.com/kbcli/kbcli/engine/pg"
	"github.com/kbcli/kbcli/engine/pg/walscan"
	"github.com/kbcli/kbcli/engine/repository/walindex"
)

// Operations of the Heap resource manager (access/heapam_xlog.h).
const (
	heapOpMask  = 0x70
	heapDelete  = 0x10
	heapInplace = 0x70
)

// heapTuple is a row's place.
type heapTuple struct {
	rel    pg.RelFileLocator
	block  uint32
	offset uint16
}

// dropStart is where a DROP DATABASE begins, whose files go at lsn. Before its first
// record it may have marked the database as one that nobody can connect to: that is
// changed in place, for good, and belongs to no transaction.
func (h *historian) dropStart(ctx context.Context, xid pg.XID, lsn pg.LSN) (pg.LSN, error) {
	size := h.c.inv.size
	from := size.Number(lsn)
	for from > 0 && h.c.has(h.p.Segment(from-1)) {
		from--
		x, err := h.c.Index(ctx, h.p, from, size.End(from))
		if err != nil {
			return lsn, err
		}
		if !slices.ContainsFunc(x.Open.Xacts, func(o walindex.OpenXact) bool { return o.XID == xid }) {
			break // one more than it wrote in: the mark may be there
		}
	}
	start := lsn
	marks := map[heapTuple]pg.LSN{}
	err := h.c.walk(ctx, h.p, from, min(h.c.endOf(h.p, size.Number(lsn)), lsn+pg.LSN(size)), func(r *walscan.Record) error {
		if r.Start >= lsn {
			return errEnough
		}
		if r.XID == xid {
			start = min(start, r.Start)
		}
		if r.Rmgr != walscan.RmgrHeap || len(r.Blocks) == 0 || r.Blocks[0].Rel.DB != 0 {
			return nil
		}
		b := &r.Blocks[0]
		switch op := r.Op() & heapOpMask; {
		case op == heapInplace && len(r.Main) >= 2:
			marks[heapTuple{b.Rel, b.Block, binary.LittleEndian.Uint16(r.Main)}] = r.Start
		case op == heapDelete && r.XID == xid && len(r.Main) >= 6:
			if at, ok := marks[heapTuple{b.Rel, b.Block, binary.LittleEndian.Uint16(r.Main[4:])}]; ok {
				start = min(start, at)
			}
		}
		return nil
	})
	return start, err
}
