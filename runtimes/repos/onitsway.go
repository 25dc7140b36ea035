// SPDX-License-Identifier: Apache-2.0

package repos

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

// catchUp is how long is waited for the archive to hold what was written before it was
// asked: long enough for one that begins again with its server, and for an idle one to say
// how far it has come.
const catchUp = 15 * time.Second

// Asked is when something was asked for, and what else is known then. Each is asked for
// once, when it is needed.
type Asked struct {
	// At is the moment, by the clock of the source's server or one that goes with it.
	At func(context.Context) (time.Time, error)
	// Written is how far the source's server has written by now; nil, or an error, where it
	// cannot be asked. Then the archive has to come past At.
	Written func(context.Context, *v1alpha1.Cluster) (pg.LSN, error)
}

// AskedAt knows the moment only.
func AskedAt(t time.Time) Asked {
	return Asked{At: func(context.Context) (time.Time, error) { return t, nil }}
}

// onItsWay judges whether what cannot be reached yet may be within seconds.
type onItsWay struct {
	set    *Set
	src    runtimes.Source
	target catalog.Target
	asked  Asked
	until  time.Time

	at      time.Time // zero: not known yet
	written pg.LSN    // 0: not known
}

func (r *Set) onItsWay(src runtimes.Source, t catalog.Target, asked Asked) *onItsWay {
	return &onItsWay{set: r, src: src, target: t, asked: asked, until: time.Now().Add(catchUp)}
}

// comes tells whether what err says of c, the source, may be otherwise within seconds: it
// speaks of the last moments, and they are on their way to the repository.
func (w *onItsWay) comes(ctx context.Context, c *v1alpha1.Cluster, err error) bool {
	if c == nil || c.Status.Archive == nil || time.Now().After(w.until) || !w.goesOn(ctx, c) {
		return false
	}
	if w.at.IsZero() {
		at, err := w.asked.At(ctx)
		if err != nil {
			return false
		}
		w.at = at
	}
	var outside *catalog.OutsideWindowError
	var position *catalog.PositionError
	var transaction *catalog.TransactionError
	var name *catalog.NoRestorePointError
	switch {
	case errors.As(err, &outside):
		ws, t := outside.Windows, w.target.Time
		return !t.IsZero() && len(ws) > 0 && t.After(ws[len(ws)-1].To) && !t.After(w.at)
	case errors.As(err, &position):
		return position.Backup == "" && w.behind(ctx, c) && (w.written == 0 || position.LSN <= w.written)
	case errors.As(err, &transaction):
		switch transaction.State {
		case catalog.XactRunning, catalog.XactUnknown, catalog.XactPrepared:
			return w.behind(ctx, c)
		}
	case errors.As(err, &name):
		return name.At.IsZero() && w.behind(ctx, c)
	}
	return false
}

// behind tells whether the repository has yet to get what the server had written when it
// was asked for.
func (w *onItsWay) behind(ctx context.Context, c *v1alpha1.Cluster) bool {
	a := c.Status.Archive
	if w.written == 0 && w.asked.Written != nil {
		if lsn, err := w.asked.Written(ctx, c); err == nil {
			w.written = lsn
		}
	}
	if w.written == 0 {
		return !a.ProvenTime.After(w.at)
	}
	has, err := pg.ParseLSN(a.RepositoryLSN)
	return err == nil && has < w.written
}

// goesOn tells whether WAL of the source is on its way to the repository.
func (w *onItsWay) goesOn(ctx context.Context, c *v1alpha1.Cluster) bool {
	a := c.Status.Archive
	if w.src.Lineage != "" && w.src.Lineage != c.Status.Lineage || w.target.Timeline != 0 && int64(w.target.Timeline) < a.Timeline {
		return false // nobody writes what is asked for any more
	}
	switch a.State {
	case v1alpha1.ArchiveStreaming:
		return true
	case v1alpha1.ArchiveConnecting: // an agent that has just begun connects before it streams
		return !c.Spec.Stopped
	case v1alpha1.ArchiveStopped: // one that has ended said so, and another may begin
		return !c.Spec.Stopped && c.DeletionTimestamp == nil && w.set.archivingWanted(ctx, c)
	}
	return false
}

// archivingWanted tells whether a policy asks for a cluster's WAL to be archived.
func (r *Set) archivingWanted(ctx context.Context, c *v1alpha1.Cluster) bool {
	all, err := store.List[*v1alpha1.BackupPolicy](ctx, r.Objects, c.Namespace, nil)
	return err == nil && slices.ContainsFunc(all, func(p *v1alpha1.BackupPolicy) bool {
		return p.Spec.ClusterRef == c.Name && p.Spec.Schedule.Logfile.Enable
	})
}
