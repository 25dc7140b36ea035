// SPDX-License-Identifier: Apache-2.0

package operator

import (
	"context"
	"errors"
	"fmt"
	"slices"

	apps "k8s.io/api/apps/v1"
	core "k8s.io/api/core/v1"
	rbac "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/runtimes/operator/specs"
	"github.com/kbcli/kbcli/runtimes/store"
)

// remove takes a deleted cluster away, as its termination policy says: first the pods in
// order, so that the agent puts the last WAL into the repository, then backups and
// volumes, then what Patroni left. What has an owner goes with it.
func (l *clusterLoop) remove(ctx context.Context, c *v1alpha1.Cluster) (reconcile.Result, error) {
	if !slices.Contains(c.Finalizers, clusterFinalizer) {
		return reconcile.Result{}, nil
	}
	again := reconcile.Result{RequeueAfter: busyInterval}
	if c.Spec.TerminationPolicy == v1alpha1.TerminationDoNotTerminate {
		err := l.say(ctx, c, state{
			v1alpha1.ClusterDeleting, "DoNotTerminate",
			"its termination policy is DoNotTerminate: it goes on, and is taken away when that is changed",
		})
		return reconcile.Result{RequeueAfter: idleInterval}, err
	}
	if c.Status.Phase != v1alpha1.ClusterDeleting || c.Status.Reason == "DoNotTerminate" {
		if err := l.say(ctx, c, state{v1alpha1.ClusterDeleting, "", ""}); err != nil {
			return again, err
		}
	}
	s, err := l.look(ctx, c)
	if err != nil {
		return again, err
	}
	if gone, err := l.endPods(ctx, s); err != nil || !gone {
		return again, err
	}
	if err := l.giveBack(ctx, s); err != nil {
		return again, err
	}
	c = s.cluster
	if err := l.repos.EndBackups(ctx, c); err != nil {
		return again, err
	}
	if c.Spec.TerminationPolicy == v1alpha1.TerminationWipeOut {
		if err := l.repos.Wipe(ctx, c); err != nil {
			return again, errors.Join(err, l.say(ctx, c, state{v1alpha1.ClusterDeleting, "BackupsStay", "its backups stay, and it with them: " + err.Error()}))
		}
	}
	if c.Spec.TerminationPolicy != v1alpha1.TerminationHalt {
		var kept []string
		if c.Spec.Restore != nil { // they were in its way, and are not its own
			kept = s.earlier()
		}
		for i := range s.claims {
			if slices.Contains(kept, s.claims[i].Name) {
				continue
			}
			if err := l.drop(ctx, &s.claims[i]); err != nil {
				return again, fmt.Errorf("delete volume %s: %w", s.claims[i].Name, err)
			}
		}
	}
	if err := l.removeRest(ctx, c); err != nil {
		return again, err
	}
	_, err = store.Mutate(ctx, l.objects, c.Namespace, c.Name, func(c *v1alpha1.Cluster) error {
		c.Finalizers = slices.DeleteFunc(c.Finalizers, func(f string) bool { return f == clusterFinalizer })
		return nil
	})
	if apierrors.IsNotFound(err) {
		err = nil
	}
	l.applier.forget(c)
	return reconcile.Result{}, err
}

// endPods ends the servers, and tells whether they are gone.
func (l *clusterLoop) endPods(ctx context.Context, s *seen) (bool, error) {
	if s.set != nil && s.set.DeletionTimestamp == nil {
		// the pods first: one that is alone would otherwise be left to nobody
		if s.set.Spec.Replicas == nil || *s.set.Spec.Replicas != 0 {
			return false, l.applier.apply(ctx, s.cluster, l.emptied(s.set, s.cluster), true)
		}
		if len(s.pods) > 0 {
			return false, nil
		}
		return false, l.drop(ctx, &apps.StatefulSet{ObjectMeta: metav1.ObjectMeta{Namespace: s.set.Namespace, Name: s.set.Name}})
	}
	return s.set == nil && len(s.pods) == 0, nil
}

// emptied is the StatefulSet with no pods, and otherwise as it stands.
func (l *clusterLoop) emptied(set *apps.StatefulSet, c *v1alpha1.Cluster) *apps.StatefulSet {
	out := specs.StatefulSet(c, l.images, 0)
	out.Spec.VolumeClaimTemplates = set.DeepCopy().Spec.VolumeClaimTemplates
	return out
}

// removeRest removes the policy, what Patroni made, and what cannot have an owner.
func (l *clusterLoop) removeRest(ctx context.Context, c *v1alpha1.Cluster) error {
	l.endings.forget(c.UID)
	errs := []error{l.repos.RemovePolicies(ctx, c)}
	errs = append(errs, l.drop(ctx, &rbac.ClusterRoleBinding{ObjectMeta: metav1.ObjectMeta{Name: specs.AgentBinding(c.Namespace, c.Name)}}))
	for _, name := range []string{specs.PrimaryService(c.Name), specs.ConfigEndpoints(c.Name), specs.FailoverEndpoints(c.Name), specs.StatefulSetName(c.Name) + "-sync"} {
		o := endpointsMeta()
		o.Namespace, o.Name = c.Namespace, name
		errs = append(errs, l.drop(ctx, o))
	}
	if c.Spec.TerminationPolicy != v1alpha1.TerminationHalt {
		return errors.Join(errs...)
	}
	// the data stays, and its passwords with it
	for _, name := range []string{specs.SuperuserSecret(c.Name), specs.ReplicationSecret(c.Name)} {
		var s core.Secret
		err := l.live.Get(ctx, client.ObjectKey{Namespace: c.Namespace, Name: name}, &s)
		if err == nil && len(s.OwnerReferences) > 0 {
			before := s.DeepCopy()
			s.OwnerReferences = nil
			err = l.client.Patch(ctx, &s, client.MergeFrom(before))
		}
		if !apierrors.IsNotFound(err) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
