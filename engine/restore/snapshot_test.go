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
	"testing"
	"time"

	"github.com/kbcli/kbcli/engine/basebackup"
	"github.com/kbcli/kbcli/engine/catalog"
	"github.com/kbcli/kbcli/engine/pg"
	"github.com/kbcli/kbcli/engine/repository"
	"github.com/kbcli/kbcli/engine/restore"
	"github.com/kbcli/kbcli/internal/reflink"
	"github.com/kbcli/kbcli/internal/testdisk"
	"github.com/kbcli/kbcli/internal/testpg"
)

// serverOn starts a server whose data directory lies on a disk.
func serverOn(t *testing.T, disk string) *testpg.Server {
	t.Helper()
	first := testpg.Start(t, testpg.Options{})
	first.Stop(t, testpg.Fast)
	data := filepath.Join(disk, "data")
	if out, err := exec.Command("cp", "-a", first.DataDir, data).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return testpg.StartAt(t, data, testpg.Options{})
}

func (r *rig) snapshotConfig(t *testing.T, name string) basebackup.Config {
	return basebackup.Config{
		Lineage: r.lineage, Conninfo: r.server.ConnString("postgres"), Name: name, Manual: true, Fast: true, Workers: 2,
		WaitWAL: r.archiver.Wait, Clock: time.Now, Log: logger(t),
	}
}

func (r *rig) snapshot(t *testing.T, disk, name string) *repository.Manifest {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	at := repository.Snapshot{Machine: "here", Path: filepath.Join(disk, "snapshots", r.lineage.Info().ID, name)}
	m, err := basebackup.Snapshot(ctx, r.snapshotConfig(t, name), at)
	if err != nil {
		t.Fatalf("snapshot: %v", err)
	}
	return m
}

// onto is a place for a restore on a disk.
func (r *rig) onto(t *testing.T, disk, name string) (restore.Into, restore.Recovery) {
	t.Helper()
	into, recovery := r.place(t)
	into.DataDirectory, into.Tablespaces = filepath.Join(disk, name, "data"), filepath.Join(disk, name, "spaces")
	if err := os.Mkdir(filepath.Join(disk, name), 0o755); err != nil {
		t.Fatal(err)
	}
	recovery.Into, recovery.Scratch = into, filepath.Join(disk, name, "r")
	return into, recovery
}

func (r *rig) begin(t *testing.T, p *restore.Plan, into restore.Into, recovery restore.Recovery) *testpg.Server {
	t.Helper()
	if err := p.Fetch(t.Context(), into); err != nil {
		t.Fatalf("fetch: %v", err)
	}
	asServer(t, r.server.Program("pg_verifybackup"), "-n", into.DataDirectory)
	if _, err := p.Recover(t.Context(), recovery); err != nil {
		log, _ := os.ReadFile(filepath.Join(recovery.Scratch, "recovery.log"))
		t.Fatalf("recover: %v\n%s", err, log)
	}
	return testpg.StartAt(t, into.DataDirectory, testpg.Options{})
}

// judge holds a restored server against what pgbench keeps true, and gives a sum of all.
func judge(t *testing.T, s *testpg.Server) string {
	t.Helper()
	var a, b, c, d, rows int64
	s.QueryRow(t, `select (select sum(abalance) from pgbench_accounts), (select sum(bbalance) from pgbench_branches),
		(select sum(tbalance) from pgbench_tellers), (select coalesce(sum(delta), 0) from pgbench_history), (select count(*) from pgbench_history)`, &a, &b, &c, &d, &rows)
	if a != b || b != c || c != d || rows == 0 {
		t.Errorf("balances %d %d %d %d after %d transactions", a, b, c, d, rows)
	}
	var sum string
	s.QueryRow(t, `select md5(string_agg(aid || ' ' || abalance, ',' order by aid)) from pgbench_accounts`, &sum)
	var n int
	s.QueryRow(t, "select count(*) from in_one", &n)
	if n != 10000 {
		t.Errorf("%d rows in the tablespace", n)
	}
	asServer(t, s.Program("pg_amcheck"), "--heapallindexed", "--install-missing", "-h", s.SocketDir, "-p", fmt.Sprint(s.Port), "-U", "postgres", "--all")
	return fmt.Sprint(rows, sum)
}

// TestSnapshot takes a snapshot under load on each file system that can, restores a
// moment after it, copies it into the repository, loses it, and restores again.
func TestSnapshot(t *testing.T) {
	for _, kind := range []string{"xfs", "btrfs"} {
		t.Run(kind, func(t *testing.T) { testSnapshot(t, kind) })
	}
}

func testSnapshot(t *testing.T, kind string) {
	disk := testdisk.Start(t, kind, 4<<30)
	server := serverOn(t, disk)
	r := newRig(t, server, nil)
	space := filepath.Join(disk, "one")
	if err := os.Mkdir(space, 0o700); err != nil {
		t.Fatal(err)
	}
	if uid, gid := testpg.Owner(t); uid >= 0 {
		if err := os.Chown(space, uid, gid); err != nil {
			t.Fatal(err)
		}
	}
	server.Exec(t, "create tablespace one location '"+space+"'")
	server.Exec(t, "create table in_one tablespace one as select generate_series(1, 10000) as id")
	where := []string{"-h", server.SocketDir, "-p", fmt.Sprint(server.Port), "-U", "postgres", "postgres"}
	asServer(t, server.Program("pgbench"), append([]string{"-i", "-q", "-s", "2"}, where...)...)
	r.startArchiving(t)
	load := make(chan struct{})
	go func() {
		defer close(load)
		asServer(t, server.Program("pgbench"), append([]string{"-n", "-c", "2", "-T", "4"}, where...)...)
	}()
	time.Sleep(time.Second)
	m := r.snapshot(t, disk, "s1")
	if m.Type != repository.TypeSnapshot || len(m.Tablespaces) != 1 || m.DataBytes < 20<<20 || m.Stored > 1<<20 {
		t.Errorf("manifest: %+v", m)
	}
	time.Sleep(time.Second)
	var at time.Time
	server.QueryRow(t, "select clock_timestamp()", &at)
	<-load
	r.proven(t, time.Now())

	if report, err := restore.Verify(t.Context(), r.lineage, m, nil); err != nil || report.Bytes != m.DataBytes || report.Segments == 0 {
		t.Errorf("verify: %+v, %v", report, err)
	}
	plan := func(target catalog.Target) *restore.Plan {
		t.Helper()
		p, err := restore.MakePlan(t.Context(), r.catalog(t), target)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	p := plan(catalog.Target{Time: at})
	if p.Backup != "s1" || p.Snapshot != m.Snapshot.Path {
		t.Errorf("the plan begins with %s at %q", p.Backup, p.Snapshot)
	}
	if err := p.Onto(t.TempDir()); err != nil || !p.Copied {
		t.Errorf("onto another file system: copied %t, %v", p.Copied, err)
	}
	into, recovery := r.onto(t, disk, "x1")
	want := judge(t, r.begin(t, p, into, recovery))
	if p.Copied {
		t.Error("copied onto its own file system")
	}
	// what a restored server writes is not in the snapshot
	if _, err := restore.Verify(t.Context(), r.lineage, m, nil); err != nil {
		t.Errorf("verify after a restore: %v", err)
	}
	// onto another file system it is copied
	if into, recovery := r.place(t); judge(t, r.begin(t, plan(catalog.Target{Time: at}), into, recovery)) != want {
		t.Error("a copy onto another file system is another server")
	}

	cfg := r.snapshotConfig(t, "s1-copy")
	cfg.Conninfo, cfg.WaitWAL = "", nil
	full, err := basebackup.Copy(t.Context(), cfg, m)
	if err != nil {
		t.Fatal(err)
	}
	if full.Type != repository.TypeFull || full.StopLSN != m.StopLSN || full.DataBytes != m.DataBytes || full.Snapshot != nil || len(full.BadPages) > 0 {
		t.Errorf("the copy: %+v", full)
	}
	if _, err := restore.Verify(t.Context(), r.lineage, full, nil); err != nil {
		t.Errorf("verify the copy: %v", err)
	}
	if p := plan(catalog.Target{Time: at}); p.Backup != "s1" {
		t.Errorf("the plan begins with %s although the snapshot is there", p.Backup)
	}

	// elsewhere the snapshot is no base
	elsewhere, err := repository.Open(t.Context(), r.store, repository.Options{Clock: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	line, err := elsewhere.Lineage(t.Context(), r.lineage.Info().ID)
	if err != nil {
		t.Fatal(err)
	}
	c, err := catalog.Load(t.Context(), line)
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Backups()) != 1 || len(c.Absent()) != 1 {
		t.Errorf("elsewhere there are %d backups and %d absent", len(c.Backups()), len(c.Absent()))
	}
	var absent *repository.AbsentError
	if _, err := c.Resolve(t.Context(), catalog.Target{Backup: "s1"}); !errors.As(err, &absent) {
		t.Errorf("elsewhere: %v", err)
	}
	if err := basebackup.RemoveSnapshot(m.Snapshot.Path, r.lineage.Info().ID, "s1"); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Dir(m.Snapshot.Path)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("what is left: %v", err)
	}
	if _, err := basebackup.Copy(t.Context(), r.snapshotConfig(t, "again"), m); !errors.As(err, &absent) {
		t.Errorf("copy of what is gone: %v", err)
	}
	p = plan(catalog.Target{Time: at})
	if p.Backup != "s1-copy" || p.Snapshot != "" {
		t.Errorf("without the snapshot the plan begins with %s", p.Backup)
	}
	into, recovery = r.onto(t, disk, "x2")
	if got := judge(t, r.begin(t, p, into, recovery)); got != want {
		t.Errorf("from the copy: %s, from the snapshot: %s", got, want)
	}
}

// TestSnapshotDamaged: what is missing from a snapshot, cut or changed is found, and
// nothing is restored from it.
func TestSnapshotDamaged(t *testing.T) {
	disk := testdisk.Start(t, "xfs", 1<<30)
	server := serverOn(t, disk)
	server.Exec(t, "create table t as select generate_series(1, 100000) as id")
	server.Exec(t, "vacuum t")
	var path string
	server.QueryRow(t, "select pg_relation_filepath('t')", &path)
	r := newRig(t, server, nil)
	r.startArchiving(t)
	m := r.snapshot(t, disk, "s1")
	r.proven(t, time.Now())
	file := filepath.Join(m.Snapshot.Data(), path)
	whole, err := os.ReadFile(file)
	if err != nil || len(whole) < 3*pg.BlockSize {
		t.Fatalf("%d bytes, %v", len(whole), err)
	}
	flipped := append([]byte(nil), whole...)
	flipped[pg.BlockSize+5000] ^= 8
	for i, c := range []struct {
		name, want string
		content    []byte
		fetched    bool // whether that is found by a restore
	}{
		{"missing", "is missing", nil, true},
		{"cut", "bytes, not", whole[:len(whole)-pg.BlockSize], true},
		{"longer", "bytes, not", append(flipped, flipped[:100]...), true},
		{"changed", "the checksum of block 1 does not match", flipped, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			if err := os.Remove(file); err != nil {
				t.Fatal(err)
			}
			if c.content != nil {
				if err := os.WriteFile(file, c.content, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			defer os.WriteFile(file, whole, 0o600)
			_, err := restore.Verify(t.Context(), r.lineage, m, nil)
			var damaged *restore.DamagedError
			if !errors.As(err, &damaged) || len(damaged.Damage) != 1 || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), path) {
				t.Errorf("verified: %v", err)
			}
			if !c.fetched {
				return
			}
			p, err := restore.MakePlan(t.Context(), r.catalog(t), catalog.Target{Latest: true})
			if err != nil {
				t.Fatal(err)
			}
			into, _ := r.onto(t, disk, fmt.Sprint("x", i))
			if err := p.Fetch(t.Context(), into); err == nil || !strings.Contains(err.Error(), path) {
				t.Errorf("fetched: %v", err)
			}
			if _, err := os.Stat(filepath.Join(into.DataDirectory, "backup_label")); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("what was fetched looks as if it could be started: %v", err)
			}
			if _, err := basebackup.Copy(t.Context(), r.snapshotConfig(t, "copy"), m); err == nil {
				t.Error("copied")
			}
		})
	}
	if _, err := restore.Verify(t.Context(), r.lineage, m, nil); err != nil {
		t.Errorf("mended: %v", err)
	}
	// another snapshot in its place is not it
	if err := os.WriteFile(filepath.Join(m.Snapshot.Path, "snapshot.json"), []byte(`{"lineage": "x", "backup": "s1", "id": "1"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if c := r.catalog(t); len(c.Backups()) != 0 || !strings.Contains(c.Absent()[0].Err.Error(), "its snapshot is on machine here at "+m.Snapshot.Path+", and not here") {
		t.Errorf("another snapshot is taken for it: %v", c.Absent())
	}
	if err := basebackup.RemoveSnapshot(m.Snapshot.Path, r.lineage.Info().ID, "s1"); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(m.Snapshot.Path); err != nil {
		t.Errorf("another snapshot was removed: %v", err)
	}
}

// TestSnapshotRefused: where files cannot be cloned nothing is begun, and nothing left.
func TestSnapshotRefused(t *testing.T) {
	ext4, xfs := testdisk.Start(t, "ext4", 512<<20), testdisk.Start(t, "xfs", 512<<20)
	server := serverOn(t, ext4)
	r := newRig(t, server, nil)
	r.startArchiving(t)
	for _, c := range []struct{ disk, want string }{
		{ext4, "ext4 cannot share blocks"},
		{xfs, "is on another file system than"},
	} {
		path := filepath.Join(c.disk, r.lineage.Info().ID, "s1")
		_, err := basebackup.Snapshot(t.Context(), r.snapshotConfig(t, "s1"), repository.Snapshot{Machine: "here", Path: path})
		var no *reflink.Error
		if !errors.As(err, &no) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("onto %s: %v", c.disk, err)
		}
		if left, err := filepath.Glob(path + "*"); err != nil || len(left) > 0 {
			t.Errorf("left: %v, %v", left, err)
		}
	}
	if ms, err := r.lineage.Manifests(t.Context()); err != nil || len(ms) > 0 {
		t.Errorf("listed: %v, %v", ms, err)
	}
}

// TestSnapshotAnew breaks a snapshot off: nothing is listed, and the next of its name is
// begun anew.
func TestSnapshotAnew(t *testing.T) {
	disk := testdisk.Start(t, "xfs", 1<<30)
	server := serverOn(t, disk)
	r := newRig(t, server, nil)
	r.startArchiving(t)
	path := filepath.Join(disk, "snapshots", r.lineage.Info().ID, "s1")
	for _, phase := range []string{"starting", "cloning", "stopping", "syncing", "waiting for WAL"} {
		ctx, cancel := context.WithCancel(t.Context())
		cfg := r.snapshotConfig(t, "s1")
		cfg.Progress = func(p basebackup.Progress) {
			if p.Phase == phase {
				cancel()
			}
		}
		_, err := basebackup.Snapshot(ctx, cfg, repository.Snapshot{Machine: "here", Path: path})
		if !errors.Is(err, context.Canceled) {
			t.Errorf("broken off while %s: %v", phase, err)
		}
		if left, err := filepath.Glob(path + "*"); err != nil || len(left) > 0 {
			t.Errorf("broken off while %s, left: %v, %v", phase, left, err)
		}
	}
	// and what a killed one leaves
	for _, dir := range []string{path, path + ".tmp", path + ".deleting"} {
		if err := os.MkdirAll(filepath.Join(dir, "data", "base"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	m := r.snapshot(t, disk, "s1")
	if _, err := restore.Verify(t.Context(), r.lineage, m, nil); err != nil {
		t.Error(err)
	}
	if left, err := filepath.Glob(path + ".*"); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
	var conflict *repository.ConflictError
	if _, err := basebackup.Snapshot(t.Context(), r.snapshotConfig(t, "s1"), *m.Snapshot); !errors.As(err, &conflict) {
		t.Errorf("the same name again: %v", err)
	}
	if _, err := restore.Verify(t.Context(), r.lineage, m, nil); err != nil {
		t.Errorf("after the same name was asked for again: %v", err)
	}
}
