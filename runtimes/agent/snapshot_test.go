// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/engine/basebackup"
	"github.com/kbcli/kbcli/engine/pg"
	"github.com/kbcli/kbcli/engine/repository"
	"github.com/kbcli/kbcli/runtimes/store"
)

// snapshotDesk is a desk with both schedules on, where snapshots can be made unless the
// error says why not.
func snapshotDesk(t *testing.T, no *error) (*desk, string) {
	d := newDesk(t)
	dir := t.TempDir()
	d.cfg.Snapshots = func(_ context.Context, lineage string) (repository.Snapshot, error) {
		return repository.Snapshot{Machine: "here", Path: filepath.Join(dir, lineage)}, *no
	}
	_, err := store.Mutate(t.Context(), d.cfg.Objects, "default", "p", func(o *v1alpha1.BackupPolicy) error {
		o.Spec.Schedule.Snapshot = v1alpha1.Schedule{Enable: true, CronExpression: "0 18 * * *"}
		o.Spec.Snapshot.CopyToRepository = true
		return nil
	})
	d.must(err)
	return d, dir
}

func (d *desk) types() map[string]v1alpha1.BackupType {
	out := map[string]v1alpha1.BackupType{}
	all, err := store.List[*v1alpha1.Backup](d.Context(), d.cfg.Objects, "default", nil)
	d.must(err)
	for _, b := range all {
		out[b.Name] = b.Spec.BackupType
	}
	return out
}

// TestScheduleBoth: two schedules of the same moment make two Backups, one after the
// other, and where no snapshot can be made only one.
func TestScheduleBoth(t *testing.T) {
	var no error
	d, _ := snapshotDesk(t, &no)
	d.look(d.runSchedule)
	d.now = time.Date(2026, 11, 1, 18, 0, 5, 0, time.UTC)
	const one, two = "backup-default-c-20261101180000", "backup-default-c-20261101180001"
	want := map[string]v1alpha1.BackupType{one: v1alpha1.BackupSnapshot}
	for range 3 {
		d.look(d.runSchedule)
		if diff := cmp.Diff(want, d.types()); diff != "" {
			t.Fatalf("backups (-want +got):\n%s", diff)
		}
	}
	d.finish(one, nil)
	want[two] = v1alpha1.BackupDatafile
	for range 3 {
		d.look(d.runSchedule)
		if diff := cmp.Diff(want, d.types()); diff != "" {
			t.Fatalf("backups (-want +got):\n%s", diff)
		}
	}
	d.finish(two, nil)
	d.look(d.runSchedule)
	for _, kind := range []string{"snapshot", "datafile"} {
		if at := d.policy.Status.LastScheduleTime[kind].UTC(); !at.Equal(time.Date(2026, 11, 1, 18, 0, 0, 0, time.UTC)) {
			t.Errorf("last scheduled %s: %s", kind, at)
		}
	}

	no = &NoSnapshotError{"ext4 cannot make reflink snapshots"}
	d.now = d.now.Add(24 * time.Hour)
	want["backup-default-c-20261102180000"] = v1alpha1.BackupDatafile
	d.look(d.runSchedule)
	if diff := cmp.Diff(want, d.types()); diff != "" {
		t.Fatalf("backups where no snapshot can be made (-want +got):\n%s", diff)
	}
	got := d.unsupported(t.Context(), d.policy.Spec.Schedule)
	if want := "schedule.snapshot makes no backup: ext4 cannot make reflink snapshots: enable schedule.datafile"; got != want {
		t.Errorf("the policy says %q", got)
	}
}

// TestWishCopy: a snapshot gets one copy, which is as scheduled as itself.
func TestWishCopy(t *testing.T) {
	var no error
	d, _ := snapshotDesk(t, &no)
	d.look(func(context.Context) error { return nil })
	for _, label := range []string{"", "p"} {
		b := &v1alpha1.Backup{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "s" + label}}
		if label != "" {
			b.Labels = map[string]string{v1alpha1.LabelScheduled: label}
		}
		b.Spec = v1alpha1.BackupSpec{ClusterRef: "c", BackupType: v1alpha1.BackupSnapshot, BackupPolicyName: "p"}
		for range 2 {
			d.must(d.wishCopy(t.Context(), b))
		}
		got, err := store.Get[*v1alpha1.Backup](t.Context(), d.cfg.Objects, "default", b.Name+"-copy")
		d.must(err)
		want := v1alpha1.BackupSpec{ClusterRef: "c", BackupPolicyName: "p", BackupType: v1alpha1.BackupDatafile, CopyOf: b.Name}
		if got.Spec != want || got.Labels[v1alpha1.LabelScheduled] != label {
			t.Errorf("copy of %s: %+v, labels %v", b.Name, got.Spec, got.Labels)
		}
		b.Spec.BackupType = v1alpha1.BackupDatafile
		b.Name += "x"
		d.must(d.wishCopy(t.Context(), b))
	}
	if got := d.types(); len(got) != 2 {
		t.Errorf("backups %v", got)
	}
}

// TestSnapshotLost: a Backup whose snapshot goes says so, until it is back; deleting it
// removes the directory, and nothing that is another's.
func TestSnapshotLost(t *testing.T) {
	var no error
	d, dir := snapshotDesk(t, &no)
	repo, err := repository.Open(t.Context(), d.repo.Store(), repository.Options{Clock: d.cfg.Clock, Snapshots: basebackup.Here})
	d.must(err)
	d.l, err = repo.Lineage(t.Context(), d.l.Info().ID)
	d.must(err)
	path := filepath.Join(dir, d.l.Info().ID, "s")
	d.must(os.MkdirAll(filepath.Join(path, "data"), 0o700))
	d.must(os.WriteFile(filepath.Join(path, "snapshot.json"), []byte(`{"lineage": "`+d.l.Info().ID+`", "backup": "s", "id": "1"}`), 0o600))
	m := &repository.Manifest{
		Name: "s", Type: repository.TypeSnapshot, Manual: true, Version: 150000, Timeline: 1, StartLSN: pg.LSN(1 << 20), StopLSN: pg.LSN(1<<20 + 100),
		StartTime: d.now, StopTime: d.now, Snapshot: &repository.Snapshot{Machine: "here", Path: path, ID: "1"},
	}
	d.must(d.l.PutBackup(t.Context(), m, &repository.Files{Snapshot: true}))
	b := &v1alpha1.Backup{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "s"}}
	b.Spec = v1alpha1.BackupSpec{ClusterRef: "c", BackupType: v1alpha1.BackupSnapshot}
	d.must(d.cfg.Objects.Create(t.Context(), b))
	d.finish("s", func(s *v1alpha1.BackupStatus) { FillStatus(s, m) })
	d.lineage = d.l
	d.must(d.reload(t.Context()))
	phase := func(want v1alpha1.BackupPhase, reason string) *v1alpha1.Backup {
		t.Helper()
		d.now = d.now.Add(snapshotsInterval)
		d.look(d.seeToSnapshots)
		b, err := store.Get[*v1alpha1.Backup](t.Context(), d.cfg.Objects, "default", "s")
		d.must(err)
		if b.Status.Phase != want || b.Status.FailureReason != reason {
			t.Errorf("%s: %q, want %s: %q", b.Status.Phase, b.Status.FailureReason, want, reason)
		}
		return b
	}
	phase(v1alpha1.BackupCompleted, "")
	d.must(os.Rename(path, path+"x"))
	phase(v1alpha1.BackupFailed, "its snapshot is on machine here at "+path+", and not here: open "+path+"/snapshot.json: no such file or directory")
	if len(d.cat.Backups()) != 0 {
		t.Error("it is a base all the same")
	}
	d.must(os.Rename(path+"x", path))
	b = phase(v1alpha1.BackupCompleted, "")
	if b.Status.SnapshotPath != path {
		t.Errorf("it lies at %q", b.Status.SnapshotPath)
	}
	d.must(os.MkdirAll(path+".tmp/data", 0o700))
	d.must(os.MkdirAll(path+"2", 0o700))
	for range 2 { // also again, when it was interrupted
		d.must(DeleteBackup(t.Context(), repo, b, nil))
	}
	left, err := filepath.Glob(filepath.Dir(path) + "/*")
	d.must(err)
	if diff := cmp.Diff([]string{path + "2"}, left); diff != "" {
		t.Errorf("what is left (-want +got):\n%s", diff)
	}
	if _, err := d.l.Manifest(t.Context(), "s"); err == nil {
		t.Error("it is still listed")
	}
	b.Status.SnapshotPath = "/etc"
	if err := DeleteBackup(t.Context(), repo, b, nil); err == nil || errors.Is(err, os.ErrNotExist) {
		t.Errorf("a place that is no snapshot's: %v", err)
	}
}
