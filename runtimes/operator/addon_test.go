// SPDX-License-Identifier: Apache-2.0

package operator

import (
	"fmt"
	"strings"
	"testing"

	storage "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/runtimes/operator/specs"
	"github.com/kbcli/kbcli/runtimes/store"
)

func (w *world) addon(t *testing.T, name string, enabled bool, values map[string]string) {
	t.Helper()
	set := func(x *v1alpha1.Addon) error {
		x.Spec.Install.Enabled, x.Spec.Install.Values = enabled, values
		return nil
	}
	_, err := store.Mutate(t.Context(), w.objects, "", name, set)
	if apierrors.IsNotFound(err) {
		x := &v1alpha1.Addon{ObjectMeta: metav1.ObjectMeta{Name: name}}
		_ = set(x)
		err = w.objects.Create(t.Context(), x)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// stands waits until an addon is in a phase, and its message has certain words.
func (w *world) stands(t *testing.T, name string, phase v1alpha1.AddonPhase, words string) {
	t.Helper()
	until(t, fmt.Sprintf("addon %s is %s", name, phase), func() (string, bool) {
		x, err := store.Get[*v1alpha1.Addon](t.Context(), w.objects, "", name)
		if err != nil {
			return err.Error(), false
		}
		now := fmt.Sprintf("%s, generation %d of %d: %s", x.Status.Phase, x.Status.ObservedGeneration, x.Generation, x.Status.Message)
		return now, x.Status.Phase == phase && x.Status.ObservedGeneration == x.Generation && strings.Contains(x.Status.Message, words)
	})
}

// grantOwn gives the operator the rights that it has in its own namespace, and makes what
// the chart makes besides.
func (w *world) grantOwn(t *testing.T) {
	t.Helper()
	for _, r := range specs.Roles("kb-system") {
		b, err := yaml.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		w.kube.Apply(t, string(b))
	}
	w.kube.Apply(t, `{apiVersion: rbac.authorization.k8s.io/v1, kind: RoleBinding, metadata: {name: the-operator, namespace: kb-system},
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: kubeblocks-operator}, subjects: [{kind: User, name: the-operator}]}`)
	w.kube.Apply(t, `{apiVersion: v1, kind: ServiceAccount, metadata: {name: kubeblocks-snapshot-controller, namespace: kb-system}}`)
}

func TestAddons(t *testing.T) {
	w := newWorld(t)
	t.Run("snapshots", func(t *testing.T) { testAddonSnapshots(t, w) })
	t.Run("s3", func(t *testing.T) { testAddonS3(t, w) })
	w.kube.Kubectl(t, "delete", "addons,backuprepos,storageclasses", "--all")
	w.kube.Kubectl(t, "-n", "kb-system", "delete", "configmap", "kubeblocks-settings")
}

func testAddonS3(t *testing.T, w *world) {
	w.addon(t, addonS3, true, nil)
	w.stands(t, addonS3, v1alpha1.AddonFailed, "bucket")
	w.addon(t, addonS3, true, map[string]string{"secret.endpoint": "http://127.0.0.1:1", "secret.region": "r", "storageClass.singleBucket": "demo"})
	w.stands(t, addonS3, v1alpha1.AddonEnabled, "")
	out := w.kube.Kubectl(t, "get", "storageclasses", "csi-s3")
	if got := strings.Fields(strings.Split(out, "\n")[1])[:5]; strings.Join(got, " ") != "csi-s3 ru.yandex.s3.csi Retain Immediate false" {
		t.Errorf("the page shows something else than\n%s", out)
	}
	r, err := store.Get[*v1alpha1.BackupRepo](t.Context(), w.objects, "", addonS3)
	if err != nil || r.Spec.S3 == nil || r.Spec.S3.Bucket != "demo" || !r.Spec.S3.PathStyle || !r.Spec.Default {
		t.Errorf("%+v, %v", r, err)
	}
	w.addon(t, addonS3, false, nil)
	w.stands(t, addonS3, v1alpha1.AddonDisabled, "")
	if err := w.client.Get(t.Context(), client.ObjectKey{Name: "csi-s3"}, &storage.StorageClass{}); !apierrors.IsNotFound(err) {
		t.Errorf("the storage class: %v", err)
	}
	if _, err := store.Get[*v1alpha1.BackupRepo](t.Context(), w.objects, "", addonS3); err != nil {
		t.Errorf("the repository: %v", err)
	}

	// a class of somebody else's stays
	w.kube.Apply(t, `{apiVersion: storage.k8s.io/v1, kind: StorageClass, metadata: {name: csi-s3}, provisioner: ru.yandex.s3.csi}`)
	w.addon(t, addonS3, true, map[string]string{"x": "y"})
	w.stands(t, addonS3, v1alpha1.AddonEnabled, "")
	w.addon(t, addonS3, false, nil)
	w.stands(t, addonS3, v1alpha1.AddonDisabled, "")
	if err := w.client.Get(t.Context(), client.ObjectKey{Name: "csi-s3"}, &storage.StorageClass{}); err != nil {
		t.Errorf("the storage class of somebody else: %v", err)
	}
}

// Nothing of VolumeSnapshots is there at first. The settings of the chart ask for them.
func testAddonSnapshots(t *testing.T, w *world) {
	w.grantOwn(t)
	w.kube.Apply(t, `{apiVersion: v1, kind: ConfigMap, metadata: {name: kubeblocks-settings, namespace: kb-system}, data: {snapshot-controller.enabled: "true"}}`)
	w.stands(t, addonSnapshot, v1alpha1.AddonEnabling, "does not run yet")
	spec := w.kube.Kubectl(t, "-n", "kb-system", "get", "deployment", "kubeblocks-snapshot-controller", "-o", "jsonpath={.spec.template.spec.containers[0].image} {.metadata.ownerReferences[0].kind}")
	if spec != "snapshot-controller:1 ServiceAccount" {
		t.Errorf("the controller is %q", spec)
	}
	w.kube.Kubectl(t, "-n", "kb-system", "patch", "deployment", "kubeblocks-snapshot-controller", "--subresource=status", "--type=merge",
		"-p", `{"status":{"replicas":2,"readyReplicas":2,"availableReplicas":2,"observedGeneration":1}}`)
	w.stands(t, addonSnapshot, v1alpha1.AddonEnabled, "no default storage class")

	w.kube.Apply(t, `{apiVersion: storage.k8s.io/v1, kind: StorageClass, metadata: {name: disks, annotations: {storageclass.kubernetes.io/is-default-class: "true"}}, provisioner: disks.example}`)
	until(t, "there is a class of snapshots", func() (string, bool) {
		out := w.kube.Kubectl(t, "get", "volumesnapshotclasses", "-o", "jsonpath={.items[*].metadata.name} {.items[*].driver}")
		return out, out == "kubeblocks-disks.example disks.example"
	})
	w.stands(t, addonSnapshot, v1alpha1.AddonEnabled, "")

	w.addon(t, addonSnapshot, false, nil)
	w.stands(t, addonSnapshot, v1alpha1.AddonDisabled, "")
	if out := w.kube.Kubectl(t, "-n", "kb-system", "get", "deployments", "-o", "name"); strings.Contains(out, "snapshot") {
		t.Errorf("there is still %s", out)
	}
	w.kube.Kubectl(t, "get", "volumesnapshotclasses", "kubeblocks-disks.example") // snapshots need it

	// kinds of somebody else's: nothing is run beside theirs
	w.kube.Kubectl(t, "label", "crd", "volumesnapshots.snapshot.storage.k8s.io", "app.kubernetes.io/managed-by-")
	w.addon(t, addonSnapshot, true, nil)
	w.stands(t, addonSnapshot, v1alpha1.AddonEnabled, "")
	if out := w.kube.Kubectl(t, "-n", "kb-system", "get", "deployments", "-o", "name"); strings.Contains(out, "snapshot") {
		t.Errorf("beside theirs there is %s", out)
	}
}
