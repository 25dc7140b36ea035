// SPDX-License-Identifier: Apache-2.0

package operator

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	core "k8s.io/api/core/v1"
	storage "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/engine/catalog"
	"github.com/kbcli/kbcli/engine/repository"
	"github.com/kbcli/kbcli/engine/restore"
	"github.com/kbcli/kbcli/runtimes"
	"github.com/kbcli/kbcli/runtimes/agent"
	"github.com/kbcli/kbcli/runtimes/operator/specs"
	"github.com/kbcli/kbcli/runtimes/operator/volumesnapshots"
	"github.com/kbcli/kbcli/runtimes/repos"
	"github.com/kbcli/kbcli/runtimes/store"
)

// bringRestored does what comes before the pods of a restored cluster: it sees to it that
// nobody's volumes are in its way, finds out what the target means, and makes the first pod's
// volume where the backup that the target is reached from is a VolumeSnapshot. Until it is
// done the words say what is waited for. A restore that cannot be has failed afterwards.
func (l *clusterLoop) bringRestored(ctx context.Context, s *seen) (wait string, err error) {
	if !s.restoring() || s.restoreFailed() {
		return "", nil
	}
	used := s.cluster.Annotations[specs.AnnotationVolumeUsed] != ""
	switch {
	case used:
		if gone, err := l.takeVolume(ctx, s); err != nil || !gone {
			return "the volume is made of its snapshot again: the recovery was interrupted", err
		}
	case s.set != nil:
		return "", nil // it was decided
	case len(s.earlier()) > 0:
		return "", l.refuse(ctx, s, "VolumeInTheWay", fmt.Errorf(
			"the volumes of an earlier cluster of this name are still there, and nothing is restored over data: %s; give the new cluster another name, or delete them",
			strings.Join(s.earlier(), ", ")))
	case s.claim(specs.ClaimName(s.cluster.Name, 0)) != nil:
		return "", nil
	}
	p, err := l.planRestore(ctx, s.cluster)
	switch {
	case err != nil && l.final(s.cluster, err):
		return "", l.refuse(ctx, s, agent.RestoreReason(err), err)
	case err != nil:
		return "the restore cannot be planned: " + err.Error(), nil
	}
	need, place, err := l.needs(ctx, p)
	if err != nil {
		return "the restore cannot be planned: " + err.Error(), nil
	}
	driver, err := l.driver(ctx, s.cluster.Spec.StorageClassName)
	if err == nil {
		err = need.Judge(&s.cluster.Spec, driver)
	}
	var unfit *runtimes.NoFitError
	if errors.As(err, &unfit) {
		return "", l.refuse(ctx, s, "DoesNotFit", unfit)
	}
	if err != nil {
		return "", err
	}
	if s.cluster, err = l.resolve(ctx, s.cluster, p); err != nil {
		return "", err
	}
	if place != "" {
		if wait, err := l.makeVolume(ctx, s, p, need, place); err != nil || wait != "" {
			return wait, err
		}
	}
	return "", l.unmark(ctx, s, used)
}

// makeVolume makes the first pod's of the VolumeSnapshot at a place.
func (l *clusterLoop) makeVolume(ctx context.Context, s *seen, p *restore.Plan, need runtimes.Needs, place string) (wait string, err error) {
	ns, name, _ := strings.Cut(place, "/")
	if ns != s.cluster.Namespace {
		if s.cluster, err = l.borrows(ctx, s.cluster, true); err != nil {
			return "", err
		}
		ready, err := l.volumes.Lend(ctx, place, loan(s.cluster))
		if err != nil {
			return "VolumeSnapshot " + place + " cannot be had in this namespace: " + err.Error(), nil
		}
		if !ready {
			return "VolumeSnapshot " + place + " is lent to this namespace", nil
		}
		name = loan(s.cluster).Name
	}
	claim := specs.RestoredClaim(s.cluster, p.Backup, name, need.Class, *resource.NewQuantity(need.Bytes, resource.BinarySI))
	if err := l.client.Create(ctx, claim); err != nil && !apierrors.IsAlreadyExists(err) {
		return "", fmt.Errorf("make volume %s of VolumeSnapshot %s: %w", claim.Name, place, err)
	}
	l.event(s.cluster, runtimes.EventNormal, "VolumeFromSnapshot", fmt.Sprintf("volume %s is made of VolumeSnapshot %s", claim.Name, place))
	return "", nil
}

// annotationLent is on a Cluster while it has a VolumeSnapshot that stands for one of
// another namespace.
const annotationLent = "apps.kubeblocks.io/lent-snapshot"

// loan is the VolumeSnapshot that stands for one of another namespace.
func loan(c *v1alpha1.Cluster) volumesnapshots.Loan {
	return volumesnapshots.Loan{
		Namespace: c.Namespace, Name: specs.StatefulSetName(c.Name) + "-restore", Content: "kubeblocks-restore-" + string(c.UID), Cluster: c.Name,
		Owner: metav1.OwnerReference{APIVersion: c.GroupVersionKind().GroupVersion().String(), Kind: v1alpha1.KindCluster, Name: c.Name, UID: c.UID},
	}
}

// borrows notes in the cluster that there is a loan, or none any more.
func (l *clusterLoop) borrows(ctx context.Context, c *v1alpha1.Cluster, yes bool) (*v1alpha1.Cluster, error) {
	if (c.Annotations[annotationLent] != "") == yes {
		return c, nil
	}
	return store.Mutate(ctx, l.objects, c.Namespace, c.Name, func(c *v1alpha1.Cluster) error {
		if !yes {
			delete(c.Annotations, annotationLent)
			return nil
		}
		if c.Annotations == nil {
			c.Annotations = map[string]string{}
		}
		c.Annotations[annotationLent] = loan(c).Content
		return nil
	})
}

// giveBack ends a loan that nobody needs any more: the restore came to an end, or the cluster.
func (l *clusterLoop) giveBack(ctx context.Context, s *seen) error {
	c := s.cluster
	if l.volumes == nil || c.Annotations[annotationLent] == "" || s.restoring() && !s.restoreFailed() && c.DeletionTimestamp == nil {
		return nil
	}
	if err := l.volumes.Return(ctx, loan(c)); err != nil {
		return err
	}
	c, err := l.borrows(ctx, c, false)
	if err == nil {
		s.cluster = c
	}
	return err
}

// refuse tells that the restore will not be, and why. Nothing was made.
func (l *clusterLoop) refuse(ctx context.Context, s *seen, reason string, why error) error {
	c, err := store.MutateStatus(ctx, l.objects, s.cluster.Namespace, s.cluster.Name, func(c *v1alpha1.Cluster) error {
		st := &c.Status
		if st.Restore == nil {
			st.Restore = &v1alpha1.RestoreStatus{}
		}
		st.Restore.Phase, st.Restore.Message = v1alpha1.RestoreFailed, why.Error()
		st.Phase, st.Reason, st.Message, st.ObservedGeneration = v1alpha1.ClusterFailed, reason, why.Error(), c.Generation
		agent.Ready(st, c.Generation, l.clock())
		return nil
	})
	if err != nil {
		return err
	}
	s.cluster = c
	l.event(c, runtimes.EventWarning, reason, why.Error())
	return nil
}

// earlier are the volumes that were here before the cluster was: another of its name left
// them, by its termination policy.
func (s *seen) earlier() []string {
	var out []string
	for i := range s.claims {
		if c := &s.claims[i]; c.CreationTimestamp.Before(&s.cluster.CreationTimestamp) {
			out = append(out, c.Name)
		}
	}
	slices.Sort(out)
	return out
}

// claim is one of the cluster's volumes by its name; nil if it is not there.
func (s *seen) claim(name string) *core.PersistentVolumeClaim {
	for i := range s.claims {
		if s.claims[i].Name == name {
			return &s.claims[i]
		}
	}
	return nil
}

// takeVolume ends the first pod and takes its volume away, and tells whether both are
// gone. The StatefulSet is without pods meanwhile, or it would make an empty volume.
func (l *clusterLoop) takeVolume(ctx context.Context, s *seen) (bool, error) {
	if s.set != nil && (s.set.Spec.Replicas == nil || *s.set.Spec.Replicas != 0) {
		return false, l.applier.apply(ctx, s.cluster, l.emptied(s.set, s.cluster), true)
	}
	if len(s.pods) > 0 {
		return false, nil
	}
	name := specs.ClaimName(s.cluster.Name, 0)
	claim := &core.PersistentVolumeClaim{}
	err := l.live.Get(ctx, client.ObjectKey{Namespace: s.cluster.Namespace, Name: name}, claim)
	if apierrors.IsNotFound(err) {
		return true, nil
	}
	if err != nil {
		return false, fmt.Errorf("read volume %s: %w", name, err)
	}
	if claim.DeletionTimestamp == nil {
		if claim.Annotations[specs.AnnotationBackup] == "" {
			return false, fmt.Errorf("volume %s is to be made anew, and was not made of a snapshot", name)
		}
		if err := l.drop(ctx, claim); err != nil {
			return false, fmt.Errorf("delete volume %s: %w", name, err)
		}
	}
	return false, nil
}

// unmark takes the wish for another volume away.
func (l *clusterLoop) unmark(ctx context.Context, s *seen, marked bool) error {
	if !marked {
		return nil
	}
	c, err := store.Mutate(ctx, l.objects, s.cluster.Namespace, s.cluster.Name, func(c *v1alpha1.Cluster) error {
		delete(c.Annotations, specs.AnnotationVolumeUsed)
		return nil
	})
	if err == nil {
		s.cluster = c
	}
	return err
}

func (l *clusterLoop) planRestore(ctx context.Context, c *v1alpha1.Cluster) (*restore.Plan, error) {
	r := c.Spec.Restore
	target, err := agent.TargetOf(r)
	if err != nil {
		return nil, &targetError{err}
	}
	src := runtimes.Source{Namespace: cmp.Or(r.SourceNamespace, c.Namespace), Cluster: r.SourceCluster, Lineage: r.SourceLineage}
	asked := repos.AskedAt(c.CreationTimestamp.Add(time.Second)) // it is cut to the second
	return l.repos.Plan(ctx, src, target, nil, asked)
}

// targetError says that a target cannot be read.
type targetError struct{ error }

func (e *targetError) Unwrap() error { return e.error }

// sourceDelay is how long a source may be unknown: a repository that is made together with
// what is restored from it is read within that time.
const sourceDelay = 15 * time.Second

// final tells that an error of a plan is an answer, and no other comes by itself.
func (l *clusterLoop) final(c *v1alpha1.Cluster, err error) bool {
	var unknown *runtimes.SourceNotFoundError
	if errors.As(err, &unknown) {
		return l.clock().Sub(c.CreationTimestamp.Time) > sourceDelay
	}
	return final(err)
}

// final tells that an error of a plan is an answer, and no other comes by itself.
func final(err error) bool {
	var absent *repository.AbsentError
	var backup *catalog.NoBackupError
	var position *catalog.PositionError
	var xact *catalog.TransactionError
	var point *catalog.NoRestorePointError
	var minimal *restore.MinimalWALError
	var made *restore.TablespaceMadeError
	var missing *repository.MissingWALError
	var corrupt *repository.CorruptError
	var timeline *catalog.NoTimelineError
	var target *targetError
	return agent.RestoreReason(err) != "RestoreFailed" || errors.As(err, &absent) || errors.As(err, &backup) ||
		errors.As(err, &timeline) || errors.As(err, &missing) || errors.As(err, &corrupt) || errors.As(err, &target) ||
		errors.As(err, &position) || errors.As(err, &xact) || errors.As(err, &point) || errors.As(err, &minimal) || errors.As(err, &made)
}

// needs is what the volumes must be, and where the VolumeSnapshot is that the first is made
// of; empty where it is not made of one.
func (l *clusterLoop) needs(ctx context.Context, p *restore.Plan) (need runtimes.Needs, place string, err error) {
	place, ok := strings.CutPrefix(p.Snapshot, volumesnapshots.Kind+" ")
	if !ok || l.volumes == nil {
		return runtimes.NeedsOf(p), "", nil
	}
	source, err := l.volumes.Source(ctx, place)
	return runtimes.Needs{Bytes: source.Size.Value(), Snapshot: p.Snapshot, Driver: source.Driver, Class: source.StorageClass}, place, err
}

// driver makes the volumes of a storage class; empty where the class is the default one,
// which the API server chooses.
func (l *clusterLoop) driver(ctx context.Context, name string) (string, error) {
	if name == "" {
		return "", nil
	}
	var class storage.StorageClass
	err := l.live.Get(ctx, client.ObjectKey{Name: name}, &class)
	if apierrors.IsNotFound(err) {
		return "", &runtimes.NoFitError{Reason: "there is no storage class " + name}
	}
	if err != nil {
		return "", fmt.Errorf("read storage class %s: %w", name, err)
	}
	return class.Provisioner, nil
}

// resolve writes down what the target was found to mean, so that the pod begins with the
// same backup, and that volume and pod come next.
func (l *clusterLoop) resolve(ctx context.Context, c *v1alpha1.Cluster, p *restore.Plan) (*v1alpha1.Cluster, error) {
	c, err := store.Mutate(ctx, l.objects, c.Namespace, c.Name, func(c *v1alpha1.Cluster) error {
		if c.Spec.ClusterVersionRef == "" {
			c.Spec.ClusterVersionRef = specs.VersionRef(p.Major)
		}
		if c.Spec.Restore.Resolved == nil {
			c.Spec.Restore.Resolved = agent.ResolvedBy(p)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return store.MutateStatus(ctx, l.objects, c.Namespace, c.Name, func(c *v1alpha1.Cluster) error {
		if c.Status.Restore == nil {
			c.Status.Restore = &v1alpha1.RestoreStatus{Phase: v1alpha1.RestorePlanning}
		}
		r := c.Status.Restore
		r.Begin(string(v1alpha1.RestorePlanning), c.CreationTimestamp.Time)
		r.Begin(v1alpha1.StepScheduling, l.clock())
		return nil
	})
}

// serves notes that a restored cluster's primary serves for the first time, and tells what
// took how long.
func (l *clusterLoop) serves(ctx context.Context, s *seen) error {
	if s.cluster.Spec.Restore == nil || s.restoring() {
		return nil
	}
	steps := s.cluster.Status.Restore.Steps
	p := s.primary()
	if len(steps) == 0 || steps[len(steps)-1].Name == v1alpha1.StepServing || p == nil || !ready(p) {
		return nil
	}
	c, err := store.MutateStatus(ctx, l.objects, s.cluster.Namespace, s.cluster.Name, func(c *v1alpha1.Cluster) error {
		if c.Status.Restore != nil {
			c.Status.Restore.Begin(v1alpha1.StepServing, l.clock())
		}
		return nil
	})
	if err != nil {
		return err
	}
	s.cluster = c
	if took := c.Status.Restore.Took(); took != "" {
		l.event(c, runtimes.EventNormal, "RestoreServes", "the restored server serves after "+took)
	}
	return nil
}
