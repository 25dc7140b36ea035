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

// Plan says what a restore would do. fit makes a plan one for the place that it is for; it
// may be nil. What the source had written when it was asked, and its archive, which goes
// on, has not come to yet, is waited for; not for long.
func (r *Set) Plan(ctx context.Context, src runtimes.Source, t catalog.Target, fit func(*restore.Plan) error, asked Asked) (*restore.Plan, error) {
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
	way := r.onItsWay(src, t, asked)
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
		if !way.comes(ctx, c, err) {
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
