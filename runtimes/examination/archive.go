// SPDX-License-Identifier: Apache-2.0

package examination

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/engine/checkup"
	"github.com/kbcli/kbcli/engine/pg"
)

func (p *patient) archive() *checkup.Archive {
	a := &checkup.Archive{Names: p.names, Wanted: p.wanted, AgentRuns: p.at.AgentRuns, SpoolFree: -1}
	if p.policy != nil {
		a.SpoolLimit, a.Sync = p.policy.Spec.Archive.Spool.Limit.Value(), p.policy.Spec.Archive.Mode == v1alpha1.ArchiveSync
	}
	spool := filepath.Join(p.at.Spool, p.c.Status.Lineage)
	if p.c.Status.Lineage != "" {
		a.Spool = sizeOf(spool)
	}
	for dir := spool; dir != filepath.Dir(dir); dir = filepath.Dir(dir) {
		free, _, err := Room(dir)
		if errors.Is(err, fs.ErrNotExist) {
			continue // it is made when there is something to put there
		}
		if err == nil {
			a.SpoolFree = free
		}
		break
	}
	st := p.c.Status.Archive
	if st == nil {
		a.State = "not begun"
		a.LagErr = errors.New("nothing has been archived")
		return a
	}
	a.State, a.Error = string(st.State), st.LastError
	if a.Error != "" {
		a.Since = p.Clock().Sub(st.LastErrorTime.Time)
		a.Reason, a.Next = p.condition(v1alpha1.ConditionArchiving)
	}
	p.lag(a, st)
	last := v1alpha1.RecoverableWindow{}
	if n := len(p.c.Status.Windows); n > 0 {
		last = p.c.Status.Windows[n-1]
	}
	for i, g := range st.Gaps {
		from, ferr := pg.ParseLSN(g.From)
		to, terr := pg.ParseLSN(last.ToLSN)
		a.Gaps = append(a.Gaps, checkup.Gap{
			From: g.From, To: g.To, Reason: g.Reason, Found: g.Time.UTC().Format(time.RFC3339),
			Open: i == len(st.Gaps)-1 && (last.ToLSN == "" || ferr == nil && terr == nil && to <= from),
		})
	}
	return a
}

// condition is the reason of a condition that is false, and what follows "next: " in its
// message.
func (p *patient) condition(kind string) (reason, next string) {
	for _, c := range p.c.Status.Conditions {
		if c.Type == kind && c.Status == metav1.ConditionFalse {
			_, next, _ = strings.Cut(c.Message, "; next: ")
			return c.Reason, next
		}
	}
	return "Held up", fmt.Sprintf("kbcli cluster describe %s -n %s", p.c.Name, p.c.Namespace)
}

// lag is told by the server itself where it answers: it is right also where no agent
// runs.
func (p *patient) lag(a *checkup.Archive, st *v1alpha1.ArchiveStatus) {
	have, err := pg.ParseLSN(st.RepositoryLSN)
	switch {
	case err != nil || have == 0:
		a.LagErr = errors.New("nothing is known to be in the repository")
	case p.server != nil:
		a.LagBytes = max(0, int64(p.server.position)-int64(have))
	case p.c.Spec.Stopped:
	default:
		a.LagErr = errors.New("the server does not say how far it is")
	}
	if a.LagBytes > 0 {
		a.Lag = time.Duration(st.LagSeconds) * time.Second
	}
}

func (p *patient) taken() *checkup.Backups {
	b := &checkup.Backups{Names: p.names, Now: p.Clock(), Created: p.c.CreationTimestamp.Time, Logfile: p.wanted}
	var start string
	var failed *v1alpha1.Backup
	for _, o := range p.Backups {
		if o.Namespace != p.c.Namespace || o.Spec.ClusterRef != p.c.Name || o.DeletionTimestamp != nil {
			continue
		}
		at := o.Status.CompletionTimestamp.Time
		switch phase := o.PhaseOrNew(); {
		case phase == v1alpha1.BackupCompleted && (b.Last == nil || at.After(b.Last.Time)):
			b.Last, start = &checkup.Taken{Name: o.Name, Time: at}, o.Status.StartLSN
		case phase == v1alpha1.BackupFailed && (failed == nil || at.After(failed.Status.CompletionTimestamp.Time)):
			failed = o
		case phase == v1alpha1.BackupInProgress, phase == v1alpha1.BackupNew:
			b.Taking = o.Name
		}
	}
	if failed != nil && (b.Last == nil || failed.Status.CompletionTimestamp.After(b.Last.Time)) {
		b.Failed = &checkup.Taken{Name: failed.Name, Time: failed.Status.CompletionTimestamp.Time, Reason: failed.Status.FailureReason}
	}
	for _, w := range p.c.Status.Windows {
		b.Windows = append(b.Windows, checkup.Span{From: w.From.Time, To: w.To.Time})
	}
	from, err := pg.ParseLSN(start)
	if to := p.end(); err == nil && to > from {
		b.Replay = int64(to - from)
	}
	if p.policy != nil {
		b.Logfile = p.policy.Spec.Schedule.Logfile.Enable
		p.scheduled(b)
	}
	return b
}

// end is how far the repository is.
func (p *patient) end() pg.LSN {
	if p.c.Status.Archive == nil {
		return 0
	}
	lsn, err := pg.ParseLSN(p.c.Status.Archive.RepositoryLSN)
	if err != nil {
		return 0
	}
	return lsn
}

func (p *patient) scheduled(b *checkup.Backups) {
	spec := &p.policy.Spec
	if ttl, err := v1alpha1.ParseTTL(spec.Retention.TTL); err == nil {
		b.TTL = ttl
	}
	b.Most = int(spec.Retention.MaxBackups)
	for _, s := range []struct {
		kind string
		v1alpha1.Schedule
	}{{"snapshot", spec.Schedule.Snapshot}, {"datafile", spec.Schedule.Datafile}, {"incremental", spec.Schedule.Incremental}} {
		cron, err := v1alpha1.ParseCron(s.CronExpression)
		if !s.Enable || err != nil {
			continue
		}
		b.Schedules = append(b.Schedules, s.kind+" "+s.CronExpression)
		if b.Last == nil {
			continue
		}
		if due := cron.Next(b.Last.Time); b.Due.IsZero() || due.Before(b.Due) {
			b.Due = due
		}
	}
}
