// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/engine/archive"
	"github.com/kbcli/kbcli/engine/basebackup"
	"github.com/kbcli/kbcli/engine/blob"
	"github.com/kbcli/kbcli/engine/catalog"
	"github.com/kbcli/kbcli/engine/pg"
	"github.com/kbcli/kbcli/engine/pg/client"
	"github.com/kbcli/kbcli/engine/repository"
	"github.com/kbcli/kbcli/runtimes/store"
)

// Config of a Protector.
type Config struct {
	Objects   store.Store
	Namespace string
	Cluster   string

	Conninfo      string // of the superuser
	DataDirectory string // as this process sees it
	Spool         string // a directory; each lineage gets one in it

	// OpenRepo opens the repository of a BackupRepo, of the default one for "".
	OpenRepo func(ctx context.Context, name string) (*repository.Repository, string, error)
	// Former lists what can be reached in the lineages that the cluster left for
	// another repository; nil where nobody knows.
	Former func(ctx context.Context, now *repository.Lineage) ([]catalog.Window, error)
	// Identity is who this process is, to other agents of one repository. Without
	// one its locks are not known again after a crash, and run out.
	Identity *Identity
	// Held gives over the lock of a lineage that this process has already, with what
	// goes with it: nil if it has none. Nil is nobody who has one.
	Held func(lineage string) *repository.Lock
	// Snapshots says on which machine and in which directory the snapshots of a
	// lineage of the cluster lie, or with a *NoSnapshotError why there can be none; nil
	// is no snapshots.
	Snapshots func(ctx context.Context, lineage string) (repository.Snapshot, error)
	// Volume is what is snapshotted in place of single files, as on Kubernetes, or with a
	// *NoSnapshotError why it cannot be; nil where there are no volumes.
	Volume func(ctx context.Context) (basebackup.Volume, error)
	// Standbys says that standbys have agents, with a Taker each.
	Standbys bool
	// SpoolMost is the most that the spool may take, whatever the policy allows: the volume
	// that it is on has other uses. 0, or nil, is what the policy allows.
	SpoolMost func() int64
	// Workers is how many files a backup reads at once.
	Workers int

	// Event takes note of what happened; nil where nobody listens.
	Event EventFunc

	Clock func() time.Time
	Log   *slog.Logger
}

// Protector is the agent of one cluster. Only Run's goroutine touches its fields,
// but for those that mu guards.
type Protector struct {
	cfg Config

	policy   *v1alpha1.BackupPolicy
	repoName string
	lineage  *repository.Lineage
	arch     *archiving
	job      *job
	waiting  waiting
	struck   waiting // the backup that could not be noted, and is begun again
	last     lastStatus
	expiry   expiry
	snaps    snapshots
	held     hold
	former   former
	leaving  chan leaving
	ended    chan struct{} // closed when Run has returned

	mu  sync.Mutex
	cat *catalog.Catalog
}

// archiving is an Archiver that runs.
type archiving struct {
	*archive.Archiver
	key      string // of what it was started with
	names    *namer
	chapters *roller
	stop     context.CancelFunc
	done     chan struct{}
	err      error // valid once done is closed
}

// New makes a Protector.
func New(cfg Config) *Protector {
	return &Protector{cfg: cfg, leaving: make(chan leaving), ended: make(chan struct{})}
}

// period is how often things are looked at when nobody reports a change.
const period = time.Second

// Run protects the cluster until ctx ends, or Leave has succeeded. It is called once.
func (p *Protector) Run(ctx context.Context) error {
	defer close(p.ended)
	policies, err := p.cfg.Objects.Watch(ctx, v1alpha1.KindBackupPolicy, p.cfg.Namespace)
	if err != nil {
		return err
	}
	backups, err := p.cfg.Objects.Watch(ctx, v1alpha1.KindBackup, p.cfg.Namespace)
	if err != nil {
		return err
	}
	defer p.reportEnd(ctx)
	defer p.abandon()
	defer p.former.stop()
	defer p.stopJob()
	defer p.stopArchiving()
	tick := time.NewTicker(period)
	defer tick.Stop()
	for {
		if err := p.reconcile(ctx); err != nil && ctx.Err() == nil {
			p.cfg.Log.Warn("the cluster is not fully protected", "error", err)
			p.report(ctx, err)
		}
		select {
		case <-ctx.Done():
			return nil
		case _, ok := <-policies:
			if !ok {
				return ctx.Err()
			}
		case _, ok := <-backups:
			if !ok {
				return ctx.Err()
			}
		case <-tick.C:
		case <-p.jobDone():
		case l := <-p.leaving:
			err := p.leave(l.ctx, l.force)
			l.done <- err
			if err == nil {
				return nil
			}
		}
	}
}

func (p *Protector) jobDone() <-chan struct{} {
	if p.job == nil {
		return nil
	}
	return p.job.done
}

// reconcile brings what runs into line with what is wanted.
func (p *Protector) reconcile(ctx context.Context) error {
	policy, unread := p.defaultPolicy(ctx)
	if unread != nil && p.policy == nil {
		return unread
	}
	if unread != nil { // what it said last holds until it says something else
		policy = p.policy
	} else {
		p.policy = policy
		if err := p.acceptPolicy(ctx); err != nil {
			return err
		}
	}
	busy := p.job != nil
	if err := p.reapJob(ctx); err != nil {
		return err
	}
	if busy && p.job == nil {
		p.expiry.looked = time.Time{}
	}
	// neither keeps WAL from being archived
	scheduled := p.runSchedule(ctx)
	next, err := p.nextBackup(ctx)
	if err != nil {
		return err
	}
	if next != nil && p.job == nil {
		// what was changed before the Backup was asked for counts for it; a policy that
		// cannot be read says what it said last
		if now, err := p.defaultPolicy(ctx); err == nil {
			policy, p.policy = now, now
		}
	}
	wanted := policy != nil && policy.Spec.Schedule.Logfile.Enable
	var freed error
	if p.mode() == v1alpha1.ArchiveAsync { // not after a repository was opened that may be away
		freed = p.followSync(ctx, v1alpha1.ArchiveAsync)
	}
	if !wanted && next == nil && p.job == nil {
		if p.arch != nil {
			// commits must not wait for an archive that is about to end
			if err := p.followSync(ctx, v1alpha1.ArchiveAsync); err != nil {
				return err
			}
			p.stopArchiving()
			if err := p.dropSlot(ctx); err != nil {
				return err
			}
		}
		p.release()
		snapshots := p.seeToSnapshots(ctx)
		p.report(ctx, nil)
		return errors.Join(freed, scheduled, snapshots, p.expireUnless(ctx, unread))
	}
	if err := p.openLineage(ctx); err != nil {
		return p.waits(ctx, p.unlessTaken(next), errors.Join(err, freed))
	}
	if err := p.hold(ctx, p.lineage); err != nil {
		return p.refuse(ctx, next, errors.Join(err, freed))
	}
	if err := p.keepArchiving(ctx); err != nil {
		return p.waits(ctx, p.unlessTaken(next), errors.Join(err, freed))
	}
	synced := p.followSync(ctx, p.mode())
	if next != nil && p.job == nil {
		p.startJob(ctx, next)
	}
	snapshots := p.seeToSnapshots(ctx)
	p.report(ctx, synced)
	return errors.Join(scheduled, synced, snapshots, p.expireUnless(ctx, unread))
}

// unlessTaken is next, but for the Backup that is being taken.
func (p *Protector) unlessTaken(next *v1alpha1.Backup) *v1alpha1.Backup {
	if p.job != nil {
		return nil
	}
	return next
}

// expireUnless lets nothing go while it is not known what is to be kept.
func (p *Protector) expireUnless(ctx context.Context, unread error) error {
	if unread != nil {
		return unread
	}
	return p.expire(ctx)
}

// mode is that of the policy; without one nobody waits for the repository.
func (p *Protector) mode() v1alpha1.ArchiveMode {
	if p.policy == nil {
		return v1alpha1.ArchiveAsync
	}
	return p.policy.Spec.Archive.Mode
}

// defaultPolicy is the one that speaks for the cluster; nil if there is none.
func (p *Protector) defaultPolicy(ctx context.Context) (*v1alpha1.BackupPolicy, error) {
	all, err := store.List[*v1alpha1.BackupPolicy](ctx, p.cfg.Objects, p.cfg.Namespace, nil)
	var found *v1alpha1.BackupPolicy
	for _, o := range all {
		if o.Spec.ClusterRef == p.cfg.Cluster && o.DeletionTimestamp == nil && (found == nil || o.IsDefault()) {
			found = o
		}
	}
	if found == nil {
		return nil, err // one that cannot be read may be ours
	}
	return found, nil
}

// acceptPolicy says in the policy's status that it is acted upon.
func (p *Protector) acceptPolicy(ctx context.Context) error {
	o := p.policy
	if o == nil {
		return nil
	}
	message := joinWords(p.unsupported(ctx, o.Spec.Schedule), p.expiry.trouble)
	if o.Status.Phase == v1alpha1.PolicyAvailable && o.Status.ObservedGeneration == o.Generation && o.Status.Message == message {
		return nil
	}
	_, err := store.MutateStatus(ctx, p.cfg.Objects, o.Namespace, o.Name, func(o *v1alpha1.BackupPolicy) error {
		o.Status.Phase, o.Status.Message, o.Status.ObservedGeneration = v1alpha1.PolicyAvailable, message, o.Generation
		return nil
	})
	return err
}

// openLineage finds the cluster's place in the repository that its policy names, or
// makes it.
func (p *Protector) openLineage(ctx context.Context) error {
	want := ""
	if p.policy != nil {
		want = p.policy.Spec.BackupRepoName
	}
	repo, name, err := p.cfg.OpenRepo(ctx, want)
	if err != nil {
		return err
	}
	if p.lineage != nil && p.repoName == name && p.lineage.Repository() == repo {
		return nil
	}
	p.stopJob() // it is taken up where the WAL now goes
	p.stopArchiving()
	p.lineage, p.repoName = nil, name
	c, err := store.Get[*v1alpha1.Cluster](ctx, p.cfg.Objects, p.cfg.Namespace, p.cfg.Cluster)
	if err != nil {
		return err
	}
	var l *repository.Lineage
	if c.Status.Lineage != "" {
		l, err = repo.Lineage(ctx, c.Status.Lineage)
		if err != nil && !errors.Is(err, blob.ErrNotExist) {
			return err
		}
	}
	if l == nil {
		if l, err = p.newLineage(ctx, repo); err != nil {
			return err
		}
		_, err = store.MutateStatus(ctx, p.cfg.Objects, p.cfg.Namespace, p.cfg.Cluster, func(c *v1alpha1.Cluster) error {
			c.Status.Lineage = l.Info().ID
			return nil
		})
		if err != nil {
			return err
		}
	}
	p.lineage = l
	return p.reload(ctx)
}

func (p *Protector) newLineage(ctx context.Context, repo *repository.Repository) (*repository.Lineage, error) {
	c, err := client.Connect(ctx, p.cfg.Conninfo)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	s, err := c.Identify(ctx)
	if err != nil {
		return nil, err
	}
	if s.WALLevel == "minimal" {
		return nil, errors.New("the server has wal_level=minimal, which is not enough to archive: set it to replica and restart the server")
	}
	return repo.CreateLineage(ctx, repository.LineageInfo{
		Namespace: p.cfg.Namespace, Cluster: p.cfg.Cluster,
		SystemID: s.SystemID, Major: s.Version.Major(), SegmentSize: s.SegmentSize,
	})
}

// reload takes a new snapshot of what the repository holds.
func (p *Protector) reload(ctx context.Context) error {
	cat, err := catalog.Load(ctx, p.lineage)
	if cat == nil {
		return err
	}
	if err != nil {
		p.cfg.Log.Error("part of the repository is damaged", "error", err)
	}
	p.mu.Lock()
	p.cat = cat
	p.mu.Unlock()
	return nil
}

// keepArchiving starts the Archiver, or starts it anew when the policy changed or it
// stopped.
func (p *Protector) keepArchiving(ctx context.Context) error {
	spec := v1alpha1.ArchiveSpec{}
	beat := 5 * time.Minute
	if p.policy != nil {
		spec = p.policy.Spec.Archive
		if cron, err := v1alpha1.ParseCron(p.policy.Spec.Schedule.Logfile.CronExpression); err == nil {
			now := p.cfg.Clock()
			next := cron.Next(now)
			beat = min(max(cron.Next(next).Sub(next), time.Second), time.Hour)
		}
	}
	if spec.TailInterval.Duration == 0 {
		spec.TailInterval.Duration = time.Second
	}
	limit := p.spoolLimit(spec)
	key := fmt.Sprint(p.lineage.Info().ID, p.repoName, spec.Mode, spec.TailInterval.Duration, limit, spec.Spool.WhenFull)
	if a := p.arch; a != nil {
		select {
		case <-a.done:
			err := a.err
			p.arch = nil
			if err != nil {
				return fmt.Errorf("archiving stopped: %w", err)
			}
		default:
			if a.key == key {
				return nil
			}
			p.stopJob() // it waits for this Archiver, and is taken up with the next
			p.stopArchiving()
		}
	}
	whenFull := archive.WaitWhenFull
	if spec.Spool.WhenFull == v1alpha1.SpoolGap {
		whenFull = archive.GapWhenFull
	}
	info, err := client.With(p.cfg.Conninfo, [2]string{"application_name", p.slot()})
	if err != nil {
		return err
	}
	names := p.newNamer()
	arch, err := archive.New(archive.Config{
		Lineage: p.lineage, Slot: p.slot(),
		Conninfo:   info,
		Spool:      p.cfg.Spool + "/" + p.lineage.Info().ID,
		SpoolLimit: limit, WhenFull: whenFull, Sync: spec.Mode == v1alpha1.ArchiveSync,
		TailInterval: spec.TailInterval.Duration, BeatInterval: beat,
		May: p.held.may, Named: names.changed,
		Clock: p.cfg.Clock, Log: p.cfg.Log,
	})
	if err != nil {
		return err
	}
	actx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	rolls := p.newRoller()
	rolls.at = func() pg.Segment {
		st := arch.Status()
		return pg.Segment{Timeline: st.RepositoryTimeline, Number: rolls.lineage.Info().SegmentSize.Number(st.Repository)}
	}
	a := &archiving{Archiver: arch, key: key, names: names, chapters: rolls, stop: cancel, done: make(chan struct{})}
	go func() {
		stop, stopRolling := names.start(actx), rolls.start(actx)
		a.err = arch.Run(actx)
		stop()
		stopRolling()
		close(a.done)
	}()
	p.arch = a
	return nil
}

// spoolLimit is how much the spool may take, in bytes.
func (p *Protector) spoolLimit(spec v1alpha1.ArchiveSpec) int64 {
	limit := spec.Spool.Limit.Value()
	if limit == 0 {
		limit = 8 << 30
	}
	if p.cfg.SpoolMost != nil {
		if most := p.cfg.SpoolMost(); most > 0 {
			limit = min(limit, most)
		}
	}
	return limit
}

func (p *Protector) stopArchiving() {
	if p.arch == nil {
		return
	}
	p.arch.stop()
	<-p.arch.done
	p.arch = nil
}

// nextBackup is the oldest Backup of the cluster that waits to be taken.
func (p *Protector) nextBackup(ctx context.Context) (*v1alpha1.Backup, error) {
	all, err := store.List[*v1alpha1.Backup](ctx, p.cfg.Objects, p.cfg.Namespace, map[string]string{v1alpha1.LabelCluster: p.cfg.Cluster})
	var waiting []*v1alpha1.Backup
	for _, b := range all {
		phase := b.PhaseOrNew()
		if b.Spec.ClusterRef == p.cfg.Cluster && b.DeletionTimestamp == nil && (phase == v1alpha1.BackupNew || phase == v1alpha1.BackupInProgress) {
			waiting = append(waiting, b)
		}
	}
	if len(waiting) == 0 {
		return nil, err
	}
	return slices.MinFunc(waiting, func(a, b *v1alpha1.Backup) int {
		if c := a.CreationTimestamp.Compare(b.CreationTimestamp.Time); c != 0 {
			return c
		}
		return strings.Compare(a.Name, b.Name)
	}), nil
}
