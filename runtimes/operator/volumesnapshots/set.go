// SPDX-License-Identifier: Apache-2.0

package volumesnapshots

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"

	"github.com/kbcli/kbcli/engine/repository"
)

// Group is the API group of VolumeSnapshots.
const Group = "snapshot.storage.k8s.io"

// Kind is theirs.
const Kind = "VolumeSnapshot"

var (
	snapshots = schema.GroupVersionResource{Group: Group, Version: "v1", Resource: "volumesnapshots"}
	contents  = schema.GroupVersionResource{Group: Group, Version: "v1", Resource: "volumesnapshotcontents"}
	classes   = schema.GroupVersionResource{Group: Group, Version: "v1", Resource: "volumesnapshotclasses"}
	claims    = schema.GroupVersionResource{Version: "v1", Resource: "persistentvolumeclaims"}
)

// The labels and annotations of a VolumeSnapshot.
const (
	LabelLineage      = "dataprotection.kubeblocks.io/lineage"
	annotationBackup  = "dataprotection.kubeblocks.io/backup"
	annotationID      = "dataprotection.kubeblocks.io/snapshot-id"
	annotationDriver  = "dataprotection.kubeblocks.io/driver"
	annotationStorage = "dataprotection.kubeblocks.io/storage-class"
)

// askTimeout is how long one question to the API server may take.
const askTimeout = 10 * time.Second

// Set are the VolumeSnapshots of one Kubernetes. It is safe for use by many goroutines.
type Set struct {
	api dynamic.Interface

	mu   sync.Mutex
	last map[string]error // by the snapshot's number: what was found last
}

// New is the way to those of a Kubernetes.
func New(config *rest.Config) (*Set, error) {
	c := rest.CopyConfig(config)
	c.QPS = -1 // the server has its own measure of fairness
	api, err := dynamic.NewForConfig(c)
	if err != nil {
		return nil, fmt.Errorf("open the Kubernetes API: %w", err)
	}
	return &Set{api: api, last: map[string]error{}}, nil
}

// Reach is nil if volumes can be made of a backup's snapshot; it is what
// repository.Options asks for. While the API server does not answer it is what it was.
func (s *Set) Reach(m *repository.Manifest) error {
	ctx, cancel := context.WithTimeout(context.Background(), askTimeout)
	defer cancel()
	err, sure := s.look(ctx, m)
	s.mu.Lock()
	defer s.mu.Unlock()
	if sure {
		s.last[m.Snapshot.ID] = err
	} else if was, ok := s.last[m.Snapshot.ID]; ok {
		return was
	}
	return err
}

// look says why a snapshot cannot be had, and whether that is sure.
func (s *Set) look(ctx context.Context, m *repository.Manifest) (err error, sure bool) {
	o, err := s.get(ctx, m.Snapshot.VolumeSnapshot)
	switch {
	case apierrors.IsNotFound(err):
		return errors.New("there is no such VolumeSnapshot in this Kubernetes"), true
	case err != nil:
		return err, false
	case o.GetAnnotations()[annotationID] != m.Snapshot.ID:
		return errors.New("that VolumeSnapshot is another snapshot"), true
	case o.GetDeletionTimestamp() != nil:
		return errors.New("it is being deleted"), true
	}
	st := statusOf(o)
	if !st.ready {
		return fmt.Errorf("it is not ready to use%s", st.because()), true
	}
	return nil, true
}

func (s *Set) get(ctx context.Context, place string) (*unstructured.Unstructured, error) {
	ns, name, ok := strings.Cut(place, "/")
	if !ok {
		return nil, fmt.Errorf("%q names no VolumeSnapshot", place)
	}
	return s.api.Resource(snapshots).Namespace(ns).Get(ctx, name, metav1.GetOptions{})
}

// Remove removes the VolumeSnapshot of a backup. One that is not there, or another's, is
// success: nothing of this backup is here.
func (s *Set) Remove(ctx context.Context, lineage string, m *repository.Manifest) error {
	_, err := s.remove(ctx, m.Snapshot.VolumeSnapshot, lineage, m.Name)
	var other *OtherSnapshotError
	if errors.As(err, &other) {
		return nil
	}
	return err
}

// OtherSnapshotError says that a VolumeSnapshot has the name of a backup's, and is not it.
type OtherSnapshotError struct{ VolumeSnapshot, Backup string }

func (e *OtherSnapshotError) Error() string {
	return fmt.Sprintf("VolumeSnapshot %s is there and is not that of backup %s: delete it, or take a backup of another name", e.VolumeSnapshot, e.Backup)
}

// remove asks for a VolumeSnapshot to be deleted, and tells whether it is gone.
func (s *Set) remove(ctx context.Context, place, lineage, backup string) (gone bool, err error) {
	o, err := s.get(ctx, place)
	if apierrors.IsNotFound(err) {
		return true, nil
	}
	if err != nil {
		return false, fmt.Errorf("remove VolumeSnapshot %s: %w", place, err)
	}
	if o.GetLabels()[LabelLineage] != lineage || o.GetAnnotations()[annotationBackup] != backup {
		return false, &OtherSnapshotError{place, backup}
	}
	if o.GetDeletionTimestamp() != nil {
		return false, nil
	}
	uid := o.GetUID()
	err = s.api.Resource(snapshots).Namespace(o.GetNamespace()).Delete(ctx, o.GetName(), metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &uid}})
	if err != nil && !apierrors.IsNotFound(err) {
		return false, fmt.Errorf("remove VolumeSnapshot %s: %w", place, err)
	}
	return apierrors.IsNotFound(err), nil
}

// Source is what a claim is made with that is to hold what a snapshot has.
type Source struct {
	Place        string            // of the VolumeSnapshot: "namespace/name"
	Size         resource.Quantity // the least that the claim must ask for
	StorageClass string            // of the volume that was snapshotted
	Driver       string
}

// Source of a VolumeSnapshot, "namespace/name", of which Reach says that it is there.
func (s *Set) Source(ctx context.Context, place string) (Source, error) {
	o, err := s.get(ctx, place)
	if err != nil {
		return Source{}, fmt.Errorf("read VolumeSnapshot %s: %w", place, err)
	}
	out := Source{Place: place, StorageClass: o.GetAnnotations()[annotationStorage], Driver: o.GetAnnotations()[annotationDriver]}
	if text, ok, err := unstructured.NestedString(o.Object, "status", "restoreSize"); err == nil && ok {
		if out.Size, err = resource.ParseQuantity(text); err != nil {
			return out, fmt.Errorf("the size of VolumeSnapshot %s: %w", place, err)
		}
	}
	return out, nil
}

// status is what became of a VolumeSnapshot.
type status struct {
	begun bool // somebody acts upon it
	cut   bool // what it holds is fixed
	ready bool
	err   string
}

func (s status) because() string {
	if s.err == "" {
		return ""
	}
	return ": " + s.err
}

func statusOf(o *unstructured.Unstructured) (s status) {
	_, s.begun, _ = unstructured.NestedMap(o.Object, "status")
	created, _, _ := unstructured.NestedString(o.Object, "status", "creationTime")
	s.ready, _, _ = unstructured.NestedBool(o.Object, "status", "readyToUse")
	s.err, _, _ = unstructured.NestedString(o.Object, "status", "error", "message")
	s.cut = created != "" || s.ready
	return s
}
