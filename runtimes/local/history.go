// SPDX-License-Identifier: Apache-2.0

package local

import (
	"context"
	"time"

	"github.com/kbcli/kbcli/engine/catalog"
	"github.com/kbcli/kbcli/engine/repository"
	"github.com/kbcli/kbcli/runtimes"
)

var (
	_ runtimes.HistoryReader = (*Runtime)(nil)
	_ runtimes.LineageLister = (*Runtime)(nil)
)

// History reads a cluster's archive in the calling process.
func (r *Runtime) History(ctx context.Context, src runtimes.Source, q catalog.HistoryQuery, fn func(catalog.Event, bool) error) error {
	return r.repos.History(ctx, src, q, fn)
}

// FollowHistory reads it again and again, by the clock of the source's server.
func (r *Runtime) FollowHistory(ctx context.Context, src runtimes.Source, q catalog.HistoryQuery, told func([]runtimes.HistoryEvent) error, looked func()) error {
	return r.repos.FollowHistory(ctx, src, q, func(ctx context.Context) (time.Time, error) { return r.Clock(ctx, src) }, told, looked)
}

// Lineages are those of all clusters that have or had a name, the newest last.
func (r *Runtime) Lineages(ctx context.Context, namespace, cluster string) ([]repository.LineageInfo, error) {
	return r.repos.Lineages(ctx, namespace, cluster)
}
