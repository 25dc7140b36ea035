// SPDX-License-Identifier: Apache-2.0

package kubernetes

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/runtimes"
	"github.com/kbcli/kbcli/runtimes/kubernetes/names"
)

// pods are those of a cluster, by their number.
func (r *Runtime) pods(ctx context.Context, namespace, cluster string) ([]corev1.Pod, error) {
	var l corev1.PodList
	err := r.api.get(ctx, &l, of(namespace, "pods", ""), map[string]string{
		"labelSelector": labels.SelectorFromSet(names.Labels(cluster)).String(),
	})
	if err != nil {
		return nil, fmt.Errorf("list the pods of %s: %w", cluster, err)
	}
	slices.SortFunc(l.Items, func(a, b corev1.Pod) int {
		return cmp.Or(cmp.Compare(len(a.Name), len(b.Name)), cmp.Compare(a.Name, b.Name))
	})
	return l.Items, nil
}

// NoPrimaryError says that no server of a cluster takes writes now.
type NoPrimaryError struct {
	Namespace, Cluster string
	Pods               int // how many there are
}

func (e *NoPrimaryError) Error() string {
	if e.Pods == 0 {
		return fmt.Sprintf("cluster %s has no pods", e.Cluster)
	}
	return fmt.Sprintf("none of the pods of cluster %s (%d) is the primary now", e.Cluster, e.Pods)
}

// primary is the pod whose server takes writes.
func (r *Runtime) primary(ctx context.Context, namespace, cluster string) (*corev1.Pod, error) {
	all, err := r.pods(ctx, namespace, cluster)
	if err != nil {
		return nil, err
	}
	leads, err := r.leads(ctx, namespace, cluster, all)
	if err != nil {
		return nil, err
	}
	for i := range all {
		if p := &all[i]; leads(p) {
			return p, nil
		}
	}
	return nil, &NoPrimaryError{namespace, cluster, len(all)}
}

// leads gives what tells the primary. A server that was cut off and does not know that
// another has taken over wears its label still: then the lock decides.
func (r *Runtime) leads(ctx context.Context, namespace, cluster string, all []corev1.Pod) (func(*corev1.Pod) bool, error) {
	labelled := func(p *corev1.Pod) bool {
		return p.Labels[names.LabelRole] == names.RolePrimary && p.DeletionTimestamp == nil && p.Status.Phase == corev1.PodRunning
	}
	n := 0
	for i := range all {
		if labelled(&all[i]) {
			n++
		}
	}
	if n < 2 {
		return labelled, nil
	}
	var lock metav1.PartialObjectMetadata
	if err := r.api.get(ctx, &lock, of(namespace, "endpoints", names.Service(cluster)), nil); unseen(err) != nil {
		return nil, fmt.Errorf("ask which server of %s is the primary: %w", cluster, err)
	}
	leader := lock.Annotations["leader"]
	if leader == "" {
		return labelled, nil // who may not look at it takes the first
	}
	return func(p *corev1.Pod) bool { return labelled(p) && p.Name == leader }, nil
}

// Instances are the pods of a cluster. Zone and storage stay empty for who may not look
// at nodes and volume claims.
func (r *Runtime) Instances(ctx context.Context, c *v1alpha1.Cluster) ([]runtimes.Instance, error) {
	all, err := r.pods(ctx, c.Namespace, c.Name)
	if err != nil {
		return nil, err
	}
	leads, err := r.leads(ctx, c.Namespace, c.Name, all)
	if err != nil {
		return nil, err
	}
	var out []runtimes.Instance
	for i := range all {
		p := &all[i]
		in := runtimes.Instance{
			Name: p.Name, Namespace: p.Namespace, Cluster: c.Name, Component: names.PostgreSQL,
			Status: podStatus(p), Node: p.Spec.NodeName, Created: p.CreationTimestamp.UTC(),
		}
		switch {
		case leads(p):
			in.Role, in.AccessMode = "primary", "ReadWrite"
		case p.Labels[names.LabelRole] == names.RoleSecondary:
			in.Role, in.AccessMode = "standby", "Readonly"
		}
		for _, k := range p.Spec.Containers {
			if k.Name == names.ContainerPostgreSQL {
				in.CPU = share(k.Resources, corev1.ResourceCPU)
				in.Memory = share(k.Resources, corev1.ResourceMemory)
			}
		}
		if in.Zone, err = r.zone(ctx, p.Spec.NodeName); err != nil {
			return nil, err
		}
		if in.Storage, err = r.storage(ctx, p); err != nil {
			return nil, err
		}
		out = append(out, in)
	}
	return out, nil
}

// podStatus is one word, as kubectl's.
func podStatus(p *corev1.Pod) string {
	if p.DeletionTimestamp != nil {
		return "Terminating"
	}
	for _, s := range append(slices.Clone(p.Status.InitContainerStatuses), p.Status.ContainerStatuses...) {
		switch {
		case s.State.Waiting != nil && s.State.Waiting.Reason != "" && s.State.Waiting.Reason != "PodInitializing" && s.State.Waiting.Reason != "ContainerCreating":
			return s.State.Waiting.Reason
		case s.State.Terminated != nil && s.State.Terminated.ExitCode != 0:
			return s.State.Terminated.Reason
		}
	}
	return cmp.Or(p.Status.Reason, string(p.Status.Phase))
}

// share is "request / limit"; empty where neither is set.
func share(res corev1.ResourceRequirements, name corev1.ResourceName) string {
	request, asked := res.Requests[name]
	limit, limited := res.Limits[name]
	if !asked && !limited {
		return ""
	}
	words := [2]string{"<none>", "<none>"}
	if asked {
		words[0] = request.String()
	}
	if limited {
		words[1] = limit.String()
	}
	return words[0] + " / " + words[1]
}

// unseen makes nothing of what may not be looked at, or has gone.
func unseen(err error) error {
	if apierrors.IsForbidden(err) || apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

func (r *Runtime) zone(ctx context.Context, node string) (string, error) {
	if node == "" {
		return "", nil
	}
	var n corev1.Node
	err := r.api.get(ctx, &n, of("", "nodes", node), nil)
	return n.Labels[corev1.LabelTopologyZone], unseen(err)
}

// storage is the size of the volume of a pod's data.
func (r *Runtime) storage(ctx context.Context, p *corev1.Pod) (string, error) {
	for _, v := range p.Spec.Volumes {
		if v.Name != names.VolumeData || v.PersistentVolumeClaim == nil {
			continue
		}
		var claim corev1.PersistentVolumeClaim
		if err := r.api.get(ctx, &claim, of(p.Namespace, "persistentvolumeclaims", v.PersistentVolumeClaim.ClaimName), nil); err != nil {
			return "", unseen(err)
		}
		size, ok := claim.Status.Capacity[corev1.ResourceStorage]
		if !ok {
			size = claim.Spec.Resources.Requests[corev1.ResourceStorage]
		}
		return size.String(), nil
	}
	return "", nil
}
