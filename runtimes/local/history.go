// SPDX-License-Identifier: Apache-2.0

package local

import (
	"context"
	"errors"
	"slices"

	"github.com/kbcli/kbcli/engine/catalog"
	"github.com/kbcli/kbcli/engine/repository"
	"github.com/kbcli/kbcli/runtimes"
)

var (
	_ runtimes.HistoryReader = (*Runtime)(nil)
	_ runtimes.LineageLister = (*Runtime)(nil)
)

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

// Lineages are those of all clusters that have or had a name, the newest last.
func (r *Runtime) Lineages(ctx context.Context, namespace, cluster string) ([]repository.LineageInfo, error) {
	repos, err := r.repos.All(ctx)
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
