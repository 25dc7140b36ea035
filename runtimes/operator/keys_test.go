// SPDX-License-Identifier: Apache-2.0

package operator

import (
	"maps"
	"slices"
	"strings"
	"testing"

	core "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/runtimes"
	"github.com/kbcli/kbcli/runtimes/operator/specs"
	"github.com/kbcli/kbcli/runtimes/store"
)

// testKeys: a cluster has the keys of the repositories that it uses, and while it is
// restored those of its source; of all others it has none.
func (w *world) testKeys(t *testing.T) {
	ns := w.namespace(t)
	w.kube.Apply(t, `{apiVersion: v1, kind: Secret, metadata: {name: `+specs.InstallationSecret+`, namespace: kb-system}, stringData: {one: "1", one-ca: "c", two: "2", three: "3"}}`)
	for _, name := range []string{"one", "two", "three"} {
		r := &v1alpha1.BackupRepo{ObjectMeta: metav1.ObjectMeta{Name: name}}
		r.Spec.StorageProvider, r.Spec.Default = v1alpha1.ProviderS3, name == "one"
		r.Spec.S3 = &v1alpha1.S3Repo{Bucket: "b-" + name, Region: "r", Endpoint: "http://127.0.0.1:1", CredentialsFile: specs.SecretPath(name)}
		if name == "one" {
			r.Spec.S3.CAFile = specs.SecretPath("one-ca")
		}
		if err := w.objects.Create(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	has := func(cluster string, want ...string) {
		t.Helper()
		until(t, cluster+" has the keys "+strings.Join(want, " "), func() (string, bool) {
			var s core.Secret
			if err := w.client.Get(t.Context(), client.ObjectKey{Namespace: ns, Name: specs.RepositoriesSecret(cluster)}, &s); err != nil {
				return err.Error(), false
			}
			have := slices.Sorted(maps.Keys(s.Data))
			return strings.Join(have, " "), slices.Equal(have, want)
		})
	}
	policy := func(cluster, repo string) {
		t.Helper()
		p := runtimes.FirstPolicy(&v1alpha1.Cluster{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: cluster}})
		p.Spec.BackupRepoName = repo
		if err := w.objects.Create(t.Context(), p); err != nil {
			t.Fatal(err)
		}
	}
	policy("source", "")
	w.create(t, ns, "source", nil)
	has("source", "one", "one-ca")

	// it moves on, and what it left stays within reach as long as backups lie there
	b := &v1alpha1.Backup{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "b", Labels: map[string]string{v1alpha1.LabelCluster: "source"}}}
	b.Spec.ClusterRef, b.Spec.BackupType = "source", v1alpha1.BackupDatafile
	if err := w.objects.Create(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	if _, err := store.MutateStatus(t.Context(), w.objects, ns, "b", func(b *v1alpha1.Backup) error { b.Status.Repo = "one"; return nil }); err != nil {
		t.Fatal(err)
	}
	_, err := store.Mutate(t.Context(), w.objects, ns, v1alpha1.DefaultBackupPolicyName("source"), func(p *v1alpha1.BackupPolicy) error {
		p.Spec.BackupRepoName = "two"
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	has("source", "one", "one-ca", "two")

	policy("new", "three")
	w.create(t, ns, "new", func(c *v1alpha1.Cluster) {
		c.Spec.Restore = &v1alpha1.RestoreSpec{SourceCluster: "source", Latest: true}
	})
	w.planned(t, ns, "new")
	has("new", "one", "one-ca", "three", "two")
	_, err = store.MutateStatus(t.Context(), w.objects, ns, "new", func(c *v1alpha1.Cluster) error {
		c.Status.Restore = &v1alpha1.RestoreStatus{Phase: v1alpha1.RestoreCompleted}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	has("new", "three")

	// of a source that nobody remembers nobody knows where it lies
	policy("blind", "three")
	w.create(t, ns, "blind", func(c *v1alpha1.Cluster) { c.Spec.Restore = &v1alpha1.RestoreSpec{SourceCluster: "gone", Latest: true} })
	w.planned(t, ns, "blind")
	has("blind", "one", "one-ca", "three", "two")
}
