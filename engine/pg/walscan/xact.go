// SPDX-License-Identifier: Apache-2.0

package walscan

import (
	"fmt"

	"github.com/kbcli/kbcli/engine/pg"
)

// XactKind is how a transaction ended, or that it was prepared.
type XactKind uint8

// The ends of transactions. After Prepare the transaction is still open.
const (
	Commit XactKind = iota
	Abort
	CommitPrepared
	AbortPrepared
	Prepare
)

// String is pg_waldump's name of the record.
func (k XactKind) String() string {
	switch k {
	case Commit:
		return "COMMIT"
	case Abort:
		return "ABORT"
	case CommitPrepared:
		return "COMMIT_PREPARED"
	case AbortPrepared:
		return "ABORT_PREPARED"
	case Prepare:
		return "PREPARE"
	}
	return fmt.Sprintf("XactKind(%d)", uint8(k))
}

// Ends tells whether the transaction is over.
func (k XactKind) Ends() bool { return k != Prepare }

// Committed tells whether the transaction's changes count from this record on.
func (k XactKind) Committed() bool { return k == Commit || k == CommitPrepared }

// Xact is the end of a transaction, or its preparation for two-phase commit.
type Xact struct {
	Kind XactKind
	// XID is the transaction, also for the end of a prepared one, which another
	// transaction's session may write.
	XID pg.XID
	// Time is what recovery_target_time is compared with: the server's clock,
	// read before the record was put in its place. It may run backwards.
	Time     pg.Timestamp
	Subxacts []pg.XID
	// Dropped are the relation files that are removed with this record: on
	// commit those dropped, on abort those created. With Prepare they go later,
	// when it is committed.
	Dropped []pg.RelFileLocator
	// DroppedOnAbort are, with Prepare, those that go if it is aborted.
	DroppedOnAbort []pg.RelFileLocator
	GID            string // of a prepared transaction; its end has one only with wal_level logical
	DB, Spc        pg.Oid // the database, where told: whenever there are Invalidations
	// Invalidations counts the messages about changed catalogues. Zero for a
	// commit means that no table was created, altered or dropped.
	Invalidations int
	OriginLSN     pg.LSN // of the same commit at its replication origin; else 0
	OriginTime    pg.Timestamp
	Info          uint32 // xinfo as it stands
}

// Operations and flags of the Transaction resource manager (access/xact.h).
const (
	xactOpMask  = 0x70
	xactHasInfo = 0x80

	xactCommit         = 0x00
	xactPrepare        = 0x10
	xactAbort          = 0x20
	xactCommitPrepared = 0x30
	xactAbortPrepared  = 0x40

	xinfoDB       = 1 << 0
	xinfoSubxacts = 1 << 1
	xinfoRels     = 1 << 2
	xinfoInvals   = 1 << 3
	xinfoTwoPhase = 1 << 4
	xinfoOrigin   = 1 << 5
	xinfoGID      = 1 << 7
	xinfoStats    = 1 << 8

	invalMessageSize = 16
)

// Xact decodes a record that ends or prepares a transaction; ok is false for
// any other.
func (r *Record) Xact() (x Xact, ok bool, err error) {
	if r.Rmgr != RmgrTransaction {
		return Xact{}, false, nil
	}
	switch r.Info & xactOpMask {
	case xactCommit:
		x.Kind = Commit
	case xactAbort:
		x.Kind = Abort
	case xactCommitPrepared:
		x.Kind = CommitPrepared
	case xactAbortPrepared:
		x.Kind = AbortPrepared
	case xactPrepare:
		x.Kind = Prepare
		x.XID = r.XID
		err = r.decodePrepare(&x)
		return x, true, err
	default:
		return Xact{}, false, nil
	}
	x.XID = r.XID
	err = r.decodeXactEnd(&x)
	return x, true, err
}

// decodeXactEnd reads xl_xact_commit or xl_xact_abort and the parts that follow
// it, each there if its bit of xinfo is set.
func (r *Record) decodeXactEnd(x *Xact) error {
	c := cursor{b: r.Main}
	x.Time = c.timestamp()
	if r.Info&xactHasInfo != 0 {
		x.Info = c.u32()
	}
	if x.Info&xinfoDB != 0 {
		x.DB, x.Spc = c.oid(), c.oid()
	}
	if x.Info&xinfoSubxacts != 0 {
		x.Subxacts = c.xids(c.u32())
	}
	if x.Info&xinfoRels != 0 {
		x.Dropped = c.rels(c.u32())
	}
	if x.Info&xinfoStats != 0 {
		c.skip(c.u32(), r.statsItemSize())
	}
	if x.Info&xinfoInvals != 0 {
		n := c.u32()
		c.skip(n, invalMessageSize)
		x.Invalidations = int(n)
	}
	if x.Info&xinfoTwoPhase != 0 {
		x.XID = c.xid()
		if x.Info&xinfoGID != 0 {
			x.GID = c.zstring()
		}
	}
	if x.Info&xinfoOrigin != 0 {
		x.OriginLSN, x.OriginTime = c.lsn(), c.timestamp()
	}
	return c.err(r, x.Kind.String())
}

// statsItemSize is the size of xl_xact_stats_item, which came with 15 and whose
// object grew to 64 bits in 18.
func (r *Record) statsItemSize() int {
	if r.Major >= 18 {
		return 16
	}
	return 12
}

// decodePrepare reads xl_xact_prepare, the head of a two-phase state file, and
// the arrays that follow it, each aligned to 8 bytes:
//
//	0  magic u32 │ 4 total_len u32 │ 8 xid u32 │ 12 database u32 │ 16 prepared_at u64
//	24 owner u32 │ 28 nsubxacts │ 32 ncommitrels │ 36 nabortrels
//	   since 15: │ 40 ncommitstats │ 44 nabortstats
//	.. ninvalmsgs │ initfileinval u8 │ – │ gidlen u16 │ origin_lsn u64 │ origin_timestamp u64
func (r *Record) decodePrepare(x *Xact) error {
	c := cursor{b: r.Main}
	c.take(8)
	x.XID, x.DB = c.xid(), c.oid()
	x.Time = c.timestamp()
	c.take(4)
	subxacts, commitRels, abortRels := c.u32(), c.u32(), c.u32()
	var commitStats, abortStats uint32
	if r.Major >= 15 {
		commitStats, abortStats = c.u32(), c.u32()
	}
	invals := c.u32()
	c.take(2)
	gidLen := int(c.u16())
	x.OriginLSN, x.OriginTime = c.lsn(), c.timestamp()

	gid := cursor{b: c.array(gidLen, 1)}
	x.GID = gid.zstring()
	sub := cursor{b: c.array(int(subxacts), 4)}
	x.Subxacts = sub.xids(subxacts)
	rels := cursor{b: c.array(int(commitRels), 12)}
	x.Dropped = rels.rels(commitRels)
	rels = cursor{b: c.array(int(abortRels), 12)}
	x.DroppedOnAbort = rels.rels(abortRels)
	c.array(int(commitStats), r.statsItemSize())
	c.array(int(abortStats), r.statsItemSize())
	c.array(int(invals), invalMessageSize)
	x.Invalidations = int(invals)
	c.short = c.short || gid.short || sub.short || rels.short
	return c.err(r, x.Kind.String())
}

// array takes n items of size bytes and the padding to 8 bytes behind them.
func (c *cursor) array(n, size int) []byte {
	b := c.take(n * size)
	c.take(-len(b) & 7)
	return b
}
