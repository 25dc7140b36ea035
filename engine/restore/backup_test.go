// SPDX-License-Identifier: Apache-2.0

package restore_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/kbcli/kbcli/engine/basebackup"
	"github.com/kbcli/kbcli/engine/catalog"
	"github.com/kbcli/kbcli/engine/pg"
	"github.com/kbcli/kbcli/engine/repository"
	"github.com/kbcli/kbcli/engine/restore"
	"github.com/kbcli/kbcli/internal/testpg"
)

// asServer runs one of PostgreSQL's programs as who servers run as.
func asServer(t *testing.T, program string, args ...string) string {
	t.Helper()
	cmd := exec.Command(program, args...)
	cmd.Dir = "/"
	if uid, gid := testpg.Owner(t); uid >= 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("%s %s: %v\n%s", program, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// serverDir is a directory that servers may write.
func serverDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "kbts")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if uid, gid := testpg.Owner(t); uid >= 0 {
		if err := os.Chown(dir, uid, gid); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// churn makes, fills, truncates and drops tables until stop is called.
func churn(t *testing.T, s *testpg.Server) (stop func() int) {
	t.Helper()
	var n atomic.Int64
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for w := range 3 {
		c := s.Conn(t, "postgres")
		wg.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				name := fmt.Sprintf("churn_%d_%d", w, i)
				for _, sql := range []string{
					"create table " + name + " as select g, repeat('x', 200) as x from generate_series(1, 500) g",
					"create index on " + name + " (g)",
					"insert into ledger (w, i) values (" + fmt.Sprint(w, ",", i) + ")",
					"truncate " + name,
					"update ledger set n = n + 1 where w = " + fmt.Sprint(w),
					"drop table " + name,
				} {
					if _, err := c.Exec(ctx, sql); err != nil && ctx.Err() == nil {
						t.Errorf("%s: %v", sql, err)
						return
					}
				}
				n.Add(1)
			}
		})
	}
	return func() int {
		cancel()
		wg.Wait()
		return int(n.Load())
	}
}

// TestBackupUnderLoad backs a server up while tables come and go, with tablespaces,
// unlogged and temporary tables, and judges what comes back by PostgreSQL's own tools.
func TestBackupUnderLoad(t *testing.T) {
	server := testpg.Start(t, testpg.Options{})
	r := newRig(t, server, nil)
	spaces := serverDir(t)
	for _, name := range []string{"one", "two words"} {
		dir := filepath.Join(spaces, name)
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if uid, gid := testpg.Owner(t); uid >= 0 {
			if err := os.Chown(dir, uid, gid); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, sql := range []string{
		"create extension amcheck",
		"create table ledger (w int, i int, n int default 0, primary key (w, i))",
		"create tablespace one location '" + filepath.Join(spaces, "one") + "'",
		"create tablespace two location '" + filepath.Join(spaces, "two words") + "'",
		"create table in_one tablespace one as select generate_series(1, 10000) as id",
		"create table in_two (id int primary key using index tablespace two) tablespace two",
		"insert into in_two select generate_series(1, 10000)",
		"create unlogged table fleeting as select generate_series(1, 10000) as id",
		"create database other",
	} {
		server.Exec(t, sql)
	}
	r.startArchiving(t)
	stop := churn(t, server)
	defer stop()
	time.Sleep(300 * time.Millisecond)
	m := r.backup(t, "b1")
	if len(m.Tablespaces) != 2 || !m.Checksums || len(m.BadPages) > 0 {
		t.Errorf("manifest: %d tablespaces, checksums %v, bad pages %v", len(m.Tablespaces), m.Checksums, m.BadPages)
	}
	time.Sleep(500 * time.Millisecond)
	var at time.Time
	server.QueryRow(t, "select clock_timestamp()", &at)
	if n := stop(); n < 3 {
		t.Errorf("the load made only %d rounds", n)
	}
	r.proven(t, time.Now())
	p, err := restore.MakePlan(t.Context(), r.catalog(t), catalog.Target{Time: at})
	if err != nil {
		t.Fatal(err)
	}
	into, recovery := r.place(t)
	if err := p.Fetch(t.Context(), into); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]bool{"postmaster.pid": false, "backup_label": true, "pg_wal/archive_status": true, "global/pg_control": true} {
		if _, err := os.Lstat(filepath.Join(into.DataDirectory, path)); (err == nil) != want {
			t.Errorf("%s is there: %v", path, err == nil)
		}
	}
	asServer(t, server.Program("pg_verifybackup"), "-n", into.DataDirectory)
	if _, err := p.Recover(t.Context(), recovery); err != nil {
		log, _ := os.ReadFile(filepath.Join(recovery.Scratch, "recovery.log"))
		t.Fatalf("recover: %v\n%s", err, log)
	}
	x := testpg.StartAt(t, into.DataDirectory, testpg.Options{})
	for sql, want := range map[string]int{"select count(*) from in_one": 10000, "select count(*) from in_two": 10000, "select count(*) from fleeting": 0} {
		var n int
		x.QueryRow(t, sql, &n)
		if n != want {
			t.Errorf("%s: %d", sql, n)
		}
	}
	var place string
	x.QueryRow(t, "select pg_tablespace_location(oid) from pg_tablespace where spcname = 'one'", &place)
	if !strings.HasPrefix(place, into.Tablespaces) {
		t.Errorf("the tablespace lies in %s", place)
	}
	asServer(t, x.Program("pg_amcheck"), "--heapallindexed", "--install-missing", "-h", x.SocketDir, "-p", fmt.Sprint(x.Port), "-U", "postgres", "--all")
	x.Stop(t, testpg.Fast)
	asServer(t, x.Program("pg_checksums"), "--check", "-D", into.DataDirectory)
}

// TestBackupTakenUp breaks a backup off in the middle: what it stored is not stored
// again, and the backup that takes it up restores.
func TestBackupTakenUp(t *testing.T) {
	server := testpg.Start(t, testpg.Options{})
	server.Exec(t, "create table t as select i, md5(i::text) || md5((i*7)::text) || md5((i*11)::text) as v from generate_series(1, 600000) i")
	r := newRig(t, server, nil)
	r.startArchiving(t)
	ctx, cancel := context.WithCancel(t.Context())
	cfg := basebackup.Config{
		Lineage: r.lineage, Conninfo: server.ConnString("postgres"), Name: "b1", Fast: true, Workers: 1,
		WaitWAL: r.archiver.Wait, Clock: time.Now, Log: logger(t),
		Progress: func(p basebackup.Progress) {
			if p.Stored > 0 {
				cancel()
			}
		},
	}
	if _, err := basebackup.Take(ctx, cfg); !errors.Is(err, context.Canceled) {
		t.Fatalf("broken off: %v", err)
	}
	if ms, err := r.lineage.Manifests(t.Context()); err != nil || len(ms) > 0 {
		t.Fatalf("a broken backup is listed: %v, %v", ms, err)
	}
	packs, before, err := r.lineage.Packs(t.Context(), "b1")
	if err != nil || len(packs) == 0 {
		t.Fatalf("nothing was stored: %v", err)
	}
	m := r.backup(t, "b1")
	if m.NewBytes > m.DataBytes*9/10 {
		t.Errorf("%d of %d bytes were stored again, %d were there", m.NewBytes, m.DataBytes, before)
	}
	x := r.restore(t, catalog.Target{Backup: "b1"})
	var n int
	x.QueryRow(t, "select count(*) from t", &n)
	if n != 600000 {
		t.Errorf("%d rows", n)
	}
}

// TestBadPage turns a bit in a page of the server's own file: the backup is taken,
// and says so.
func TestBadPage(t *testing.T) {
	server := testpg.Start(t, testpg.Options{})
	server.Exec(t, "create table t as select generate_series(1, 10000) as id")
	server.Exec(t, "checkpoint")
	var path string
	server.QueryRow(t, "select pg_relation_filepath('t')", &path)
	f, err := os.OpenFile(filepath.Join(server.DataDir, path), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 1)
	at := int64(3*pg.BlockSize + 5000)
	if _, err := f.ReadAt(b, at); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 4
	if _, err := f.WriteAt(b, at); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	r := newRig(t, server, nil)
	r.startArchiving(t)
	m := r.backup(t, "b1")
	if len(m.BadPages) != 1 || m.BadPages[0] != (repository.BadPage{Path: path, Block: 3}) {
		t.Errorf("bad pages: %+v", m.BadPages)
	}
}
