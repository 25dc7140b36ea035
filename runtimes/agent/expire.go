// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"slices"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/engine/blob"
	"github.com/kbcli/kbcli/engine/repository"
	"github.com/kbcli/kbcli/engine/retention"
	"github.com/kbcli/kbcli/runtimes/store"
)

// expireInterval is how often it is looked whether something expired, and replanInterval
// how often the repository is read for it where nothing points to a change.
const (
	expireInterval = time.Minute
	replanInterval = time.Hour
)

// expiry is what is known of the last look for what expired.
type expiry struct {
	looked time.Time // zero: look at once
	plan   time.Time // when to read the repository again at the latest
	seen   expirySeen
}

// expirySeen is what a plan rests upon beside the repository.
type expirySeen struct {
	ttl      time.Duration
	lineage  string
	repo     string
	backups  int
	newest   time.Time
	restores bool
}

// expire lets go what the policy's ttl does not promise, once a minute. Backups go as
// objects, whose deletion removes their bytes; WAL goes when no Backup that is to go
// is there any more. Nothing goes where something could not be read.
func (p *Protector) expire(ctx context.Context) error {
	now := p.cfg.Clock()
	if p.policy == nil || !p.expiry.looked.IsZero() && now.Sub(p.expiry.looked).Abs() < expireInterval {
		return nil
	}
	p.expiry.looked = now
	ttl, err := v1alpha1.ParseTTL(p.policy.Spec.Retention.TTL)
	if err != nil {
		return err
	}
	all, err := store.List[*v1alpha1.Backup](ctx, p.cfg.Objects, p.cfg.Namespace, nil)
	if err != nil {
		return err
	}
	all = slices.DeleteFunc(all, func(b *v1alpha1.Backup) bool { return b.Spec.ClusterRef != p.cfg.Cluster })
	if err := p.noteExpirations(ctx, all, ttl, now); err != nil {
		return err
	}
	lineage, repoName, err := p.existingLineage(ctx)
	if err != nil || lineage == nil {
		return err
	}
	seen := expirySeen{ttl: ttl, lineage: lineage.Info().ID, repo: repoName}
	if seen.restores, err = p.restoring(ctx); err != nil {
		return err
	}
	for _, b := range all {
		if b.Status.Phase == v1alpha1.BackupCompleted || b.Status.Phase == v1alpha1.BackupDeleting {
			seen.backups++
			if t := b.Status.CompletionTimestamp.Time; t.After(seen.newest) {
				seen.newest = t
			}
		}
	}
	if seen == p.expiry.seen && now.Before(p.expiry.plan) || seen.restores {
		return nil // a restore reads what may no longer be promised
	}
	in, err := retention.Load(ctx, lineage, now, ttl)
	if err != nil {
		return err
	}
	list := retention.Plan(in)
	if err := p.letGo(ctx, lineage, list, all); err != nil {
		return err
	}
	p.expiry.seen, p.expiry.plan = seen, now.Add(replanInterval)
	if !list.Next.IsZero() && list.Next.Before(p.expiry.plan) {
		p.expiry.plan = list.Next
	}
	if len(list.Backups) > 0 {
		p.expiry.plan = time.Time{} // their WAL goes in a next round
	}
	return p.refresh(ctx, lineage, in, list)
}

// letGo deletes the Backups that are listed; or, when there are none, the WAL.
func (p *Protector) letGo(ctx context.Context, lineage *repository.Lineage, list retention.List, all []*v1alpha1.Backup) error {
	if len(list.Backups) == 0 {
		return retention.Apply(ctx, lineage, list)
	}
	for _, name := range list.Backups {
		i := slices.IndexFunc(all, func(b *v1alpha1.Backup) bool {
			return b.Name == name && b.Status.Lineage == lineage.Info().ID
		})
		if i < 0 {
			// its object is lost: there is nobody but us to let it go
			if err := retention.Apply(ctx, lineage, retention.List{Backups: []string{name}}); err != nil {
				return err
			}
			continue
		}
		if err := p.deleteObject(ctx, all[i]); err != nil {
			return err
		}
	}
	return nil
}

func (p *Protector) deleteObject(ctx context.Context, b *v1alpha1.Backup) error {
	if b.DeletionTimestamp != nil {
		return nil
	}
	p.cfg.Log.Info("a backup expired", "backup", b.Name, "phase", b.Status.Phase)
	err := p.cfg.Objects.Delete(ctx, v1alpha1.KindBackup, b.Namespace, b.Name, store.Preconditions{UID: string(b.UID)})
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

// noteExpirations says in each scheduled Backup when it may go, and in the policy
// when the last one ended well. Those that failed go then: they serve nobody.
func (p *Protector) noteExpirations(ctx context.Context, all []*v1alpha1.Backup, ttl time.Duration, now time.Time) error {
	var good metav1.Time
	for _, b := range all {
		st := &b.Status
		done := st.Phase == v1alpha1.BackupCompleted || st.Phase == v1alpha1.BackupFailed
		if st.Manual || !done || st.CompletionTimestamp.IsZero() || b.DeletionTimestamp != nil || b.Labels[v1alpha1.LabelScheduled] == "" {
			continue
		}
		want := metav1.NewTime(st.CompletionTimestamp.Add(ttl))
		if !st.Expiration.Equal(&want) {
			_, err := store.MutateStatus(ctx, p.cfg.Objects, b.Namespace, b.Name, func(b *v1alpha1.Backup) error {
				b.Status.Expiration = want
				return nil
			})
			if err != nil && !apierrors.IsNotFound(err) {
				return err
			}
		}
		switch {
		case st.Phase == v1alpha1.BackupCompleted && st.CompletionTimestamp.After(good.Time):
			good = st.CompletionTimestamp
		case st.Phase == v1alpha1.BackupFailed && st.StopLSN == "" && !now.Before(want.Time):
			if err := p.deleteObject(ctx, b); err != nil {
				return err
			}
		}
	}
	if !good.After(p.policy.Status.LastSuccessfulTime.Time) {
		return nil
	}
	_, err := store.MutateStatus(ctx, p.cfg.Objects, p.policy.Namespace, p.policy.Name, func(o *v1alpha1.BackupPolicy) error {
		o.Status.LastSuccessfulTime = good
		return nil
	})
	return err
}

// existingLineage is the cluster's place in the repository of its policy; nil if
// there is none.
func (p *Protector) existingLineage(ctx context.Context) (*repository.Lineage, string, error) {
	c, err := store.Get[*v1alpha1.Cluster](ctx, p.cfg.Objects, p.cfg.Namespace, p.cfg.Cluster)
	if err != nil || c.Status.Lineage == "" {
		return nil, "", err
	}
	repo, name, err := p.cfg.OpenRepo(ctx, p.policy.Spec.BackupRepoName)
	if err != nil {
		return nil, "", err
	}
	l, err := repo.Lineage(ctx, c.Status.Lineage)
	if errors.Is(err, blob.ErrNotExist) {
		return nil, "", nil
	}
	return l, name, err
}

// restoring tells whether somebody restores from this cluster.
func (p *Protector) restoring(ctx context.Context) (bool, error) {
	all, err := store.List[*v1alpha1.Cluster](ctx, p.cfg.Objects, "", nil)
	if err != nil {
		return false, err // one that cannot be read may be restoring
	}
	for _, c := range all {
		r := c.Spec.Restore
		if r == nil || c.DeletionTimestamp != nil || c.Status.Phase == v1alpha1.ClusterFailed {
			continue
		}
		// with a backup alone the source need not be named
		ours := r.SourceCluster == "" || r.SourceCluster == p.cfg.Cluster && r.SourceNamespace == p.cfg.Namespace
		over := c.Status.Restore != nil && (c.Status.Restore.Phase == v1alpha1.RestoreCompleted || c.Status.Restore.Phase == v1alpha1.RestoreFailed)
		if ours && !over {
			return true, nil
		}
	}
	return false, nil
}

// refresh takes a new snapshot of the repository if something in it went.
func (p *Protector) refresh(ctx context.Context, l *repository.Lineage, in retention.Input, list retention.List) error {
	if p.lineage == nil || p.lineage.Info().ID != l.Info().ID {
		return nil
	}
	p.mu.Lock()
	known := 0
	if p.cat != nil {
		known = len(p.cat.Backups())
	}
	p.mu.Unlock()
	if list.Empty() && known == len(in.Backups) {
		return nil
	}
	return p.reload(ctx)
}
