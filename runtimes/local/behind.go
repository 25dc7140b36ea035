// SPDX-License-Identifier: Apache-2.0

package local

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/engine/catalog"
	"github.com/kbcli/kbcli/engine/pg"
	"github.com/kbcli/kbcli/runtimes"
	"github.com/kbcli/kbcli/runtimes/store"
)

// catchUp is how long Plan waits for the archive to reach what its server has written.
const catchUp = 15 * time.Second

// behind tells whether an archive is still behind what a target may be in.
type behind struct {
	r      *Runtime
	src    runtimes.Source
	target catalog.Target
	until  time.Time
	server pg.LSN // where the server stood when it was first asked
}

func (r *Runtime) behind(src runtimes.Source, t catalog.Target) *behind {
	return &behind{r: r, src: src, target: t, until: time.Now().Add(catchUp)}
}

// wait tells whether what err says may change within seconds: the target lies in the
// last moments, and they are on their way to the repository.
func (b *behind) wait(ctx context.Context, c *v1alpha1.Cluster, err error) bool {
	if c == nil || c.Status.Archive == nil || time.Now().After(b.until) || !b.r.goesOn(ctx, c) {
		return false
	}
	var outside *catalog.OutsideWindowError
	var position *catalog.PositionError
	var transaction *catalog.TransactionError
	var name *catalog.NoRestorePointError
	switch {
	case errors.As(err, &outside):
		ws, t := outside.Windows, b.target.Time
		if t.IsZero() || len(ws) == 0 || !t.After(ws[len(ws)-1].To) {
			return false
		}
		now, err := b.r.Clock(ctx, b.src)
		return err == nil && !t.After(now)
	case errors.As(err, &position):
		return position.Backup == "" && b.reaches(ctx, c) && position.LSN <= b.server
	case errors.As(err, &transaction):
		switch transaction.State {
		case catalog.XactRunning, catalog.XactUnknown, catalog.XactPrepared:
			return b.reaches(ctx, c)
		}
	case errors.As(err, &name):
		return name.At.IsZero() && b.reaches(ctx, c)
	}
	return false
}

// reaches tells whether the repository has yet to get what the server had written when
// it was first asked.
func (b *behind) reaches(ctx context.Context, c *v1alpha1.Cluster) bool {
	if b.server == 0 {
		conn, err := b.r.Admin(ctx, c, "postgres")
		if err != nil {
			return false
		}
		defer conn.Close(ctx)
		var at string
		err = conn.QueryRow(ctx, `select case when pg_is_in_recovery()
			then coalesce(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn()) else pg_current_wal_flush_lsn() end::text`).Scan(&at)
		if err != nil {
			return false
		}
		if b.server, err = pg.ParseLSN(at); err != nil {
			return false
		}
	}
	has, err := pg.ParseLSN(c.Status.Archive.RepositoryLSN)
	return err == nil && has < b.server
}

// goesOn tells whether WAL of a cluster is on its way to the repository.
func (r *Runtime) goesOn(ctx context.Context, c *v1alpha1.Cluster) bool {
	// an agent that has just begun connects before it streams
	switch c.Status.Archive.State {
	case v1alpha1.ArchiveStreaming, v1alpha1.ArchiveConnecting:
		return true
	case v1alpha1.ArchiveStopped: // one that has ended said so, and another may begin
		return r.archivingWanted(ctx, c)
	}
	return false
}

// archivingWanted tells whether a policy asks for a cluster's WAL to be archived.
func (r *Runtime) archivingWanted(ctx context.Context, c *v1alpha1.Cluster) bool {
	all, err := store.List[*v1alpha1.BackupPolicy](ctx, r.objects, c.Namespace, nil)
	return err == nil && slices.ContainsFunc(all, func(p *v1alpha1.BackupPolicy) bool {
		return p.Spec.ClusterRef == c.Name && p.Spec.Schedule.Logfile.Enable
	})
}
