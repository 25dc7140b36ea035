// SPDX-License-Identifier: Apache-2.0

package pod

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/engine/repository"
)

// A volume that was made of a snapshot serves one recovery: who finds it in the middle of
// one asks for another, and a note that was snapshotted with it is another's.
func TestTakenVolume(t *testing.T) {
	dir := t.TempDir()
	at := Places{Volume: dir, Data: filepath.Join(dir, "data")}
	left := at.Data + ".new"
	open := func(cluster, backup string) *takenVolume {
		t.Helper()
		v, err := takeVolume(at, takenVolume{Cluster: cluster, Backup: backup, OfVolume: true})
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	there := func() bool {
		_, err := os.Stat(left)
		return err == nil
	}
	mkdir := func() {
		t.Helper()
		if err := os.MkdirAll(left, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	mkdir()
	v := open("one", "b1")
	if there() {
		t.Error("what was snapshotted of a restore is still there")
	}
	mkdir() // the files are taken over: that can be done again
	if v = open("one", "b1"); v.used() || !there() {
		t.Errorf("used %t, there %t", v.used(), there())
	}
	if err := v.recovers(); err != nil {
		t.Fatal(err)
	}
	if !open("one", "b1").used() {
		t.Error("a recovery that was interrupted would go on")
	}
	if open("two", "b1").used() || there() {
		t.Error("another cluster's note counts")
	}
	mkdir()
	if err := open("two", "b1").recovers(); err != nil {
		t.Fatal(err)
	}
	if open("two", "b2").used() {
		t.Error("another backup's note counts")
	}
	mkdir()
	if err := open("two", "b2").recovers(); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(left, at.Data); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(at.Data, "PG_VERSION"), []byte("15\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if v := open("two", "b2"); v.used() || !v.done() {
		t.Error("what is done is not known")
	}
	if err := os.WriteFile(filepath.Join(dir, takenNote), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if v := open("two", "b2"); v.Recovering {
		t.Error("a torn note is read")
	}
}

// Files that are fetched are fetched again after a crash, and never over another's data.
func TestFetchedVolume(t *testing.T) {
	dir := t.TempDir()
	at := Places{Volume: dir, Data: filepath.Join(dir, "data")}
	open := func(cluster string) (*takenVolume, error) {
		return takeVolume(at, takenVolume{Cluster: cluster, Backup: "b1"})
	}
	v, err := open("one")
	if err != nil || v.used() || v.done() {
		t.Fatalf("an empty volume: %+v, %v", v, err)
	}
	if err := errors.Join(v.recovers(), os.MkdirAll(v.temporary, 0o700)); err != nil {
		t.Fatal(err)
	}
	if v, err = open("one"); err != nil || v.used() || v.done() {
		t.Errorf("interrupted: %+v, %v", v, err)
	}
	if err := errors.Join(os.Rename(v.temporary, at.Data), os.WriteFile(filepath.Join(at.Data, "PG_VERSION"), []byte("15\n"), 0o600)); err != nil {
		t.Fatal(err)
	}
	if v, err = open("one"); err != nil || !v.done() {
		t.Errorf("done: %+v, %v", v, err)
	}
	var other *OtherDataError
	if _, err := open("two"); !errors.As(err, &other) || !holdsData(at.Data) {
		t.Errorf("another's data: %v", err)
	}
	if err := os.Remove(filepath.Join(dir, takenNote)); err != nil {
		t.Fatal(err)
	}
	if _, err := open("one"); !errors.As(err, &other) {
		t.Errorf("data of which nobody knows: %v", err)
	}
}

// A cluster that takes up the data of a halted one is of the same release.
func TestFitsImage(t *testing.T) {
	at := Places{Data: t.TempDir()}
	c := &v1alpha1.Cluster{}
	c.Spec.ClusterVersionRef = "postgresql-15"
	if err := fitsImage(at, c); err != nil {
		t.Errorf("an empty volume: %v", err)
	}
	if err := os.WriteFile(filepath.Join(at.Data, "PG_VERSION"), []byte("15\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := fitsImage(at, c); err != nil {
		t.Error(err)
	}
	c.Spec.ClusterVersionRef = "postgresql-17"
	if err := fitsImage(at, c); err == nil || err.Error() != "the volume holds data of PostgreSQL 15, and the cluster is to be postgresql-17: make it with --cluster-version postgresql-15" {
		t.Errorf("another release: %v", err)
	}
}

// Of VolumeSnapshots a pod has the one that its volume was made of, and no other.
func TestGiven(t *testing.T) {
	m := &repository.Manifest{Name: "b1"}
	spec := &v1alpha1.RestoreSpec{}
	if err := (given{spec}).Reach(m); !errors.Is(err, errNotGiven) {
		t.Errorf("before anything was resolved: %v", err)
	}
	spec.Resolved = &v1alpha1.ResolvedTarget{BackupName: "b2"}
	if err := (given{spec}).Reach(m); !errors.Is(err, errNotGiven) {
		t.Errorf("resolved to another: %v", err)
	}
	spec.Resolved.BackupName = "b1"
	if err := (given{spec}).Reach(m); err != nil {
		t.Error(err)
	}
}
