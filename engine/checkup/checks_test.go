// SPDX-License-Identifier: Apache-2.0

package checkup

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/kbcli/kbcli/engine/archive"
	"github.com/kbcli/kbcli/engine/blob"
	"github.com/kbcli/kbcli/engine/pg/client"
	"github.com/kbcli/kbcli/engine/repository"
)

var (
	names = Names{Namespace: "default", Cluster: "my-pg", Policy: "p", Repository: "nas"}
	now   = time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
)

// find picks one check, and says it as a line: level, evidence, next.
func find(t *testing.T, fs []Finding, check string) string {
	t.Helper()
	i := slices.IndexFunc(fs, func(f Finding) bool { return f.Check == check })
	if i < 0 {
		return "not looked at"
	}
	f := fs[i]
	s := string(f.Level) + ": " + f.Evidence
	if f.Next != "" {
		s += "\nnext: " + f.Next
	}
	if (f.Level == Pass) != (f.Next == "") {
		t.Errorf("%s: a step where it passed, or none where it did not: %s", check, s)
	}
	return s
}

func TestArchive(t *testing.T) {
	good := func() *Archive {
		return &Archive{Names: names, Wanted: true, AgentRuns: true, State: "Streaming", SpoolLimit: 8 << 30, SpoolFree: 100 << 30}
	}
	for _, c := range []struct {
		name, check string
		change      func(*Archive)
		want        string
	}{
		{"well", "archive-streaming", nil, "pass: WAL comes in and goes to the repository nas"},
		{"well", "archive-lag", nil, "pass: the repository has all that the server has written"},
		{"well", "archive-gap", nil, "pass: no WAL is missing"},
		{"well", "spool-space", nil, "pass: 0 B of 8.6 GB are in use, and 107 GB are free on its disk"},
		{"off", "archive-streaming", func(a *Archive) { a.Wanted, a.State = false, "Stopped" }, "pass: WAL is not to be archived"},
		{
			"no agent", "archive-streaming", func(a *Archive) { a.AgentRuns = false },
			"fail: no agent runs, and so nobody archives: the server keeps its WAL\nnext: kbcli agent restart",
		},
		{
			"denied", "archive-streaming", func(a *Archive) {
				a.Error, a.Reason, a.Next, a.Since = "put a tail: AccessDenied (HTTP 403)", "StorageDenied", "kbcli x", 6*time.Second
			},
			"fail: StorageDenied: put a tail: AccessDenied (HTTP 403)\nnext: kbcli x",
		},
		{
			"a moment ago", "archive-streaming", func(a *Archive) { a.Error, a.Reason, a.Next = "reset", "StorageUnreachable", "kbcli x" },
			"warn: StorageUnreachable: reset\nnext: kbcli x",
		},
		{
			"full", "archive-streaming", func(a *Archive) { a.State = "Blocked" },
			"fail: archiving stands still, and the server keeps its WAL\nnext: kbcli cluster describe my-pg -n default",
		},
		{"busy", "archive-lag", func(a *Archive) { a.LagBytes, a.Lag = 16<<20, time.Second }, "pass: 17 MB of WAL are not in the repository, the oldest for 1 s"},
		{
			"slow", "archive-lag", func(a *Archive) { a.LagBytes, a.Lag = 2<<30, 3*time.Minute },
			"warn: 2.1 GB of WAL are not in the repository, the oldest for 3 min: it is slower than the server writes\nnext: kbcli cluster describe my-pg -n default",
		},
		{
			"stuck", "archive-lag", func(a *Archive) { a.LagBytes, a.Lag, a.Error, a.Next = 1000, 61*time.Second, "x", "kbcli x" },
			"fail: 1.0 kB of WAL are not in the repository, the oldest for 61 s, and nothing goes there\nnext: kbcli x",
		},
		{
			"not known", "archive-lag", func(a *Archive) { a.LagErr = errors.New("refused") },
			"warn: how far the repository is behind is not known: refused\nnext: kbcli cluster logs my-pg -n default",
		},
		{
			"open gap", "archive-gap", func(a *Archive) {
				a.Gaps = []Gap{{From: "0/1", To: "0/2"}, {From: "0/5000000", To: "0/9000000", Reason: "removed", Found: "today", Open: true}}
			},
			"fail: the WAL from 0/5000000 to 0/9000000 is missing, found today: removed (and 1 earlier gap); nothing after it can be brought back until there is a new backup\nnext: kbcli cluster backup my-pg -n default",
		},
		{
			"closed gap", "archive-gap", func(a *Archive) { a.Gaps = []Gap{{From: "0/1", To: "0/2", Reason: "removed", Found: "today"}} },
			"warn: the WAL from 0/1 to 0/2 is missing, found today: removed; no moment between can be brought back\nnext: kbcli cluster describe my-pg -n default",
		},
		{
			"spool", "spool-space", func(a *Archive) { a.Spool = 7 << 30 },
			"warn: the spool is nearly full, 7.5 GB of 8.6 GB are in use\nnext: kbcli cluster edit-backup-policy p -n default --set archive.spool.limit=…",
		},
		{
			"spool full", "spool-space", func(a *Archive) { a.Spool = 8 << 30 },
			"fail: the spool is full, 8.6 GB of 8.6 GB are in use\nnext: kbcli cluster edit-backup-policy p -n default --set archive.spool.limit=…",
		},
		{
			"disk", "spool-space", func(a *Archive) { a.SpoolFree = 5 << 20 },
			"warn: 0 B of 8.6 GB are in use, and only 5.2 MB are free on its disk\nnext: df -h",
		},
	} {
		a := good()
		if c.change != nil {
			c.change(a)
		}
		if diff := cmp.Diff(c.want, find(t, a.Findings(), c.check)); diff != "" {
			t.Errorf("%s, %s (-want +got):\n%s", c.check, c.name, diff)
		}
	}
}

func TestWAL(t *testing.T) {
	const wanted = "kbcli_default_my_pg"
	less := int64(100 << 20)
	good := func() *WAL {
		return &WAL{
			Names: names, Version: "15.8", Wanted: true, Slot: wanted, Position: 9 << 30, Size: 1 << 30, Free: 50 << 30, Total: 100 << 30,
			Slots: []client.Slot{{Name: wanted, Active: true, RestartLSN: 9<<30 - 1000, WALStatus: "reserved"}},
		}
	}
	for _, c := range []struct {
		name, check string
		change      func(*WAL)
		want        string
	}{
		{"well", "server-reachable", nil, "pass: PostgreSQL 15.8"},
		{"well", "slot-retention", nil, "pass: slot kbcli_default_my_pg keeps 1.0 kB of WAL"},
		{"well", "wal-disk", nil, "pass: pg_wal takes 1.1 GB, and 54 GB of 107 GB are free on its disk"},
		{"stopped", "server-reachable", func(w *WAL) { w.Stopped = true }, "pass: the server is stopped, as was asked for"},
		{
			"down", "server-reachable", func(w *WAL) { w.Err = errors.New("refused") },
			"fail: refused\nnext: kbcli doctor my-pg -n default",
		},
		{
			"gone", "slot-retention", func(w *WAL) { w.Slots = nil },
			"fail: the server has no slot kbcli_default_my_pg: it does not keep WAL until that is archived\nnext: kbcli agent restart",
		},
		{
			"lost", "slot-retention", func(w *WAL) { w.Slots[0].WALStatus, w.Slots[0].Invalidation = "lost", "wal_removed" },
			"fail: slot kbcli_default_my_pg is lost: the server has removed WAL that was not archived wal_removed\nnext: kbcli cluster backup my-pg -n default",
		},
		{
			"unreserved", "slot-retention", func(w *WAL) { w.Slots[0].WALStatus = "unreserved" },
			"fail: slot kbcli_default_my_pg is about to be lost: the server removes WAL at its next checkpoint\nnext: kbcli cluster describe my-pg -n default",
		},
		{
			"near", "slot-retention", func(w *WAL) { w.Slots[0].SafeWALSize, w.Slots[0].RestartLSN = &less, 8<<30 },
			"warn: slot kbcli_default_my_pg keeps 1.1 GB of WAL, and is lost when 105 MB more are written\nnext: kbcli cluster describe my-pg -n default",
		},
		{
			"unread", "slot-retention", func(w *WAL) { w.Slots[0].Active = false },
			"warn: slot kbcli_default_my_pg keeps 1.0 kB of WAL, and nobody reads from it\nnext: kbcli agent restart",
		},
		{
			"another's", "slot-retention", func(w *WAL) { w.Slots = append(w.Slots, client.Slot{Name: "o'ld", RestartLSN: 1 << 30}) },
			"warn: slot o'ld is not in use and keeps 8.6 GB of WAL\nnext: SELECT pg_drop_replication_slot('o''ld');",
		},
		{
			"left behind", "slot-retention", func(w *WAL) { w.Wanted = false },
			"warn: slot kbcli_default_my_pg keeps 1.0 kB of WAL, and nothing is archived\nnext: SELECT pg_drop_replication_slot('kbcli_default_my_pg');",
		},
		{
			"nearly full", "wal-disk", func(w *WAL) { w.Free = 1 << 30 },
			"warn: pg_wal takes 1.1 GB, and 1.1 GB of 107 GB are free on its disk\nnext: df -h",
		},
		{
			"full", "wal-disk", func(w *WAL) { w.Free = 1 << 20 },
			"fail: pg_wal takes 1.1 GB, and 1.0 MB of 107 GB are free on its disk: the server stops when it is full\nnext: df -h",
		},
	} {
		w := good()
		if c.change != nil {
			c.change(w)
		}
		if diff := cmp.Diff(c.want, find(t, w.Findings(), c.check)); diff != "" {
			t.Errorf("%s, %s (-want +got):\n%s", c.check, c.name, diff)
		}
	}
}

func TestBackups(t *testing.T) {
	good := func() *Backups {
		return &Backups{
			Names: names, Now: now, Created: now.Add(-30 * 24 * time.Hour), Logfile: true, Schedules: []string{"datafile 0 18 * * *"},
			Due: now.Add(6 * time.Hour), Last: &Taken{Name: "b1", Time: now.Add(-18 * time.Hour)}, TTL: 7 * 24 * time.Hour, Replay: 1 << 30,
			Windows: []Span{{now.Add(-8 * 24 * time.Hour), now.Add(-time.Second)}},
		}
	}
	failed := &Taken{Name: "b2", Reason: "no space left"}
	for _, c := range []struct {
		name, check string
		change      func(*Backups)
		want        string
	}{
		{"well", "schedule-enabled", nil, "pass: WAL is archived; backups: datafile 0 18 * * *"},
		{"well", "backup-age", nil, "pass: b1 completed 18 h ago"},
		{"well", "backup-window", nil, "pass: from 2026-10-24T12:00:00Z to 2026-11-01T11:59:59Z; a restore replays up to 1.1 GB of WAL"},
		{"well", "retention-promise", nil, "pass: 7 days are promised, and it goes back 8 days"},
		{
			"no log", "schedule-enabled", func(b *Backups) { b.Logfile = false },
			"warn: WAL is not archived: it can be brought back to the end of a backup, and to no moment after\nnext: kbcli cluster edit-backup-policy p -n default --set schedule.logfile.enable=true",
		},
		{"none", "backup-age", func(b *Backups) { b.Last = nil }, "fail: there is no backup: nothing can be brought back\nnext: kbcli cluster backup my-pg -n default"},
		{
			"first", "backup-age", func(b *Backups) { b.Last, b.Taking = nil, "b0" },
			"warn: the first backup, b0, is being taken\nnext: kbcli cluster list-backup my-pg -n default",
		},
		{
			"only failed", "backup-age", func(b *Backups) { b.Last, b.Failed = nil, failed },
			"fail: no backup has completed; the last, b2, failed: no space left\nnext: kbcli cluster backup my-pg -n default",
		},
		{
			"last failed", "backup-age", func(b *Backups) { b.Failed = failed },
			"warn: b1 completed 18 h ago, and b2, which came after, failed: no space left\nnext: kbcli cluster backup my-pg -n default",
		},
		{
			"late", "backup-age", func(b *Backups) { b.Due = now.Add(-3 * time.Hour) },
			"fail: b1 completed 18 h ago, and one was due 3 h ago\nnext: kbcli cluster backup my-pg -n default",
		},
		{
			"late and failed", "backup-age", func(b *Backups) { b.Due, b.Failed = now.Add(-3*time.Hour), failed },
			"fail: b1 completed 18 h ago, and b2, which came after, failed: no space left\nnext: kbcli cluster backup my-pg -n default",
		},
		{
			"late and taken", "backup-age", func(b *Backups) { b.Due, b.Taking = now.Add(-3*time.Hour), "b3" },
			"warn: b1 completed 18 h ago, one was due 3 h ago, and b3 is being taken\nnext: kbcli cluster list-backup my-pg -n default",
		},
		{"a little late", "backup-age", func(b *Backups) { b.Due = now.Add(-30 * time.Minute) }, "pass: b1 completed 18 h ago"},
		{
			"old", "backup-age", func(b *Backups) { b.Due, b.Last.Time = time.Time{}, now.Add(-9*24*time.Hour) },
			"warn: b1 completed 9 days ago, and no schedule takes another\nnext: kbcli cluster edit-backup-policy p -n default --set schedule.datafile.enable=true",
		},
		{
			"no window", "backup-window", func(b *Backups) { b.Windows = nil },
			"fail: there is a backup, and no moment can be brought back\nnext: kbcli cluster describe my-pg -n default",
		},
		{
			"stands still", "backup-window", func(b *Backups) { b.Windows[0].To = now.Add(-time.Hour) },
			"fail: from 2026-10-24T12:00:00Z to 2026-11-01T11:00:00Z: it has stood still for 60 min\nnext: kbcli cluster describe my-pg -n default",
		},
		{"long, and idle", "backup-window", func(b *Backups) { b.Last.Time = now.Add(-72 * time.Hour) }, "pass: from 2026-10-24T12:00:00Z to 2026-11-01T11:59:59Z; a restore replays up to 1.1 GB of WAL"},
		{
			"long", "backup-window", func(b *Backups) { b.Last.Time, b.Replay = now.Add(-72*time.Hour), 20<<30 },
			"warn: from 2026-10-24T12:00:00Z to 2026-11-01T11:59:59Z; a restore replays up to 21 GB of WAL\nnext: kbcli cluster backup my-pg -n default",
		},
		{
			"hole", "retention-promise", func(b *Backups) {
				b.Windows = []Span{{now.Add(-8 * 24 * time.Hour), now.Add(-4 * 24 * time.Hour)}, {now.Add(-3 * 24 * time.Hour), now}}
			},
			"warn: 7 days are promised, and it goes back 8 days with 1 hole in it\nnext: kbcli cluster describe my-pg -n default",
		},
		{
			"cut", "retention-promise", func(b *Backups) { b.Most, b.Windows[0].From = 2, now.Add(-3*24*time.Hour) },
			"warn: 7 days are promised, and it goes back 3 days: at most 2 backups are kept\nnext: kbcli cluster edit-backup-policy p -n default --set retention.maxBackups=0",
		},
	} {
		b := good()
		if c.change != nil {
			c.change(b)
		}
		if diff := cmp.Diff(c.want, find(t, b.Findings(), c.check)); diff != "" {
			t.Errorf("%s, %s (-want +got):\n%s", c.check, c.name, diff)
		}
	}
}

func TestRepository(t *testing.T) {
	good := func() *Repository {
		return &Repository{
			Names: names, Place: "/srv/b", Took: 3 * time.Millisecond, Used: true, Directory: true,
			Free: 50 << 30, Total: 100 << 30, LastBackup: 1 << 30, Now: now,
		}
	}
	for _, c := range []struct {
		name, check string
		change      func(*Repository)
		want        string
	}{
		{"well", "repository-reachable", nil, "pass: /srv/b, listed in 3 ms"},
		{"well", "repository-space", nil, "pass: 54 GB of 107 GB are free on the disk of /srv/b; the last backup took 1.1 GB"},
		{"well", "repository-key", nil, "pass: it is not sealed"},
		{"well", "repository-lock", nil, "pass: nobody holds a lock"},
		{"well", "repository-same-disk", nil, "pass: /srv/b is on another disk than the data"},
		{
			"denied", "repository-reachable", func(r *Repository) { r.Err = fmt.Errorf("%w: AccessDenied (HTTP 403)", blob.ErrDenied) },
			"fail: /srv/b: storage denied access: AccessDenied (HTTP 403)\nnext: kbcli backuprepo update nas --credentials-file FILE",
		},
		{"away", "repository-space", func(r *Repository) { r.Err = blob.ErrUnreachable }, "not looked at"},
		{
			"never used", "repository-reachable", func(r *Repository) { r.Err, r.Used = repository.ErrNoRepository, false },
			"warn: /srv/b: there is no repository\nnext: kbcli backuprepo describe nas",
		},
		{
			"read-only", "repository-reachable", func(r *Repository) { r.ReadOnly = syscall.EROFS },
			"fail: /srv/b can be read and not written: read-only file system\nnext: kbcli backuprepo describe nas",
		},
		{
			"small", "repository-space", func(r *Repository) { r.Free, r.WALPerDay = 10<<30, 20<<30 },
			"warn: 11 GB of 107 GB are free on the disk of /srv/b; the last backup took 1.1 GB, and WAL up to 21 GB a day\nnext: df -h /srv/b",
		},
		{
			"full", "repository-space", func(r *Repository) { r.Free = 500 << 20 },
			"fail: 524 MB of 107 GB are free on the disk of /srv/b; the last backup took 1.1 GB\nnext: df -h /srv/b",
		},
		{"S3", "repository-space", func(r *Repository) { r.Directory = false }, "not looked at"},
		{
			"sealed", "repository-key", func(r *Repository) { r.Sealed = true },
			"pass: it is sealed, and there is no identity here: backups are taken, and a restore needs one",
		},
		{
			"wrong key", "repository-key", func(r *Repository) { r.Sealed, r.Identity, r.KeyErr = true, true, repository.ErrSealed },
			"fail: the identity file does not open it: the repository is sealed and no identity that opens it was given\nnext: kbcli backuprepo update nas --identity-file FILE",
		},
		{
			"old lock", "repository-lock", func(r *Repository) {
				r.Locks = []repository.LockedError{{Name: "agent-x", Holder: "somebody", Renewed: now.Add(-time.Hour)}}
			},
			"warn: agent-x was held by somebody, which has not renewed it for 60 min: whoever needs it takes it over\nnext: kbcli backuprepo describe nas",
		},
		{
			"same disk", "repository-same-disk", func(r *Repository) { r.SameDisk = []string{"default/a", "default/b"} },
			"warn: /srv/b is on the same disk as the data of default/a and 1 other: a lost disk takes both\nnext: kbcli backuprepo create NAME --provider filesystem --path /ANOTHER/DISK --default",
		},
	} {
		r := good()
		if c.change != nil {
			c.change(r)
		}
		if diff := cmp.Diff(c.want, find(t, r.Findings(), c.check)); diff != "" {
			t.Errorf("%s, %s (-want +got):\n%s", c.check, c.name, diff)
		}
	}
}

func TestAgentAndMachine(t *testing.T) {
	no := false
	for _, c := range []struct {
		name, check string
		of          interface{ Findings() []Finding }
		want        string
	}{
		{"none", "agent-running", &Agent{Clusters: 1, Seen: now}, "fail: none runs since 2026-11-01T12:00:00Z or a little later: nothing is archived, and no backup is taken\nnext: kbcli agent restart"},
		{"nothing to do", "agent-running", &Agent{}, "pass: none runs, and there is no cluster to look after"},
		{"runs", "agent-version", &Agent{Runs: true, Version: "1", Own: "1"}, "pass: 1, as this program"},
		{"older", "agent-version", &Agent{Runs: true, Version: "1", Own: "2"}, "warn: the agent is version 1, and this program 2\nnext: kbcli agent restart"},
		{"unit", "agent-at-boot", &Agent{Runs: true, Unit: "kbcli.service"}, "pass: systemd starts it: kbcli.service"},
		{
			"process", "agent-at-boot", &Agent{Runs: true, Command: "kbcli agent run"},
			"warn: nobody starts it when the machine restarts, until a command of kbcli does\nnext: (crontab -l; echo \"@reboot kbcli agent run\") | crontab -",
		},
		{"denied", "agent-running", &Agent{Err: fs.ErrPermission}, "warn: whether it runs is not known: permission denied\nnext: kbcli agent status"},
		{"together", "clock", &Machine{Server: now, Here: now.Add(time.Millisecond), Synchronised: &no}, "pass: the server's clock is this machine's, of which the kernel does not know that it is synchronised"},
		{"apart", "clock", &Machine{Server: now.Add(time.Minute), Here: now}, "warn: the server's clock and this machine's are 60 s apart: times of restores are the server's\nnext: date; timedatectl"},
		{
			"back", "clock", &Machine{Server: now, Here: now, Proven: now.Add(time.Hour)},
			"warn: the server's clock was set back: it says 2026-11-01T12:00:00Z, and said 2026-11-01T13:00:00Z before: a moment between the two is ambiguous\nnext: date; timedatectl",
		},
		{"programs", "server-programs", &Machine{Major: 15, Programs: "/p"}, "pass: PostgreSQL 15 in /p"},
		{"no programs", "server-programs", &Machine{Major: 15, ProgramsErr: errors.New("not here")}, "fail: a restore needs PostgreSQL 15: not here\nnext: apt-get install postgresql-15"},
		{"room", "restore-room", &Machine{Need: 1 << 30, Free: 2 << 30, Room: "/v"}, "pass: a restore takes 1.1 GB, and 2.1 GB are free in /v"},
		{"no room", "restore-room", &Machine{Need: 3 << 30, Free: 2 << 30, Room: "/v w"}, "warn: a restore takes 3.2 GB beside the old data, and 2.1 GB are free in /v w\nnext: df -h '/v w'"},
	} {
		if diff := cmp.Diff(c.want, find(t, c.of.Findings(), c.check)); diff != "" {
			t.Errorf("%s, %s (-want +got):\n%s", c.check, c.name, diff)
		}
	}
}

func TestExplain(t *testing.T) {
	for _, c := range []struct {
		err          error
		reason, next string
	}{
		{fmt.Errorf("put: %w", blob.ErrDenied), "StorageDenied", "kbcli backuprepo update nas --credentials-file FILE"},
		{fmt.Errorf("put: %w: %w", blob.ErrDenied, fs.ErrPermission), "StorageDenied", "kbcli backuprepo describe nas"},
		{fmt.Errorf("put: %w", blob.ErrUnreachable), "StorageUnreachable", "kbcli backuprepo describe nas"},
		{blob.ErrNoBucket, "StorageMissing", "kbcli backuprepo describe nas"},
		{fmt.Errorf("%w: %w", blob.ErrNoSpace, syscall.ENOSPC), "StorageFull", "kbcli backuprepo describe nas"},
		{syscall.ENOSPC, "DiskFull", "df -h"},
		{archive.ErrSlow, "StorageSlow", "kbcli backuprepo describe nas"},
		{&archive.DivergedError{}, "ServerRewound", "kbcli cluster describe my-pg -n default"},
		{&repository.LockedError{}, "RepositoryLocked", "kbcli backuprepo describe nas"},
		{repository.ErrSealed, "WrongKey", "kbcli backuprepo update nas --identity-file FILE"},
		{&pgconn.PgError{Code: "28P01"}, "ServerDenied", "kbcli cluster describe my-pg -n default"},
		{&pgconn.PgError{Code: "57P03"}, "ServerStarting", "kbcli cluster logs my-pg -n default"},
		{&pgconn.PgError{Code: "XX000"}, "ServerRefused", "kbcli cluster logs my-pg -n default"},
		{errors.New("?"), "ArchivingFailed", "kbcli doctor my-pg -n default"},
	} {
		reason, next := Explain(c.err, names)
		if diff := cmp.Diff([2]string{c.reason, c.next}, [2]string{reason, next}); diff != "" {
			t.Errorf("%v (-want +got):\n%s", c.err, diff)
		}
	}
}

// TestKnown holds the list of checks against those that there are.
func TestKnown(t *testing.T) {
	var got []string
	for _, of := range []interface{ Findings() []Finding }{
		&Agent{Runs: true}, &Repository{Directory: true}, &WAL{}, &Archive{}, &Backups{}, &Machine{}, &Operator{}, &Instances{},
	} {
		for _, f := range of.Findings() {
			got = append(got, f.Check)
		}
	}
	for _, f := range CheckServer(&ServerFacts{}) {
		got = append(got, f.Check)
	}
	var want []string
	for _, k := range Doctor() {
		want = append(want, k.Name)
		if !strings.HasSuffix(k.About, ".") {
			t.Errorf("%s: %q is no sentence", k.Name, k.About)
		}
	}
	slices.Sort(got)
	slices.Sort(want)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the list of checks (-list +there):\n%s", diff)
	}
}

// TestOperator: what there is to say of the operator, and of the pods of a cluster.
func TestOperator(t *testing.T) {
	down := errors.New("the operator does not run")
	for _, c := range []struct {
		of   interface{ Findings() []Finding }
		want string // level and what follows "next: " of each
	}{
		{&Operator{Namespace: "kb-system", Wanted: 2, Runs: 2, Image: "r.example:5000/kbcli:v1.2", Own: "1.2"}, "pass pass"},
		{&Operator{Namespace: "kb-system", Wanted: 2, Runs: 2, Image: "kbcli:1.1@sha256:ab", Own: "1.2"}, "pass warn(kbcli kubeblocks upgrade)"},
		{&Operator{Namespace: "kb-system", Wanted: 2, Runs: 1, Image: "kbcli:1.2", Own: "1.2"}, "warn(kubectl get pods -n kb-system) pass"},
		{&Operator{Namespace: "kb-system", Wanted: 1, Image: "kbcli:1.2", Down: down}, "fail(kubectl get pods -n kb-system)"},
		{&Operator{Namespace: "kb-system", Down: down}, "fail(kbcli kubeblocks install)"},
		{&Operator{Namespace: "kb-system", Err: errors.New("forbidden")}, "warn(kubectl auth can-i get deployments.apps -n kb-system)"},
		{&Instances{Names: names, Wanted: 2, Serve: []string{"a", "b"}, Primary: "a"}, "pass"},
		{&Instances{Names: names, Wanted: 2, Serve: []string{"a"}, Others: []string{"b is Pending"}, Primary: "a"}, "warn(kbcli cluster list-instances my-pg -n default)"},
		{&Instances{Names: names, Wanted: 2, Serve: []string{"a", "b"}}, "fail(kbcli cluster list-instances my-pg -n default)"},
		{&Instances{Names: names, Wanted: 2, Stopped: true}, "pass"},
		{&Instances{Names: names, Err: errors.New("forbidden")}, "warn(kbcli cluster list-instances my-pg -n default)"},
		{&WAL{Names: Names{Grow: "grow it"}, Total: 1000, Free: 1}, "pass pass fail(grow it)"},
		{&Archive{Names: Names{Revive: "see to it"}, Wanted: true, LagErr: errors.New("x"), SpoolFree: 1 << 40}, ""},
	} {
		var got []string
		for _, f := range c.of.Findings() {
			word := string(f.Level)
			if f.Next != "" {
				word += "(" + f.Next + ")"
			}
			got = append(got, word)
		}
		if a, ok := c.of.(*Archive); ok {
			if got[0] != "fail(see to it)" {
				t.Errorf("%+v: %s", a, got[0])
			}
			continue
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("%+v: %s, want %s", c.of, strings.Join(got, " "), c.want)
		}
	}
}
