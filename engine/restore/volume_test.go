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
	"github.com/kbcli/kbcli/engine/blob/fs"
	"github.com/kbcli/kbcli/engine/catalog"
	"github.com/kbcli/kbcli/engine/repository"
	"github.com/kbcli/kbcli/engine/restore"
	"github.com/kbcli/kbcli/internal/testpg"
)

// copies is a volume whose snapshots are copies of it, the control file last.
type copies struct {
	t          *testing.T
	root, kept string
	cleared    int
	fails      error // what Settle says
}

func (c *copies) Root() string { return c.root }

func (c *copies) Clear(context.Context, string, string) error {
	c.cleared++
	return os.RemoveAll(c.kept)
}

func (c *copies) Cut(_ context.Context, _, backup, id string) (repository.Snapshot, error) {
	at := repository.Snapshot{VolumeSnapshot: "default/" + backup, ID: id}
	copyTree(c.t, c.root, c.kept)
	control := "pgroot/data/global/pg_control"
	b, err := os.ReadFile(filepath.Join(c.root, control))
	if err != nil {
		return at, err
	}
	return at, os.WriteFile(filepath.Join(c.kept, control), b, 0o600)
}

func (c *copies) Settle(context.Context, repository.Snapshot) error { return c.fails }

func copyTree(t *testing.T, from, to string) {
	t.Helper()
	out, err := exec.Command("cp", "-a", from, to).CombinedOutput()
	for line := range strings.Lines(string(out)) {
		if !strings.Contains(line, "No such file") && !strings.Contains(line, "special file") && !strings.Contains(line, "vanished") {
			t.Fatalf("%v: %s", err, line)
		}
	}
}

// volumeRig is a server in a volume, whose snapshots are those that there says.
func volumeRig(t *testing.T, there *bool) (*rig, *copies) {
	t.Helper()
	top, err := os.MkdirTemp("/tmp", "kbv")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(top) })
	root := filepath.Join(top, "volume")
	for _, dir := range []string{"", "volume", "volume/pgroot", "volume/one", "volume/spool"} {
		if err := os.MkdirAll(filepath.Join(top, dir), 0o755); err != nil {
			t.Fatal(err)
		}
		if uid, gid := testpg.Owner(t); uid >= 0 {
			if err := os.Chown(filepath.Join(top, dir), uid, gid); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := os.Chmod(top, 0o755); err != nil {
		t.Fatal(err)
	}
	r := newRig(t, serverOn(t, filepath.Join(root, "pgroot")), nil)
	place, err := fs.Open(strings.TrimPrefix(r.store.String(), "file://"))
	if err != nil {
		t.Fatal(err)
	}
	repo, err := repository.Open(t.Context(), place, repository.Options{Clock: time.Now, Snapshots: func(m *repository.Manifest) error {
		if !*there {
			return errors.New("somebody deleted it")
		}
		return nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	if r.lineage, err = repo.Lineage(t.Context(), r.lineage.Info().ID); err != nil {
		t.Fatal(err)
	}
	return r, &copies{t: t, root: root, kept: filepath.Join(top, "kept")}
}

// TestVolumeSnapshot: a volume is snapshotted as a whole under load; the server and its volume
// are lost; a volume that was made of the snapshot is recovered to a moment after it.
func TestVolumeSnapshot(t *testing.T) {
	there := true
	r, volume := volumeRig(t, &there)
	server := r.server
	server.Exec(t, "create tablespace one location '"+filepath.Join(volume.root, "one")+"'")
	server.Exec(t, "create table in_one tablespace one as select generate_series(1, 10000) as id")
	where := []string{"-h", server.SocketDir, "-p", fmt.Sprint(server.Port), "-U", "postgres", "postgres"}
	asServer(t, server.Program("pgbench"), append([]string{"-i", "-q", "-s", "1"}, where...)...)
	r.startArchiving(t)
	load := make(chan struct{})
	go func() {
		defer close(load)
		asServer(t, server.Program("pgbench"), append([]string{"-n", "-c", "2", "-T", "3"}, where...)...)
	}()
	time.Sleep(time.Second)
	volume.fails = errors.New("the storage says no")
	if _, err := basebackup.VolumeSnapshot(t.Context(), r.snapshotConfig(t, "v1"), volume); err == nil || volume.cleared != 2 || !errors.Is(err, volume.fails) {
		t.Fatalf("a snapshot that failed: %v, cleared %d times", err, volume.cleared)
	}
	volume.fails = nil
	m, err := basebackup.VolumeSnapshot(t.Context(), r.snapshotConfig(t, "v1"), volume)
	if err != nil {
		t.Fatal(err)
	}
	want := repository.Snapshot{VolumeSnapshot: "default/v1", Directory: "pgroot/data", ID: m.Snapshot.ID}
	if m.Type != repository.TypeSnapshot || *m.Snapshot != want || len(m.Snapshot.ID) != 32 || len(m.Tablespaces) != 1 || m.DataBytes < 10<<20 {
		t.Errorf("manifest: %+v, %+v", m, m.Snapshot)
	}
	var at time.Time
	<-load
	server.QueryRow(t, "select clock_timestamp()", &at)
	server.Exec(t, "drop table in_one")
	r.proven(t, time.Now())
	if report, err := restore.Verify(t.Context(), r.lineage, m, nil); err != nil || report.Segments == 0 {
		t.Errorf("verify: %+v, %v", report, err)
	}
	var rows int64
	server.QueryRow(t, "select count(*) from pgbench_history", &rows)
	r.stopArchiving(t)
	server.Stop(t, testpg.Fast)
	server.Disconnect()

	p, err := restore.MakePlan(t.Context(), r.catalog(t), catalog.Target{Time: at})
	if err != nil {
		t.Fatal(err)
	}
	if !p.OfVolume() || p.Snapshot != "VolumeSnapshot default/v1" {
		t.Errorf("the plan begins with %q", p.Snapshot)
	}
	if err := os.RemoveAll(volume.root); err != nil {
		t.Fatal(err)
	}
	copyTree(t, volume.kept, volume.root)
	// as Kubernetes does where it gives a volume to a group
	if out, err := exec.Command("chmod", "-R", "g+rwX", volume.root).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	into, recovery := r.place(t)
	if err := p.Fetch(t.Context(), into); err == nil {
		t.Error("it was fetched without a volume")
	}
	into.Volume, into.DataDirectory, into.Tablespaces = volume.root, filepath.Join(volume.root, "pgroot", "data.new"), filepath.Join(volume.root, "spaces")
	recovery.Into, recovery.Scratch = into, filepath.Join(volume.root, "recovery")
	for range 2 { // also again, where it was interrupted
		if err := p.Fetch(t.Context(), into); err != nil {
			t.Fatal(err)
		}
	}
	left, err := filepath.Glob(filepath.Join(into.DataDirectory, "pg_wal", "0*"))
	if err != nil || len(left) > 0 {
		t.Errorf("the source's WAL is there: %v, %v", left, err)
	}
	if _, err := os.Stat(filepath.Join(into.DataDirectory, "postmaster.pid")); err == nil {
		t.Error("the source's lock file is there")
	}
	// without its label it does not start
	if out, err := exec.Command("runuser", "-u", "postgres", "--", server.Program("pg_controldata"), "-D", into.DataDirectory).CombinedOutput(); err != nil || !strings.Contains(string(out), "0/28") {
		t.Errorf("the control file names a checkpoint: %v\n%s", err, out)
	}
	if _, err := p.Recover(t.Context(), recovery); err != nil {
		log, _ := os.ReadFile(filepath.Join(recovery.Scratch, "recovery.log"))
		t.Fatalf("recover: %v\n%s", err, log)
	}
	restored := testpg.StartAt(t, into.DataDirectory, testpg.Options{})
	judge(t, restored)
	var got int64
	restored.QueryRow(t, "select count(*) from pgbench_history", &got)
	if got != rows {
		t.Errorf("%d transactions, and there were %d", got, rows)
	}

	there = false
	if c := r.catalog(t); len(c.Backups()) != 0 || c.Absent()[0].Err.Error() != "its snapshot is VolumeSnapshot default/v1, and not here: somebody deleted it" {
		t.Errorf("a snapshot that is gone is a base: %v", c.Absent())
	}
}

// A volume that is another's is not touched; and what does not lie in the volume has no
// snapshot with it.
func TestVolumeOfAnother(t *testing.T) {
	there := true
	r, volume := volumeRig(t, &there)
	r.startArchiving(t)
	m, err := basebackup.VolumeSnapshot(t.Context(), r.snapshotConfig(t, "v1"), volume)
	if err != nil {
		t.Fatal(err)
	}
	r.server.Exec(t, "checkpoint")
	r.server.Exec(t, "create table t as select 1 as n")
	r.server.Exec(t, "checkpoint")
	p, err := restore.MakePlan(t.Context(), r.catalog(t), catalog.Target{Backup: m.Name})
	if err != nil {
		t.Fatal(err)
	}
	r.server.Stop(t, testpg.Fast)
	into, _ := r.place(t)
	into.Volume, into.DataDirectory = volume.root, filepath.Join(volume.root, "pgroot", "data")
	var other *restore.NotTheVolumeError
	if err := p.Fetch(t.Context(), into); !errors.As(err, &other) || !strings.Contains(other.Reason, "its last checkpoint is at") {
		t.Errorf("the volume as it is later: %v", err)
	}
	r.server.Start(t) // nothing was changed
	outside, err := os.MkdirTemp("/tmp", "kbo")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(outside)
	if uid, gid := testpg.Owner(t); uid >= 0 {
		if err := os.Chown(outside, uid, gid); err != nil {
			t.Fatal(err)
		}
	}
	r.server.Exec(t, "create tablespace far location '"+outside+"'")
	var far *basebackup.OutsideVolumeError
	if _, err := basebackup.VolumeSnapshot(t.Context(), r.snapshotConfig(t, "v2"), volume); !errors.As(err, &far) || far.Path != outside {
		t.Errorf("a tablespace outside of the volume: %v", err)
	}
	r.server.Exec(t, "drop tablespace far")
}
