// SPDX-License-Identifier: Apache-2.0

package operator

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	core "k8s.io/api/core/v1"
	storage "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
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

// bringVolume makes the volume of a restored cluster's first pod, where the backup that
// the target is reached from is a VolumeSnapshot. It comes before the pods. Until it is
// done the words say what is waited for.
func (l *clusterLoop) bringVolume(ctx context.Context, s *seen) (wait string, err error) {
	c := s.cluster
	if l.volumes == nil || c.Spec.Restore == nil || !s.restoring() || s.restoreFailed() {
		return "", nil
	}
	used := c.Annotations[specs.AnnotationVolumeUsed] != ""
	if used {
		if gone, err := l.takeVolume(ctx, s); err != nil || !gone {
			return "the volume is made of its snapshot again: the recovery was interrupted", err
		}
	} else if s.set != nil || s.claim(specs.ClaimName(c.Name, 0)) != nil {
		return "", nil // it was decided
	}
	set := &repos.Set{Objects: l.objects, Clock: l.clock, Log: l.log, Volumes: l.volumes.In(c.Namespace)}
	p, err := l.planVolume(ctx, set, c)
	switch {
	case err != nil && final(err), err == nil && !p.OfVolume():
		return "", l.unmark(ctx, s, used) // the pod fetches what there is, or says why it cannot
	case err != nil:
		return "the restore cannot be planned: " + err.Error(), nil
	}
	source, err := l.source(ctx, set, c, p)
	if err != nil {
		return "the restore cannot be planned: " + err.Error(), nil
	}
	if why, err := l.unfit(ctx, c, source); err != nil || why != "" {
		return why, err
	}
	if s.cluster, err = l.resolve(ctx, c, p, source); err != nil {
		return "", err
	}
	claim := specs.RestoredClaim(s.cluster, p.Backup, source.Name, source.StorageClass, source.Size)
	if err := l.client.Create(ctx, claim); err != nil && !apierrors.IsAlreadyExists(err) {
		return "", fmt.Errorf("make volume %s of VolumeSnapshot %s: %w", claim.Name, source.Name, err)
	}
	l.event(s.cluster, runtimes.EventNormal, "VolumeFromSnapshot", fmt.Sprintf("volume %s is made of VolumeSnapshot %s", claim.Name, source.Name))
	return "", l.unmark(ctx, s, used)
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

func (l *clusterLoop) planVolume(ctx context.Context, set *repos.Set, c *v1alpha1.Cluster) (*restore.Plan, error) {
	r := c.Spec.Restore
	target, err := agent.TargetOf(r)
	if err != nil {
		return nil, err
	}
	src := runtimes.Source{Namespace: cmp.Or(r.SourceNamespace, c.Namespace), Cluster: r.SourceCluster, Lineage: r.SourceLineage}
	return set.Plan(ctx, src, target, nil, repos.OnItsWay(target, c.CreationTimestamp.Time))
}

// final tells that an error of a plan is an answer, and no other comes by itself.
func final(err error) bool {
	var absent *repository.AbsentError
	var backup *catalog.NoBackupError
	var source *runtimes.SourceNotFoundError
	var position *catalog.PositionError
	var xact *catalog.TransactionError
	var point *catalog.NoRestorePointError
	var minimal *restore.MinimalWALError
	var made *restore.TablespaceMadeError
	return agent.RestoreReason(err) != "RestoreFailed" || errors.As(err, &absent) || errors.As(err, &backup) || errors.As(err, &source) ||
		errors.As(err, &position) || errors.As(err, &xact) || errors.As(err, &point) || errors.As(err, &minimal) || errors.As(err, &made)
}

// source finds what the volume is made of.
func (l *clusterLoop) source(ctx context.Context, set *repos.Set, c *v1alpha1.Cluster, p *restore.Plan) (volumesnapshots.Source, error) {
	r := c.Spec.Restore
	line, _, err := set.Source(ctx, runtimes.Source{Namespace: cmp.Or(r.SourceNamespace, c.Namespace), Cluster: r.SourceCluster, Lineage: p.Lineage})
	if err != nil {
		return volumesnapshots.Source{}, err
	}
	m, err := line.Manifest(ctx, p.Backup)
	if err != nil {
		return volumesnapshots.Source{}, err
	}
	return l.volumes.Source(ctx, m)
}

// unfit says why a volume of the class that the cluster asks for cannot be made of the
// snapshot; empty if it can.
func (l *clusterLoop) unfit(ctx context.Context, c *v1alpha1.Cluster, s volumesnapshots.Source) (string, error) {
	if c.Spec.StorageClassName == "" || s.Driver == "" {
		return "", nil
	}
	var class storage.StorageClass
	err := l.live.Get(ctx, client.ObjectKey{Name: c.Spec.StorageClassName}, &class)
	if apierrors.IsNotFound(err) {
		return "there is no storage class " + c.Spec.StorageClassName, nil
	}
	if err != nil {
		return "", fmt.Errorf("read storage class %s: %w", c.Spec.StorageClassName, err)
	}
	if class.Provisioner != s.Driver {
		return fmt.Sprintf("volumes of storage class %s are made by %s, and VolumeSnapshot %s is of %s: name a storage class of that driver, such as %s",
			class.Name, class.Provisioner, s.Name, s.Driver, s.StorageClass), nil
	}
	return "", nil
}

// resolve writes down what the target was found to mean, so that the pod begins with the
// same backup; and sees to it that all volumes of the cluster have room for it.
func (l *clusterLoop) resolve(ctx context.Context, c *v1alpha1.Cluster, p *restore.Plan, s volumesnapshots.Source) (*v1alpha1.Cluster, error) {
	return store.Mutate(ctx, l.objects, c.Namespace, c.Name, func(c *v1alpha1.Cluster) error {
		if c.Spec.ClusterVersionRef == "" {
			c.Spec.ClusterVersionRef = specs.VersionRef(p.Major)
		}
		if c.Spec.Restore.Resolved == nil {
			c.Spec.Restore.Resolved = agent.ResolvedBy(p)
		}
		if s.Size.Cmp(c.Spec.Storage) > 0 {
			c.Spec.Storage = s.Size
		}
		return nil
	})
}
