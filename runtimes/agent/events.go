// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/runtimes"
)

// EventFunc takes note of what happened to an object such as "Backup/b1". It must not
// block for long, and may be called from several goroutines.
type EventFunc func(object string, t runtimes.EventType, reason, message string)

// occurrence is something that happened to the cluster itself.
type occurrence struct {
	kind            runtimes.EventType
	reason, message string
}

// happened notes that something happened, if somebody listens.
func (p *Protector) happened(object string, t runtimes.EventType, reason, format string, args ...any) {
	if p.cfg.Event != nil {
		p.cfg.Event(object, t, reason, fmt.Sprintf(format, args...))
	}
}

func (p *Protector) self() string { return v1alpha1.KindCluster + "/" + p.cfg.Cluster }

// tellArchive notes what is new in the status of the archive that was just written.
// Because it is held against what was written before, an agent that begins does not
// tell again what the last one told.
func (p *Protector) tellArchive(was, is *v1alpha1.ArchiveStatus) {
	for _, o := range archiveEvents(was, is) {
		p.happened(p.self(), o.kind, o.reason, "%s", o.message)
	}
}

func archiveEvents(was, is *v1alpha1.ArchiveStatus) []occurrence {
	var out []occurrence
	add := func(t runtimes.EventType, reason, format string, args ...any) {
		out = append(out, occurrence{t, reason, fmt.Sprintf(format, args...)})
	}
	if is == nil {
		return nil
	}
	first := was == nil
	if first {
		was = &v1alpha1.ArchiveStatus{State: v1alpha1.ArchiveStopped}
	}
	if was.Timeline != 0 && is.Timeline > was.Timeline {
		add(runtimes.EventNormal, "TimelineSwitched", "the server went from timeline %d to %d, and the archive with it", was.Timeline, is.Timeline)
	}
	for _, g := range is.Gaps {
		if !slices.ContainsFunc(was.Gaps, func(h v1alpha1.Gap) bool { return h.Timeline == g.Timeline && h.From == g.From && h.To == g.To }) {
			add(runtimes.EventWarning, "GapDeclared", "WAL from %s to %s on timeline %d is missing: %s; the moments there cannot be restored, and the next backup begins a new window",
				g.From, g.To, g.Timeline, cmp.Or(g.Reason, "nobody knows why"))
		}
	}
	streams := func(s v1alpha1.ArchiveState) bool { return s == v1alpha1.ArchiveStreaming || s == v1alpha1.ArchiveGap }
	switch {
	case is.State == was.State:
	case streams(is.State) && was.State == v1alpha1.ArchiveBlocked:
		add(runtimes.EventNormal, "ArchivingResumed", "the spool has room again, and WAL is archived")
	case streams(is.State) && !streams(was.State):
		add(runtimes.EventNormal, "ArchivingStarted", "WAL is archived on timeline %d", is.Timeline)
	case is.State == v1alpha1.ArchiveBlocked:
		add(runtimes.EventWarning, "ArchivingBlocked", "the spool is full: PostgreSQL keeps its WAL until the repository takes more")
	case is.State == v1alpha1.ArchiveStopped && !first:
		add(runtimes.EventNormal, "ArchivingStopped", "WAL is no longer archived")
	}
	switch {
	case is.LastError != "" && is.LastError != was.LastError:
		add(runtimes.EventWarning, "ArchivingFailed", "%s", is.LastError)
	case is.LastError == "" && was.LastError != "" && streams(is.State):
		add(runtimes.EventNormal, "ArchivingRecovered", "WAL reaches the repository again")
	}
	return out
}

// tellBackup notes how far a backup has come.
func (p *Protector) tellBackup(b *v1alpha1.Backup) {
	object, st := v1alpha1.KindBackup+"/"+b.Name, &b.Status
	switch st.Phase {
	case v1alpha1.BackupInProgress:
		p.happened(object, runtimes.EventNormal, "BackupStarted", "a backup of type %s is taken into repository %s", b.Spec.BackupType, st.Repo)
	case v1alpha1.BackupCompleted:
		took := st.CompletionTimestamp.Sub(st.StartTimestamp.Time).Round(time.Second)
		p.happened(object, runtimes.EventNormal, "BackupCompleted", "it takes %s in the repository, and took %s", v1alpha1.FormatSize(st.TotalSize), max(took, time.Second))
		if st.FailureReason != "" {
			p.happened(object, runtimes.EventWarning, "BadPages", "%s", st.FailureReason)
		}
	case v1alpha1.BackupFailed:
		p.happened(object, runtimes.EventWarning, "BackupFailed", "%s", st.FailureReason)
	}
}

// tellExpired notes that backups were let go; all are the objects as they were before.
func (p *Protector) tellExpired(names []string, all ...*v1alpha1.Backup) {
	for _, b := range all {
		if b.DeletionTimestamp == nil && slices.Contains(names, b.Name) {
			p.happened(v1alpha1.KindBackup+"/"+b.Name, runtimes.EventNormal, "BackupExpired", "its time is over, and it is deleted")
		}
	}
}

// tellSchedule notes that a scheduled backup is made for a moment, perhaps long after.
func (p *Protector) tellSchedule(policy *v1alpha1.BackupPolicy, kind v1alpha1.BackupType, at, now time.Time) {
	object := v1alpha1.KindBackupPolicy + "/" + policy.Name
	if late := now.Sub(at); late >= missedAfter {
		p.happened(object, runtimes.EventWarning, "ScheduleMissed", "the %s backup of %s was missed: one is taken now, %s later",
			kind, at.UTC().Format(time.RFC3339), late.Round(time.Second))
		return
	}
	p.happened(object, runtimes.EventNormal, "ScheduleDue", "the %s backup of %s is due", kind, at.UTC().Format(time.RFC3339))
}

// missedAfter is how late a scheduled backup is called missed.
const missedAfter = time.Minute

// tellSync notes that commits wait for the repository from now on, or no more.
func (p *Protector) tellSync(on bool) {
	if on {
		p.happened(p.self(), runtimes.EventNormal, "SyncOn", "commits wait until the repository holds their WAL")
		return
	}
	p.happened(p.self(), runtimes.EventNormal, "SyncOff", "commits no longer wait for the repository")
}

// PhaseEvent tells what it means that a cluster's phase changed; ok is false for what
// is only on the way.
func PhaseEvent(was, is v1alpha1.ClusterPhase, reason, message string) (t runtimes.EventType, word, text string, ok bool) {
	switch is {
	case v1alpha1.ClusterRunning:
		switch was {
		case v1alpha1.ClusterFailed:
			return runtimes.EventNormal, "Recovered", "the server serves again", true
		case v1alpha1.ClusterRestarting:
			return runtimes.EventNormal, "Restarted", "the server was restarted", true
		}
		return runtimes.EventNormal, "Started", "the server serves", true
	case v1alpha1.ClusterStopped:
		return runtimes.EventNormal, "Stopped", "the server was stopped, its data stays", true
	case v1alpha1.ClusterFailed:
		return runtimes.EventWarning, cmp.Or(reason, "Failed"), cmp.Or(message, "the cluster failed"), true
	case v1alpha1.ClusterCreating:
		return runtimes.EventNormal, "Creating", "a new server is made", true
	case v1alpha1.ClusterRestoring:
		return runtimes.EventNormal, "Restoring", "the server is restored from another's past", true
	case v1alpha1.ClusterDeleting:
		return runtimes.EventNormal, "Deleting", "the cluster is taken away", true
	case v1alpha1.ClusterAbnormal, v1alpha1.ClusterUnknown:
		return runtimes.EventWarning, cmp.Or(reason, string(is)), cmp.Or(message, "the cluster is not as it should be"), true
	}
	return "", "", "", false
}
