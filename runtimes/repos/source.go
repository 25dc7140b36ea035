// SPDX-License-Identifier: Apache-2.0

package repos

import (
	"context"
	"errors"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/engine/catalog"
	"github.com/kbcli/kbcli/engine/pg"
	"github.com/kbcli/kbcli/engine/repository"
	"github.com/kbcli/kbcli/runtimes"
	"github.com/kbcli/kbcli/runtimes/store"
)

// Source finds the lineage of a cluster, and the cluster itself if it is still there.
func (r *Set) Source(ctx context.Context, src runtimes.Source) (*repository.Lineage, *v1alpha1.Cluster, error) {
	c, err := store.Get[*v1alpha1.Cluster](ctx, r.Objects, src.Namespace, src.Cluster)
	if err != nil && !apierrors.IsNotFound(err) {
		return nil, nil, err
	}
	if apierrors.IsNotFound(err) {
		c = nil
	}
	want := src.Lineage
	if want == "" && c != nil {
		want = c.Status.Lineage
	}
	all, err := r.All(ctx)
	var found *repository.Lineage
	for _, repo := range all {
		ls, lerr := repo.Lineages(ctx)
		err = errors.Join(err, lerr)
		for _, l := range ls {
			info := l.Info()
			fits := info.Namespace == src.Namespace && info.Cluster == src.Cluster
			switch {
			case src.Lineage != "":
				fits = fits && info.ID == want
			case want != "":
				fits = info.ID == want
			}
			if fits && (found == nil || info.Created.After(found.Info().Created)) {
				found = l
			}
		}
	}
	switch {
	case found != nil:
		return found, c, nil
	case err != nil:
		return nil, c, err
	case c == nil || src.Lineage != "":
		return nil, nil, &runtimes.SourceNotFoundError{Source: src}
	}
	return nil, c, nil
}

// Catalog loads what a source's lineage holds, and what its archive says beside.
func (r *Set) Catalog(ctx context.Context, l *repository.Lineage, c *v1alpha1.Cluster) (*catalog.Catalog, error) {
	cat, err := catalog.Load(ctx, l)
	if cat == nil {
		return nil, err
	}
	if err != nil {
		r.Log.Warn("part of the repository is damaged", "error", err)
	}
	if c == nil || c.Status.Archive == nil || c.Status.Lineage != l.Info().ID {
		return cat, nil
	}
	a := c.Status.Archive
	lsn, err := pg.ParseLSN(a.RepositoryLSN)
	if err == nil && lsn != 0 && a.Timeline > 0 && !a.ProvenTime.IsZero() {
		cat.Grow(pg.TimelineID(a.Timeline), lsn, a.ProvenTime.Time)
	}
	return cat, nil
}

// Windows lists what can be reached of a cluster.
func (r *Set) Windows(ctx context.Context, src runtimes.Source) ([]catalog.Window, error) {
	l, c, err := r.Source(ctx, src)
	if err != nil || l == nil {
		return nil, err
	}
	cat, err := r.Catalog(ctx, l, c)
	if err != nil {
		return nil, err
	}
	ws, err := cat.Windows(ctx, 0)
	if err != nil || src.Lineage != "" {
		return ws, err
	}
	former, err := r.FormerWindows(ctx, l)
	if err != nil {
		r.Log.Warn("what a former repository holds is not known", "error", err)
	}
	return append(former, ws...), nil
}
