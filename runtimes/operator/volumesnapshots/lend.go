// SPDX-License-Identifier: Apache-2.0

package volumesnapshots

import (
	"context"
	"errors"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/kbcli/kbcli/runtimes/kubernetes/names"
)

// Loan is a VolumeSnapshot that stands for one of another namespace: a claim is made in
// the namespace of its snapshot alone. Both lead to the same snapshot of the storage,
// and what is lent does not take that away when it goes.
type Loan struct {
	Namespace, Name string // of the VolumeSnapshot that is made
	Content         string // of the VolumeSnapshotContent
	Cluster         string // whose they are
	Owner           metav1.OwnerReference
}

// labelLent is on what is lent, and says for which cluster: "namespace.name".
const labelLent = "dataprotection.kubeblocks.io/lent-to"

// Lend makes the loan of the VolumeSnapshot at a place, and tells whether volumes can be
// made of it already. It is called again until they can.
func (s *Set) Lend(ctx context.Context, place string, to Loan) (ready bool, err error) {
	own := s.api.Resource(snapshots).Namespace(to.Namespace)
	have, err := own.Get(ctx, to.Name, metav1.GetOptions{})
	switch {
	case err == nil && have.GetLabels()[labelLent] != to.label():
		return false, &OtherSnapshotError{Place(to.Namespace, to.Name), "of another namespace"}
	case err == nil && have.GetDeletionTimestamp() != nil:
		return false, nil
	case err == nil:
		return statusOf(have).ready, nil
	case !apierrors.IsNotFound(err):
		return false, fmt.Errorf("read VolumeSnapshot %s: %w", Place(to.Namespace, to.Name), err)
	}
	content, err := s.lentContent(ctx, place, to)
	if err != nil {
		return false, fmt.Errorf("lend VolumeSnapshot %s to namespace %s: %w", place, to.Namespace, err)
	}
	_, err = s.api.Resource(contents).Create(ctx, content, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return false, fmt.Errorf("make VolumeSnapshotContent %s: %w", to.Content, err)
	}
	spec := map[string]any{"source": map[string]any{"volumeSnapshotContentName": to.Content}}
	if class, ok, _ := unstructured.NestedString(content.Object, "spec", "volumeSnapshotClassName"); ok {
		spec["volumeSnapshotClassName"] = class
	}
	o := &unstructured.Unstructured{Object: map[string]any{"apiVersion": Group + "/v1", "kind": Kind, "spec": spec}}
	o.SetNamespace(to.Namespace)
	o.SetName(to.Name)
	o.SetLabels(to.labels())
	o.SetOwnerReferences([]metav1.OwnerReference{to.Owner})
	if _, err := own.Create(ctx, o, metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
		return false, fmt.Errorf("make VolumeSnapshot %s: %w", Place(to.Namespace, to.Name), err)
	}
	return false, nil
}

func (l Loan) label() string { return l.Namespace + "." + l.Cluster }

func (l Loan) labels() map[string]string {
	return map[string]string{labelLent: l.label(), names.LabelManagedBy: names.ManagedBy}
}

// lentContent is a VolumeSnapshotContent of the same snapshot of the storage.
func (s *Set) lentContent(ctx context.Context, place string, to Loan) (*unstructured.Unstructured, error) {
	from, err := s.get(ctx, place)
	if err != nil {
		return nil, err
	}
	bound, _, _ := unstructured.NestedString(from.Object, "status", "boundVolumeSnapshotContentName")
	if bound == "" {
		return nil, errors.New("it is bound to no VolumeSnapshotContent")
	}
	c, err := s.api.Resource(contents).Get(ctx, bound, metav1.GetOptions{})
	if err != nil {
		return nil, fmt.Errorf("read VolumeSnapshotContent %s: %w", bound, err)
	}
	handle, _, _ := unstructured.NestedString(c.Object, "status", "snapshotHandle")
	driver, _, _ := unstructured.NestedString(c.Object, "spec", "driver")
	if handle == "" || driver == "" {
		return nil, fmt.Errorf("VolumeSnapshotContent %s does not say which snapshot of the storage it is", bound)
	}
	spec := map[string]any{
		"deletionPolicy":    "Retain", // the storage's snapshot is the source's
		"driver":            driver,
		"source":            map[string]any{"snapshotHandle": handle},
		"volumeSnapshotRef": map[string]any{"apiVersion": Group + "/v1", "kind": Kind, "namespace": to.Namespace, "name": to.Name},
	}
	for _, key := range []string{"volumeSnapshotClassName", "sourceVolumeMode"} {
		if v, ok, _ := unstructured.NestedString(c.Object, "spec", key); ok && v != "" {
			spec[key] = v
		}
	}
	o := &unstructured.Unstructured{Object: map[string]any{"apiVersion": Group + "/v1", "kind": Kind + "Content", "spec": spec}}
	o.SetName(to.Content)
	o.SetLabels(to.labels())
	return o, nil
}

// Return takes a loan away. What it led to stays.
func (s *Set) Return(ctx context.Context, to Loan) error {
	var errs []error
	for _, api := range []struct {
		get    func() (*unstructured.Unstructured, error)
		remove func(metav1.DeleteOptions) error
		what   string
	}{
		{
			func() (*unstructured.Unstructured, error) {
				return s.api.Resource(snapshots).Namespace(to.Namespace).Get(ctx, to.Name, metav1.GetOptions{})
			},
			func(o metav1.DeleteOptions) error {
				return s.api.Resource(snapshots).Namespace(to.Namespace).Delete(ctx, to.Name, o)
			},
			"VolumeSnapshot " + Place(to.Namespace, to.Name),
		},
		{
			func() (*unstructured.Unstructured, error) {
				return s.api.Resource(contents).Get(ctx, to.Content, metav1.GetOptions{})
			},
			func(o metav1.DeleteOptions) error { return s.api.Resource(contents).Delete(ctx, to.Content, o) },
			"VolumeSnapshotContent " + to.Content,
		},
	} {
		o, err := api.get()
		if err == nil && o.GetLabels()[labelLent] == to.label() && o.GetDeletionTimestamp() == nil {
			uid := o.GetUID()
			err = api.remove(metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &uid}})
		}
		if err != nil && !apierrors.IsNotFound(err) {
			errs = append(errs, fmt.Errorf("remove %s: %w", api.what, err))
		}
	}
	return errors.Join(errs...)
}
