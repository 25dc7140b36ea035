// SPDX-License-Identifier: Apache-2.0

package checkup

import (
	"fmt"
	"strings"

	"github.com/kbcli/kbcli/engine/pg"
	"github.com/kbcli/kbcli/engine/pg/client"
)

// ServerTarget is a server that is to be protected, perhaps one that somebody else
// runs.
type ServerTarget struct {
	Conninfo      string // libpq's keywords or URI
	DataDirectory string // as this process sees it; empty asks the server
	Slot          string // the slot and the application_name of its archiving
	Sync          bool   // commits are to wait for the repository
}

// ServerFacts is what GatherServer saw of a server.
type ServerFacts struct {
	Target ServerTarget
	Server client.Server
	User   string // the role
	Agent  string // the account of the operating system that this process has
	Local  bool   // the connection is over a Unix socket
	Client string // the address that the server sees, over TCP

	Fsync          bool
	Senders        int // walsenders at work, Target.Slot's left out
	Slots          int // slots there are, Target.Slot left out
	SlotKeep       int64
	SyncNames      string // synchronous_standby_names
	SyncCommit     string // synchronous_commit
	PrimaryWrites  bool   // of a standby: its primary has full_page_writes
	MayBackup      bool   // the role may run the backup functions
	MaySeeSettings bool   // the role may read every setting
	MayAlter       bool   // the role may set synchronous_standby_names
	RestoreRole    string // a superuser that may log in; empty for none
	InitRole       string // whom initdb made

	HBAFile string
	Rules   []HBARule // of HBAFile as it is now; nil when the role may not see them

	Stream Stream

	Data        DataFacts
	Tablespaces []TablespaceFacts

	// Restart is the command that restarts this server, of who runs it.
	Restart string
}

// Stream is what a replication connection showed.
type Stream struct {
	Err      error
	SystemID pg.SystemID
}

// DataFacts is what was seen of a data directory on this machine.
type DataFacts struct {
	Directory  string
	Owner      string
	Err        error // it, or its pg_control, could not be read
	Control    pg.ControlFile
	Unreadable []string // what this process may not read, the first few
	Free       int64    // bytes on the file system of pg_wal; negative when not known
}

// TablespaceFacts is a tablespace and whether it can be read.
type TablespaceFacts struct {
	Name, Location string
	Err            error
}

// unbounded is SlotKeep without a bound.
const unbounded = -1

// CheckServer tells whether a server can be protected, check by check and always in
// the same order.
func CheckServer(f *ServerFacts) []Finding {
	var out []Finding
	for _, c := range []struct {
		name  string
		check func(*ServerFacts) (Level, string, string)
	}{
		{"server-version", checkVersion},
		{"wal-level", checkWALLevel},
		{"wal-senders", checkSenders},
		{"replication-slots", checkSlots},
		{"replication-role", checkRole},
		{"replication-connection", checkStream},
		{"restore-role", checkRestoreRole},
		{"data-directory", checkData},
		{"page-layout", checkLayout},
		{"full-page-writes", checkFullPageWrites},
		{"fsync", checkFsync},
		{"checksums", checkChecksums},
		{"slot-room", checkSlotRoom},
		{"tablespaces", checkTablespaces},
		{"in-recovery", checkRecovery},
		{"archive-mode", checkArchiveMode},
		{"synchronous-standby-names", checkSync},
	} {
		level, evidence, next := c.check(f)
		out = append(out, Finding{c.name, level, evidence, next})
	}
	return out
}

func checkVersion(f *ServerFacts) (Level, string, string) {
	if m := f.Server.Version.Major(); m < pg.OldestMajor || m > pg.NewestMajor {
		return Fail, fmt.Sprintf("PostgreSQL %s; supported are %d to %d", f.Server.Version, pg.OldestMajor, pg.NewestMajor),
			"-- use pg_upgrade to come to a release that is supported"
	}
	return Pass, "PostgreSQL " + f.Server.Version.String(), ""
}

func checkWALLevel(f *ServerFacts) (Level, string, string) {
	if f.Server.WALLevel == "minimal" {
		return Fail, "wal_level is minimal: its WAL is too little to restore from",
			lines("ALTER SYSTEM SET wal_level = 'replica';", f.Restart)
	}
	return Pass, "wal_level is " + f.Server.WALLevel, ""
}

// spare is how many more senders or slots are proposed than are in use.
const spare = 5

func checkSenders(f *ServerFacts) (Level, string, string) {
	limit := f.Server.MaxWALSenders
	evidence := fmt.Sprintf("max_wal_senders is %d, and %d are in use", limit, f.Senders)
	if limit-f.Senders < 1 {
		return Fail, evidence + ": archiving needs one", lines(
			fmt.Sprintf("ALTER SYSTEM SET max_wal_senders = %d;", max(10, f.Senders+spare)), f.Restart)
	}
	return Pass, evidence, ""
}

func checkSlots(f *ServerFacts) (Level, string, string) {
	limit := f.Server.MaxReplicationSlots
	evidence := fmt.Sprintf("max_replication_slots is %d, and %d are in use", limit, f.Slots)
	if limit-f.Slots < 1 {
		return Fail, evidence + ": archiving needs one", lines(
			fmt.Sprintf("ALTER SYSTEM SET max_replication_slots = %d;", max(10, f.Slots+spare)), f.Restart)
	}
	return Pass, evidence, ""
}

func checkRole(f *ServerFacts) (Level, string, string) {
	if f.Server.Superuser {
		return Pass, "role " + f.User + " is a superuser", ""
	}
	var lacks, grants []string
	role := identifier(f.User)
	if !f.Server.Replication {
		lacks = append(lacks, "REPLICATION")
		grants = append(grants, "ALTER ROLE "+role+" REPLICATION;")
	}
	if !f.MayBackup {
		functions := "pg_backup_start(text, boolean), pg_backup_stop(boolean)"
		if f.Server.Version.Major() < 15 {
			functions = "pg_start_backup(text, boolean, boolean), pg_stop_backup(boolean, boolean)"
		}
		lacks = append(lacks, "EXECUTE on the backup functions")
		grants = append(grants, "GRANT EXECUTE ON FUNCTION "+functions+" TO "+role+";")
	}
	if !f.MaySeeSettings {
		lacks = append(lacks, "pg_read_all_settings")
		grants = append(grants, "GRANT pg_read_all_settings TO "+role+";")
	}
	if f.Target.Sync && !f.MayAlter {
		lacks = append(lacks, "the right to set synchronous_standby_names, for sync mode")
		if f.Server.Version.Major() >= 15 {
			grants = append(grants, "GRANT ALTER SYSTEM ON PARAMETER synchronous_standby_names TO "+role+";",
				"GRANT EXECUTE ON FUNCTION pg_reload_conf() TO "+role+";")
		} else {
			grants = append(grants, "-- before PostgreSQL 15 only a superuser can: attach as one")
		}
	}
	if len(lacks) > 0 {
		if f.Server.InRecovery {
			grants = append([]string{"-- on the primary:"}, grants...)
		}
		return Fail, "role " + f.User + " lacks " + strings.Join(lacks, ", "), lines(grants...)
	}
	return Pass, "role " + f.User + " has REPLICATION and may take backups; accounts can only be made by a superuser", ""
}

func checkRestoreRole(f *ServerFacts) (Level, string, string) {
	if f.RestoreRole == "" {
		return Fail, "no superuser may log in: a server that is restored from this one could not be opened",
			lines("# if nobody may run this: stop the server, and give it to postgres --single", "ALTER ROLE "+identifier(f.InitRole)+" SUPERUSER LOGIN;")
	}
	return Pass, "the superuser " + f.RestoreRole + " is there, and a restored server is opened as it", ""
}

func checkData(f *ServerFacts) (Level, string, string) {
	d := &f.Data
	switch {
	case d.Directory == "":
		return Fail, "the server does not tell role " + f.User + " where its data directory is", "GRANT pg_read_all_settings TO " + identifier(f.User) + ";"
	case d.Err != nil:
		return Fail, fmt.Sprintf("%s cannot be read: %v", d.Directory, d.Err), f.letRead()
	case d.Control.SystemID != f.Server.SystemID:
		return Fail, fmt.Sprintf("%s is a data directory of another cluster: its system identifier is %s, and the server's %s",
				d.Directory, d.Control.SystemID, f.Server.SystemID),
			"-- give the data directory that this server names: SHOW data_directory;"
	case len(d.Unreadable) > 0:
		return Fail, fmt.Sprintf("%s may not read %s", f.Agent, strings.Join(d.Unreadable, ", ")), f.letRead()
	}
	return Pass, fmt.Sprintf("%s can be read, and is the server's: system identifier %s", d.Directory, d.Control.SystemID), ""
}

// letRead says how this process may come to read what it may not.
func (f *ServerFacts) letRead() string {
	owner := f.Data.Owner
	if owner == "" {
		owner = "postgres"
	}
	return fmt.Sprintf("# run kbcli as root or as %s, or, for a directory of initdb --allow-group-access: usermod -aG %s %s", owner, owner, f.Agent)
}

func checkLayout(f *ServerFacts) (Level, string, string) {
	c := &f.Data.Control
	size := f.Server.SegmentSize
	switch {
	case !size.Valid():
		return Fail, fmt.Sprintf("WAL segments have %d bytes, which is no size that PostgreSQL has", size), "-- make a cluster with initdb --wal-segsize and move the data"
	case f.Server.BlockSize != pg.BlockSize, c.RelSegBlocks != 0 && c.RelSegBlocks != pg.RelSegBlocks:
		return Fail, fmt.Sprintf("pages have %d bytes and relation files %d pages; supported are %d and %d",
			f.Server.BlockSize, c.RelSegBlocks, pg.BlockSize, pg.RelSegBlocks), "-- move the data to a server that was built with the usual sizes"
	}
	return Pass, fmt.Sprintf("pages of %d kB, WAL segments of %d MB", f.Server.BlockSize>>10, size>>20), ""
}

func checkFullPageWrites(f *ServerFacts) (Level, string, string) {
	switch {
	case f.Server.InRecovery && !f.PrimaryWrites:
		return Fail, "full_page_writes is off on the primary: no backup can be taken from a standby of it",
			lines("-- on the primary:", "ALTER SYSTEM SET full_page_writes = on;", "SELECT pg_reload_conf();")
	case !f.Server.FullPageWrites && !f.Server.InRecovery:
		return Warn, "full_page_writes is off: a crash of the machine may tear pages of the server",
			lines("ALTER SYSTEM SET full_page_writes = on;", "SELECT pg_reload_conf();")
	}
	return Pass, "full_page_writes is on", ""
}

func checkFsync(f *ServerFacts) (Level, string, string) {
	if !f.Fsync {
		return Warn, "fsync is off: after a crash of the machine the server may have lost what the archive holds",
			lines("ALTER SYSTEM SET fsync = on;", "SELECT pg_reload_conf();")
	}
	return Pass, "fsync is on", ""
}

func checkChecksums(f *ServerFacts) (Level, string, string) {
	if !f.Server.DataChecksums {
		return Warn, "data checksums are off: a damaged page cannot be told from a good one when it is backed up",
			"# while the server is stopped: pg_checksums --enable -D " + shellWord(f.Data.Directory)
	}
	return Pass, "data checksums are on", ""
}

func checkSlotRoom(f *ServerFacts) (Level, string, string) {
	free := "the free space is not known"
	if f.Data.Free >= 0 {
		free = size(f.Data.Free) + " are free on the file system of pg_wal"
	}
	if f.SlotKeep == unbounded {
		keep := int64(16) << 30
		if f.Data.Free >= 0 {
			keep = max(f.Data.Free/2, 1<<30)
		}
		return Warn, "max_slot_wal_keep_size is not set: should the repository be out of reach for long, the server keeps WAL until its disk is full; " + free,
			lines(fmt.Sprintf("ALTER SYSTEM SET max_slot_wal_keep_size = '%dMB';", keep>>20), "SELECT pg_reload_conf();")
	}
	evidence := fmt.Sprintf("max_slot_wal_keep_size is %s; %s", size(f.SlotKeep), free)
	if f.Data.Free >= 0 && f.SlotKeep > f.Data.Free {
		return Warn, evidence + ", which is less", lines(
			fmt.Sprintf("ALTER SYSTEM SET max_slot_wal_keep_size = '%dMB';", max(f.Data.Free/2, 1<<30)>>20), "SELECT pg_reload_conf();")
	}
	return Pass, evidence, ""
}

func checkTablespaces(f *ServerFacts) (Level, string, string) {
	if len(f.Tablespaces) == 0 {
		return Pass, "no tablespaces besides PostgreSQL's own", ""
	}
	var names, bad []string
	for _, t := range f.Tablespaces {
		names = append(names, t.Name+" in "+t.Location)
		if t.Err != nil {
			bad = append(bad, fmt.Sprintf("%s in %s cannot be read: %v", t.Name, t.Location, t.Err))
		}
	}
	if len(bad) > 0 {
		return Fail, strings.Join(bad, "; "), f.letRead()
	}
	return Pass, strings.Join(names, ", "), ""
}

func checkRecovery(f *ServerFacts) (Level, string, string) {
	if f.Server.InRecovery {
		return Pass, "the server is a standby: WAL is archived and backups are taken from it, as far as it has come", ""
	}
	return Pass, "the server is a primary", ""
}

func checkArchiveMode(f *ServerFacts) (Level, string, string) {
	if f.Server.ArchiveMode != "off" {
		// the command is not shown: it may hold a secret
		return Pass, "archive_mode is " + f.Server.ArchiveMode + ": something else archives as well, and is left alone", ""
	}
	return Pass, "archive_mode is off", ""
}

func checkSync(f *ServerFacts) (Level, string, string) {
	names, slot := f.SyncNames, f.Target.Slot
	matches := strings.Contains(names, "*")
	switch {
	case names == "" || names == slot:
		return Pass, "nobody else is waited for", ""
	case f.Target.Sync:
		return Fail, fmt.Sprintf("synchronous_standby_names is %q already: sync mode would have to take its place", names),
			"-- use mode async in the backup policy, or RESET synchronous_standby_names"
	case matches && f.SyncCommit == "remote_apply":
		return Fail, fmt.Sprintf("synchronous_standby_names is %q, which takes the archive for a standby, and synchronous_commit is remote_apply: commits would wait for ever", names),
			"-- name the standbys in synchronous_standby_names instead of *"
	case matches:
		return Warn, fmt.Sprintf("synchronous_standby_names is %q: the archive may be taken for the standby that is waited for", names),
			"-- name the standbys in synchronous_standby_names instead of *"
	}
	return Pass, fmt.Sprintf("synchronous_standby_names is %q, and is left alone", names), ""
}

// lines are steps of Next, one a line. Empty ones are left out.
func lines(steps ...string) string {
	var out []string
	for _, s := range steps {
		if s != "" {
			out = append(out, s)
		}
	}
	return strings.Join(out, "\n")
}

// identifier quotes a name for SQL where it must be.
func identifier(name string) string {
	if name != "" && strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789_") == "" && (name[0] < '0' || name[0] > '9') {
		return name
	}
	return `"` + strings.ReplaceAll(name, `"`, `""`) + `"`
}

// shellWord quotes a word for a shell where it must be.
func shellWord(s string) string {
	if s != "" && strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./:@=+,") == "" {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
