// SPDX-License-Identifier: Apache-2.0

package kubernetes

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"

	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/engine/restore"
	"github.com/kbcli/kbcli/runtimes"
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

// Needs asks the VolumeSnapshot of the plan's backup how large it is and whose.
func (r *Runtime) Needs(ctx context.Context, p *restore.Plan, class string) (runtimes.Needs, string, error) {
	need := runtimes.NeedsOf(p)
	if place, ok := strings.CutPrefix(p.Snapshot, volumesnapshots.Kind+" "); ok {
		set, err := volumesnapshots.New(r.config)
		if err != nil {
			return need, "", err
		}
		source, err := set.Source(ctx, place)
		if unseen(err) != nil {
			return need, "", err
		}
		need = runtimes.Needs{Bytes: source.Size.Value(), Snapshot: p.Snapshot, Driver: source.Driver, Class: source.StorageClass}
	}
	driver, err := r.driver(ctx, cmp.Or(class, need.Class))
	var none *noClassError
	if errors.As(err, &none) {
		return need, "", &runtimes.NoFitError{Reason: err.Error()}
	}
	return need, driver, unseen(err)
}

// noClassError says that there is no storage class of a name, or no default one.
type noClassError struct{ class string }

func (e *noClassError) Error() string {
	if e.class == "" {
		return "there is no default storage class"
	}
	return fmt.Sprintf("there is no storage class %q", e.class)
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
	return "", &noClassError{class}
}
