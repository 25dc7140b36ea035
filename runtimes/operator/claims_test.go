// SPDX-License-Identifier: Apache-2.0

package operator

import (
	"fmt"
	"strings"
	"testing"

	apps "k8s.io/api/apps/v1"
	core "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/engine/blob/served"
	"github.com/kbcli/kbcli/runtimes/operator/specs"
	"github.com/kbcli/kbcli/runtimes/operator/volumes"
	"github.com/kbcli/kbcli/runtimes/store"
)

// claimed waits until a repository is in a phase, and its message has certain words.
func (w *world) claimed(t *testing.T, name string, phase v1alpha1.BackupRepoPhase, words string) *v1alpha1.BackupRepo {
	t.Helper()
	var last *v1alpha1.BackupRepo
	until(t, fmt.Sprintf("repository %s is %s", name, phase), func() (string, bool) {
		r, err := store.Get[*v1alpha1.BackupRepo](t.Context(), w.objects, "", name)
		if err != nil {
			return err.Error(), false
		}
		last = r
		return fmt.Sprintf("%+v", r.Status), r.Status.Phase == phase && strings.Contains(r.Status.Message, words)
	})
	return last
}

// TestClaims: what a repository on a claim is made of, and what is refused. Nobody runs
// pods here.
func TestClaims(t *testing.T) {
	w := newWorld(t)
	w.kube.Apply(t, `{apiVersion: storage.k8s.io/v1, kind: StorageClass, metadata: {name: grows}, provisioner: test.example/x, allowVolumeExpansion: true}`)
	make := func(name string, c v1alpha1.ClaimRepo) {
		t.Helper()
		r := &v1alpha1.BackupRepo{ObjectMeta: metav1.ObjectMeta{Name: name}}
		c.ClaimName = name + "-claim"
		r.Spec.PersistentVolumeClaim = &c
		if err := w.objects.Create(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	at := func(name string) client.ObjectKey { return client.ObjectKey{Namespace: "kb-system", Name: name} }
	there := func(key client.ObjectKey, o client.Object) bool {
		t.Helper()
		err := w.client.Get(t.Context(), key, o)
		if client.IgnoreNotFound(err) != nil {
			t.Fatal(err)
		}
		return err == nil
	}

	make("nowhere", v1alpha1.ClaimRepo{StorageClassName: "nowhere"})
	make("never", v1alpha1.ClaimRepo{CreatePolicy: v1alpha1.ClaimNever})
	make("default", v1alpha1.ClaimRepo{})
	w.claimed(t, "nowhere", v1alpha1.RepoFailed, "there is no storage class nowhere")
	w.claimed(t, "never", v1alpha1.RepoFailed, "there is no claim never-claim in namespace kb-system, and createPolicy is Never")
	w.claimed(t, "default", v1alpha1.RepoFailed, "there is no default storage class: name one")
	for _, name := range []string{"nowhere", "never", "default"} {
		if there(at("repository-"+name), &apps.StatefulSet{}) || there(at(name+"-claim"), &core.PersistentVolumeClaim{}) {
			t.Errorf("something was made for repository %s", name)
		}
	}

	make("good", v1alpha1.ClaimRepo{StorageClassName: "grows", Capacity: resource.MustParse("1Gi")})
	w.claimed(t, "good", v1alpha1.RepoPreChecking, "pod repository-good-0 is being made")
	var claim core.PersistentVolumeClaim
	var set apps.StatefulSet
	var secret, all core.Secret
	if !there(at("good-claim"), &claim) || !there(at("repository-good"), &set) || !there(at("repository-good"), &core.Service{}) || !there(at("repository-good"), &secret) ||
		!there(at(specs.InstallationSecret), &all) {
		t.Fatal("something is missing")
	}
	if got := claim.Spec.Resources.Requests[core.ResourceStorage]; got.String() != "1Gi" || len(claim.OwnerReferences) > 0 {
		t.Errorf("the claim asks for %s, owners %v", got.String(), claim.OwnerReferences)
	}
	if len(set.OwnerReferences) != 1 || set.OwnerReferences[0].Name != "good" || len(secret.OwnerReferences) != 1 {
		t.Errorf("owners %v and %v", set.OwnerReferences, secret.OwnerReferences)
	}
	known, err := served.ParseAccess(all.Data["good.volume"])
	if err != nil {
		t.Fatal(err)
	}
	has, err := served.ParseAccess(secret.Data[volumes.AccessKey])
	if err != nil || len(has.Key) == 0 || len(known.Key) > 0 || known.Token != has.Token {
		t.Errorf("the server and its clients know different things, %v", err)
	}

	// it grows once it is bound, and nothing is made in the place of what is gone
	_, err = store.Mutate(t.Context(), w.objects, "", "good", func(r *v1alpha1.BackupRepo) error {
		r.Spec.PersistentVolumeClaim.Capacity = resource.MustParse("2Gi")
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	until(t, "it says why it does not grow", func() (string, bool) {
		r, err := store.Get[*v1alpha1.BackupRepo](t.Context(), w.objects, "", "good")
		if err != nil {
			return err.Error(), false
		}
		return r.Status.Volume.NotGrown, strings.Contains(r.Status.Volume.NotGrown, "claim kb-system/good-claim stays at 1Gi: it is not bound yet")
	})
	claim.Status.Phase = core.ClaimBound
	claim.Status.Capacity = claim.Spec.Resources.Requests
	if err := w.client.Status().Update(t.Context(), &claim); err != nil {
		t.Fatal(err)
	}
	until(t, "the claim grows", func() (string, bool) {
		there(at("good-claim"), &claim)
		got := claim.Spec.Resources.Requests[core.ResourceStorage]
		return got.String(), got.String() == "2Gi"
	})
	w.kube.Kubectl(t, "annotate", "backuprepo", "good", "dataprotection.kubeblocks.io/repository-id=x")
	w.kube.Kubectl(t, "-n", "kb-system", "patch", "pvc", "good-claim", "--type=merge", "-p", `{"metadata":{"finalizers":null}}`)
	w.kube.Kubectl(t, "-n", "kb-system", "delete", "pvc", "good-claim")
	w.claimed(t, "good", v1alpha1.RepoFailed, "claim kb-system/good-claim, which held the repository, is gone: nothing is made in its place")

	// what the chart's values ask for
	w.kube.Apply(t, `{apiVersion: v1, kind: ConfigMap, metadata: {name: kubeblocks-settings, namespace: kb-system},
data: {dataProtection.backupPVCName: wished, dataProtection.backupPVCStorageClassName: grows, dataProtection.backupPVCInitCapacity: 3Gi}}`)
	r := w.claimed(t, "wished", v1alpha1.RepoPreChecking, "pod repository-wished-0")
	if c := r.Spec.PersistentVolumeClaim; !r.Spec.Default || c.Capacity.String() != "3Gi" || c.StorageClassName != "grows" || c.CreatePolicy != v1alpha1.ClaimIfNotPresent {
		t.Errorf("%+v of %+v", c, r.Spec)
	}

	// they go, whatever became of their claims; other tests have the same API server
	w.kube.Kubectl(t, "-n", "kb-system", "delete", "configmap", "kubeblocks-settings")
	w.kube.Kubectl(t, "delete", "backuprepo", "--all", "--timeout=60s")
	w.kube.Kubectl(t, "delete", "storageclass", "grows")
}
