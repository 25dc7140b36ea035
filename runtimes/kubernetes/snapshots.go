// SPDX-License-Identifier: Apache-2.0

package kubernetes

import (
	"context"
	"fmt"

	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/runtimes/operator/volumesnapshots"
	"github.com/kbcli/kbcli/runtimes/store"
)

// snapshotAddon is the Addon that switches snapshots on.
const snapshotAddon = "snapshot-controller"

// snapshotGroup is the API of VolumeSnapshots.
const snapshotGroup = "/apis/snapshot.storage.k8s.io/v1"

// annotationDefaultClass is on the StorageClass of volumes that name none.
const annotationDefaultClass = "storageclass.kubernetes.io/is-default-class"

// BackupType is snapshot where the addon is enabled and there is a VolumeSnapshotClass
// for the driver of the cluster's volumes, and else datafile.
func (r *Runtime) BackupType(ctx context.Context, c *v1alpha1.Cluster) (v1alpha1.BackupType, string) {
	if why := r.noSnapshots(ctx, c); why != "" {
		return v1alpha1.BackupDatafile, why
	}
	return v1alpha1.BackupSnapshot, ""
}

func (r *Runtime) noSnapshots(ctx context.Context, c *v1alpha1.Cluster) string {
	a, err := store.Get[*v1alpha1.Addon](ctx, r.objects, "", snapshotAddon)
	if apierrors.IsNotFound(err) || err == nil && !a.Spec.Install.Enabled {
		return "the addon " + snapshotAddon + " is not enabled"
	}
	if err != nil {
		return err.Error()
	}
	driver, err := r.driver(ctx, c.Spec.StorageClassName)
	if err != nil {
		return err.Error()
	}
	var classes struct {
		Items []struct {
			Metadata metav1.ObjectMeta
			Driver   string
		}
	}
	err = r.api.get(ctx, &classes, snapshotGroup+"/volumesnapshotclasses", nil)
	if apierrors.IsNotFound(err) {
		return "this Kubernetes has no VolumeSnapshots"
	}
	if err != nil {
		return fmt.Sprintf("list VolumeSnapshotClasses: %v", err)
	}
	var all []volumesnapshots.Class
	for _, k := range classes.Items {
		all = append(all, volumesnapshots.Class{Name: k.Metadata.Name, Driver: k.Driver, Default: k.Metadata.Annotations[volumesnapshots.AnnotationDefault] == "true"})
	}
	_, why := volumesnapshots.Choose(all, driver)
	return why
}

// driver is that of a storage class, or with an empty name of the default one.
func (r *Runtime) driver(ctx context.Context, class string) (string, error) {
	var l storagev1.StorageClassList
	if err := r.api.get(ctx, &l, "/apis/storage.k8s.io/v1/storageclasses", nil); err != nil {
		return "", fmt.Errorf("list storage classes: %w", err)
	}
	for _, s := range l.Items {
		if s.Name == class || class == "" && s.Annotations[annotationDefaultClass] == "true" {
			return s.Provisioner, nil
		}
	}
	if class == "" {
		return "", fmt.Errorf("there is no default storage class")
	}
	return "", fmt.Errorf("there is no storage class %q", class)
}
