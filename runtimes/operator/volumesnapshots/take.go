// SPDX-License-Identifier: Apache-2.0

package volumesnapshots

import (
	"context"
	"errors"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/kbcli/kbcli/engine/basebackup"
	"github.com/kbcli/kbcli/engine/repository"
	"github.com/kbcli/kbcli/runtimes/agent"
	"github.com/kbcli/kbcli/runtimes/kubernetes/names"
	"github.com/kbcli/kbcli/runtimes/store/kube"
)

// Place is the name of a backup's VolumeSnapshot.
func Place(namespace, backup string) string { return namespace + "/" + backup }

// volume is a claim that can be snapshotted.
type volume struct {
	set                       *Set
	namespace, cluster, claim string
	root                      string
	class, driver, storage    string
	limits                    limits
}

// limits are how long is waited.
type limits struct {
	poll    time.Duration
	begin   time.Duration // until somebody acts upon a VolumeSnapshot
	cut     time.Duration // until its content is fixed
	ready   time.Duration // until volumes can be made of it: some storages copy it first
	trouble time.Duration // while it says that it fails: it is tried again
	gone    time.Duration // until a deleted one is gone
}

var patient = limits{250 * time.Millisecond, time.Minute, 10 * time.Minute, 6 * time.Hour, 2 * time.Minute, 5 * time.Minute}

// Volume is the volume of a claim, which a cluster's server has mounted at root. Where it
// cannot be snapshotted that is a *agent.NoSnapshotError.
func (s *Set) Volume(ctx context.Context, namespace, cluster, claim, root string) (basebackup.Volume, error) {
	v := &volume{set: s, namespace: namespace, cluster: cluster, claim: claim, root: root, limits: patient}
	o, err := s.api.Resource(claims).Namespace(namespace).Get(ctx, claim, metav1.GetOptions{})
	if err != nil {
		return nil, fmt.Errorf("read volume claim %s: %w", claim, kube.Unreachable(err))
	}
	notes := o.GetAnnotations()
	// who made the volume writes it there; also for the drivers that were once built in
	for _, key := range []string{"volume.kubernetes.io/storage-provisioner", "volume.beta.kubernetes.io/storage-provisioner"} {
		if v.driver == "" {
			v.driver = notes[key]
		}
	}
	v.storage, _, _ = unstructured.NestedString(o.Object, "spec", "storageClassName")
	if v.driver == "" {
		return nil, &agent.NoSnapshotError{Reason: "the volume " + claim + " was made by hand, and not by a driver that could snapshot it"}
	}
	all, err := s.classes(ctx)
	if apierrors.IsNotFound(err) {
		return nil, &agent.NoSnapshotError{Reason: "this Kubernetes has no VolumeSnapshots: install the CRDs and the snapshot-controller of its distribution"}
	}
	if err != nil {
		return nil, fmt.Errorf("list VolumeSnapshotClasses: %w", kube.Unreachable(err))
	}
	why := ""
	if v.class, why = Choose(all, v.driver); why != "" {
		return nil, &agent.NoSnapshotError{Reason: why}
	}
	return v, nil
}

func (s *Set) classes(ctx context.Context) ([]Class, error) {
	list, err := s.api.Resource(classes).List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	var out []Class
	for _, o := range list.Items {
		driver, _, _ := unstructured.NestedString(o.Object, "driver")
		out = append(out, Class{Name: o.GetName(), Driver: driver, Default: o.GetAnnotations()[AnnotationDefault] == "true"})
	}
	return out, nil
}

func (v *volume) Root() string { return v.root }

// Clear removes what an interrupted try left, and waits until its name is free.
func (v *volume) Clear(ctx context.Context, lineage, backup string) error {
	place := Place(v.namespace, backup)
	return v.until(ctx, v.limits.gone, "VolumeSnapshot "+place+" is being deleted", func(ctx context.Context) (bool, error) {
		return v.set.remove(ctx, place, lineage, backup)
	})
}

func (v *volume) Cut(ctx context.Context, lineage, backup, id string) (repository.Snapshot, error) {
	at := repository.Snapshot{VolumeSnapshot: Place(v.namespace, backup), ID: id}
	o := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": Group + "/v1", "kind": Kind,
		"spec": map[string]any{
			"volumeSnapshotClassName": v.class,
			"source":                  map[string]any{"persistentVolumeClaimName": v.claim},
		},
	}}
	o.SetNamespace(v.namespace)
	o.SetName(backup)
	labels := names.Labels(v.cluster)
	labels[LabelLineage] = lineage
	o.SetLabels(labels)
	o.SetAnnotations(map[string]string{annotationBackup: backup, annotationID: id, annotationDriver: v.driver, annotationStorage: v.storage})
	if _, err := v.set.api.Resource(snapshots).Namespace(v.namespace).Create(ctx, o, metav1.CreateOptions{}); err != nil {
		return at, fmt.Errorf("make VolumeSnapshot %s: %w", at.VolumeSnapshot, kube.Unreachable(err))
	}
	return at, v.follow(ctx, at, v.limits.cut, func(s status) bool { return s.cut })
}

func (v *volume) Settle(ctx context.Context, at repository.Snapshot) error {
	return v.follow(ctx, at, v.limits.ready, func(s status) bool { return s.ready })
}

// follow waits until a VolumeSnapshot is as it should be. What it says of failures is
// given time: its makers try again.
func (v *volume) follow(ctx context.Context, at repository.Snapshot, limit time.Duration, enough func(status) bool) error {
	began := time.Now()
	var failing time.Time
	return v.until(ctx, limit, "VolumeSnapshot "+at.VolumeSnapshot+" is not ready", func(ctx context.Context) (bool, error) {
		o, err := v.set.get(ctx, at.VolumeSnapshot)
		if apierrors.IsNotFound(err) || err == nil && o.GetAnnotations()[annotationID] != at.ID {
			return false, fmt.Errorf("VolumeSnapshot %s was deleted while it was made", at.VolumeSnapshot)
		}
		if err != nil {
			return false, notYet{err}
		}
		s := statusOf(o)
		switch {
		case enough(s):
			return true, nil
		case !s.begun && time.Since(began) > v.limits.begin:
			return false, fmt.Errorf("nobody makes VolumeSnapshot %s: does the snapshot-controller run?", at.VolumeSnapshot)
		case s.err == "":
			failing = time.Time{}
			return false, nil
		case failing.IsZero():
			failing = time.Now()
		case time.Since(failing) > v.limits.trouble:
			return false, fmt.Errorf("VolumeSnapshot %s fails%s", at.VolumeSnapshot, s.because())
		}
		return false, notYet{errors.New(s.err)}
	})
}

// notYet is an error that may pass.
type notYet struct{ error }

// until asks again and again. What it says when the time is over is the last error that
// might have passed.
func (v *volume) until(ctx context.Context, limit time.Duration, what string, done func(context.Context) (bool, error)) error {
	deadline := time.Now().Add(limit)
	tick := time.NewTicker(v.limits.poll)
	defer tick.Stop()
	for {
		ok, err := done(ctx)
		var later notYet
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case errors.As(err, &later):
		case ok || err != nil:
			return err
		}
		if time.Now().After(deadline) {
			if err != nil {
				return fmt.Errorf("%s after %s: %w", what, limit, err)
			}
			return fmt.Errorf("%s after %s", what, limit)
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
}
