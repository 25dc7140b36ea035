// SPDX-License-Identifier: Apache-2.0

package walscan_test

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kbcli/kbcli/engine/pg"
	"github.com/kbcli/kbcli/engine/pg/walscan"
)

func stamp(t pg.Timestamp) string { return t.Time().Format("2006-01-02 15:04:05.000000 UTC") }

func file(r pg.RelFileLocator) string {
	switch r.Spc {
	case 1664:
		return fmt.Sprintf("global/%d", r.Rel)
	case 1663:
		return fmt.Sprintf("base/%d/%d", r.DB, r.Rel)
	}
	return fmt.Sprintf("pg_tblspc/%d/%d/%d", r.Spc, r.DB, r.Rel)
}

// describe decodes a record. says are the pieces of pg_waldump's description
// that the decoded values make; the first is its beginning.
func describe(r *walscan.Record) (kind string, says []string, err error) {
	if x, ok, err := r.Xact(); ok || err != nil {
		return x.Kind.String(), nil, err
	}
	if p, ok, err := r.RestorePoint(); ok || err != nil {
		return "RESTORE_POINT", []string{"RESTORE_POINT " + p.Name}, err
	}
	if p, ok, err := r.ParameterChange(); ok || err != nil {
		return "PARAMETER_CHANGE", []string{fmt.Sprintf(
			"PARAMETER_CHANGE max_connections=%d max_worker_processes=%d max_wal_senders=%d max_prepared_xacts=%d max_locks_per_xact=%d wal_level=%s wal_log_hints=%s track_commit_timestamp=%s",
			p.MaxConnections, p.MaxWorkerProcesses, p.MaxWalSenders, p.MaxPreparedXacts, p.MaxLocksPerXact, p.WalLevel, onOff(p.WalLogHints), onOff(p.TrackCommitTimestamp))}, err
	}
	if c, ok, err := r.Checkpoint(); ok || err != nil {
		kind, end := "CHECKPOINT_ONLINE", "online"
		if c.Shutdown {
			kind, end = "CHECKPOINT_SHUTDOWN", "shutdown"
		}
		return kind, []string{
			fmt.Sprintf("%s redo %s; tli %s; prev tli %s; fpw %t; ", kind, wide(c.Redo), c.Timeline, c.PrevTimeline, c.FullPageWrites),
			fmt.Sprintf("xid %d:%d; oid %d; multi %d; offset %d; oldest xid %d in DB %d; oldest multi %d in DB %d; ", uint32(c.NextXID>>32), uint32(c.NextXID), c.NextOid, c.NextMultiXact, c.NextMultiOffset, c.OldestXID, c.OldestXIDDB, c.OldestMultiXact, c.OldestMultiXactDB),
			fmt.Sprintf("oldest running xid %d; %s", c.OldestActiveXID, end),
		}, err
	}
	if e, ok, err := r.EndOfRecovery(); ok || err != nil {
		return "END_OF_RECOVERY", []string{fmt.Sprintf("END_OF_RECOVERY tli %s; prev tli %s; time %s", e.Timeline, e.PrevTimeline, stamp(e.Time))}, err
	}
	if e, ok, err := r.BackupEnd(); ok || err != nil {
		return "BACKUP_END", []string{"BACKUP_END " + wide(e.Start)}, err
	}
	if o, ok, err := r.OverwriteContrecord(); ok || err != nil {
		return "OVERWRITE_CONTRECORD", []string{fmt.Sprintf("OVERWRITE_CONTRECORD lsn %s; time %s", wide(o.Overwritten), stamp(o.Time))}, err
	}
	if on, ok, err := r.FullPageWriteChange(); ok || err != nil {
		return "FPW_CHANGE", []string{fmt.Sprintf("FPW_CHANGE %t", on)}, err
	}
	if r.IsSwitch() {
		return "SWITCH", []string{"SWITCH"}, nil
	}
	if top, subs, ok, err := r.Assignment(); ok || err != nil {
		return "ASSIGNMENT", []string{fmt.Sprintf("ASSIGNMENT xtop %d: subxacts: %s", top, strings.Trim(fmt.Sprint(subs), "[]"))}, err
	}
	if next, oldest, ok, err := r.RunningXacts(); ok || err != nil {
		return "RUNNING_XACTS", []string{fmt.Sprintf("RUNNING_XACTS nextXid %d ", next), fmt.Sprintf(" oldestRunningXid %d", oldest)}, err
	}
	if kind, says, err := describeFiles(r); kind != "" || err != nil {
		return kind, says, err
	}
	return describeRows(r)
}

func describeFiles(r *walscan.Record) (kind string, says []string, err error) {
	if c, ok, err := r.SmgrCreate(); ok || err != nil {
		name := file(c.Rel)
		if c.Fork != pg.MainFork {
			name += "_" + c.Fork.String()
		}
		return "smgr create", []string{"CREATE " + name}, err
	}
	if c, ok, err := r.SmgrTruncate(); ok || err != nil {
		return "smgr truncate", []string{fmt.Sprintf("TRUNCATE %s to %d blocks flags %d", file(c.Rel), c.Blocks, c.Flags)}, err
	}
	if c, ok, err := r.DatabaseCreate(); ok || err != nil {
		if c.FileCopy {
			return "database copy", []string{"CREATE", fmt.Sprintf(" copy dir %d/%d to %d/%d", c.SrcSpc, c.SrcDB, c.Spc, c.DB)}, err
		}
		return "database log", []string{fmt.Sprintf("CREATE_WAL_LOG create dir %d/%d", c.Spc, c.DB)}, err
	}
	if c, ok, err := r.DatabaseDrop(); ok || err != nil {
		says = []string{"DROP dir"}
		for _, spc := range c.Spc {
			says = append(says, fmt.Sprintf(" %d/%d", spc, c.DB))
		}
		return "database drop", says, err
	}
	if c, ok, err := r.TablespaceCreate(); ok || err != nil {
		return "tablespace create", []string{fmt.Sprintf("CREATE %d %q", c.Oid, c.Path)}, err
	}
	if c, ok, err := r.TablespaceDrop(); ok || err != nil {
		return "tablespace drop", []string{fmt.Sprintf("DROP %d", c.Oid)}, err
	}
	if c, ok, err := r.RelMapUpdate(); ok || err != nil {
		return "relmap", []string{fmt.Sprintf("UPDATE database %d tablespace %d size", c.DB, c.Spc)}, err
	}
	return "", nil, nil
}

func describeRows(r *walscan.Record) (kind string, says []string, err error) {
	if h, ok, err := r.HeapTruncate(); ok || err != nil {
		return "heap truncate", []string{"TRUNCATE", fmt.Sprintf("nrelids%s%d", colon(r, " "), len(h.Rels))}, err
	}
	h, ok, err := r.HeapOp()
	if !ok || err != nil {
		if pages := r.ClearsVisibility(); pages != 0 && err == nil { // a lock
			return "visibility", []string{"LOCK", "0x01"}, nil
		}
		return "", nil, err
	}
	switch {
	case r.Rmgr == walscan.RmgrHeap2 && r.Major >= 16:
		return "multi insert", []string{"MULTI_INSERT", fmt.Sprintf(" ntuples: %d, ", h.Inserted)}, nil
	case r.Rmgr == walscan.RmgrHeap2:
		return "multi insert", []string{"MULTI_INSERT", fmt.Sprintf(" %d tuples ", h.Inserted)}, nil
	case h.Inserted == 1:
		return "insert", []string{"INSERT"}, nil
	case h.Updated == 1:
		return "update", []string{"", "UPDATE"}, nil
	case h.Deleted == 1:
		return "delete", []string{"DELETE"}, nil
	}
	return "retract", []string{"DELETE"}, nil
}

// colon is what stands between a name and its value in descriptions of rows.
func colon(r *walscan.Record, before16 string) string {
	if r.Major >= 16 {
		return ": "
	}
	return before16
}

// wide is pg_waldump's own spelling of an LSN since 15; older ones leave zeros out.
func wide(l pg.LSN) string { return fmt.Sprintf("%X/%08X", uint32(l>>32), uint32(l)) }

func onOff(b bool) string {
	if b {
		return "on"
	}
	return "off"
}

var anyLSN = regexp.MustCompile(`\b([0-9A-F]+)/0*([0-9A-F]+)\b`)

func checkDesc(errorf func(string, ...any), r *walscan.Record, d dumped, says []string) {
	if x, ok, _ := r.Xact(); ok {
		got, want := xactOf(x), xactOfDesc(d.desc)
		if x.Kind == walscan.CommitPrepared || x.Kind == walscan.AbortPrepared {
			got.GID = "" // not shown
		} else if x.Kind != walscan.Prepare {
			want.XID = uint32(r.XID) // shown only for prepared ones
		} else {
			want.XID = uint32(r.XID)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			errorf("%s\n%s\n(-pg_waldump +walscan) %s", d.line, d.desc, diff)
		}
		return
	}
	desc := anyLSN.ReplaceAllString(d.desc, "$1/$2")
	for i, s := range says {
		s = anyLSN.ReplaceAllString(s, "$1/$2")
		if i == 0 && !strings.HasPrefix(desc, s) || !strings.Contains(desc, s) {
			errorf("%s\n%.300s\ndecoded as %q", d.line, desc, s)
		}
	}
}

// xactText is a Xact as its description shows it.
type xactText struct {
	Kind, Time, GID           string
	XID                       uint32
	Rels, AbortRels, Subxacts string
	Origin                    string
	Inval                     bool
}

func xactOf(x walscan.Xact) xactText {
	xt := xactText{Kind: x.Kind.String(), Time: stamp(x.Time), GID: x.GID, XID: uint32(x.XID), Inval: x.Invalidations > 0}
	files := func(rels []pg.RelFileLocator) string {
		var names []string
		for _, r := range rels {
			names = append(names, file(r))
		}
		return strings.Join(names, " ")
	}
	xt.Rels, xt.AbortRels = files(x.Dropped), files(x.DroppedOnAbort)
	var subs []string
	for _, s := range x.Subxacts {
		subs = append(subs, fmt.Sprint(uint32(s)))
	}
	xt.Subxacts = strings.Join(subs, " ")
	if x.OriginLSN != 0 {
		xt.Origin = fmt.Sprintf("%s at %s", x.OriginLSN, stamp(x.OriginTime))
	}
	return xt
}

var (
	xactKind   = regexp.MustCompile(`^(\w+) (?:(\d+): )?(?:gid (.*): )?(\d{4}-\d\d-\d\d \S+ UTC)`)
	originText = regexp.MustCompile(`^ ?origin: node \d+, lsn ([0-9A-F/]+), at (.*)$`)
)

func xactOfDesc(desc string) xactText {
	var x xactText
	m := xactKind.FindStringSubmatch(desc)
	if m == nil {
		return x
	}
	x.Kind, x.GID = m[1], m[3]
	if xid, err := strconv.ParseUint(m[2], 10, 32); err == nil {
		x.XID = uint32(xid)
	}
	if at, err := time.Parse("2006-01-02 15:04:05.999999 UTC", m[4]); err == nil {
		x.Time = stamp(pg.TimestampOf(at))
	}
	for _, part := range strings.Split(desc[len(m[0]):], ";") {
		name, value, _ := strings.Cut(strings.TrimSpace(part), ":")
		value = strings.TrimSpace(value)
		switch name {
		case "rels", "rels(commit)":
			x.Rels = value
		case "rels(abort)":
			x.AbortRels = value
		case "subxacts":
			x.Subxacts = value
		case "inval msgs", "relcache init file inval dbid":
			x.Inval = true
		case "origin":
			if m := originText.FindStringSubmatch(strings.TrimSpace(part)); m != nil {
				lsn, _ := pg.ParseLSN(m[1])
				at, _ := time.Parse("2006-01-02 15:04:05.999999 UTC", m[2])
				x.Origin = fmt.Sprintf("%s at %s", lsn, stamp(pg.TimestampOf(at)))
			}
		}
	}
	return x
}
