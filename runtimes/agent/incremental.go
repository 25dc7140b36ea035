// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/engine/basebackup"
	"github.com/kbcli/kbcli/engine/catalog"
	"github.com/kbcli/kbcli/engine/pg"
	"github.com/kbcli/kbcli/engine/repository"
	"github.com/kbcli/kbcli/engine/repository/walindex"
	"github.com/kbcli/kbcli/runtimes"
	"github.com/kbcli/kbcli/runtimes/store"
)

// BuildingError says that a backup's bytes cannot be deleted yet.
type BuildingError struct{ Backup string }

func (e *BuildingError) Error() string {
	return fmt.Sprintf("an incremental backup is being taken that may use the bytes of %s: they go when it is complete", e.Backup)
}

// building counts by lineage the incremental backups that are being taken. They use packs
// of others and are not listed yet: whoever deletes could not know.
var building = struct {
	mu sync.Mutex
	n  map[string]int
}{n: map[string]int{}}

func isBuilding(lineage string) bool {
	building.mu.Lock()
	defer building.mu.Unlock()
	return building.n[lineage] > 0
}

// builtElsewhere tells whether a process that need not be this one takes an incremental backup:
// on Kubernetes the operator deletes, and the agents of pods take.
func builtElsewhere(all []*v1alpha1.Backup, lineage string) bool {
	return slices.ContainsFunc(all, func(o *v1alpha1.Backup) bool {
		return o.Spec.BackupType == v1alpha1.BackupIncremental && o.Status.Phase == v1alpha1.BackupInProgress &&
			o.Status.Lineage == lineage && o.DeletionTimestamp == nil
	})
}

// build keeps the packs of a lineage until end is called.
func build(lineage string) (end func()) {
	add := func(n int) {
		building.mu.Lock()
		defer building.mu.Unlock()
		if building.n[lineage] += n; building.n[lineage] == 0 {
			delete(building.n, lineage)
		}
	}
	add(1)
	return func() { add(-1) }
}

// incremental chooses what an incremental backup on timeline tli builds on: of the whole
// backups on the way there the one that began last, and none that is being deleted.
func incremental(ctx context.Context, cfg Config, l *repository.Lineage, tli pg.TimelineID) (*basebackup.Incremental, error) {
	// without the identity of a sealed repository there is what this machine remembers
	in := &basebackup.Incremental{Whole: !l.Repository().Readable(), WAL: func(ctx context.Context, tli pg.TimelineID, lsn pg.LSN) (basebackup.WAL, error) {
		return walOf(ctx, l, tli, lsn)
	}}
	cat, err := catalog.Load(ctx, l)
	if cat == nil {
		return nil, err
	}
	going := map[string]bool{}
	all, err := store.List[*v1alpha1.Backup](ctx, cfg.Objects, cfg.Namespace, map[string]string{v1alpha1.LabelCluster: cfg.Cluster})
	var broken store.BrokenObjects
	if err != nil && !errors.As(err, &broken) {
		return nil, err
	}
	for _, b := range all {
		if b.DeletionTimestamp != nil {
			going[b.Name] = true
		}
	}
	in.Base = lastWhole(cat, tli, going)
	return in, nil
}

// lastWhole is the backup that began last of those that lie in the repository, on the
// way to timeline tli; nil if there is none.
func lastWhole(cat *catalog.Catalog, tli pg.TimelineID, but map[string]bool) *repository.Manifest {
	path, err := cat.Path(tli)
	if err != nil {
		return nil
	}
	var last *repository.Manifest
	for _, m := range cat.Backups() {
		onPath := path.TimelineAt(m.StartLSN) == m.Timeline && path.TimelineAt(max(m.StartLSN+1, m.StopLSN)-1) == m.Timeline
		if m.Snapshot == nil && onPath && !but[m.Name] && (last == nil || m.StartLSN >= last.StartLSN) {
			last = m
		}
	}
	return last
}

// indexLate is how long the index of the last segment is waited for where the segment itself
// cannot be read.
const indexLate = 10 * time.Second

// walOf is what the WAL of a lineage says on the way to lsn. What else is damaged there
// does not matter.
func walOf(ctx context.Context, l *repository.Lineage, tli pg.TimelineID, lsn pg.LSN) (basebackup.WAL, error) {
	cat, err := catalog.Load(ctx, l.Known())
	if cat == nil {
		return basebackup.WAL{}, err
	}
	path, err := cat.Path(tli)
	return basebackup.WAL{History: path.History, Index: func(ctx context.Context, n uint64) (*walindex.Index, error) {
		x, err := cat.Index(ctx, path, n, lsn)
		last := n == l.Info().SegmentSize.Number(max(lsn, 1)-1)
		// the index of a segment comes a moment after it
		for until := time.Now().Add(indexLate); last && errors.Is(err, repository.ErrSealed) && time.Now().Before(until); {
			select {
			case <-ctx.Done():
				return nil, ctx.Err()
			case <-time.After(100 * time.Millisecond):
			}
			x, err = cat.Index(ctx, path, n, lsn)
		}
		return x, err
	}}, err
}

// After a backup that the bound or a gap asked for failed, the next waits, and each
// time twice as long.
const (
	firstRetry = time.Minute
	lastRetry  = time.Hour
)

// runReplayBound makes a Backup of the blocks that changed when more WAL than the policy
// allows has gathered since the last whole backup began.
func (p *Protector) runReplayBound(ctx context.Context, policy *v1alpha1.BackupPolicy) error {
	bound := policy.Spec.Incremental.ReplayBound.Value()
	cat := p.catalogNow()
	if bound <= 0 || p.arch == nil || p.lineage == nil || cat == nil || p.job != nil {
		return nil
	}
	st := p.arch.Status()
	if st.Repository == 0 {
		return nil
	}
	last := lastWhole(cat, st.RepositoryTimeline, nil)
	if last == nil || st.Repository < last.StartLSN || int64(st.Repository-last.StartLSN) < bound {
		return nil // of the first backup the schedules or people see
	}
	now := p.cfg.Clock().UTC()
	wait, err := p.boundWaits(ctx, last, now)
	if err != nil || wait {
		return err
	}
	if err := p.createScheduled(ctx, policy, v1alpha1.BackupIncremental, now.Truncate(time.Second)); err != nil {
		return err
	}
	p.cfg.Log.Info("an incremental backup is due", "policy", policy.Name, "since", last.Name, "bytes", uint64(st.Repository-last.StartLSN))
	p.happened(v1alpha1.KindBackupPolicy+"/"+policy.Name, runtimes.EventNormal, "ReplayBoundReached",
		"%s of WAL since backup %s began: an incremental backup is taken", v1alpha1.FormatSize(int64(st.Repository-last.StartLSN)), last.Name)
	return nil
}

// boundWaits tells whether a backup is waited for, or the time after one that failed.
func (p *Protector) boundWaits(ctx context.Context, last *repository.Manifest, now time.Time) (bool, error) {
	return p.unaskedWaits(ctx, v1alpha1.BackupIncremental, last.Written, now)
}

// unaskedWaits tells whether any backup is waited for, or the time after those of a type
// that nobody asked for and that failed since.
func (p *Protector) unaskedWaits(ctx context.Context, kind v1alpha1.BackupType, since, now time.Time) (bool, error) {
	all, err := store.List[*v1alpha1.Backup](ctx, p.cfg.Objects, p.cfg.Namespace, map[string]string{v1alpha1.LabelCluster: p.cfg.Cluster})
	var broken store.BrokenObjects
	if err != nil && !errors.As(err, &broken) {
		return false, err
	}
	failed := 0
	var ended time.Time
	for _, b := range all {
		if b.DeletionTimestamp != nil || b.Spec.ClusterRef != p.cfg.Cluster {
			continue
		}
		switch b.PhaseOrNew() {
		case v1alpha1.BackupNew, v1alpha1.BackupInProgress:
			return true, nil
		case v1alpha1.BackupFailed:
			at := b.Status.CompletionTimestamp.Time
			if b.Labels[v1alpha1.LabelScheduled] == "" || b.Spec.BackupType != kind || at.Before(since) || at.After(now) {
				continue
			}
			failed++
			if at.After(ended) {
				ended = at
			}
		}
	}
	if failed == 0 {
		return false, nil
	}
	return now.Before(ended.Add(min(firstRetry<<min(failed-1, 10), lastRetry))), nil
}
