// SPDX-License-Identifier: Apache-2.0

package local

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/internal/testdisk"
	"github.com/kbcli/kbcli/runtimes/agent"
	"github.com/kbcli/kbcli/runtimes/store"
)

// machineOn is a machine whose state directory is on a disk.
func machineOn(t *testing.T, disk string) *machine {
	t.Helper()
	m := &machine{}
	m.open(t, filepath.Join(disk, "state"))
	t.Cleanup(func() {
		m.stop()
		<-m.done
		m.killServers(t)
	})
	return m
}

func (m *machine) enableSnapshots(t *testing.T) {
	t.Helper()
	a := &v1alpha1.Addon{ObjectMeta: metav1.ObjectMeta{Name: snapshotAddon}}
	a.Spec.Install.Enabled = true
	m.create(t, a)
}

func (m *machine) snapshot(t *testing.T, cluster, name string) *v1alpha1.Backup {
	t.Helper()
	b := &v1alpha1.Backup{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}}
	b.Spec.ClusterRef, b.Spec.BackupType = cluster, v1alpha1.BackupSnapshot
	m.create(t, b)
	b = until(t, m, "default", name, func(b *v1alpha1.Backup) bool {
		return b.Status.Phase == v1alpha1.BackupCompleted || b.Status.Phase == v1alpha1.BackupFailed
	})
	if b.Status.Phase != v1alpha1.BackupCompleted {
		t.Fatalf("snapshot %s: %s", name, b.Status.FailureReason)
	}
	return b
}

// TestSnapshotsOfAMachine: another state directory finds the snapshots that are there,
// and says of those that are not where they were; WipeOut takes them along.
func TestSnapshotsOfAMachine(t *testing.T) {
	disk := testdisk.Start(t, "xfs", 2<<30)
	m := machineOn(t, disk)
	c := m.newCluster(t, "my-pg")
	if kind, why := m.BackupType(t.Context(), c); kind != v1alpha1.BackupDatafile || why != "the addon snapshot-controller is not enabled" {
		t.Errorf("without the addon: %s, %s", kind, why)
	}
	m.enableSnapshots(t)
	if kind, why := m.BackupType(t.Context(), c); kind != v1alpha1.BackupSnapshot || why != "" {
		t.Errorf("on xfs: %s, %s", kind, why)
	}
	b1, b2 := m.snapshot(t, "my-pg", "s1"), m.snapshot(t, "my-pg", "s2")
	if err := os.Rename(b2.Status.SnapshotPath, filepath.Join(disk, "s2")); err != nil {
		t.Fatal(err)
	}

	other := newMachine(t)
	other.point(t, "found", m.repository())
	got := until(t, other, "default", "s1", func(b *v1alpha1.Backup) bool { return b.Status.Phase != "" })
	if got.Spec.BackupType != v1alpha1.BackupSnapshot || got.Status.Phase != v1alpha1.BackupCompleted || got.Status.SnapshotPath != b1.Status.SnapshotPath {
		t.Errorf("s1 elsewhere: %+v", got.Status)
	}
	got = until(t, other, "default", "s2", func(b *v1alpha1.Backup) bool { return b.Status.Phase != "" })
	if want := " at " + b2.Status.SnapshotPath + ", and not here: "; got.Status.Phase != v1alpha1.BackupFailed || !strings.Contains(got.Status.FailureReason, want) {
		t.Errorf("s2 elsewhere: %s: %s", got.Status.Phase, got.Status.FailureReason)
	}
	other.stop()
	<-other.done

	if err := os.Rename(filepath.Join(disk, "s2"), b2.Status.SnapshotPath); err != nil {
		t.Fatal(err)
	}
	_, err := store.Mutate(t.Context(), m.objects, "default", "my-pg", func(c *v1alpha1.Cluster) error {
		c.Spec.TerminationPolicy = v1alpha1.TerminationWipeOut
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := m.objects.Delete(t.Context(), v1alpha1.KindCluster, "default", "my-pg", store.Preconditions{}); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"s1", "s2"} {
		for deadline := time.Now().Add(60 * time.Second); ; time.Sleep(50 * time.Millisecond) {
			_, err := m.objects.Get(t.Context(), v1alpha1.KindBackup, "default", name)
			if apierrors.IsNotFound(err) {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("%s is still there: %v", name, err)
			}
		}
	}
	if left, err := filepath.Glob(filepath.Join(m.state, "snapshots", "*")); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

// TestSnapshotPlace: the snapshots of a server that somebody else runs lie beside its
// data directory if that is on another file system, and there are none if that cannot.
func TestSnapshotPlace(t *testing.T) {
	xfs, ext4 := testdisk.Start(t, "xfs", 512<<20), testdisk.Start(t, "ext4", 64<<20)
	m := newMachine(t)
	m.enableSnapshots(t)
	data := func(disk string) string {
		dir := filepath.Join(disk, "pg", "data")
		if err := os.MkdirAll(filepath.Join(dir, "pg_tblspc"), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "PG_VERSION"), []byte("15\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	place := func(data string) string {
		dir, err := m.snapshotsOf(t.Context(), "default", "x", data)
		var no *agent.NoSnapshotError
		if errors.As(err, &no) {
			return no.Reason
		}
		if err != nil {
			t.Fatal(err)
		}
		return dir
	}
	if got, want := place(data(xfs)), filepath.Join(xfs, "pg", besideData); got != want {
		t.Errorf("on xfs: %s, want %s", got, want)
	}
	if got, want := place(data(ext4)), "ext4 cannot make reflink snapshots"; got != want {
		t.Errorf("on ext4: %s, want %s", got, want)
	}
	if err := os.Symlink(ext4, filepath.Join(data(xfs), "pg_tblspc", "16384")); err != nil {
		t.Fatal(err)
	}
	if got, want := place(data(xfs)), "tablespace 16384: EXDEV: "; !strings.HasPrefix(got, want) {
		t.Errorf("with a tablespace elsewhere: %s, want %s", got, want)
	}
	if left, err := os.ReadDir(filepath.Join(xfs, "pg")); err != nil || len(left) != 1 {
		t.Errorf("left: %v, %v", left, err)
	}
}
