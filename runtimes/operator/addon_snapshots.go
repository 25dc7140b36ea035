// SPDX-License-Identifier: Apache-2.0

package operator

import (
	"context"
	"fmt"
	"strings"

	apps "k8s.io/api/apps/v1"
	core "k8s.io/api/core/v1"
	storage "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/deploy/snapshots"
	"github.com/kbcli/kbcli/runtimes/kubernetes/names"
	"github.com/kbcli/kbcli/runtimes/operator/specs"
)

// snapshotsOn sees to it that there are VolumeSnapshots: their kinds, a controller, a class
// for the driver of the default storage class. What is there and not made here stays as it is.
func (l *addonLoop) snapshotsOn(ctx context.Context) (addonState, error) {
	ours, found, err := l.snapshotKinds(ctx)
	if err != nil {
		return addonState{}, err
	}
	if !found {
		if err := l.makeSnapshotKinds(ctx); err != nil {
			return addonState{}, err
		}
		ours = true
	}
	st := addonState{phase: v1alpha1.AddonEnabled}
	if ours {
		if st, err = l.runController(ctx); err != nil {
			return st, err
		}
	}
	why, err := l.snapshotClass(ctx)
	if meta.IsNoMatchError(err) || apierrors.IsNotFound(err) {
		return addonState{v1alpha1.AddonEnabling, "the kinds of snapshots are not served yet"}, nil
	}
	if err != nil {
		return addonState{}, err
	}
	if st.message == "" {
		st.message = why
	}
	return st, nil
}

// snapshotKinds tells whether VolumeSnapshots are defined, and whether the operator did that.
func (l *addonLoop) snapshotKinds(ctx context.Context) (ours, found bool, err error) {
	d := &metav1.PartialObjectMetadata{}
	d.SetGroupVersionKind(schema.GroupVersionKind{Group: "apiextensions.k8s.io", Version: "v1", Kind: "CustomResourceDefinition"})
	err = l.live.Get(ctx, client.ObjectKey{Name: "volumesnapshots.snapshot.storage.k8s.io"}, d)
	if apierrors.IsNotFound(err) {
		return false, false, nil
	}
	if err != nil {
		return false, false, fmt.Errorf("look for VolumeSnapshots: %w", err)
	}
	return d.Labels[names.LabelManagedBy] == names.ManagedBy, true, nil
}

func (l *addonLoop) makeSnapshotKinds(ctx context.Context) error {
	all, err := snapshots.Definitions()
	if err != nil {
		return err
	}
	for name, text := range all {
		u := &unstructured.Unstructured{}
		if err := yaml.Unmarshal(text, &u.Object); err != nil {
			return fmt.Errorf("read %s: %w", name, err)
		}
		labels := u.GetLabels()
		if labels == nil {
			labels = map[string]string{}
		}
		labels[names.LabelManagedBy] = names.ManagedBy
		u.SetLabels(labels)
		if err := l.create(ctx, u); err != nil {
			return err
		}
	}
	return nil
}

// runController runs the controller of VolumeSnapshots. It goes with its ServiceAccount,
// which is the chart's.
func (l *addonLoop) runController(ctx context.Context) (addonState, error) {
	d := specs.SnapshotControllerDeployment(l.own, l.images)
	if l.images.SnapshotController == "" {
		return addonState{v1alpha1.AddonFailed, "no image of the snapshot controller was named"}, nil
	}
	account := &core.ServiceAccount{}
	if err := l.live.Get(ctx, client.ObjectKey{Namespace: l.own, Name: specs.SnapshotController}, account); err != nil {
		return addonState{}, fmt.Errorf("read the ServiceAccount of the snapshot controller: %w", err)
	}
	d.OwnerReferences = []metav1.OwnerReference{{APIVersion: "v1", Kind: "ServiceAccount", Name: account.Name, UID: account.UID}}
	if err := applyAlone(ctx, l.client, d); err != nil {
		return addonState{}, err
	}
	now := &apps.Deployment{}
	if err := l.live.Get(ctx, client.ObjectKeyFromObject(d), now); err != nil {
		return addonState{}, fmt.Errorf("read Deployment %s: %w", d.Name, err)
	}
	if now.Status.AvailableReplicas == 0 {
		return addonState{v1alpha1.AddonEnabling, "the snapshot controller does not run yet"}, nil
	}
	return addonState{phase: v1alpha1.AddonEnabled}, nil
}

const annotationDefaultClass = "storageclass.kubernetes.io/is-default-class"

// snapshotClass makes a VolumeSnapshotClass for the driver of the default storage class,
// where there is none; why says in what case nothing can be made.
func (l *addonLoop) snapshotClass(ctx context.Context) (why string, err error) {
	var all storage.StorageClassList
	if err := l.live.List(ctx, &all); err != nil {
		return "", fmt.Errorf("list storage classes: %w", err)
	}
	driver := ""
	for _, s := range all.Items {
		if s.Annotations[annotationDefaultClass] == "true" {
			driver = s.Provisioner
		}
	}
	switch {
	case driver == "":
		return "there is no default storage class: make a VolumeSnapshotClass for the driver of the one that clusters use", nil
	case strings.HasPrefix(driver, "kubernetes.io/"):
		return "the default storage class has no CSI driver, and snapshots are for those alone", nil
	}
	classes := &unstructured.UnstructuredList{}
	classes.SetGroupVersionKind(schema.GroupVersionKind{Group: "snapshot.storage.k8s.io", Version: "v1", Kind: "VolumeSnapshotClassList"})
	if err := l.live.List(ctx, classes); err != nil {
		return "", err
	}
	for _, c := range classes.Items {
		if has, _, _ := unstructured.NestedString(c.Object, "driver"); has == driver {
			return "", nil
		}
	}
	return "", l.create(ctx, snapshotClassFor(driver))
}

// snapshotsOff ends the controller, if it was begun here. The kinds stay: to remove them
// would remove every snapshot there is.
func (l *addonLoop) snapshotsOff(ctx context.Context) error {
	d := &apps.Deployment{}
	err := l.live.Get(ctx, client.ObjectKey{Namespace: l.own, Name: specs.SnapshotController}, d)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read Deployment %s: %w", specs.SnapshotController, err)
	}
	if err := l.client.Delete(ctx, d); err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("remove Deployment %s: %w", d.Name, err)
	}
	return nil
}

// snapshotClassFor is the VolumeSnapshotClass of a driver. A deleted snapshot takes what the
// driver holds of it along.
func snapshotClassFor(driver string) *unstructured.Unstructured {
	return &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "snapshot.storage.k8s.io/v1", "kind": "VolumeSnapshotClass",
		"metadata": map[string]any{"name": "kubeblocks-" + driver, "labels": map[string]any{names.LabelManagedBy: names.ManagedBy}},
		"driver":   driver, "deletionPolicy": "Delete",
	}}
}
