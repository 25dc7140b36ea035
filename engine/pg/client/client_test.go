// SPDX-License-Identifier: Apache-2.0

package client_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/kbcli/kbcli/engine/pg"
	"github.com/kbcli/kbcli/engine/pg/client"
)

func TestConnectKeepsSecrets(t *testing.T) {
	for _, info := range []string{
		"host=/nowhere user=u password=hunter2",
		"postgres://u:hunter2@127.0.0.1:1/db",
		"postgres://u:hunter2@127.0.0.1:port/db",
		"host=127.0.0.1 password='hunter2",
		"host=127.0.0.1 password=hunter2 default_query_exec_mode=x",
	} {
		_, err := client.Connect(t.Context(), info)
		if err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v", info, err)
		}
	}
	s := newServer(t, 15)
	s.sql(t, "create role locked login password 'other'")
	hba := filepath.Join(s.dir, "pg_hba.conf")
	if err := os.WriteFile(hba, []byte("local all postgres trust\nlocal all all scram-sha-256\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s.sql(t, "select pg_reload_conf()")
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		_, err := client.Connect(t.Context(), fmt.Sprintf("host=%s user=locked password=hunter2 dbname=postgres", s.sock))
		if err != nil {
			if strings.Contains(err.Error(), "hunter2") {
				t.Error(err)
			}
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("a wrong password is accepted")
		}
	}
}

// Defaults of a role that would break a backup, or its reader, do nothing.
func TestSessionIsPinned(t *testing.T) {
	eachMajor(t, func(t *testing.T, major int) {
		s := newServer(t, major)
		s.sql(t, `create role nasty superuser login;
			create schema evil; create function evil.lower(text) returns text language sql as 'select ''x''';
			alter role nasty set search_path = evil, pg_catalog;
			alter role nasty set statement_timeout = '400ms';
			alter role nasty set idle_in_transaction_session_timeout = '100ms';
			alter role nasty set lock_timeout = '50ms';
			alter role nasty set timezone = 'Asia/Kathmandu';
			alter role nasty set datestyle = 'SQL, DMY'`)
		if major >= 14 {
			s.sql(t, "alter role nasty set idle_session_timeout = '300ms'")
		}
		if major >= 17 {
			s.sql(t, "alter role nasty set transaction_timeout = '300ms'")
		}
		c := s.connect(t, "user=nasty")
		if got := c.ServerVersion().Major(); got != major {
			t.Errorf("version is %s", c.ServerVersion())
		}
		got := map[string]string{}
		for _, name := range []string{"search_path", "statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout", "TimeZone", "DateStyle", "lc_messages"} {
			v, err := c.Setting(t.Context(), name)
			if err != nil {
				t.Fatal(err)
			}
			got[name] = v
		}
		want := map[string]string{
			"search_path": "pg_catalog, pg_temp", "statement_timeout": "0", "lock_timeout": "0",
			"idle_in_transaction_session_timeout": "0", "TimeZone": "UTC", "DateStyle": "ISO, YMD", "lc_messages": "C",
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
		if _, err := c.BackupStart(t.Context(), "slow", true); err != nil {
			t.Fatal(err)
		}
		time.Sleep(600 * time.Millisecond)
		if _, err := c.BackupStop(t.Context()); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Setting(t.Context(), "no.such_thing"); err == nil {
			t.Error("no.such_thing has a value")
		}
	})
}

func TestIdentify(t *testing.T) {
	eachMajor(t, func(t *testing.T, major int) {
		p := newServer(t, major, "hot_standby=on", "wal_level=logical", "archive_mode=on", "archive_command=true")
		s := p.standby(t)
		control := func(s *server) pg.ControlFile {
			b, err := os.ReadFile(filepath.Join(s.dir, "global", "pg_control"))
			if err != nil {
				t.Fatal(err)
			}
			c, err := pg.ParseControlFile(b)
			if err != nil {
				t.Fatal(err)
			}
			return c
		}
		pc := p.connect(t, "")
		got, err := pc.Identify(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		want := client.Server{
			Version: pc.ServerVersion(), SystemID: control(p).SystemID, DataDirectory: p.dir, SegmentSize: 1 << 20, BlockSize: 8192,
			DataChecksums: major >= 18, Timeline: 1, WALLevel: "logical", ArchiveMode: "on", FullPageWrites: true,
			MaxWALSenders: 10, MaxReplicationSlots: 10, Superuser: true, Replication: true,
		}
		if diff := cmp.Diff(want, got, cmpopts.IgnoreFields(client.Server{}, "Started")); diff != "" {
			t.Error(diff)
		}
		if d := time.Since(got.Started); d < 0 || d > time.Minute || got.Started.Location() != time.UTC {
			t.Errorf("started at %s", got.Started)
		}
		now, err := pc.Clock(t.Context())
		if d := time.Since(now); err != nil || d < -time.Second || d > 10*time.Second || now.Location() != time.UTC {
			t.Errorf("clock %s, %v", now, err)
		}

		sc := s.connect(t, "")
		standby, err := sc.Identify(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if !standby.InRecovery || standby.Timeline != 1 || standby.SystemID != got.SystemID || standby.DataDirectory != s.dir {
			t.Errorf("standby: %+v", standby)
		}
		s.sql(t, "select pg_promote()")
		if standby, err = sc.Identify(t.Context()); err != nil || standby.InRecovery || standby.Timeline != 2 {
			t.Errorf("promoted: %+v, %v", standby, err)
		}

		p.sql(t, "create role plain login; create role watcher login replication")
		plain, err := p.connect(t, "user=plain").Identify(t.Context())
		if err != nil || plain.Superuser || plain.Replication || plain.DataDirectory != "" || plain.Timeline != 1 {
			t.Errorf("plain role: %+v, %v", plain, err)
		}
		if watcher, err := p.connect(t, "user=watcher").Identify(t.Context()); err != nil || watcher.Superuser || !watcher.Replication {
			t.Errorf("replication role: %+v, %v", watcher, err)
		}
	})
}

func TestBackup(t *testing.T) {
	eachMajor(t, func(t *testing.T, major int) {
		p := newServer(t, major, "hot_standby=on")
		s := p.standby(t)
		for name, on := range map[string]*server{"primary": p, "standby": s} {
			ctx := t.Context()
			c := on.connect(t, "")
			before := time.Now().Add(-time.Second)
			// The database has no encoding (SQL_ASCII): a name comes back as it went.
			start, err := c.BackupStart(ctx, "nächtlich", true)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if start.Timeline != 1 || start.LSN == 0 || start.Time.Before(before) {
				t.Errorf("%s: %+v", name, start)
			}
			if name == "primary" {
				p.sql(t, "create table t as select generate_series(1, 1000)")
			}
			stop, err := c.BackupStop(ctx)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if stop.LSN < start.LSN || stop.Time.Before(start.Time) || len(stop.TablespaceMap) != 0 {
				t.Errorf("%s: started %+v, stopped %+v", name, start, stop)
			}
			l, err := pg.ParseBackupLabel(stop.Label)
			if err != nil {
				t.Fatal(err)
			}
			if l.Start != start.LSN || l.Timeline != start.Timeline || l.Label != "nächtlich" || l.FromStandby() != (name == "standby") {
				t.Errorf("%s: label %+v", name, l)
			}
			if _, err := c.BackupStop(ctx); err == nil {
				t.Errorf("%s: stopped twice", name)
			}
			if !c.Alive() {
				t.Errorf("%s: the session did not outlive a refusal", name)
			}
		}
	})
}

// Paths reach the caller as the bytes they are, whatever the encodings.
func TestBackupKeepsBytes(t *testing.T) {
	eachMajor(t, func(t *testing.T, major int) {
		s := newServer(t, major)
		s.sql(t, "create database latin encoding 'LATIN1' template template0")
		place := filepath.Join(s.sock, "sp\xe4ce")
		if err := os.Mkdir(place, 0o700); err != nil {
			t.Fatal(err)
		}
		chown(t, place)
		c := s.connect(t, "dbname=latin client_encoding=UTF8")
		if _, err := c.SQL().Exec(t.Context(), "create tablespace t location '"+filepath.Join(s.sock, "späce")+"'"); err != nil {
			t.Fatal(err)
		}
		spaces, err := c.Tablespaces(t.Context())
		if err != nil || len(spaces) != 1 || spaces[0].Name != "t" || spaces[0].OID < 16384 || spaces[0].Location != filepath.Join(s.sock, "späce") {
			t.Errorf("%+v, %v", spaces, err)
		}
		if _, err := c.BackupStart(t.Context(), "x", true); err != nil {
			t.Fatal(err)
		}
		stop, err := c.BackupStop(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		m, err := pg.ParseTablespaceMap(major, stop.TablespaceMap)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(pg.TablespaceMap{{OID: spaces[0].OID, Path: place}}, m); diff != "" {
			t.Error(diff)
		}
	})
}

func TestBackupEndsWithSession(t *testing.T) {
	eachMajor(t, func(t *testing.T, major int) {
		s := newServer(t, major)
		c := s.connect(t, "")
		if _, err := c.BackupStart(t.Context(), "x", true); err != nil {
			t.Fatal(err)
		}
		if _, err := c.BackupStart(t.Context(), "y", true); err == nil {
			t.Error("two backups in one session")
		}
		c.Close()
		if c.Alive() {
			t.Error("a closed session lives")
		}
		if _, err := c.BackupStop(t.Context()); err == nil {
			t.Error("a closed session stops a backup")
		}
		other := s.connect(t, "")
		if _, err := other.BackupStop(t.Context()); err == nil {
			t.Error("another session stops the backup")
		}
	})
}

// A cancelled start leaves nothing running in the server, and a session that
// can start again.
func TestCancelledBackupStart(t *testing.T) {
	eachMajor(t, func(t *testing.T, major int) {
		s := newServer(t, major, "checkpoint_timeout=1h", "checkpoint_completion_target=0.9")
		s.sql(t, "create table t as select generate_series(1, 300000)")
		c := s.connect(t, "")
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		defer cancel()
		start := time.Now()
		_, err := c.BackupStart(ctx, "slow", false)
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("after %s: %v", time.Since(start), err)
		}
		if d := time.Since(start); d > 4*time.Second {
			t.Errorf("it took %s to stop", d)
		}
		if !c.Alive() {
			t.Fatal("the session is gone")
		}
		s.await(t, "select count(*) from pg_stat_activity where query like '%backup%' and state = 'active' and pid <> pg_backend_pid()", "0")
		if _, err := c.BackupStop(t.Context()); err == nil {
			t.Error("the cancelled backup was under way")
		}
		if _, err := c.BackupStart(t.Context(), "again", true); err != nil {
			t.Fatal(err)
		}
		if _, err := c.BackupStop(t.Context()); err != nil {
			t.Fatal(err)
		}
	})
}

func TestServerKilledInBackup(t *testing.T) {
	s := newServer(t, 15)
	c := s.connect(t, "")
	if _, err := c.BackupStart(t.Context(), "x", true); err != nil {
		t.Fatal(err)
	}
	s.stop(syscall.SIGKILL)
	if _, err := c.BackupStop(t.Context()); err == nil {
		t.Error("a dead server stops a backup")
	}
}

func TestSlots(t *testing.T) {
	eachMajor(t, func(t *testing.T, major int) {
		s := newServer(t, major, "wal_level=logical", "max_slot_wal_keep_size=1GB")
		ctx := t.Context()
		c := s.connect(t, "")
		if list, err := c.Slots(ctx); len(list) != 0 || err != nil {
			t.Errorf("%v, %v", list, err)
		}
		if err := c.DropSlot(ctx, "a"); !errors.Is(err, client.ErrSlotNotFound) {
			t.Errorf("dropping no slot: %v", err)
		}
		for _, err := range []error{c.CreatePhysicalSlot(ctx, "a", true, false), c.CreatePhysicalSlot(ctx, "b", false, false), c.CreatePhysicalSlot(ctx, "c", true, true)} {
			if err != nil {
				t.Fatal(err)
			}
		}
		s.sql(t, "select pg_create_logical_replication_slot('d', 'pgoutput')")
		got, err := c.Slots(ctx)
		if err != nil {
			t.Fatal(err)
		}
		pid := got[2].PID
		want := []client.Slot{
			{Name: "a", Physical: true, WALStatus: "reserved"},
			{Name: "b", Physical: true},
			{Name: "c", Physical: true, Temporary: true, Active: true, PID: pid, WALStatus: "reserved"},
			{Name: "d", WALStatus: "reserved"},
		}
		if diff := cmp.Diff(want, got, cmpopts.IgnoreFields(client.Slot{}, "RestartLSN", "SafeWALSize")); diff != "" {
			t.Error(diff)
		}
		if got[0].RestartLSN == 0 || got[1].RestartLSN != 0 || pid == 0 || got[0].SafeWALSize == nil || *got[0].SafeWALSize < 1<<20 {
			t.Errorf("%+v", got)
		}
		if err := s.connect(t, "").DropSlot(ctx, "c"); !errors.Is(err, client.ErrSlotActive) {
			t.Errorf("dropping a slot in use: %v", err)
		}
		if err := c.CreatePhysicalSlot(ctx, "a", true, false); !errors.Is(err, client.ErrSlotExists) {
			t.Errorf("making a slot twice: %v", err)
		}
		if got, err := c.Slots(ctx); len(got) != 3 || err != nil {
			t.Errorf("the temporary slot outlived an error of its session: %+v, %v", got, err)
		}
		for _, name := range []string{"a", "b", "d"} {
			if err := c.DropSlot(ctx, name); err != nil {
				t.Error(err)
			}
		}
	})
}
