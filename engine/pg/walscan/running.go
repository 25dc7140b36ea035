// SPDX-License-Identifier: Apache-2.0

package walscan

import "github.com/kbcli/kbcli/engine/pg"

const (
	xactAssignment = 0x50

	standbyRunningXacts = 0x10
)

// Assignment decodes the record that says, for every 64 subtransactions of a
// transaction, whose they are. It comes while all of them may still be rolled back.
//
//	top u32 │ n u32 │ n subtransactions
func (r *Record) Assignment() (top pg.XID, subxacts []pg.XID, ok bool, err error) {
	if r.Rmgr != RmgrTransaction || r.Info&xactOpMask != xactAssignment {
		return 0, nil, false, nil
	}
	c := cursor{b: r.Main}
	top = c.xid()
	subxacts = c.xids(c.u32())
	return top, subxacts, true, c.err(r, "assignment")
}

// RunningXacts decodes what the server logs with each checkpoint and every 15
// seconds: transactions before oldest have ended, their ends are logged before this
// record if they ever are; those from next on had not begun. Prepared transactions
// count as running.
//
//	xcnt u32 │ subxcnt u32 │ overflow u8 │ – 3 │ next u32 │ oldest u32 │ latest completed u32 │ …
func (r *Record) RunningXacts() (next, oldest pg.XID, ok bool, err error) {
	c, ok := r.fixed(RmgrStandby, standbyRunningXacts)
	if !ok {
		return 0, 0, false, nil
	}
	c.take(12)
	next, oldest = c.xid(), c.xid()
	return next, oldest, true, c.err(r, "running transactions")
}

// SpecialChange tells that redo of the record changes files in ways that Blocks
// does not tell: flag SPECIAL_REL_UPDATE. Of the built-in resource managers these are
// Storage, Database and Transaction.
func (r *Record) SpecialChange() bool { return r.Info&0x01 != 0 }
