// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/engine/basebackup"
	"github.com/kbcli/kbcli/engine/blob"
	"github.com/kbcli/kbcli/engine/pg"
	"github.com/kbcli/kbcli/engine/pg/client"
	"github.com/kbcli/kbcli/engine/repository"
	"github.com/kbcli/kbcli/runtimes/store"
)

// Taker takes the backups that the Protector beside the primary offers, of the standby that
// it is beside. One goroutine uses it. Of its Config it needs neither Spool nor Identity:
// it writes nothing but the objects of the one backup that was given to it.
type Taker struct {
	cfg      Config
	instance string
	taking   *taking
}

// taking is a backup that is being taken.
type taking struct {
	job
	namespace string
	uid       string
}

// NewTaker makes one for the server that is called instance.
func NewTaker(cfg Config, instance string) *Taker { return &Taker{cfg: cfg, instance: instance} }

// Look takes what is offered, if the server has come so far, and tells of what is being
// taken. It is called every second or so while the server is a standby.
func (t *Taker) Look(ctx context.Context) error {
	if t.taking != nil {
		return t.report(ctx)
	}
	all, err := store.List[*v1alpha1.Backup](ctx, t.cfg.Objects, t.cfg.Namespace, map[string]string{v1alpha1.LabelCluster: t.cfg.Cluster})
	for _, b := range all {
		st := b.Status.Standby
		if b.DeletionTimestamp != nil || b.Status.Phase != v1alpha1.BackupInProgress || st == nil {
			continue
		}
		mine := st.Phase == v1alpha1.StandbyTaken && st.Instance == t.instance // before this process began
		if st.Phase != v1alpha1.StandbyOffered && !mine {
			continue
		}
		if !mine {
			if ok, err := t.take(ctx, b); err != nil || !ok {
				return err
			}
		}
		t.begin(ctx, b)
		return nil
	}
	var broken store.BrokenObjects
	if errors.As(err, &broken) {
		return nil
	}
	return err
}

// take makes a backup this server's, if it can be.
func (t *Taker) take(ctx context.Context, b *v1alpha1.Backup) (bool, error) {
	seen := *b.Status.Standby
	from, err := pg.ParseLSN(seen.From)
	if err != nil {
		return false, fmt.Errorf("what a standby must have replayed: %w", err)
	}
	c, err := client.Connect(ctx, t.cfg.Conninfo)
	if err != nil {
		return false, err
	}
	defer c.Close()
	var follows bool
	err = c.SQL().QueryRow(ctx, `SELECT pg_catalog.pg_is_in_recovery() AND coalesce(pg_catalog.pg_last_wal_replay_lsn() >= $1::pg_lsn, false)
		AND EXISTS (SELECT FROM pg_catalog.pg_stat_wal_receiver WHERE status = 'streaming')`, from.String()).Scan(&follows)
	if err != nil || !follows {
		return false, err
	}
	_, err = store.MutateStatus(ctx, t.cfg.Objects, b.Namespace, b.Name, func(b *v1alpha1.Backup) error {
		st := b.Status.Standby
		if b.Status.Phase != v1alpha1.BackupInProgress || b.DeletionTimestamp != nil || st == nil || st.Phase != v1alpha1.StandbyOffered ||
			st.From != seen.From || st.Redo != seen.Redo { // it was offered anew: what that asks for is looked at the next time
			return errTaken
		}
		st.Phase, st.Instance = v1alpha1.StandbyTaken, t.instance
		return nil
	})
	if errors.Is(err, errTaken) || apierrors.IsNotFound(err) {
		return false, nil
	}
	return err == nil, err
}

func (t *Taker) begin(ctx context.Context, b *v1alpha1.Backup) {
	jctx, cancel := context.WithCancel(ctx)
	x := &taking{job: job{name: b.Name, cancel: cancel, done: make(chan struct{})}, namespace: b.Namespace, uid: string(b.UID)}
	t.taking = x
	t.cfg.Log.Info("a backup is taken of this standby", "backup", b.Name)
	go func() {
		defer close(x.done)
		x.result, x.err = t.run(jctx, b, x)
	}()
}

// run takes the backup, and stores it.
func (t *Taker) run(ctx context.Context, b *v1alpha1.Backup, x *taking) (*repository.Manifest, error) {
	repo, _, err := t.cfg.OpenRepo(ctx, b.Status.Repo)
	if err != nil {
		return nil, err
	}
	lineage, err := repo.Lineage(ctx, b.Status.Lineage)
	if err != nil {
		return nil, err
	}
	m, err := lineage.Manifest(ctx, b.Name)
	if err == nil || !errors.Is(err, blob.ErrNotExist) {
		return m, err
	}
	redo, err := pg.ParseLSN(b.Status.Standby.Redo)
	if err != nil {
		return nil, fmt.Errorf("where the backup begins: %w", err)
	}
	limits, err := t.cfg.limitsOf(ctx, b)
	if err != nil {
		return nil, err
	}
	held, release := BoundsOf(&limits).Hold()
	defer release()
	cfg := basebackup.Config{
		Lineage: lineage.Limited(held.Upload, held.Download), Bounds: held, Conninfo: t.cfg.Conninfo, DataDirectory: t.cfg.DataDirectory,
		Name: b.Name, Manual: b.Labels[v1alpha1.LabelScheduled] == "", Fast: true, Workers: t.cfg.Workers,
		WaitWAL:  t.waitWAL(lineage, redo),
		Progress: x.saw,
		Clock:    t.cfg.Clock, Log: t.cfg.Log,
	}
	if b.Spec.BackupType == v1alpha1.BackupIncremental {
		s, err := t.identify(ctx)
		if err != nil {
			return nil, err
		}
		if cfg.Incremental, err = incremental(ctx, t.cfg, lineage, s.Timeline); err != nil {
			return nil, err
		}
	}
	return basebackup.Take(ctx, cfg)
}

func (t *Taker) identify(ctx context.Context) (client.Server, error) {
	c, err := client.Connect(ctx, t.cfg.Conninfo)
	if err != nil {
		return client.Server{}, err
	}
	defer c.Close()
	return c.Identify(ctx)
}

// errPromoted says that a standby is none any more. What was copied of it before and after
// is of two histories.
var errPromoted = errors.New("it was promoted while the backup was taken: take it again")

// waitWAL waits until the repository holds the WAL from redo on, which another agent puts
// there. It fails when the WAL that is waited for will not come.
func (t *Taker) waitWAL(l *repository.Lineage, redo pg.LSN) func(context.Context, pg.TimelineID, pg.LSN) error {
	return func(ctx context.Context, tli pg.TimelineID, lsn pg.LSN) error {
		size := l.Info().SegmentSize
		// what an incremental backup looks at ends where it begins: its segment is asked for
		from := min(redo, size.Floor(max(lsn, 1)-1))
		for {
			err := l.Covers(ctx, tli, from, lsn)
			var missing *repository.MissingWALError
			if !errors.As(err, &missing) {
				return err
			}
			from = max(from, size.Floor(missing.From)) // what is there stays there
			switch s, err := t.identify(ctx); {
			case err != nil:
				return err
			case !s.InRecovery:
				return errPromoted
			case s.Timeline != tli:
				return fmt.Errorf("the primary changed while the backup was taken, from timeline %s to %s: take it again", tli, s.Timeline)
			}
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(standbyLook):
			}
		}
	}
}

// End breaks off what is being taken, which has failed then. Nil is that the process ends:
// the next one goes on with it.
func (t *Taker) End(ctx context.Context, why error) error {
	x := t.taking
	if x == nil {
		return nil
	}
	x.cancel()
	<-x.done
	if why == nil {
		t.taking = nil
		return nil
	}
	if x.err != nil {
		x.err = why
	}
	return t.report(ctx)
}

// Promoted breaks off what is being taken, because the server is no standby any more.
func (t *Taker) Promoted(ctx context.Context) error { return t.End(ctx, errPromoted) }

// errNotWanted says that nobody waits any more for a backup.
var errNotWanted = errors.New("nobody waits for it")

// report tells in the Backup how far it is, or how it ended.
func (t *Taker) report(ctx context.Context) error {
	x := t.taking
	over := false
	select {
	case <-x.done:
		over = true
	default:
	}
	x.mu.Lock()
	p := v1alpha1.Progress{Phase: x.progress.Phase, BytesDone: x.progress.Done, BytesTotal: x.progress.Total}
	x.mu.Unlock()
	_, err := store.MutateStatus(ctx, t.cfg.Objects, x.namespace, x.name, func(b *v1alpha1.Backup) error {
		st := b.Status.Standby
		if string(b.UID) != x.uid || b.DeletionTimestamp != nil || b.Status.Phase != v1alpha1.BackupInProgress ||
			st == nil || st.Phase != v1alpha1.StandbyTaken || st.Instance != t.instance {
			return errNotWanted
		}
		if st.Progress != nil {
			p.StartedAt = st.Progress.StartedAt
		}
		if p.StartedAt.IsZero() {
			p.StartedAt = metav1.NewTime(t.cfg.Clock())
		}
		st.Progress = &p
		switch {
		case over && x.err != nil:
			st.Phase, st.Message = v1alpha1.StandbyFailed, x.err.Error()
		case over:
			st.Phase = v1alpha1.StandbyDone
		}
		return nil
	})
	if errors.Is(err, errNotWanted) || apierrors.IsNotFound(err) {
		x.cancel()
		<-x.done
		t.taking = nil
		t.cfg.Log.Info("a backup of this standby is not waited for any more", "backup", x.name)
		return nil
	}
	if err == nil && over {
		if x.err != nil {
			t.cfg.Log.Error("backup of this standby failed", "backup", x.name, "error", x.err)
		} else {
			t.cfg.Log.Info("a backup of this standby is done", "backup", x.name)
		}
		t.taking = nil
	}
	return err
}
