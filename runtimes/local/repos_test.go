// SPDX-License-Identifier: Apache-2.0

package local

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kbcli/kbcli/api/v1alpha1"
)

// TestRepositoryDoesNotAnswer: one repository that does not answer holds up neither
// another nor a cluster, and says why it failed.
func TestRepositoryDoesNotAnswer(t *testing.T) {
	m := newMachine(t)
	secret, err := m.KeepSecret(t.Context(), "dead", []byte(`{"accessKey":"a","secretKey":"b"}`))
	if err != nil {
		t.Fatal(err)
	}
	o := &v1alpha1.BackupRepo{ObjectMeta: metav1.ObjectMeta{Name: "dead"}}
	o.Spec.S3 = &v1alpha1.S3Repo{Endpoint: "http://127.0.0.1:1", Region: "r", Bucket: "bucket", PathStyle: true, CredentialsFile: secret}
	m.create(t, o)
	began := time.Now()
	m.point(t, "nas", filepath.Join(m.state, "nas"))
	c := m.newCluster(t, "my-pg")
	b := m.backup(t, "my-pg", "b1")
	if c.Status.Phase != v1alpha1.ClusterRunning || b.Status.Repo != defaultRepo {
		t.Errorf("cluster %s, backup in %s", c.Status.Phase, b.Status.Repo)
	}
	t.Logf("all that after %s", time.Since(began))
	dead := until(t, m, "", "dead", func(o *v1alpha1.BackupRepo) bool { return o.Status.Phase == v1alpha1.RepoFailed })
	if !strings.Contains(dead.Status.Message, "does the endpoint answer from this machine?") {
		t.Errorf("it says %q", dead.Status.Message)
	}
}

// TestAnotherRepositoryInItsPlace: what is found in a place must be what was there before,
// and nothing is made where it is missing.
func TestAnotherRepositoryInItsPlace(t *testing.T) {
	m := newMachine(t)
	a, b := filepath.Join(m.state, "a"), filepath.Join(m.state, "b")
	m.point(t, "a", a)
	m.point(t, "b", b)
	m.halt(t)
	swap := func(from, to string) {
		t.Helper()
		if err := os.Rename(from, to); err != nil {
			t.Fatal(err)
		}
	}
	failed := func(words string) {
		t.Helper()
		until(t, m, "", "a", func(o *v1alpha1.BackupRepo) bool {
			return o.Status.Phase == v1alpha1.RepoFailed && strings.Contains(o.Status.Message, words)
		})
	}
	swap(a, a+".aside")
	m.open(t, m.state)
	failed("is the disk mounted?")
	if _, err := os.Stat(a); err == nil {
		t.Error("a directory was made in its place")
	}
	m.halt(t)
	swap(b, a)
	m.open(t, m.state)
	failed("and not ")
	m.halt(t)
	swap(a, b)
	if err := os.Mkdir(a, 0o755); err != nil {
		t.Fatal(err)
	}
	m.open(t, m.state)
	failed("no longer holds the repository")
	m.halt(t)
	if err := os.Remove(a); err != nil {
		t.Fatal(err)
	}
	swap(a+".aside", a)
	m.open(t, m.state)
	for _, name := range []string{"a", "b"} {
		until(t, m, "", name, func(o *v1alpha1.BackupRepo) bool { return o.Status.Phase == v1alpha1.RepoReady })
	}
}
