// SPDX-License-Identifier: Apache-2.0

package repos

import (
	"context"
	"errors"
	"time"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/engine/catalog"
	"github.com/kbcli/kbcli/engine/repository"
	"github.com/kbcli/kbcli/engine/restore"
	"github.com/kbcli/kbcli/runtimes"
)

// Plan says what a restore would do. fit makes a plan one for the place that it is for.
// wait tells of an error whether the answer may be another within seconds, of a cluster
// that is still archived; either may be nil.
func (r *Set) Plan(ctx context.Context, src runtimes.Source, t catalog.Target, fit func(*restore.Plan) error, wait func(context.Context, *v1alpha1.Cluster, error) bool) (*restore.Plan, error) {
	make := func(l *repository.Lineage, c *v1alpha1.Cluster) (*restore.Plan, error) {
		cat, err := r.Catalog(ctx, l, c)
		if err != nil {
			return nil, err
		}
		p, err := restore.MakePlan(ctx, cat, t)
		if err == nil && fit != nil {
			err = fit(p)
		}
		return p, err
	}
	for {
		l, c, err := r.Source(ctx, src)
		if err != nil {
			return nil, err
		}
		if l == nil {
			return nil, &catalog.OutsideWindowError{Target: t}
		}
		p, err := make(l, c)
		if err == nil {
			return p, nil
		}
		if wait == nil || !wait(ctx, c, err) {
			var outside *catalog.OutsideWindowError
			if !errors.As(err, &outside) {
				return p, err
			}
			err = r.Elsewhere(ctx, src, l, outside, func(l *repository.Lineage) error {
				p, err = make(l, nil)
				return err
			})
			return p, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(250 * time.Millisecond):
		}
	}
}

// catchUp is how long is waited for the archive to hold what was written before it was
// asked.
const catchUp = 15 * time.Second

// OnItsWay is the wait of a Plan that was asked for at a time: what lies before it, and
// the archive, which goes on, has not come to yet, is waited for.
func OnItsWay(t catalog.Target, asked time.Time) func(context.Context, *v1alpha1.Cluster, error) bool {
	return onItsWay(t, asked, time.Now().Add(catchUp))
}

// onItsWay tells whether what cannot be reached yet may be within seconds: it lies before
// asked, and the archive, which goes on, has not come so far.
func onItsWay(t catalog.Target, asked, until time.Time) func(context.Context, *v1alpha1.Cluster, error) bool {
	return func(_ context.Context, c *v1alpha1.Cluster, err error) bool {
		if c == nil || c.Status.Archive == nil || c.Status.Archive.State != v1alpha1.ArchiveStreaming || time.Now().After(until) {
			return false
		}
		var outside *catalog.OutsideWindowError
		var position *catalog.PositionError
		var transaction *catalog.TransactionError
		var name *catalog.NoRestorePointError
		if !errors.As(err, &outside) && !errors.As(err, &position) && !errors.As(err, &transaction) && !errors.As(err, &name) {
			return false
		}
		if t.Time.After(asked) {
			return false
		}
		last := asked
		if !t.Time.IsZero() {
			last = t.Time
		}
		return !c.Status.Archive.ProvenTime.After(last)
	}
}
