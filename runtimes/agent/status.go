// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"reflect"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/engine/archive"
	"github.com/kbcli/kbcli/engine/catalog"
	"github.com/kbcli/kbcli/engine/checkup"
	"github.com/kbcli/kbcli/engine/pg"
	"github.com/kbcli/kbcli/runtimes/store"
)

// lastStatus is what was reported last.
type lastStatus struct {
	told      *v1alpha1.ClusterStatus // as it was written, or found; nil: nobody looked yet
	archive   *v1alpha1.ArchiveStatus // as it was seen last
	reported  bool                    // since the last error
	at        time.Time               // when
	moved     time.Time               // when WAL last came on
	behind    time.Time               // since when the repository was behind when the Archiver was last asked
	reason    string                  // of the last error
	failing   metav1.Time             // since when there is that reason
	branches  []v1alpha1.RecoverableWindow
	branched  *catalog.Catalog // whose branches they are
	turns     int
	archiver  *archive.Archiver // whose turns they are
	timeline  pg.TimelineID
	leftOnly  bool // what can be reached is in lineages that the cluster left, and in no other
	syncKnown bool
	sync      string

	backup     string // the newest that completed
	backupTime metav1.Time
	backupSeen time.Time // when that was looked for
}

// report writes how things stand into the Cluster's status, if that is worth it. An
// error of what was done after another report is not of archiving, and has been logged.
func (p *Protector) report(ctx context.Context, err error) {
	before := p.last.reported
	p.last.reported = err == nil
	if err != nil && before {
		return
	}
	if werr := p.putStatus(ctx, err); werr != nil && ctx.Err() == nil {
		p.cfg.Log.Warn("the cluster's status could not be written", "error", werr)
	}
}

// remember takes up what was known before this agent began: it holds until more is known.
func (p *Protector) remember(ctx context.Context, now time.Time) error {
	if p.last.told != nil {
		return nil
	}
	c, err := store.Get[*v1alpha1.Cluster](ctx, p.cfg.Objects, p.cfg.Namespace, p.cfg.Cluster)
	if err != nil {
		return err
	}
	told := c.Status
	p.last.told = &told
	p.last.backup, p.last.backupTime = told.LastBackup, told.LastBackupTime
	if a := told.Archive; a != nil && a.LagSeconds > 0 {
		p.last.behind = now.Add(-time.Duration(a.LagSeconds) * time.Second) // and however long nobody looked
	}
	return nil
}

func (p *Protector) putStatus(ctx context.Context, problem error) error {
	now := p.cfg.Clock()
	if err := p.remember(ctx, now); err != nil {
		return err
	}
	a, windows, cause := p.look(ctx, problem)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	p.lookForBackup(ctx, now)
	names := p.names(ctx)
	t := troubleOf(cause, names)
	p.noteError(a, t, now)
	p.last.archive = a
	wanted := p.policy != nil && p.policy.Spec.Schedule.Logfile.Enable

	next := v1alpha1.ClusterStatus{Archive: a, Windows: windows, Branches: p.last.branches, LastBackup: p.last.backup, LastBackupTime: p.last.backupTime}
	archiving := judgeArchiving(a, wanted, t, names)
	recoverable := judgeRecoverable(&next, p.last.leftOnly, archiving, names)
	if !p.worth(&next, archiving, recoverable, now) {
		return nil
	}
	c, err := store.MutateStatus(ctx, p.cfg.Objects, p.cfg.Namespace, p.cfg.Cluster, func(c *v1alpha1.Cluster) error {
		s := &c.Status
		s.Archive, s.Windows, s.LastBackup, s.LastBackupTime = next.Archive, next.Windows, next.LastBackup, next.LastBackupTime
		if p.last.branched != nil { // what was told holds until it is known
			s.Branches = next.Branches
		}
		Ready(s, c.Generation, now)
		setCondition(s, v1alpha1.ConditionArchiving, archiving, c.Generation, now)
		setCondition(s, v1alpha1.ConditionRecoverable, recoverable, c.Generation, now)
		return nil
	})
	if err != nil {
		return err
	}
	told := c.Status
	p.tellArchive(p.last.told.Archive, told.Archive)
	p.last.told, p.last.at = &told, now
	return nil
}

// An idle server proves its clock all the time. That alone is written at most so often,
// and after much longer than a busy one's: a restore waits for a moment to be proven for
// longer than that.
const (
	busyInterval = time.Second
	idleInterval = 10 * time.Second
)

// worth tells whether a status differs from what was told in a way that cannot wait.
func (p *Protector) worth(s *v1alpha1.ClusterStatus, archiving, recoverable verdict, now time.Time) bool {
	told := p.last.told
	if p.last.moved.IsZero() || told.Archive == nil || told.Archive.RepositoryLSN != s.Archive.RepositoryLSN || told.Archive.LagBytes != s.Archive.LagBytes {
		p.last.moved = now
	}
	if p.last.at.IsZero() || told.Archive == nil || !sameVerdict(told, v1alpha1.ConditionArchiving, archiving) ||
		!sameVerdict(told, v1alpha1.ConditionRecoverable, recoverable) || p.phaseMoved(told) {
		return true
	}
	was, is := *told.Archive, *s.Archive
	if was.State != is.State || was.Timeline != is.Timeline || (was.LastError == "") != (is.LastError == "") || !reflect.DeepEqual(was.Gaps, is.Gaps) ||
		told.LastBackup != s.LastBackup || !told.LastBackupTime.Equal(&s.LastBackupTime) || !sameWindows(told.Windows, s.Windows) || p.last.branched != nil && !sameBranches(told.Branches, s.Branches) {
		return true
	}
	if reflect.DeepEqual(was, is) && reflect.DeepEqual(told.Windows, s.Windows) {
		return false
	}
	quiet := now.Sub(p.last.moved)
	wait := min(max(quiet/2, busyInterval), idleInterval)
	// the ticks that this is asked at are not exact
	return now.Sub(p.last.at).Abs() >= wait-busyInterval/2
}

// phaseMoved tells that the condition Ready does not fit the phase that was told.
func (p *Protector) phaseMoved(told *v1alpha1.ClusterStatus) bool {
	return !slices.ContainsFunc(told.Conditions, func(c metav1.Condition) bool { return c.Type == v1alpha1.ConditionReady })
}

// sameVerdict compares by status and reason: words may hold the number of a request.
func sameVerdict(s *v1alpha1.ClusterStatus, kind string, v verdict) bool {
	return slices.ContainsFunc(s.Conditions, func(c metav1.Condition) bool {
		return c.Type == kind && c.Status == v.status && c.Reason == v.reason
	})
}

// sameWindows compares windows but for the end of the last, which moves.
func sameWindows(a, b []v1alpha1.RecoverableWindow) bool {
	return slices.EqualFunc(a, b, func(x, y v1alpha1.RecoverableWindow) bool {
		return x.Timeline == y.Timeline && x.FromLSN == y.FromLSN && x.Backup == y.Backup
	})
}

// names are how next steps call things.
func (p *Protector) names(ctx context.Context) checkup.Names {
	n := checkup.Names{Namespace: p.cfg.Namespace, Cluster: p.cfg.Cluster, Repository: p.repoName}
	if p.policy != nil {
		n.Policy = p.policy.Name
		if n.Repository == "" {
			n.Repository = p.policy.Spec.BackupRepoName
		}
	}
	if n.Repository == "" { // it could not be opened since the agent began
		all, _ := store.List[*v1alpha1.BackupRepo](ctx, p.cfg.Objects, "", nil)
		for _, o := range all {
			if o.Spec.Default {
				n.Repository = o.Name
			}
		}
	}
	return n
}

// noteError puts an error into a status, with the time since when it is so.
func (p *Protector) noteError(a *v1alpha1.ArchiveStatus, t trouble, now time.Time) {
	a.LastError, a.LastErrorTime = "", metav1.Time{}
	if t.reason == "" {
		p.last.reason = ""
		return
	}
	if p.last.reason != t.reason {
		p.last.reason, p.last.failing = t.reason, metav1.NewTime(now.Truncate(time.Second))
	}
	a.LastError, a.LastErrorTime = t.words, p.last.failing
}

// backupInterval is how often the newest backup is looked for.
const backupInterval = 2 * time.Second

// lookForBackup finds the newest backup that completed.
func (p *Protector) lookForBackup(ctx context.Context, now time.Time) {
	if !p.last.backupSeen.IsZero() && now.Sub(p.last.backupSeen).Abs() < backupInterval {
		return
	}
	all, err := store.List[*v1alpha1.Backup](ctx, p.cfg.Objects, p.cfg.Namespace, map[string]string{v1alpha1.LabelCluster: p.cfg.Cluster})
	if err != nil {
		return // what is known stays until all of them can be read
	}
	p.last.backupSeen = now
	p.last.backup, p.last.backupTime = "", metav1.Time{}
	for _, b := range all {
		if b.Status.Phase == v1alpha1.BackupCompleted && b.DeletionTimestamp == nil && b.Spec.ClusterRef == p.cfg.Cluster && !b.Status.CompletionTimestamp.Before(&p.last.backupTime) {
			p.last.backup, p.last.backupTime = b.Name, b.Status.CompletionTimestamp
		}
	}
}

// look asks the Archiver and the catalog. What they do not know now is as it was told
// last. The error is what holds archiving up.
func (p *Protector) look(ctx context.Context, problem error) (*v1alpha1.ArchiveStatus, []v1alpha1.RecoverableWindow, error) {
	out := &v1alpha1.ArchiveStatus{State: v1alpha1.ArchiveStopped}
	told := p.last.told
	if told.Archive != nil {
		*out = *told.Archive
		out.State, out.SpoolBytes = v1alpha1.ArchiveStopped, told.Archive.SpoolBytes
	}
	if p.arch == nil {
		if problem != nil {
			out.State = v1alpha1.ArchiveBlocked
			if !p.last.behind.IsZero() {
				out.LagSeconds = seconds(p.cfg.Clock().Sub(p.last.behind))
			}
		}
		if problem == nil {
			out.LagBytes, out.LagSeconds, p.last.behind = 0, 0, time.Time{} // nobody is to archive
		}
		if p.lineage == nil || problem != nil {
			return out, told.Windows, problem
		}
	}
	var st archive.Status
	if p.arch != nil {
		st = p.arch.Status()
		p.last.behind = st.LagSince
		fillArchive(out, st, p.cfg.Clock())
		switch ended := st.State == archive.Stopped; {
		case st.LastError != nil && (problem == nil || !ended):
			problem = st.LastError
		case ended && problem != nil: // what keeps the next one from beginning
			out.State = v1alpha1.ArchiveBlocked
		}
	}
	windows, err := p.lookAtCatalog(ctx, st, out)
	if err != nil {
		if ctx.Err() == nil {
			p.cfg.Log.Warn("what can be reached is not known", "error", err)
		}
		if problem == nil {
			problem = err
		}
		return out, told.Windows, problem
	}
	return out, windows, problem
}

// lookAtCatalog lists the windows, and fills in the gaps.
func (p *Protector) lookAtCatalog(ctx context.Context, st archive.Status, out *v1alpha1.ArchiveStatus) ([]v1alpha1.RecoverableWindow, error) {
	var arch *archive.Archiver
	if p.arch != nil {
		arch = p.arch.Archiver
	}
	// WAL goes on elsewhere than where the catalog ends
	turned := st.Turns != p.last.turns || arch != nil && arch != p.last.archiver
	if turned || st.RepositoryTimeline != p.last.timeline && st.RepositoryTimeline != 0 {
		if err := p.reload(ctx); err != nil {
			return nil, err
		}
		p.last.turns, p.last.archiver, p.last.timeline = st.Turns, arch, st.RepositoryTimeline
	}
	p.mu.Lock()
	cat := p.cat
	p.mu.Unlock()
	if cat == nil {
		return p.last.told.Windows, nil
	}
	if st.Repository != 0 {
		cat.Grow(st.RepositoryTimeline, st.Repository, st.Proven)
	}
	ws, err := cat.Windows(ctx, 0)
	if err != nil {
		return nil, err
	}
	gaps := withGaps(cat.Gaps(), st.Gaps)
	out.Gaps = gapsOf(gaps)
	if n := len(gaps); n > 0 && (len(ws) == 0 || ws[len(ws)-1].ToLSN <= gaps[n-1].From) && out.State == v1alpha1.ArchiveStreaming {
		out.State = v1alpha1.ArchiveGap // until a backup begins a new window
	}
	if cat != p.last.branched { // what nobody writes any more stands still
		branches, err := cat.Branches(ctx)
		if err != nil {
			return nil, err
		}
		p.last.branches, p.last.branched = branchWindows(branches, ws), cat
	}
	former := p.formerWindows(ctx)
	p.last.leftOnly = len(former) > 0 && len(ws) == 0
	return slices.Concat(former, WindowsOf(ws)), nil
}

// fillArchive puts what the Archiver says into the words of the objects. What it does
// not know yet stays.
func fillArchive(out *v1alpha1.ArchiveStatus, st archive.Status, now time.Time) {
	out.SpoolBytes = st.SpoolBytes
	switch st.State {
	case archive.Streaming:
		out.State = v1alpha1.ArchiveStreaming
	case archive.Blocked:
		out.State = v1alpha1.ArchiveBlocked
	case archive.Stopped:
		out.State = v1alpha1.ArchiveStopped
	default:
		out.State = v1alpha1.ArchiveConnecting
	}
	if st.Timeline != 0 {
		out.Timeline = int64(st.Timeline)
		out.ReceivedLSN, out.SpooledLSN = st.Received.String(), st.Spooled.String()
	}
	if st.Repository != 0 {
		out.RepositoryLSN = st.Repository.String()
		out.LagBytes = max(0, int64(max(st.ServerLSN, st.Received))-int64(st.Repository))
		out.LagSeconds = 0
		if !st.LagSince.IsZero() {
			out.LagSeconds = seconds(now.Sub(st.LagSince))
		}
	}
	if !st.Proven.IsZero() {
		out.ProvenTime = v1alpha1.MicroTimeOf(st.Proven)
	}
}

func seconds(d time.Duration) int64 { return max(0, int64(d/time.Second)) }
