// SPDX-License-Identifier: Apache-2.0

package operator

import (
	"fmt"
	"strings"
	"testing"
	"time"

	apps "k8s.io/api/apps/v1"
	core "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/runtimes/operator/specs"
	"github.com/kbcli/kbcli/runtimes/store"
)

// planned makes the first volume of a cluster, as the operator does once it knows what a
// restore's target means: there is no repository here that it could ask.
func (w *world) planned(t *testing.T, ns, name string) {
	t.Helper()
	claim := &core.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: specs.ClaimName(name, 0), Labels: specs.Labels(name)}}
	claim.Spec.AccessModes = []core.PersistentVolumeAccessMode{core.ReadWriteOnce}
	claim.Spec.Resources.Requests = core.ResourceList{core.ResourceStorage: resource.MustParse("20Gi")}
	if err := w.client.Create(t.Context(), claim); err != nil {
		t.Fatal(err)
	}
}

// A volume that an earlier cluster left is nobody's restored data: the new one says so,
// makes nothing, and leaves it alone when it goes. Without a restore it is taken up.
func (w *world) testInTheWay(t *testing.T) {
	ns := w.namespace(t)
	w.planned(t, ns, "c")
	before := get(t, w, ns, specs.ClaimName("c", 0), &core.PersistentVolumeClaim{})
	time.Sleep(time.Until(before.CreationTimestamp.Add(time.Second))) // objects tell their age in seconds
	w.create(t, ns, "c", func(c *v1alpha1.Cluster) {
		c.Spec.Restore = &v1alpha1.RestoreSpec{SourceCluster: "old", Latest: true}
	})
	c := w.phase(t, ns, "c", v1alpha1.ClusterFailed)
	if c.Status.Reason != "VolumeInTheWay" || !strings.Contains(c.Status.Message, "data-c-postgresql-0") || c.Status.Restore.Phase != v1alpha1.RestoreFailed {
		t.Errorf("%s: %s, %s", c.Status.Reason, c.Status.Message, c.Status.Restore.Phase)
	}
	err := w.client.Get(t.Context(), client.ObjectKey{Namespace: ns, Name: specs.StatefulSetName("c")}, &apps.StatefulSet{})
	if !apierrors.IsNotFound(err) {
		t.Errorf("there is a StatefulSet: %v", err)
	}
	if err := w.objects.Delete(t.Context(), v1alpha1.KindCluster, ns, "c", store.Preconditions{}); err != nil {
		t.Fatal(err)
	}
	until(t, "it is gone", func() (string, bool) {
		_, err := store.Get[*v1alpha1.Cluster](t.Context(), w.objects, ns, "c")
		return fmt.Sprint(err), apierrors.IsNotFound(err)
	})
	if now := get(t, w, ns, specs.ClaimName("c", 0), &core.PersistentVolumeClaim{}); now.UID != before.UID || now.DeletionTimestamp != nil {
		t.Error("the volume went with the cluster that did not take it")
	}
	w.create(t, ns, "c", nil)
	w.set(t, ns, "c", 1)
}

// A source of which nobody knows is looked for, and then told.
func (w *world) testUnknownSource(t *testing.T) {
	ns := w.namespace(t)
	w.create(t, ns, "c", func(c *v1alpha1.Cluster) {
		c.Spec.Restore = &v1alpha1.RestoreSpec{SourceCluster: "nobody", Latest: true}
	})
	if c := w.phase(t, ns, "c", v1alpha1.ClusterFailed); c.Status.Message != "source cluster: nobody not found" {
		t.Errorf("%s: %s", c.Status.Reason, c.Status.Message)
	}
}
