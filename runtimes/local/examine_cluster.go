// SPDX-License-Identifier: Apache-2.0

package local

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/engine/checkup"
	"github.com/kbcli/kbcli/engine/pg"
	"github.com/kbcli/kbcli/engine/pg/client"
	"github.com/kbcli/kbcli/runtimes"
	"github.com/kbcli/kbcli/runtimes/agent"
)

// patient is a cluster that is examined.
type patient struct {
	*scene
	c      *v1alpha1.Cluster
	policy *v1alpha1.BackupPolicy
	names  checkup.Names
	wanted bool // its WAL is to be archived, and its server to run

	server *serverAnswer
	err    error // of the server
}

// serverAnswer is what a server says of itself.
type serverAnswer struct {
	version  string
	major    int
	slots    []client.Slot
	position pg.LSN
	clock    time.Time
	here     time.Time
	bytes    int64 // of all databases; 0 when it takes long to tell
	settings []checkup.Finding
}

func (s *scene) cluster(ctx context.Context, c *v1alpha1.Cluster) runtimes.Examined {
	p := &patient{scene: s, c: c, policy: s.policy(c)}
	p.names = checkup.Names{Namespace: c.Namespace, Cluster: c.Name, Repository: s.repoOf(p.policy)}
	if p.policy != nil {
		p.names.Policy = p.policy.Name
		p.wanted = p.policy.Spec.Schedule.Logfile.Enable && !c.Spec.Stopped && c.DeletionTimestamp == nil
	}
	if b := s.unread(v1alpha1.KindBackupPolicy, c.Namespace, v1alpha1.DefaultBackupPolicyName(c.Name)); p.policy == nil && b != nil {
		// What it said is not known: what is done is what was wanted.
		p.names.Policy = b.Key.Name
		st := c.Status.Archive
		p.wanted = !c.Spec.Stopped && c.DeletionTimestamp == nil && st != nil && st.State != v1alpha1.ArchiveStopped
	}
	if !c.Spec.Stopped {
		p.server, p.err = within(ctx, p.askServer)
	}
	var out []checkup.Finding
	out = append(out, p.wal().Findings()...)
	if p.server != nil {
		out = append(out, p.server.settings...)
	}
	out = append(out, p.archive().Findings()...)
	out = append(out, p.taken().Findings()...)
	out = append(out, p.machine().Findings()...)
	return runtimes.Examined{Subject: "cluster " + c.Namespace + "/" + c.Name, Findings: out}
}

// positionSQL is how far a server has written, or a standby has received, its WAL.
const positionSQL = `SELECT CASE WHEN pg_is_in_recovery() THEN coalesce(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn())
	ELSE pg_current_wal_flush_lsn() END::text`

func (p *patient) askServer(ctx context.Context) (*serverAnswer, error) {
	info, err := p.r.adminConninfo(p.c, "postgres")
	if err != nil {
		return nil, err
	}
	conn, err := client.Connect(ctx, info)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	a := &serverAnswer{version: conn.ServerVersion().String(), major: conn.ServerVersion().Major()}
	before := p.r.clock()
	if a.clock, err = conn.Clock(ctx); err != nil {
		return nil, err
	}
	after := p.r.clock()
	a.here = before.Add(after.Sub(before) / 2)
	if a.slots, err = conn.Slots(ctx); err != nil {
		return nil, err
	}
	var text string
	if err := conn.SQL().QueryRow(ctx, positionSQL).Scan(&text); err != nil {
		return nil, fmt.Errorf("ask how far its WAL is: %w", err)
	}
	if a.position, err = pg.ParseLSN(text); err != nil {
		return nil, err
	}
	a.settings = p.settings(ctx, info)
	// a big server may take longer than it is given
	if err := conn.SQL().QueryRow(ctx, "SELECT coalesce(sum(pg_database_size(oid)), 0)::int8 FROM pg_database").Scan(&a.bytes); err != nil {
		a.bytes = 0
	}
	return a, nil
}

// settings are the checks of attaching a server, of one that is protected already. What
// is kept for slots is a check of its own here, and so is the data directory where kbcli
// made it.
func (p *patient) settings(ctx context.Context, info string) []checkup.Finding {
	target := checkup.ServerTarget{Conninfo: info, DataDirectory: p.c.Status.DataDirectory, Slot: agent.SlotName(p.c.Namespace, p.c.Name)}
	if p.policy != nil {
		target.Sync = p.policy.Spec.Archive.Mode == v1alpha1.ArchiveSync
	}
	facts, err := checkup.GatherServer(ctx, target)
	if err != nil {
		return []checkup.Finding{{
			Check: "server-settings", Level: checkup.Warn, Evidence: "they could not be looked at: " + err.Error(),
			Next: fmt.Sprintf("kbcli cluster connect %s -n %s", p.c.Name, p.c.Namespace),
		}}
	}
	var out []checkup.Finding
	for _, f := range checkup.CheckServer(facts) {
		if f.Check == "slot-room" && !attached(p.c) {
			continue
		}
		out = append(out, f)
	}
	return out
}

func (p *patient) wal() *checkup.WAL {
	w := &checkup.WAL{Names: p.names, Stopped: p.c.Spec.Stopped, Err: p.err, Wanted: p.wanted, Slot: agent.SlotName(p.c.Namespace, p.c.Name)}
	if p.server != nil {
		w.Version, w.Slots, w.Position = p.server.version, p.server.slots, p.server.position
	} else if w.Err == nil && !w.Stopped {
		w.Err = errors.New("it was not asked")
	}
	dir := filepath.Join(dataOf(p.r, p.c), "pg_wal")
	if w.Free, w.Total, w.FreeErr = room(dir); w.FreeErr == nil {
		w.Size = sizeOf(dir)
	}
	return w
}

// sizeOf is what the files in a directory take, not those in directories below it.
func sizeOf(dir string) (n int64) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return 0
	}
	for _, e := range entries {
		if info, err := e.Info(); err == nil && info.Mode().IsRegular() {
			n += info.Size()
		}
	}
	return n
}

func (p *patient) archive() *checkup.Archive {
	a := &checkup.Archive{Names: p.names, Wanted: p.wanted, AgentRuns: p.running, SpoolFree: -1}
	if p.policy != nil {
		a.SpoolLimit, a.Sync = p.policy.Spec.Archive.Spool.Limit.Value(), p.policy.Spec.Archive.Mode == v1alpha1.ArchiveSync
	}
	spool := filepath.Join(p.r.cluster(p.c.Namespace, p.c.Name), "spool", p.c.Status.Lineage)
	if p.c.Status.Lineage != "" {
		a.Spool = sizeOf(spool)
	}
	for dir := spool; dir != filepath.Dir(dir); dir = filepath.Dir(dir) {
		free, _, err := room(dir)
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
		a.Since = p.now.Sub(st.LastErrorTime.Time)
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
	b := &checkup.Backups{Names: p.names, Now: p.now, Created: p.c.CreationTimestamp.Time, Logfile: p.wanted}
	var start string
	var failed *v1alpha1.Backup
	for _, o := range p.backups {
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

func (p *patient) machine() *checkup.Machine {
	m := &checkup.Machine{Names: p.names, Major: majorOf(p.c.Spec.ClusterVersionRef), Synchronised: synchronised()}
	if p.server != nil {
		m.Server, m.Here, m.Need = p.server.clock, p.server.here, p.server.bytes
		m.Major = p.server.major
	}
	if a := p.c.Status.Archive; a != nil {
		m.Proven = a.ProvenTime.Time
	}
	i, err := findInstall(m.Major)
	m.Programs, m.ProgramsErr = i.bin, err
	m.Room = p.r.state
	m.Free, _, m.RoomErr = room(m.Room)
	return m
}

// synchronised is what the kernel says of this machine's clock.
func synchronised() *bool {
	state, err := unix.Adjtimex(&unix.Timex{})
	if err != nil {
		return nil
	}
	yes := state != timeError
	return &yes
}

// timeError is TIME_ERROR of adjtimex(2): the clock is not synchronised.
const timeError = 5
