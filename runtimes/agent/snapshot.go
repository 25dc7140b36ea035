// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/engine/basebackup"
	"github.com/kbcli/kbcli/engine/blob"
	"github.com/kbcli/kbcli/engine/catalog"
	"github.com/kbcli/kbcli/engine/repository"
	"github.com/kbcli/kbcli/runtimes/store"
)

// NoSnapshotError says why no snapshot can be made of a cluster.
type NoSnapshotError struct{ Reason string }

func (e *NoSnapshotError) Error() string {
	return "a snapshot cannot be made here: " + e.Reason + ": use --type datafile"
}

// snapshots is what is known of the cluster's snapshots.
type snapshots struct {
	asked time.Time // when it was last asked whether they can be made
	why   error     // the answer
	seen  time.Time // when they were last looked for
}

// snapshotsInterval is how often it is asked whether snapshots can be made, and whether
// those that were are still there.
const snapshotsInterval = 10 * time.Second

// snapshotPlace is where a snapshot will lie, or a *NoSnapshotError.
func (p *Protector) snapshotPlace(ctx context.Context, lineage, backup string) (repository.Snapshot, error) {
	if p.cfg.Snapshots == nil {
		return repository.Snapshot{}, &NoSnapshotError{"this place has none"}
	}
	at, err := p.cfg.Snapshots(ctx, lineage)
	at.Path = filepath.Join(at.Path, backup)
	return at, err
}

// noSnapshots says why no snapshots can be made; nil if they can.
func (p *Protector) noSnapshots(ctx context.Context) error {
	s, now := &p.snaps, p.cfg.Clock()
	if s.asked.IsZero() || now.Sub(s.asked).Abs() >= snapshotsInterval {
		s.asked = now
		if p.cfg.Volume != nil {
			_, s.why = p.cfg.Volume(ctx)
		} else {
			_, s.why = p.snapshotPlace(ctx, "lineage", "backup")
		}
	}
	return s.why
}

// unsupported says which schedules of the policy make no backup, and why; empty if all do.
func (p *Protector) unsupported(ctx context.Context, s v1alpha1.ScheduleSpec) string {
	var words []string
	if s.Snapshot.Enable {
		var no *NoSnapshotError
		switch err := p.noSnapshots(ctx); {
		case errors.As(err, &no):
			words = append(words, "schedule.snapshot makes no backup: "+no.Reason+": enable schedule.datafile")
		case err != nil:
			words = append(words, "schedule.snapshot makes no backup: "+err.Error())
		}
	}
	return strings.Join(words, "; ")
}

// copySnapshot puts the snapshot that a Backup names into the repository.
func (p *Protector) copySnapshot(ctx context.Context, of string, lineage *repository.Lineage, cfg basebackup.Config) (*repository.Manifest, error) {
	from, err := lineage.Manifest(ctx, of)
	if errors.Is(err, blob.ErrNotExist) {
		return nil, fmt.Errorf("the snapshot %s that was to be copied is gone", of)
	}
	if err != nil {
		return nil, err
	}
	return basebackup.Copy(ctx, cfg, from)
}

// wishCopy makes the Backup that brings a snapshot into the repository, if its policy
// wants that. It comes before the snapshot is said to be complete, so that it is not
// forgotten; there is one for each snapshot, and who deletes it does not get it again.
func (p *Protector) wishCopy(ctx context.Context, of *v1alpha1.Backup) error {
	if of.Spec.BackupType != v1alpha1.BackupSnapshot {
		return nil
	}
	policy := p.policy
	if name := of.Spec.BackupPolicyName; name != "" && (policy == nil || policy.Name != name) {
		var err error
		if policy, err = store.Get[*v1alpha1.BackupPolicy](ctx, p.cfg.Objects, of.Namespace, name); err != nil && !apierrors.IsNotFound(err) {
			return err
		} else if err != nil {
			policy = nil
		}
	}
	if policy == nil || !policy.Spec.Snapshot.CopyToRepository {
		return nil
	}
	b := &v1alpha1.Backup{ObjectMeta: metav1.ObjectMeta{Namespace: of.Namespace, Name: of.Name + "-copy"}}
	if policyName := of.Labels[v1alpha1.LabelScheduled]; policyName != "" {
		b.Labels = map[string]string{v1alpha1.LabelScheduled: policyName}
	}
	b.Spec = v1alpha1.BackupSpec{
		ClusterRef: of.Spec.ClusterRef, BackupPolicyName: of.Spec.BackupPolicyName,
		BackupType: v1alpha1.BackupDatafile, CopyOf: of.Name,
	}
	err := p.cfg.Objects.Create(ctx, b)
	if apierrors.IsAlreadyExists(err) {
		return nil
	}
	return err
}

// seeToSnapshots looks now and then whether the snapshots are still there: one that is
// not is no base any more, and its Backup says so, until it is back.
func (p *Protector) seeToSnapshots(ctx context.Context) error {
	s, now := &p.snaps, p.cfg.Clock()
	if p.lineage == nil || !s.seen.IsZero() && now.Sub(s.seen).Abs() < snapshotsInterval {
		return nil
	}
	s.seen = now
	cat := p.catalogNow()
	if cat == nil {
		return nil
	}
	changed := false
	for _, m := range cat.Backups() {
		changed = changed || p.lineage.Repository().Reach(m) != nil
	}
	for _, a := range cat.Absent() {
		changed = changed || p.lineage.Repository().Reach(a.Manifest) == nil
	}
	if changed {
		if err := p.reload(ctx); err != nil {
			return err
		}
		cat = p.catalogNow()
	}
	absent := map[string]error{}
	for _, a := range cat.Absent() {
		absent[a.Name] = a.Err
	}
	all, err := store.List[*v1alpha1.Backup](ctx, p.cfg.Objects, p.cfg.Namespace, map[string]string{v1alpha1.LabelCluster: p.cfg.Cluster})
	errs := []error{err}
	for _, b := range all {
		if b.Spec.BackupType == v1alpha1.BackupSnapshot && b.Status.Lineage == p.lineage.Info().ID && b.DeletionTimestamp == nil {
			errs = append(errs, p.noteSnapshot(ctx, b, absent[b.Name]))
		}
	}
	return errors.Join(errs...)
}

// noteSnapshot says of a Backup that was once complete whether its snapshot is there.
func (p *Protector) noteSnapshot(ctx context.Context, b *v1alpha1.Backup, why error) error {
	lost := why != nil && b.Status.Phase == v1alpha1.BackupCompleted
	back := why == nil && b.Status.Phase == v1alpha1.BackupFailed && b.Status.StopLSN != ""
	if !lost && !back {
		return nil
	}
	_, err := store.MutateStatus(ctx, p.cfg.Objects, b.Namespace, b.Name, func(b *v1alpha1.Backup) error {
		NoteReach(&b.Status, why)
		return nil
	})
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

// NoteReach tells in the status of a Backup that was taken whether its files can be
// reached: why is nil if they can.
func NoteReach(s *v1alpha1.BackupStatus, why error) {
	if why != nil {
		s.Phase, s.FailureReason = v1alpha1.BackupFailed, why.Error()
		return
	}
	s.Phase, s.FailureReason = v1alpha1.BackupCompleted, ""
}

// catalogNow is the newest snapshot of what the repository holds; nil if there is none.
func (p *Protector) catalogNow() *catalog.Catalog {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.cat
}

// removeSnapshot removes what of a deleted Backup is not in the repository.
func removeSnapshot(ctx context.Context, repo *repository.Repository, b *v1alpha1.Backup) error {
	if v := b.Status.VolumeSnapshot; v != "" {
		return repo.RemoveSnapshot(ctx, b.Status.Lineage, &repository.Manifest{Name: b.Name, Snapshot: &repository.Snapshot{VolumeSnapshot: v}})
	}
	if b.Spec.BackupType != v1alpha1.BackupSnapshot || b.Status.SnapshotPath == "" {
		return nil
	}
	return basebackup.RemoveSnapshot(b.Status.SnapshotPath, b.Status.Lineage, b.Name)
}
