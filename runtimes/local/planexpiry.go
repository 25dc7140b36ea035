// SPDX-License-Identifier: Apache-2.0

package local

import (
	"context"
	"errors"
	"slices"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/engine/repository"
	"github.com/kbcli/kbcli/engine/retention"
	"github.com/kbcli/kbcli/runtimes"
	"github.com/kbcli/kbcli/runtimes/agent"
	"github.com/kbcli/kbcli/runtimes/store"
)

var _ runtimes.Expirer = (*Runtime)(nil)

// PlanExpiry plans what the agent would do, in the calling process.
func (r *Runtime) PlanExpiry(ctx context.Context, c *v1alpha1.Cluster, p *v1alpha1.BackupPolicy) (*runtimes.Expiry, error) {
	promise, err := agent.PromiseOf(p.Spec.Retention)
	if err != nil {
		return nil, err
	}
	repo, name, err := r.repos.Named(ctx, p.Spec.BackupRepoName)
	if err != nil {
		return nil, err
	}
	l, err := repo.Lineage(ctx, c.Status.Lineage)
	if err != nil {
		return nil, err
	}
	e := &runtimes.Expiry{Repository: name, Lineage: l.Info().ID}
	if e.Restoring, err = agent.Restoring(ctx, r.objects, c.Namespace, c.Name); err != nil {
		return nil, err
	}
	if e.Input, err = promise.Load(ctx, l, r.clock()); err != nil {
		return nil, err
	}
	all, err := store.List[*v1alpha1.Backup](ctx, r.objects, c.Namespace, nil)
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
