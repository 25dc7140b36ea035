// SPDX-License-Identifier: Apache-2.0

package local

import (
	"context"
	"slices"

	"github.com/kbcli/kbcli/engine/catalog"
	"github.com/kbcli/kbcli/runtimes"
)

var _ runtimes.HistoryReader = (*Runtime)(nil)

// History reads a cluster's archive: the repository alone, so that it does not matter
// whether the cluster runs or is.
func (r *Runtime) History(ctx context.Context, src runtimes.Source, q catalog.HistoryQuery, fn func(catalog.Event, bool) error) error {
	l, c, err := r.repos.Source(ctx, src)
	if err != nil || l == nil {
		return err
	}
	cat, err := r.repos.Catalog(ctx, l, c)
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
