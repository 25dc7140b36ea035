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
//
// What is to go and cannot yet is looked at again after dueInterval.
// What is marked ages only while somebody looks: see retention.Marks. sweepInterval is how
// often it is looked for what interrupted backups left, which lists all packs.
const (
	expireInterval = time.Minute
	replanInterval = time.Hour
	dueInterval    = 10 * time.Minute
	sweepInterval  = 6 * time.Hour
)

// expiry is what is known of the last look for what expired.
type expiry struct {
	looked  time.Time // zero: look at once
	swept   time.Time // when leftovers were looked for
	plan    time.Time // when to read the repository again at the latest
	seen    expirySeen
	trouble string // why nothing expires; empty where nothing stands in the way
}

// expirySeen is what a plan rests upon beside the repository.
type expirySeen struct {
	promise  Promise
	lineage  string
	repo     string
	backups  int
	newest   time.Time
	restores bool
}

// expire lets go what the policy does not promise, once a minute. Nothing goes where
// something could not be read, while somebody restores, and where the clock is not to be
// believed; the policy's status says so.
func (p *Protector) expire(ctx context.Context) error {
	now := p.cfg.Clock()
	if p.policy == nil || !p.expiry.looked.IsZero() && now.Sub(p.expiry.looked).Abs() < expireInterval {
		return nil
	}
	p.expiry.looked = now
	err := p.expireNow(ctx, now)
	before := p.expiry.trouble
	p.expiry.trouble = ""
	if err != nil && ctx.Err() == nil {
		p.expiry.trouble = "nothing expires: " + err.Error()
	}
	var clock *ClockError
	var corrupt *repository.CorruptError
	if errors.As(err, &clock) || errors.As(err, &corrupt) {
		if before == "" {
			p.cfg.Log.Warn("nothing expires", "error", err)
		}
		return nil // the policy says it, and WAL is archived all the same
	}
	return err
}

func (p *Protector) expireNow(ctx context.Context, now time.Time) error {
	promise, err := PromiseOf(p.policy.Spec.Retention)
	if err != nil {
		return err
	}
	all, err := store.List[*v1alpha1.Backup](ctx, p.cfg.Objects, p.cfg.Namespace, nil)
	if err != nil {
		return err
	}
	all = slices.DeleteFunc(all, func(b *v1alpha1.Backup) bool { return b.Spec.ClusterRef != p.cfg.Cluster })
	if err := p.believe(ctx, now); err != nil {
		return err
	}
	if err := p.noteExpirations(ctx, all, promise.TTL, now); err != nil {
		return err
	}
	lineage, repoName, err := p.existingLineage(ctx)
	if err != nil || lineage == nil {
		return err
	}
	seen := expirySeen{promise: promise, lineage: lineage.Info().ID, repo: repoName}
	if seen.restores, err = Restoring(ctx, p.cfg.Objects, p.cfg.Namespace, p.cfg.Cluster); err != nil {
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
	in, err := promise.Load(ctx, lineage, now)
	if err != nil {
		return err
	}
	// a backup that is being taken may be among them
	if p.job == nil && (p.expiry.swept.IsZero() || now.Sub(p.expiry.swept).Abs() >= sweepInterval) {
		if err := LookForLeftovers(ctx, lineage, &in, all); err != nil {
			return err
		}
	}
	list := retention.Plan(in)
	step, err := p.letGo(ctx, lineage, Expiry{promise, in, list}, all)
	if err != nil {
		return err
	}
	p.tellExpired(step.Go.Backups, all...)
	p.tellMarked(step, promise.Grace, all...)
	p.expiry.seen, p.expiry.plan = seen, now.Add(replanInterval)
	if in.Leftovers != nil {
		p.expiry.swept = now
	}
	for _, at := range []time.Time{list.Next, step.Marks.Next(promise.Grace)} {
		if at.IsZero() {
			continue
		}
		if !at.After(now) { // something holds it up
			at = now.Add(dueInterval)
		}
		if at.Before(p.expiry.plan) {
			p.expiry.plan = at
		}
	}
	if len(step.Go.Backups) > 0 {
		p.expiry.plan = time.Time{} // their WAL goes in a next round
	}
	return p.refresh(ctx, lineage, in, step.Go)
}

// letGo takes one step with what is planned, under the lineage's lock.
func (p *Protector) letGo(ctx context.Context, lineage *repository.Lineage, x Expiry, all []*v1alpha1.Backup) (retention.Step, error) {
	if x.List.Empty() {
		if m, err := retention.LoadMarks(ctx, lineage); err == nil && m.Empty() {
			return retention.Step{}, noteMarks(ctx, p.cfg.Objects, lineage.Info().ID, m, x.Promise.Grace, all)
		}
	}
	if p.lineage != nil && p.lineage.Info().ID == lineage.Info().ID && p.lineage.Repository() == lineage.Repository() {
		lineage = p.lineage
	}
	idle := p.held.lock == nil
	if err := p.hold(ctx, lineage); err != nil {
		return retention.Step{}, err
	}
	if idle {
		defer p.release()
	}
	// somebody may have begun a restore while the repository was read
	if busy, err := Restoring(ctx, p.cfg.Objects, p.cfg.Namespace, p.cfg.Cluster); err != nil || busy {
		return retention.Step{}, err
	}
	ctx, cancel := p.while(ctx)
	defer cancel()
	defer p.suspendRolling()()
	return x.Step(ctx, p.cfg.Objects, p.cfg.Log, lineage, all)
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
			if err := deleteObject(ctx, p.cfg.Objects, p.cfg.Log, b); err != nil {
				return err
			}
			p.tellExpired([]string{b.Name}, b)
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

// refresh takes a new snapshot of the repository if something in it went.
func (p *Protector) refresh(ctx context.Context, l *repository.Lineage, in retention.Input, list retention.List) error {
	if p.lineage == nil || p.lineage.Info().ID != l.Info().ID {
		return nil
	}
	p.mu.Lock()
	known := 0
	if p.cat != nil {
		known = len(p.cat.Backups()) + len(p.cat.Absent())
	}
	p.mu.Unlock()
	if list.Empty() && known == len(in.Backups) {
		return nil
	}
	return p.reload(ctx)
}
