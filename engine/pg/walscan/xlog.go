// SPDX-License-Identifier: Apache-2.0

package walscan

import (
	"bytes"

	"github.com/kbcli/kbcli/engine/pg"
)

// Operations of the XLOG resource manager (catalog/pg_control.h).
const (
	xlogCheckpointShutdown  = 0x00
	xlogCheckpointOnline    = 0x10
	xlogSwitch              = 0x40
	xlogBackupEnd           = 0x50
	xlogParameterChange     = 0x60
	xlogRestorePoint        = 0x70
	xlogFPWChange           = 0x80
	xlogEndOfRecovery       = 0x90
	xlogOverwriteContrecord = 0xD0
)

// Checkpoint is a checkpoint's record, written at its end.
type Checkpoint struct {
	Shutdown          bool
	Redo              pg.LSN // where recovery from this checkpoint begins
	Timeline          pg.TimelineID
	PrevTimeline      pg.TimelineID // differs from Timeline in the first record of a timeline
	FullPageWrites    bool
	NextXID           uint64 // with its epoch in the high half
	OldestActiveXID   pg.XID // 0 in a shutdown checkpoint
	Time              pg.Timestamp
	OldestXID         pg.XID
	OldestXIDDB       pg.Oid
	NextOid           pg.Oid
	NextMultiXact     uint32
	NextMultiOffset   uint32
	OldestMultiXact   uint32
	OldestMultiXactDB pg.Oid
}

// Checkpoint decodes the record of a checkpoint, online or at shutdown.
//
//	0  redo u64 │ 8 tli u32 │ 12 prev_tli u32 │ 16 full_page_writes u8 │ 20 wal_level (17+)
//	24 next_xid u64 │ 32 next_oid │ 36 next_multi │ 40 next_multi_offset │ 44 oldest_xid
//	48 oldest_xid_db │ 52 oldest_multi │ 56 oldest_multi_db │ 64 time i64, Unix seconds
//	72 oldest_commit_ts │ 76 newest_commit_ts │ 80 oldest_active_xid
func (r *Record) Checkpoint() (Checkpoint, bool, error) {
	if r.Rmgr != RmgrXLOG || r.Op() != xlogCheckpointShutdown && r.Op() != xlogCheckpointOnline {
		return Checkpoint{}, false, nil
	}
	c := cursor{b: r.Main}
	p := Checkpoint{Shutdown: r.Op() == xlogCheckpointShutdown}
	p.Redo = c.lsn()
	p.Timeline, p.PrevTimeline = c.timeline(), c.timeline()
	p.FullPageWrites = c.u8() != 0
	c.take(7)
	p.NextXID = c.u64()
	p.NextOid = c.oid()
	p.NextMultiXact, p.NextMultiOffset = c.u32(), c.u32()
	p.OldestXID, p.OldestXIDDB = c.xid(), c.oid()
	p.OldestMultiXact, p.OldestMultiXactDB = c.u32(), c.oid()
	c.take(4)
	p.Time = unixSeconds(c.u64())
	c.take(8)
	p.OldestActiveXID = c.xid()
	return p, true, c.err(r, "checkpoint")
}

// unixSeconds turns a time_t into PostgreSQL's own timestamp. Nonsense wraps around.
func unixSeconds(s uint64) pg.Timestamp {
	const epoch = 946684800 // 2000-01-01
	return pg.Timestamp((int64(s) - epoch) * 1_000_000)
}

// RestorePoint is what pg_create_restore_point leaves.
type RestorePoint struct {
	Name string
	Time pg.Timestamp
}

// RestorePoint decodes the record of a restore point.
func (r *Record) RestorePoint() (RestorePoint, bool, error) {
	c, ok := r.fixed(RmgrXLOG, xlogRestorePoint)
	if !ok {
		return RestorePoint{}, false, nil
	}
	p := RestorePoint{Time: c.timestamp()}
	name := c.take(64)
	if i := bytes.IndexByte(name, 0); i >= 0 {
		name = name[:i]
	}
	p.Name = string(name)
	return p, true, c.err(r, "restore point")
}

// ParameterChange are the settings that a standby, and so recovery with hot
// standby, must have no less than the primary's.
type ParameterChange struct {
	MaxConnections       int
	MaxWorkerProcesses   int
	MaxWalSenders        int
	MaxPreparedXacts     int
	MaxLocksPerXact      int
	WalLevel             WalLevel
	WalLogHints          bool
	TrackCommitTimestamp bool
}

// WalLevel is the setting wal_level, in the order of what they log.
type WalLevel int

// The levels, as numbers that are in WAL and in pg_control.
const (
	WalLevelMinimal WalLevel = iota
	WalLevelReplica
	WalLevelLogical
)

// String is the value of the setting.
func (l WalLevel) String() string {
	switch l {
	case WalLevelMinimal:
		return "minimal"
	case WalLevelReplica:
		return "replica"
	case WalLevelLogical:
		return "logical"
	}
	return "?"
}

// ParameterChange decodes the record that tells of changed settings.
func (r *Record) ParameterChange() (ParameterChange, bool, error) {
	c, ok := r.fixed(RmgrXLOG, xlogParameterChange)
	if !ok {
		return ParameterChange{}, false, nil
	}
	number := func() int { return int(int32(c.u32())) }
	p := ParameterChange{
		MaxConnections:       number(),
		MaxWorkerProcesses:   number(),
		MaxWalSenders:        number(),
		MaxPreparedXacts:     number(),
		MaxLocksPerXact:      number(),
		WalLevel:             WalLevel(number()),
		WalLogHints:          c.u8() != 0,
		TrackCommitTimestamp: c.u8() != 0,
	}
	return p, true, c.err(r, "parameter change")
}

// EndOfRecovery is the first record of a timeline that began without a
// checkpoint: a promotion.
type EndOfRecovery struct {
	Timeline     pg.TimelineID
	PrevTimeline pg.TimelineID
	Time         pg.Timestamp
}

// EndOfRecovery decodes the record that ends a recovery.
func (r *Record) EndOfRecovery() (EndOfRecovery, bool, error) {
	c, ok := r.fixed(RmgrXLOG, xlogEndOfRecovery)
	if !ok {
		return EndOfRecovery{}, false, nil
	}
	e := EndOfRecovery{Time: c.timestamp(), Timeline: c.timeline(), PrevTimeline: c.timeline()}
	return e, true, c.err(r, "end of recovery")
}

// BackupEnd is where a base backup of a primary becomes consistent.
type BackupEnd struct {
	Start pg.LSN // of the backup: its label's START WAL LOCATION
}

// BackupEnd decodes the record that ends a base backup.
func (r *Record) BackupEnd() (BackupEnd, bool, error) {
	c, ok := r.fixed(RmgrXLOG, xlogBackupEnd)
	if !ok {
		return BackupEnd{}, false, nil
	}
	e := BackupEnd{Start: c.lsn()}
	return e, true, c.err(r, "backup end")
}

// FullPageWriteChange tells, if ok, that full_page_writes was switched on or off.
// Without it a base backup is not safe.
func (r *Record) FullPageWriteChange() (on, ok bool, err error) {
	c, ok := r.fixed(RmgrXLOG, xlogFPWChange)
	if !ok {
		return false, false, nil
	}
	on = c.u8() != 0
	return on, true, c.err(r, "full page writes")
}

// OverwriteContrecord says that the record which began at Overwritten was never
// finished: the server died while it wrote it.
type OverwriteContrecord struct {
	Overwritten pg.LSN
	Time        pg.Timestamp
}

// OverwriteContrecord decodes the record that follows an unfinished one.
func (r *Record) OverwriteContrecord() (OverwriteContrecord, bool, error) {
	c, ok := r.fixed(RmgrXLOG, xlogOverwriteContrecord)
	if !ok {
		return OverwriteContrecord{}, false, nil
	}
	o := OverwriteContrecord{Overwritten: c.lsn(), Time: c.timestamp()}
	return o, true, c.err(r, "overwrite contrecord")
}

// IsSwitch tells whether the rest of the segment is unused: pg_switch_wal.
func (r *Record) IsSwitch() bool { return r.Rmgr == RmgrXLOG && r.Op() == xlogSwitch }
