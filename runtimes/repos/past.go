// SPDX-License-Identifier: Apache-2.0

package repos

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/engine/blob"
	"github.com/kbcli/kbcli/engine/catalog"
	"github.com/kbcli/kbcli/engine/repository"
	"github.com/kbcli/kbcli/engine/restore"
	"github.com/kbcli/kbcli/engine/retention"
	"github.com/kbcli/kbcli/runtimes"
	"github.com/kbcli/kbcli/runtimes/agent"
	"github.com/kbcli/kbcli/runtimes/store"
)

// History reads a cluster's archive: the repository alone, so that it does not matter
// whether the cluster runs or is.
func (r *Set) History(ctx context.Context, src runtimes.Source, q catalog.HistoryQuery, fn func(catalog.Event, bool) error) error {
	l, c, err := r.Source(ctx, src)
	if err != nil || l == nil {
		return err
	}
	cat, err := r.Catalog(ctx, l, c)
	if err != nil {
		return err
	}
	windows, err := cat.Windows(ctx, q.Timeline)
	if err != nil {
		return err
	}
	return cat.History(ctx, q, func(e catalog.Event) error {
		return fn(e, slices.ContainsFunc(windows, func(w catalog.Window) bool { return e.LSN >= w.FromLSN && e.LSN < w.ToLSN }))
	})
}

const (
	// settled is how long after something happened its names are stored for certain, as
	// long as the server answers.
	settled = 5 * time.Second

	followEvery = time.Second // how often a history that grows is looked at
	mostGoing   = 100_000     // events that are held until all of their part is known
)

// FollowHistory hands over the events of a history as they are archived, until ctx ends
// or something fails; then q.Going, which must be there, says how far it came. clock is
// the source's. told is called with what was found since it was called before, and looked
// after each look that went well: all before q.Going.Next has been told then. A look that
// fails tells what it found.
func (r *Set) FollowHistory(ctx context.Context, src runtimes.Source, q catalog.HistoryQuery, clock func(context.Context) (time.Time, error), told func([]runtimes.HistoryEvent) error, looked func()) error {
	tick := time.NewTicker(followEvery)
	defer tick.Stop()
	for {
		if err := r.followOnce(ctx, src, q, clock, told); err != nil {
			return err
		}
		looked()
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

func (r *Set) followOnce(ctx context.Context, src runtimes.Source, q catalog.HistoryQuery, clock func(context.Context) (time.Time, error), told func([]runtimes.HistoryEvent) error) error {
	now, err := clock(ctx)
	if err != nil {
		return err
	}
	q.Going.Settled = now.Add(-settled)
	var found []runtimes.HistoryEvent
	before := q.Going.Next
	err = r.History(ctx, src, q, func(e catalog.Event, restorable bool) error {
		// what was gathered is of parts that are read: nothing of it is read again
		if len(found) > 0 && q.Going.Next != before || len(found) == mostGoing {
			if err := told(found); err != nil {
				return err
			}
			found, before = nil, q.Going.Next
		}
		found = append(found, runtimes.HistoryEvent{Event: e, Restorable: restorable})
		return nil
	})
	if len(found) > 0 {
		err = errors.Join(told(found), err)
	}
	return err
}

// Lineages are those of all clusters that have or had a name, the newest last.
// Repositories that do not answer are told in the error, beside the others.
func (r *Set) Lineages(ctx context.Context, namespace, cluster string) ([]repository.LineageInfo, error) {
	repos, err := r.All(ctx)
	errs := []error{err}
	var out []repository.LineageInfo
	for _, repo := range repos {
		ls, err := repo.Lineages(ctx)
		errs = append(errs, err)
		for _, l := range ls {
			i := l.Info()
			known := slices.ContainsFunc(out, func(o repository.LineageInfo) bool { return o.ID == i.ID }) // a repository may be there twice
			if i.Namespace == namespace && i.Cluster == cluster && !known {
				out = append(out, i)
			}
		}
	}
	slices.SortFunc(out, func(a, b repository.LineageInfo) int { return a.Created.Compare(b.Created) })
	return out, errors.Join(errs...)
}

// Stored is what a repository has of a backup that can be read here. What it lacks is
// damage.
func (r *Set) Stored(ctx context.Context, b *v1alpha1.Backup) (*repository.Lineage, *repository.Manifest, error) {
	repo, _, err := r.readable(ctx, b.Status.Repo)
	if err != nil {
		return nil, nil, err
	}
	if !repo.Readable() {
		return nil, nil, repository.ErrSealed
	}
	l, err := repo.Lineage(ctx, b.Status.Lineage)
	if err != nil {
		return nil, nil, Lost(b, err)
	}
	m, err := l.Manifest(ctx, b.Name)
	if err != nil {
		return nil, nil, Lost(b, err)
	}
	return l, m, nil
}

// Lost makes damage of what the repository says that it does not hold.
func Lost(b *v1alpha1.Backup, err error) error {
	var corrupt *repository.CorruptError
	if errors.Is(err, blob.ErrNotExist) || errors.As(err, &corrupt) {
		return &restore.DamagedError{Backup: b.Name, Damage: []error{err}}
	}
	return fmt.Errorf("verify backup %s: %w", b.Name, err)
}

// Verify reads a backup in the calling process.
func (r *Set) Verify(ctx context.Context, b *v1alpha1.Backup, progress func(done, total int64)) (*restore.Report, error) {
	l, m, err := r.Stored(ctx, b)
	if err != nil {
		return nil, err
	}
	return restore.Verify(ctx, l, m, progress)
}

// PlanExpiry plans what the agent would do, in the calling process.
func (r *Set) PlanExpiry(ctx context.Context, c *v1alpha1.Cluster, p *v1alpha1.BackupPolicy) (*runtimes.Expiry, error) {
	promise, err := agent.PromiseOf(p.Spec.Retention)
	if err != nil {
		return nil, err
	}
	repo, name, err := r.readable(ctx, p.Spec.BackupRepoName)
	if err != nil {
		return nil, err
	}
	l, err := repo.Lineage(ctx, c.Status.Lineage)
	if err != nil {
		return nil, err
	}
	e := &runtimes.Expiry{Repository: name, Lineage: l.Info().ID}
	if e.Restoring, err = agent.Restoring(ctx, r.Objects, c.Namespace, c.Name); err != nil {
		return nil, err
	}
	if e.Input, err = promise.Load(ctx, l, r.Clock()); err != nil {
		return nil, err
	}
	all, err := store.List[*v1alpha1.Backup](ctx, r.Objects, c.Namespace, nil)
	if err != nil {
		return nil, err
	}
	all = slices.DeleteFunc(all, func(b *v1alpha1.Backup) bool { return b.Spec.ClusterRef != c.Name })
	if err := agent.LookForLeftovers(ctx, l, &e.Input, all); err != nil {
		return nil, err
	}
	e.List, e.Grace = retention.Plan(e.Input), promise.Grace
	var corrupt *repository.CorruptError
	if e.Marked, err = retention.LoadMarks(ctx, l); err != nil && !errors.As(err, &corrupt) {
		return nil, err // a damaged one marks nothing
	}
	e.Step = e.Marked.Step(e.Input, e.List, e.Grace)
	return e, nil
}

// NotGivenError says that this process was not given the keys of a repository, which
// others have.
type NotGivenError struct{ Repository string }

func (e *NotGivenError) Error() string {
	return fmt.Sprintf("repository %s: its keys are not here", e.Repository)
}

// readable opens the repository of a BackupRepo, as Named does, where there are keys for it.
func (r *Set) readable(ctx context.Context, name string) (*repository.Repository, string, error) {
	obj, err := r.Object(ctx, name)
	if err != nil {
		return nil, "", err
	}
	if r.Given != nil && !r.Given(obj) {
		return nil, "", &NotGivenError{obj.Name}
	}
	repo, err := r.Of(ctx, obj)
	return repo, obj.Name, err
}
