// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/engine/basebackup"
	"github.com/kbcli/kbcli/engine/blob"
	"github.com/kbcli/kbcli/engine/repository"
	"github.com/kbcli/kbcli/runtimes/store"
)

// BackupFinalizer keeps a Backup until its bytes are gone from the repository.
const BackupFinalizer = "dataprotection.kubeblocks.io/repository"

// job is a backup that is being taken.
type job struct {
	name   string
	began  time.Time
	cancel context.CancelFunc
	done   chan struct{}
	err    error
	result *repository.Manifest
	// message is what else is to be said of it; valid once done is closed
	message string

	held   heldUp
	seen   basebackup.Progress // when it was last looked at
	gaveUp error               // why it was ended; nil if it ended by itself

	toldPhase, toldMessage string // what its Backup was told last
	toldAt                 time.Time

	mu       sync.Mutex
	progress basebackup.Progress
	silent   error // of a standby that takes it and is not heard; nil: it is
}

// startJob begins to take a backup.
func (p *Protector) startJob(ctx context.Context, b *v1alpha1.Backup) {
	jctx, cancel := p.while(ctx)
	j := &job{name: b.Name, began: p.cfg.Clock(), cancel: cancel, done: make(chan struct{}), held: heldUp{clock: p.cfg.Clock}}
	jctx = j.held.under(jctx)
	p.job, p.waiting = j, waiting{}
	lineage, arch, repoName := p.lineage, p.arch, p.repoName
	go func() {
		defer close(j.done)
		j.result, j.err = p.take(jctx, b, j, lineage, arch, repoName)
	}()
}

func (p *Protector) take(ctx context.Context, b *v1alpha1.Backup, j *job, lineage *repository.Lineage, arch *archiving, repoName string) (*repository.Manifest, error) {
	target := p.target(b)
	var at repository.Snapshot
	var volume basebackup.Volume
	var err error
	switch b.Spec.BackupType {
	case v1alpha1.BackupDatafile:
	case v1alpha1.BackupIncremental:
		defer build(lineage.Info().ID)()
	case v1alpha1.BackupSnapshot:
		if p.cfg.Volume != nil {
			volume, err = p.cfg.Volume(ctx)
			at.VolumeSnapshot = b.Namespace + "/" + b.Name
		} else {
			at, err = p.snapshotPlace(ctx, lineage.Info().ID, b.Name)
		}
		if err != nil {
			if m, merr := lineage.Manifest(ctx, b.Name); merr == nil {
				return m, nil // it was made before, and that could not be said
			}
			return nil, err
		}
	default:
		return nil, fmt.Errorf("there are no backups of type %s", b.Spec.BackupType)
	}
	_, err = store.Mutate(ctx, p.cfg.Objects, b.Namespace, b.Name, func(b *v1alpha1.Backup) error {
		if !slices.Contains(b.Finalizers, BackupFinalizer) {
			b.Finalizers = append(b.Finalizers, BackupFinalizer)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	manual := b.Labels[v1alpha1.LabelScheduled] == ""
	begins := b.Status.Phase != v1alpha1.BackupInProgress
	b, err = store.MutateStatus(ctx, p.cfg.Objects, b.Namespace, b.Name, func(b *v1alpha1.Backup) error {
		s := &b.Status
		s.Phase, s.Manual, s.Repo, s.Lineage = v1alpha1.BackupInProgress, manual, repoName, lineage.Info().ID
		// whoever deletes it looks there, also if nothing came of it
		s.SnapshotPath, s.VolumeSnapshot = at.Path, at.VolumeSnapshot
		if s.StartTimestamp.IsZero() {
			s.StartTimestamp = metav1.NewTime(p.cfg.Clock())
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if begins {
		p.tellBackup(b)
	}
	// an agent that died after the manifest was written, and before it could say so
	m, err := lineage.Manifest(ctx, b.Name)
	if err == nil || !errors.Is(err, blob.ErrNotExist) {
		return m, err
	}
	limits, err := p.cfg.limitsOf(ctx, b)
	if err != nil {
		return nil, err
	}
	held, release := BoundsOf(&limits).Hold()
	defer release()
	cfg := basebackup.Config{
		Lineage: lineage.Limited(held.Upload, held.Download), Bounds: held, Conninfo: p.cfg.Conninfo, DataDirectory: p.cfg.DataDirectory,
		Name: b.Name, Manual: manual, Fast: true, Workers: p.cfg.Workers,
		WaitWAL:  arch.Wait,
		Progress: j.saw,
		Clock:    p.cfg.Clock, Log: p.cfg.Log,
	}
	// the files of a volume's snapshot cannot be seen from here: instead of a copy the
	// server's are read, as they are now
	if b.Spec.CopyOf != "" && p.cfg.Volume == nil {
		return p.copySnapshot(ctx, b.Spec.CopyOf, lineage, cfg)
	}
	if target.FromStandby() {
		m, err := p.fromStandby(ctx, b, j, lineage, arch)
		var none *NoStandbyError
		if !errors.As(err, &none) || target == v1alpha1.TargetStandby {
			return m, err
		}
		j.message = "it is of the primary: " + none.Error()
	}
	defer arch.names.whole()
	// the archive must have begun before the backup does, or its first WAL is missing
	if err := waitStreaming(ctx, arch); err != nil {
		return nil, err
	}
	switch b.Spec.BackupType {
	case v1alpha1.BackupSnapshot:
		if volume != nil {
			return basebackup.VolumeSnapshot(ctx, cfg, volume)
		}
		return basebackup.Snapshot(ctx, cfg, at)
	case v1alpha1.BackupIncremental:
		if cfg.Incremental, err = incremental(ctx, p.cfg, lineage, arch.Status().RepositoryTimeline); err != nil {
			return nil, err
		}
	}
	return basebackup.Take(ctx, cfg)
}

// waitStreaming blocks until WAL arrives.
func waitStreaming(ctx context.Context, a *archiving) error {
	for {
		ch := a.Changed()
		st := a.Status()
		if st.Repository != 0 && st.Received != 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-a.done:
			return fmt.Errorf("WAL is not archived: %w", errors.Join(a.err, context.Canceled))
		case <-ch:
		}
	}
}

// reapJob notes the progress of the backup that is taken, or how it ended.
func (p *Protector) reapJob(ctx context.Context) error {
	j := p.job
	if j == nil {
		return nil
	}
	b, err := store.Get[*v1alpha1.Backup](ctx, p.cfg.Objects, p.cfg.Namespace, j.name)
	if apierrors.IsNotFound(err) || err == nil && b.DeletionTimestamp != nil {
		p.stopJob()
		return nil
	}
	if err != nil {
		return err
	}
	select {
	case <-j.done:
	default:
		if d, why := j.held.told(); why == nil || d < heldUpLimit {
			return p.noteProgress(ctx, j)
		} else {
			j.gaveUp = tooLong(why, d)
		}
		j.cancel()
		<-j.done
	}
	if j.gaveUp == nil && store.Passing(j.err) && !p.struckTooLong(j) {
		p.job = nil // that says nothing of the backup: it is begun again
		return fmt.Errorf("take backup %s: %w", j.name, j.err)
	}
	if j.err != nil && j.gaveUp != nil {
		j.err = j.gaveUp
	}
	if j.err == nil {
		if err := p.reload(ctx); err != nil {
			return err
		}
		if err := p.wishCopy(ctx, b); err != nil {
			return err
		}
	}
	b, err = store.MutateStatus(ctx, p.cfg.Objects, p.cfg.Namespace, j.name, func(b *v1alpha1.Backup) error {
		p.finish(b, j)
		return nil
	})
	if err != nil && !apierrors.IsNotFound(err) {
		return err
	}
	if err == nil {
		p.tellBackup(b)
	}
	p.job = nil
	// what a backup needed is not needed until the next: an idle agent is small
	debug.FreeOSMemory()
	return nil
}

// struckTooLong tells that a backup is ended by the store of the objects as soon as it is
// begun, and that this has lasted for as long as one may be held up.
func (p *Protector) struckTooLong(j *job) bool {
	now := p.cfg.Clock()
	if p.struck.name != j.name || now.Sub(j.began) > time.Minute {
		p.struck = waiting{name: j.name, since: now}
	}
	return now.Sub(p.struck.since) >= heldUpLimit
}

// progressPeriod is how often a Backup tells how far it is, at most.
const progressPeriod = 500 * time.Millisecond

func (p *Protector) noteProgress(ctx context.Context, j *job) error {
	j.mu.Lock()
	x := j.progress
	j.mu.Unlock()
	var archiver error
	if p.arch != nil {
		archiver = p.arch.Status().LastError
	}
	j.look(x, archiver)
	_, why := j.held.told()
	message := ""
	if why != nil {
		message = oneLine(why)
	}
	if x.Phase == "" && why == nil {
		return nil
	}
	// a change of the Backup makes everybody look at it, the caller of this too
	if x.Phase == j.toldPhase && message == j.toldMessage && time.Since(j.toldAt) < progressPeriod {
		return nil
	}
	_, err := store.MutateStatus(ctx, p.cfg.Objects, p.cfg.Namespace, j.name, func(b *v1alpha1.Backup) error {
		b.Status.Progress = &v1alpha1.Progress{Phase: x.Phase, Message: message, StartedAt: b.Status.StartTimestamp, BytesDone: x.Done, BytesTotal: x.Total}
		return nil
	})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err == nil {
		j.toldPhase, j.toldMessage, j.toldAt = x.Phase, message, time.Now()
	}
	return err
}

func (p *Protector) finish(b *v1alpha1.Backup, j *job) {
	s := &b.Status
	s.Progress = nil
	s.CompletionTimestamp = metav1.NewTime(p.cfg.Clock())
	if !s.StartTimestamp.IsZero() {
		s.Duration = metav1.Duration{Duration: s.CompletionTimestamp.Sub(s.StartTimestamp.Time).Round(time.Millisecond)}
	}
	if j.err != nil {
		p.cfg.Log.Error("backup failed", "backup", b.Name, "error", j.err)
		p.failed(b, j.err)
		return
	}
	s.Message = j.message
	FillStatus(s, j.result)
	s.Phase = v1alpha1.BackupCompleted
	if p.policy != nil && !s.Manual {
		// from now on it says so by itself: its cluster may be deleted
		if promise, err := PromiseOf(p.policy.Spec.Retention); err == nil {
			s.Expiration = metav1.NewTime(s.CompletionTimestamp.Add(promise.TTL))
		}
	}
}

// FillStatus tells in a Backup's status what its manifest says.
func FillStatus(s *v1alpha1.BackupStatus, m *repository.Manifest) {
	s.TotalSize = m.Stored
	s.Timeline, s.StartLSN, s.StopLSN = int64(m.Timeline), m.StartLSN.String(), m.StopLSN.String()
	s.StopTime = v1alpha1.MicroTimeOf(m.StopTime)
	if m.Snapshot != nil {
		s.SnapshotPath, s.VolumeSnapshot = m.Snapshot.Path, m.Snapshot.VolumeSnapshot
	}
	if m.ReadAll != "" {
		s.Message = joinWords(s.Message, "everything was read: "+m.ReadAll)
	}
	if n := len(m.BadPages); n > 0 {
		s.FailureReason = fmt.Sprintf("%d pages of the server's own files have wrong checksums, the first is block %d of %s", n, m.BadPages[0].Block, m.BadPages[0].Path)
	}
}

// stopJob breaks off the backup that is being taken. It stays InProgress, and is
// taken up by the next Protector.
func (p *Protector) stopJob() {
	if p.job == nil {
		return
	}
	p.job.cancel()
	<-p.job.done
	p.job = nil
}

// DeleteBackup removes a Backup's bytes from its repository, and then the directory of a
// snapshot if it is here, or the VolumeSnapshot. Packs that other backups use stay; while one is being taken that
// may come to use them it is a *BuildingError.
// all are the Backups there are, listed after b was deleted: one that begins later does not
// build on it.
func DeleteBackup(ctx context.Context, repo *repository.Repository, b *v1alpha1.Backup, all []*v1alpha1.Backup) error {
	if b.Status.Lineage == "" {
		return nil
	}
	l, err := repo.Lineage(ctx, b.Status.Lineage)
	if errors.Is(err, blob.ErrNotExist) {
		return removeSnapshot(ctx, repo, b)
	}
	if err != nil {
		return err
	}
	if isBuilding(b.Status.Lineage) || builtElsewhere(all, b.Status.Lineage) {
		return &BuildingError{b.Name}
	}
	if err := l.RemoveBackup(ctx, b.Name); err != nil {
		return err
	}
	return removeSnapshot(ctx, repo, b)
}
