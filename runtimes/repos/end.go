// SPDX-License-Identifier: Apache-2.0

package repos

import (
	"context"
	"errors"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/engine/blob"
	"github.com/kbcli/kbcli/engine/repository"
	"github.com/kbcli/kbcli/runtimes/store"
)

// EndBackups notes that nobody takes the backups any more that wait for a cluster that
// is gone.
func (r *Set) EndBackups(ctx context.Context, c *v1alpha1.Cluster) error {
	all, err := store.List[*v1alpha1.Backup](ctx, r.Objects, c.Namespace, map[string]string{v1alpha1.LabelCluster: c.Name})
	errs := []error{err}
	for _, b := range all {
		if phase := b.PhaseOrNew(); b.DeletionTimestamp != nil || phase != v1alpha1.BackupNew && phase != v1alpha1.BackupInProgress {
			continue
		}
		_, err := store.MutateStatus(ctx, r.Objects, b.Namespace, b.Name, func(b *v1alpha1.Backup) error {
			if phase := b.PhaseOrNew(); phase == v1alpha1.BackupNew || phase == v1alpha1.BackupInProgress {
				b.Status.Phase, b.Status.Progress = v1alpha1.BackupFailed, nil
				b.Status.FailureReason = "the cluster was deleted before the backup was done"
				b.Status.CompletionTimestamp = metav1.NewTime(r.Clock())
			}
			return nil
		})
		if !apierrors.IsNotFound(err) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// RemovePolicies removes those of a cluster that is gone.
func (r *Set) RemovePolicies(ctx context.Context, c *v1alpha1.Cluster) error {
	all, err := store.List[*v1alpha1.BackupPolicy](ctx, r.Objects, c.Namespace, nil)
	errs := []error{err}
	for _, p := range all {
		if p.Spec.ClusterRef != c.Name {
			continue
		}
		err := r.Objects.Delete(ctx, v1alpha1.KindBackupPolicy, p.Namespace, p.Name, store.Preconditions{})
		if !apierrors.IsNotFound(err) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// Wipe removes a cluster's backups and its lineage.
func (r *Set) Wipe(ctx context.Context, c *v1alpha1.Cluster) error {
	all, err := store.List[*v1alpha1.Backup](ctx, r.Objects, c.Namespace, map[string]string{v1alpha1.LabelCluster: c.Name})
	if err != nil {
		return err
	}
	for _, b := range all {
		err := r.Objects.Delete(ctx, v1alpha1.KindBackup, b.Namespace, b.Name, store.Preconditions{})
		if err != nil && !apierrors.IsNotFound(err) {
			return err
		}
	}
	if c.Status.Lineage == "" {
		return nil
	}
	repos, err := r.All(ctx)
	if err != nil {
		return err
	}
	for _, repo := range repos {
		l, err := repo.Lineage(ctx, c.Status.Lineage)
		if errors.Is(err, blob.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		if err := removeVolumeSnapshots(ctx, l); err != nil {
			return err
		}
		if err := l.Destroy(ctx); err != nil {
			return err
		}
	}
	return nil
}

// removeVolumeSnapshots removes those of all backups that a lineage lists, also of those
// whose objects are lost.
func removeVolumeSnapshots(ctx context.Context, l *repository.Lineage) error {
	all, err := l.Manifests(ctx)
	var corrupt *repository.CorruptError
	if err != nil && !errors.As(err, &corrupt) {
		return err
	}
	for _, m := range all {
		if err := l.Repository().RemoveSnapshot(ctx, l.Info().ID, m); err != nil {
			return err
		}
	}
	return nil
}
