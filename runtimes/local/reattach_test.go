// SPDX-License-Identifier: Apache-2.0

package local

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/engine/blob"
	"github.com/kbcli/kbcli/engine/restore"
	"github.com/kbcli/kbcli/runtimes/agent"
	"github.com/kbcli/kbcli/runtimes/store"
)

// point makes a BackupRepo of a directory, and waits until it is ready.
func (m *machine) point(t *testing.T, name, path string) *v1alpha1.BackupRepo {
	t.Helper()
	o := &v1alpha1.BackupRepo{ObjectMeta: metav1.ObjectMeta{Name: name}}
	o.Spec.Filesystem = &v1alpha1.FilesystemRepo{Path: path}
	m.create(t, o)
	return until(t, m, "", name, func(o *v1alpha1.BackupRepo) bool { return o.Status.Phase == v1alpha1.RepoReady })
}

func (m *machine) halt(t *testing.T) {
	t.Helper()
	m.stop()
	if err := <-m.done; err != nil {
		t.Fatal(err)
	}
}

// get reads a Backup that is there.
func (m *machine) get(t *testing.T, name string) *v1alpha1.Backup {
	t.Helper()
	b, err := store.Get[*v1alpha1.Backup](t.Context(), m.objects, "default", name)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestReattach: another state directory gets back what the repository holds, beside a
// cluster of the same name that runs there; what was deleted stays deleted.
func TestReattach(t *testing.T) {
	old := newMachine(t)
	c := old.newCluster(t, "my-pg")
	b1, b2 := old.backup(t, "my-pg", "b1"), old.backup(t, "my-pg", "b2")
	old.sql(t, c, "create table t as select 1 as id")
	var at time.Time
	old.sql(t, c, "select clock_timestamp()", &at)
	old.sql(t, c, "insert into t values (2)")
	until(t, old, "default", "my-pg", func(c *v1alpha1.Cluster) bool {
		return c.Status.Archive != nil && c.Status.Archive.ProvenTime.After(at.Add(time.Second))
	})
	until(t, old, "", defaultRepo, func(o *v1alpha1.BackupRepo) bool {
		return o.Status.Backups == 2 && o.Status.TotalSize == b1.Status.TotalSize+b2.Status.TotalSize
	})
	old.stop()
	<-old.done
	place := old.repository()
	manifest := filepath.Join(place, "lineages", b2.Status.Lineage, "manifest", "b2")
	whole, err := os.ReadFile(manifest)
	if err != nil {
		t.Fatal(err)
	}
	bad := append([]byte(nil), whole...)
	bad[len(bad)/2] ^= 1
	if err := os.WriteFile(manifest, bad, 0o600); err != nil {
		t.Fatal(err)
	}

	m := newMachine(t)
	m.newCluster(t, "my-pg") // it would take a Backup without a status for its own
	o := m.point(t, "found", place)
	if o.Status.Backups != 1 || o.Status.TotalSize != b1.Status.TotalSize || !strings.Contains(o.Status.Message, "manifest/b2 is damaged") {
		t.Errorf("repository %+v", o.Status)
	}
	got := m.get(t, "b1")
	want := b1.Status
	want.Repo = "found"
	ignore := cmpopts.IgnoreFields(v1alpha1.BackupStatus{}, "StartTimestamp", "CompletionTimestamp", "Duration")
	if diff := cmp.Diff(want, got.Status, ignore); diff != "" {
		t.Errorf("status -want +got:\n%s", diff)
	}
	if d := got.Status.CompletionTimestamp.Sub(b1.Status.CompletionTimestamp.Time).Abs(); d > 5*time.Second || got.Status.StartTimestamp.IsZero() {
		t.Errorf("completed %s, it was %s", got.Status.CompletionTimestamp, b1.Status.CompletionTimestamp)
	}
	if diff := cmp.Diff(b1.Labels, got.Labels); diff != "" {
		t.Errorf("labels -want +got:\n%s", diff)
	}
	if diff := cmp.Diff([]string{agent.BackupFinalizer}, got.Finalizers); diff != "" {
		t.Errorf("finalizers -want +got:\n%s", diff)
	}

	// a crash before the status was written, and a mended manifest
	m.halt(t)
	if err := os.WriteFile(manifest, whole, 0o600); err != nil {
		t.Fatal(err)
	}
	half := &v1alpha1.Backup{ObjectMeta: metav1.ObjectMeta{
		Namespace: "default", Name: "b2", Finalizers: []string{agent.BackupFinalizer},
		Annotations: map[string]string{"dataprotection.kubeblocks.io/reattached-from": b2.Status.Lineage},
	}}
	half.Spec.ClusterRef = "my-pg"
	m.create(t, half)
	m.open(t, m.state)
	whole2 := until(t, m, "default", "b2", func(b *v1alpha1.Backup) bool { return b.Status.Phase == v1alpha1.BackupCompleted })
	if whole2.Status.Lineage != b2.Status.Lineage || whole2.Status.StopLSN != b2.Status.StopLSN {
		t.Errorf("b2 is %+v", whole2.Status)
	}
	until(t, m, "", "found", func(o *v1alpha1.BackupRepo) bool { return o.Status.Backups == 2 && o.Status.Message == "" })
	if again := m.get(t, "b1"); again.ResourceVersion != got.ResourceVersion || again.UID != got.UID {
		t.Errorf("b1 was made or written again: %s, %s", got.ResourceVersion, again.ResourceVersion)
	}

	// it is whole, and damage is found
	if r, err := m.Verify(t.Context(), whole2, nil); err != nil || r.Files == 0 {
		t.Errorf("verify: %+v, %v", r, err)
	}

	// deleted is deleted
	if err := m.objects.Delete(t.Context(), v1alpha1.KindBackup, "default", "b2", store.Preconditions{}); err != nil {
		t.Fatal(err)
	}
	m.away(t, "b2")
	if _, err := os.Stat(manifest); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the manifest is still there: %v", err)
	}
	m.halt(t)
	m.open(t, m.state)
	until(t, m, "", "found", func(o *v1alpha1.BackupRepo) bool { return o.Status.Backups == 1 })
	m.point(t, "twice", place) // the same place again brings nothing again
	m.away(t, "b2")
	if b := m.get(t, "b1"); b.Status.Repo != "found" {
		t.Errorf("b1 is in %s", b.Status.Repo)
	}

	// a repository whose object was lost is named anew
	if err := m.objects.Delete(t.Context(), v1alpha1.KindBackupRepo, "", "found", store.Preconditions{}); err != nil {
		t.Fatal(err)
	}
	m.point(t, "third", place)
	if b := m.get(t, "b1"); b.Status.Repo == "found" {
		t.Errorf("b1 is still in %s", b.Status.Repo)
	}

	// nobody took a backup of the cluster that runs here, and the old one comes back
	now := m.running(t, "my-pg")
	repo, _, err := m.repos.Named(t.Context(), defaultRepo)
	if err != nil {
		t.Fatal(err)
	}
	l, err := repo.Lineage(t.Context(), now.Status.Lineage)
	if err != nil {
		t.Fatal(err)
	}
	if ms, err := l.Manifests(t.Context()); err != nil || len(ms) > 0 {
		t.Errorf("backups of the new cluster: %v, %v", ms, err)
	}
	mt := v1alpha1.MicroTimeOf(at)
	x := &v1alpha1.Cluster{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "new-pg"}}
	x.Spec.Restore = &v1alpha1.RestoreSpec{SourceCluster: "my-pg", SourceNamespace: "default", SourceLineage: b1.Status.Lineage, Time: &mt}
	m.create(t, x)
	var rows int
	m.sql(t, m.running(t, "new-pg"), "select count(*) from t", &rows)
	if rows != 1 {
		t.Errorf("restored %d rows", rows)
	}

	// what is gone from the repository is said to be
	if err := os.Remove(filepath.Join(filepath.Dir(manifest), "b1")); err != nil {
		t.Fatal(err)
	}
	var damaged *restore.DamagedError
	if _, err := m.Verify(t.Context(), m.get(t, "b1"), nil); !errors.As(err, &damaged) || !errors.Is(err, blob.ErrNotExist) {
		t.Errorf("verify without a manifest: %v", err)
	}
}

// away waits until a Backup is gone.
func (m *machine) away(t *testing.T, name string) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		_, err := m.objects.Get(t.Context(), v1alpha1.KindBackup, "default", name)
		if apierrors.IsNotFound(err) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s is still there: %v", name, err)
		}
	}
}
