// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	snapclient "github.com/kubernetes-csi/external-snapshotter/client/v8/clientset/versioned"
	core "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/klog/v2"
	"sigs.k8s.io/sig-storage-lib-external-provisioner/v13/controller"
)

// provisioner makes volumes for claims. It calls the driver as a function.
type provisioner struct {
	driver *driver
	kube   kubernetes.Interface
	snap   snapclient.Interface
}

// Provision makes the volume of one claim, empty or from the claim's data source.
func (p *provisioner) Provision(ctx context.Context, o controller.ProvisionOptions) (*core.PersistentVolume, controller.ProvisioningState, error) {
	request := &csi.CreateVolumeRequest{
		Name:          o.PVName,
		CapacityRange: &csi.CapacityRange{RequiredBytes: o.PVC.Spec.Resources.Requests.Storage().Value()},
	}
	if from := o.PVC.Spec.DataSource; from != nil {
		source, err := p.source(ctx, o.PVC.Namespace, from)
		if err != nil {
			return nil, controller.ProvisioningNoChange, err
		}
		request.VolumeContentSource = source
	}
	made, err := p.driver.CreateVolume(ctx, request)
	if err != nil {
		return nil, controller.ProvisioningFinished, err
	}
	return &core.PersistentVolume{
		ObjectMeta: meta.ObjectMeta{Name: o.PVName},
		Spec: core.PersistentVolumeSpec{
			AccessModes:                   o.PVC.Spec.AccessModes,
			MountOptions:                  o.StorageClass.MountOptions,
			PersistentVolumeReclaimPolicy: *o.StorageClass.ReclaimPolicy,
			Capacity:                      core.ResourceList{core.ResourceStorage: *resource.NewQuantity(made.Volume.CapacityBytes, resource.BinarySI)},
			PersistentVolumeSource: core.PersistentVolumeSource{
				CSI: &core.CSIPersistentVolumeSource{Driver: p.driver.name, VolumeHandle: made.Volume.VolumeId, FSType: "xfs"},
			},
		},
	}, controller.ProvisioningFinished, nil
}

// source is the driver's own name for what a claim is to be filled from.
func (p *provisioner) source(ctx context.Context, namespace string, from *core.TypedLocalObjectReference) (*csi.VolumeContentSource, error) {
	switch from.Kind {
	case "VolumeSnapshot":
		s, err := p.snap.SnapshotV1().VolumeSnapshots(namespace).Get(ctx, from.Name, meta.GetOptions{})
		if err != nil {
			return nil, err
		}
		if s.Status == nil || s.Status.ReadyToUse == nil || !*s.Status.ReadyToUse || s.Status.BoundVolumeSnapshotContentName == nil {
			return nil, fmt.Errorf("snapshot %s is not ready", from.Name)
		}
		c, err := p.snap.SnapshotV1().VolumeSnapshotContents().Get(ctx, *s.Status.BoundVolumeSnapshotContentName, meta.GetOptions{})
		if err != nil {
			return nil, err
		}
		if c.Status == nil || c.Status.SnapshotHandle == nil {
			return nil, fmt.Errorf("snapshot content %s has no handle", c.Name)
		}
		source := &csi.VolumeContentSource_SnapshotSource{SnapshotId: *c.Status.SnapshotHandle}
		return &csi.VolumeContentSource{Type: &csi.VolumeContentSource_Snapshot{Snapshot: source}}, nil
	case "PersistentVolumeClaim":
		claim, err := p.kube.CoreV1().PersistentVolumeClaims(namespace).Get(ctx, from.Name, meta.GetOptions{})
		if err != nil {
			return nil, err
		}
		if claim.Status.Phase != core.ClaimBound {
			return nil, fmt.Errorf("claim %s is not bound", from.Name)
		}
		source := &csi.VolumeContentSource_VolumeSource{VolumeId: claim.Spec.VolumeName}
		return &csi.VolumeContentSource{Type: &csi.VolumeContentSource_Volume{Volume: source}}, nil
	default:
		return nil, fmt.Errorf("a claim cannot be filled from a %s", from.Kind)
	}
}

// Delete removes the volume's image.
func (p *provisioner) Delete(ctx context.Context, volume *core.PersistentVolume) error {
	_, err := p.driver.DeleteVolume(ctx, &csi.DeleteVolumeRequest{VolumeId: volume.Spec.CSI.VolumeHandle})
	return err
}

// resizeForever does what external-resizer does for a driver that grows volumes on the node.
func (p *provisioner) resizeForever(ctx context.Context) {
	for ; ctx.Err() == nil; time.Sleep(time.Second) {
		claims, err := p.kube.CoreV1().PersistentVolumeClaims("").List(ctx, meta.ListOptions{})
		if err != nil {
			klog.ErrorS(err, "resize: list claims")
			continue
		}
		for i := range claims.Items {
			if err := p.resize(ctx, &claims.Items[i]); err != nil {
				klog.ErrorS(err, "resize", "claim", claims.Items[i].Name)
			}
		}
	}
}

// resize raises the capacity of a claim's volume and leaves the rest to the kubelet, which
// the condition calls.
func (p *provisioner) resize(ctx context.Context, claim *core.PersistentVolumeClaim) error {
	if claim.Status.Phase != core.ClaimBound || claim.Spec.Resources.Requests.Storage().Cmp(*claim.Status.Capacity.Storage()) <= 0 {
		return nil
	}
	volume, err := p.kube.CoreV1().PersistentVolumes().Get(ctx, claim.Spec.VolumeName, meta.GetOptions{})
	if err != nil {
		return err
	}
	want := claim.Spec.Resources.Requests.Storage()
	if volume.Spec.CSI == nil || volume.Spec.CSI.Driver != p.driver.name || want.Cmp(*volume.Spec.Capacity.Storage()) <= 0 {
		return nil
	}
	volume.Spec.Capacity[core.ResourceStorage] = *want
	if _, err := p.kube.CoreV1().PersistentVolumes().Update(ctx, volume, meta.UpdateOptions{}); err != nil {
		return err
	}
	pending := core.PersistentVolumeClaimCondition{
		Type: core.PersistentVolumeClaimFileSystemResizePending, Status: core.ConditionTrue, LastTransitionTime: meta.Now(),
	}
	claim.Status.Conditions = append(slices.DeleteFunc(claim.Status.Conditions, func(c core.PersistentVolumeClaimCondition) bool {
		return c.Type == pending.Type
	}), pending)
	_, err = p.kube.CoreV1().PersistentVolumeClaims(claim.Namespace).UpdateStatus(ctx, claim, meta.UpdateOptions{})
	klog.InfoS("resize", "claim", claim.Name, "to", want.String(), "err", err)
	return err
}
