// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/engine/archive"
	"github.com/kbcli/kbcli/engine/basebackup"
	"github.com/kbcli/kbcli/engine/pg"
	"github.com/kbcli/kbcli/engine/pg/client"
	"github.com/kbcli/kbcli/engine/repository"
	"github.com/kbcli/kbcli/runtimes/store"
)

// NoStandbyError says why no standby takes a backup.
type NoStandbyError struct{ Reason string }

func (e *NoStandbyError) Error() string { return "no standby takes the backup: " + e.Reason }

// offerLife is how long a standby has for taking a backup: to replay what was written when
// it was offered, and to look.
var offerLife = time.Minute

// standbyLook is how often the two agents look what the other has said.
const standbyLook = 500 * time.Millisecond

// target is the server that a backup is to be of. Snapshots are of the primary's volume.
func (p *Protector) target(b *v1alpha1.Backup) v1alpha1.BackupTarget {
	t := b.Spec.Target
	if t == "" && p.policy != nil {
		t = p.policy.Spec.Target
	}
	if b.Spec.BackupType == v1alpha1.BackupSnapshot || b.Spec.CopyOf != "" {
		return v1alpha1.TargetPrimary
	}
	return t
}

// fromStandby has a backup taken beside a standby, and waits for it. This agent, which
// has the lineage's lock and archives, offers it in the Backup's status; one of those
// beside standbys takes it, stores it, and says so there. What was taken is never given to
// another: where its agent ended for good the backup fails, once it was held up for too
// long. So no two write under one name.
//
//	primary                       Backup.status.standby        standby
//	CHECKPOINT ─────────────────▶ Offered: redo, from
//	                              Taken: instance, progress ◀── has replayed it
//	                                                            pg_backup_start … files …
//	archives what it needs                                      pg_backup_stop, waits for WAL
//	Backup.status: Completed  ◀── Done                      ◀── manifest
func (p *Protector) fromStandby(ctx context.Context, b *v1alpha1.Backup, j *job, lineage *repository.Lineage, arch *archiving) (*repository.Manifest, error) {
	if !p.cfg.Standbys {
		return nil, &NoStandbyError{"on one machine there is none"}
	}
	if st := b.Status.Standby; st == nil || st.Phase == v1alpha1.StandbyOffered {
		c, err := store.Get[*v1alpha1.Cluster](ctx, p.cfg.Objects, p.cfg.Namespace, p.cfg.Cluster)
		if err != nil {
			return nil, err
		}
		if c.Spec.Replicas < 2 {
			return nil, &NoStandbyError{fmt.Sprintf("cluster %s has one server", c.Name)}
		}
		// what the backup needs first has to be archived
		if err := waitStreaming(ctx, arch); err != nil {
			return nil, err
		}
		if err := p.offer(ctx, b); err != nil {
			return nil, err
		}
	}
	m, err := p.awaitStandby(ctx, b, j, lineage, arch.Status)
	if err == nil {
		p.cfg.Log.Info("a standby took the backup", "backup", b.Name)
	}
	return m, err
}

// offer makes a checkpoint, from which a standby's backup will begin, and asks for it.
func (p *Protector) offer(ctx context.Context, b *v1alpha1.Backup) error {
	c, err := client.Connect(ctx, p.cfg.Conninfo)
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := c.SQL().Exec(ctx, "CHECKPOINT"); err != nil {
		return fmt.Errorf("make a checkpoint for the backup: %w", err)
	}
	var redo, at string
	err = c.SQL().QueryRow(ctx, "SELECT redo_lsn::text, pg_catalog.pg_current_wal_flush_lsn()::text FROM pg_catalog.pg_control_checkpoint()").Scan(&redo, &at)
	if err != nil {
		return fmt.Errorf("ask where the checkpoint is: %w", err)
	}
	_, err = store.MutateStatus(ctx, p.cfg.Objects, b.Namespace, b.Name, func(b *v1alpha1.Backup) error {
		if st := b.Status.Standby; st == nil || st.Phase == v1alpha1.StandbyOffered {
			b.Status.Standby = &v1alpha1.StandbyStatus{Phase: v1alpha1.StandbyOffered, Redo: redo, From: at}
		}
		return nil
	})
	return err
}

// errTaken says that a standby took what was to be withdrawn.
var errTaken = errors.New("a standby has taken it")

// awaitStandby follows a backup that was offered.
func (p *Protector) awaitStandby(ctx context.Context, b *v1alpha1.Backup, j *job, lineage *repository.Lineage, archiver func() archive.Status) (*repository.Manifest, error) {
	until := time.Now().Add(offerLife)
	var quiet silence
	tick := time.NewTicker(standbyLook)
	defer tick.Stop()
	for {
		now, err := store.Get[*v1alpha1.Backup](ctx, p.cfg.Objects, b.Namespace, b.Name)
		if err != nil {
			return nil, err
		}
		st := now.Status.Standby
		switch {
		case st == nil:
			return nil, errors.New("what was asked of a standby is gone from the Backup's status")
		case st.Phase == v1alpha1.StandbyOffered && time.Now().After(until):
			err := p.withdraw(ctx, b, st.From)
			if !errors.Is(err, errTaken) {
				return nil, err
			}
		case st.Phase == v1alpha1.StandbyOffered:
			j.saw(basebackup.Progress{Phase: "waiting for a standby"})
		case st.Phase == v1alpha1.StandbyTaken:
			if st.Progress != nil {
				j.saw(told(st))
			}
			j.isSilent(quiet.hears(st, archiver(), time.Now()))
		case st.Phase == v1alpha1.StandbyFailed:
			return nil, fmt.Errorf("standby %s: %s", st.Instance, st.Message)
		case st.Phase == v1alpha1.StandbyDone:
			return lineage.Manifest(ctx, b.Name)
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-tick.C:
		}
	}
}

// silentFor is how long nothing new may be heard of a backup that a standby takes before
// that holds it up.
var silentFor = time.Minute

// silence tells whether the agent of a standby has gone: it has told nothing new for a
// while, and does not wait for this one.
type silence struct {
	last  basebackup.Progress
	since time.Time // nothing new is heard; zero: it was not listened to yet
	waits pg.LSN    // what had arrived by then, which it may wait for
}

func (s *silence) hears(st *v1alpha1.StandbyStatus, a archive.Status, now time.Time) error {
	x := told(st)
	if s.since.IsZero() || moved(s.last, x) {
		s.last, s.since, s.waits = x, now, a.Received
	}
	if x.Phase == waitsForWAL && a.Repository < s.waits {
		s.since = now
	}
	if now.Sub(s.since) < silentFor {
		return nil
	}
	return fmt.Errorf("standby %s tells nothing new", st.Instance)
}

// told is how far a standby's agent says that it is.
func told(st *v1alpha1.StandbyStatus) basebackup.Progress {
	if st.Progress == nil {
		return basebackup.Progress{}
	}
	return basebackup.Progress{Phase: st.Progress.Phase, Done: st.Progress.BytesDone, Total: st.Progress.BytesTotal}
}

// withdraw takes an offer back that nobody took: a *NoStandbyError, or errTaken if somebody
// did in the last moment.
func (p *Protector) withdraw(ctx context.Context, b *v1alpha1.Backup, from string) error {
	_, err := store.MutateStatus(ctx, p.cfg.Objects, b.Namespace, b.Name, func(b *v1alpha1.Backup) error {
		if st := b.Status.Standby; st != nil && st.Phase != v1alpha1.StandbyOffered {
			return errTaken
		}
		b.Status.Standby = nil
		return nil
	})
	if err != nil {
		return err
	}
	return &NoStandbyError{fmt.Sprintf("within %s none that follows the primary had replayed its WAL to %s and looked", offerLife, from)}
}

// saw notes the progress of a backup.
func (j *job) saw(x basebackup.Progress) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.progress = x
}

// isSilent notes that nothing is heard of who takes it; nil is that something is.
func (j *job) isSilent(err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.silent = err
}
