// SPDX-License-Identifier: Apache-2.0

package repos

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/engine/catalog"
	"github.com/kbcli/kbcli/engine/repository"
	"github.com/kbcli/kbcli/engine/retention"
	"github.com/kbcli/kbcli/runtimes"
	"github.com/kbcli/kbcli/runtimes/agent"
	"github.com/kbcli/kbcli/runtimes/store"
)

// formerInterval is how often it is looked whether something expired of a lineage that
// nobody writes any more, and sweepInterval for what interrupted backups left there.
const (
	formerInterval = time.Hour
	sweepInterval  = 6 * time.Hour
)

// expireLeft lets go what has expired of the lineages that no cluster writes to any more:
// those of deleted clusters, and those that a cluster left for another repository. A
// former lineage is held to the ttl of its cluster's policy; that of a deleted
// cluster to what its Backups say. The newest backup of a lineage stays, with its WAL,
// until somebody deletes it, and so does everything of which no ttl is known, as
// after the objects were lost.
func (k *repoKeeper) expireLeft(ctx context.Context, o *v1alpha1.BackupRepo) error {
	now := k.r.Clock()
	if !k.expired.IsZero() && now.Sub(k.expired).Abs() < formerInterval {
		return nil
	}
	k.expired, k.trouble = now, ""
	have := o.Annotations[agent.AnnotationClock]
	want, doubt := agent.BelieveClock(have, now)
	if want != have {
		_, err := store.Mutate(ctx, k.r.Objects, "", o.Name, func(o *v1alpha1.BackupRepo) error {
			if o.Annotations == nil {
				o.Annotations = map[string]string{}
			}
			o.Annotations[agent.AnnotationClock] = want
			return nil
		})
		if err != nil {
			return err
		}
	}
	if doubt != nil {
		k.trouble = "nothing of clusters that are gone expires: " + doubt.Error()
		return nil
	}
	repo, err := k.r.Of(ctx, o)
	if err != nil {
		return err
	}
	lineages, err := repo.Lineages(ctx)
	errs := []error{err}
	for _, l := range lineages {
		again, err := k.expireLineage(ctx, l, now)
		if err != nil {
			errs = append(errs, fmt.Errorf("lineage %s: %w", l.Info().ID, err))
		}
		if again {
			k.expired = time.Time{} // WAL goes when no Backup that is to go is there any more
		}
	}
	if err := errors.Join(errs...); err != nil && ctx.Err() == nil {
		k.trouble = "not all that has expired of clusters that are gone goes: " + err.Error()
		return err
	}
	return nil
}

// expireLineage does so in one; again tells that Backups are going now.
func (k *repoKeeper) expireLineage(ctx context.Context, l *repository.Lineage, now time.Time) (again bool, err error) {
	info := l.Info()
	all, err := store.List[*v1alpha1.Backup](ctx, k.r.Objects, info.Namespace, nil)
	if err != nil {
		return false, err
	}
	all = slices.DeleteFunc(all, func(b *v1alpha1.Backup) bool { return b.Status.Lineage != info.ID })
	promise, err := k.r.formerPromise(ctx, info, all)
	if err != nil || promise.TTL == 0 {
		return false, err
	}
	in, err := promise.Load(ctx, l, now)
	if err != nil {
		return false, err
	}
	if look := k.swept[info.ID]; look.IsZero() || now.Sub(look).Abs() >= sweepInterval {
		if err := agent.LookForLeftovers(ctx, l, &in, all); err != nil {
			return false, err
		}
	}
	x := agent.Expiry{Promise: promise, Input: in, List: retention.Plan(in)}
	busy, err := agent.Restoring(ctx, k.r.Objects, info.Namespace, info.Cluster)
	if err != nil || busy {
		return false, err
	}
	if x.List.Empty() {
		if marks, err := retention.LoadMarks(ctx, l); err == nil && marks.Empty() {
			return false, nil
		}
	}
	lock, err := agent.Lock(ctx, l, k.r.Identity)
	var locked *repository.LockedError
	if errors.As(err, &locked) {
		return false, nil // somebody else's agent sees to it
	}
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, lock.Unlock(context.WithoutCancel(ctx))) }()
	if in.Leftovers != nil {
		if k.swept == nil {
			k.swept = map[string]time.Time{}
		}
		k.swept[info.ID] = now
	}
	step, err := x.Step(ctx, k.r.Objects, k.r.Log, l, all)
	return len(step.Go.Backups) > 0, err
}

// formerPromise is how long the backups of a lineage are kept; its TTL is 0 where nobody
// says, and where its cluster still writes to it, whose Protector sees to that.
func (r *Set) formerPromise(ctx context.Context, info repository.LineageInfo, backups []*v1alpha1.Backup) (agent.Promise, error) {
	var none agent.Promise
	c, err := store.Get[*v1alpha1.Cluster](ctx, r.Objects, info.Namespace, info.Cluster)
	if err != nil && !apierrors.IsNotFound(err) {
		return none, err
	}
	if err == nil {
		if c.Status.Lineage == info.ID || c.Status.Lineage == "" || c.Status.SystemIdentifier == "" {
			return none, nil
		}
		if c.Status.SystemIdentifier == info.SystemID.String() {
			p, err := store.Get[*v1alpha1.BackupPolicy](ctx, r.Objects, c.Namespace, v1alpha1.DefaultBackupPolicyName(c.Name))
			if apierrors.IsNotFound(err) {
				return none, nil
			}
			if err != nil {
				return none, err
			}
			promise, err := agent.PromiseOf(p.Spec.Retention)
			return agent.Promise{TTL: promise.TTL, Grace: promise.Grace}, err
		}
	}
	grace, err := v1alpha1.ParseGrace("") // its policy is gone
	if err != nil {
		return none, err
	}
	var ttl time.Duration
	for _, b := range backups {
		if st := &b.Status; !st.Expiration.IsZero() && !st.CompletionTimestamp.IsZero() {
			ttl = max(ttl, st.Expiration.Sub(st.CompletionTimestamp.Time))
		}
	}
	return agent.Promise{TTL: ttl, Grace: grace}, nil
}

// formerLineages are those of a cluster that it wrote to before, oldest first: of the same
// namespace, name and system identifier. Repositories that do not answer are told in
// the error, beside the others.
func (r *Set) formerLineages(ctx context.Context, now repository.LineageInfo) ([]*repository.Lineage, error) {
	repos, err := r.All(ctx)
	errs := []error{err}
	found := map[string]*repository.Lineage{} // a repository may be there twice
	for _, repo := range repos {
		ls, err := repo.Lineages(ctx)
		errs = append(errs, err)
		for _, l := range ls {
			i := l.Info()
			if i.ID != now.ID && i.Namespace == now.Namespace && i.Cluster == now.Cluster && i.SystemID == now.SystemID {
				found[i.ID] = l
			}
		}
	}
	var out []*repository.Lineage
	for _, l := range found {
		out = append(out, l)
	}
	slices.SortFunc(out, func(a, b *repository.Lineage) int { return a.Info().Created.Compare(b.Info().Created) })
	return out, errors.Join(errs...)
}

// FormerWindows lists what can be reached in the lineages that a cluster left, oldest
// first.
func (r *Set) FormerWindows(ctx context.Context, now *repository.Lineage) ([]catalog.Window, error) {
	ls, err := r.formerLineages(ctx, now.Info())
	errs := []error{err}
	var out []catalog.Window
	for _, l := range ls {
		cat, err := r.Catalog(ctx, l, nil)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		ws, err := cat.Windows(ctx, 0)
		errs, out = append(errs, err), append(out, ws...)
	}
	slices.SortStableFunc(out, func(a, b catalog.Window) int { return a.From.Compare(b.From) })
	return out, errors.Join(errs...)
}

// Elsewhere looks for a target in the lineages that a source left, the newest first. plan
// answers for one; outside is what its present lineage answered.
func (r *Set) Elsewhere(ctx context.Context, src runtimes.Source, l *repository.Lineage, outside *catalog.OutsideWindowError, plan func(*repository.Lineage) error) error {
	t := outside.Target
	if src.Lineage != "" || t.Time.IsZero() && (!t.Latest || len(outside.Windows) > 0) {
		return outside
	}
	ls, err := r.formerLineages(ctx, l.Info())
	if err != nil && len(ls) == 0 {
		return errors.Join(outside, err)
	}
	all := *outside
	for _, l := range slices.Backward(ls) {
		err := plan(l)
		var more *catalog.OutsideWindowError
		if !errors.As(err, &more) {
			return err
		}
		all.Windows = append(slices.Clone(more.Windows), all.Windows...)
	}
	return &all
}
