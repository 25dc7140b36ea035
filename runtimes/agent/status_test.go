// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/engine/blob"
	"github.com/kbcli/kbcli/engine/checkup"
	"github.com/kbcli/kbcli/engine/pg"
	"github.com/kbcli/kbcli/runtimes/store"
)

var calls = checkup.Names{Namespace: "default", Cluster: "c", Policy: "p", Repository: "nas"}

func (v verdict) String() string {
	return fmt.Sprintf("%s %s: %s", v.status, v.reason, v.message)
}

func TestJudge(t *testing.T) {
	denied := troubleOf(fmt.Errorf("put a tail: %w:\n AccessDenied", blob.ErrDenied), calls)
	window := []v1alpha1.RecoverableWindow{{Timeline: 1}}
	for _, c := range []struct {
		name     string
		a        v1alpha1.ArchiveStatus
		windows  []v1alpha1.RecoverableWindow
		backup   string
		off      bool
		left     bool
		trouble  trouble
		archived string
		can      string
	}{
		{
			name: "well", a: v1alpha1.ArchiveStatus{State: v1alpha1.ArchiveStreaming}, windows: window, backup: "b",
			archived: "True Streaming: WAL goes to the repository nas as it is written", can: "True Window: there is a window, and it goes on",
		},
		{
			name: "moved", a: v1alpha1.ArchiveStatus{State: v1alpha1.ArchiveStreaming}, windows: window, backup: "b", left: true,
			archived: "True Streaming: WAL goes to the repository nas as it is written",
			can:      "False NoBackup: no backup has completed in the repository nas: what is in the former one can be brought back, and nothing later; next: kbcli cluster backup c -n default",
		},
		{
			name: "new", a: v1alpha1.ArchiveStatus{State: v1alpha1.ArchiveStopped}, off: true,
			archived: "False NotEnabled: WAL is not archived: the schedule of logfile is not enabled; next: kbcli cluster edit-backup-policy p -n default --set schedule.logfile.enable=true",
			can:      "False NoBackup: no backup has completed: nothing can be brought back; next: kbcli cluster backup c -n default",
		},
		{
			name: "beginning", a: v1alpha1.ArchiveStatus{State: v1alpha1.ArchiveConnecting}, windows: window, backup: "b",
			archived: "Unknown Connecting: a connection to the server is being made", can: "Unknown Connecting: a connection to the server is being made",
		},
		{
			name: "denied", a: v1alpha1.ArchiveStatus{State: v1alpha1.ArchiveStreaming}, windows: window, backup: "b", trouble: denied,
			archived: "False StorageDenied: put a tail: storage denied access: AccessDenied; next: kbcli backuprepo update nas --credentials-file FILE",
			can:      "False StandsStill: what is in the repository can be brought back, and nothing later: put a tail: storage denied access: AccessDenied; next: kbcli backuprepo update nas --credentials-file FILE",
		},
		{
			name: "gap", a: v1alpha1.ArchiveStatus{State: v1alpha1.ArchiveGap}, windows: window, backup: "b",
			archived: "True Streaming: WAL goes to the repository nas as it is written",
			can:      "False Gap: WAL is missing since the last backup: nothing after it can be brought back until there is another; next: kbcli cluster backup c -n default",
		},
		{
			name: "full", a: v1alpha1.ArchiveStatus{State: v1alpha1.ArchiveBlocked}, backup: "b",
			archived: "False SpoolFull: the spool is full, and the server keeps its WAL until the repository takes more; next: kbcli backuprepo describe nas",
			can:      "False NoWindow: there is a backup, and no moment can be brought back; next: kbcli doctor c -n default",
		},
	} {
		v := judgeArchiving(&c.a, !c.off, c.trouble, calls)
		r := judgeRecoverable(&v1alpha1.ClusterStatus{Archive: &c.a, Windows: c.windows, LastBackup: c.backup}, c.left, v, calls)
		if diff := cmp.Diff([]string{c.archived, c.can}, []string{v.String(), r.String()}); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.name, diff)
		}
	}
}

func TestReady(t *testing.T) {
	now := time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	var s v1alpha1.ClusterStatus
	want := func(after time.Duration, status metav1.ConditionStatus, reason string, since time.Duration) {
		t.Helper()
		Ready(&s, 1, now.Add(after))
		if len(s.Conditions) != 1 {
			t.Fatalf("%d conditions", len(s.Conditions))
		}
		c := s.Conditions[0]
		if c.Status != status || c.Reason != reason || !c.LastTransitionTime.Time.Equal(now.Add(since)) {
			t.Errorf("after %s: %+v, want %s %s since %s", after, c, status, reason, since)
		}
	}
	s.Phase = v1alpha1.ClusterCreating
	want(0, metav1.ConditionFalse, "Creating", 0)
	s.Phase, s.Reason = v1alpha1.ClusterFailed, "ServerFailed"
	want(time.Minute, metav1.ConditionFalse, "ServerFailed", 0) // the status is the same
	s.Phase, s.Reason = v1alpha1.ClusterRunning, ""
	want(2*time.Minute, metav1.ConditionTrue, "Running", 2*time.Minute)
	want(3*time.Minute, metav1.ConditionTrue, "Running", 2*time.Minute)
}

// TestWorth counts how often a status is written.
func TestWorth(t *testing.T) {
	now := time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	p := &Protector{}
	p.last.told = &v1alpha1.ClusterStatus{}
	archiving, recoverable := yes("Streaming", ""), yes("Window", "")
	lsn := pg.LSN(1 << 24)
	step := func(change func(a *v1alpha1.ArchiveStatus)) bool {
		now = now.Add(time.Second)
		s := &v1alpha1.ClusterStatus{Archive: &v1alpha1.ArchiveStatus{State: v1alpha1.ArchiveStreaming}}
		s.Archive.RepositoryLSN, s.Archive.ProvenTime = lsn.String(), v1alpha1.MicroTimeOf(now)
		s.Windows = []v1alpha1.RecoverableWindow{{Timeline: 1, Backup: "b", To: v1alpha1.MicroTimeOf(now)}}
		if change != nil {
			change(s.Archive)
		}
		if !p.worth(s, archiving, recoverable, now) {
			return false
		}
		Ready(s, 1, now)
		setCondition(s, v1alpha1.ConditionArchiving, archiving, 1, now)
		setCondition(s, v1alpha1.ConditionRecoverable, recoverable, 1, now)
		p.last.told, p.last.at = s, now
		return true
	}
	count := func(seconds int, each func()) (n int) {
		for range seconds {
			if each != nil {
				each()
			}
			if step(nil) {
				n++
			}
		}
		return n
	}
	if !step(nil) {
		t.Error("the first is not written")
	}
	if n := count(60, func() { lsn += 100 }); n != 60 {
		t.Errorf("busy: %d writes a minute", n)
	}
	if n := count(60, nil); n < 8 || n > 14 {
		t.Errorf("the first minute of silence: %d writes", n)
	}
	if n := count(3600, nil); n != 360 {
		t.Errorf("idle: %d writes an hour", n)
	}
	fails := func(words string) func(*v1alpha1.ArchiveStatus) {
		return func(a *v1alpha1.ArchiveStatus) { a.LastError = words }
	}
	if !step(fails("request 1")) {
		t.Error("an error waits")
	}
	if step(fails("request 2")) {
		t.Error("the same error again, with other words, does not wait")
	}
	if !step(nil) {
		t.Error("that it healed waits")
	}
	lsn += 100
	if !step(nil) {
		t.Error("the first commit after silence waits")
	}
}

// TestUnreachableAtStart has a repository that cannot be opened when the agent begins:
// what was known before stays, and what is wrong is told.
func TestUnreachableAtStart(t *testing.T) {
	d := newDesk(t)
	known := &v1alpha1.ArchiveStatus{State: v1alpha1.ArchiveStreaming, Timeline: 1, RepositoryLSN: "0/3000000", LagBytes: 10}
	window := []v1alpha1.RecoverableWindow{{Timeline: 1, FromLSN: "0/1", ToLSN: "0/2", Backup: "b", From: v1alpha1.MicroTimeOf(d.now), To: v1alpha1.MicroTimeOf(d.now)}}
	_, err := store.MutateStatus(t.Context(), d.cfg.Objects, "default", "c", func(c *v1alpha1.Cluster) error {
		c.Status.Archive, c.Status.Windows, c.Status.LastBackup = known, window, "b"
		return nil
	})
	d.must(err)
	d.policy = &v1alpha1.BackupPolicy{}
	d.policy.Name, d.policy.Spec.BackupRepoName, d.policy.Spec.Schedule.Logfile.Enable = "p", "nas", true
	d.report(t.Context(), fmt.Errorf("open: %w", blob.ErrUnreachable))
	c, err := store.Get[*v1alpha1.Cluster](t.Context(), d.cfg.Objects, "default", "c")
	d.must(err)
	a := c.Status.Archive
	if a.State != v1alpha1.ArchiveBlocked || a.RepositoryLSN != "0/3000000" || !strings.Contains(a.LastError, "unreachable") || !cmp.Equal(window, c.Status.Windows) {
		t.Errorf("%+v, windows %v", a, c.Status.Windows)
	}
	// the same trouble in other words can wait
	d.now = d.now.Add(time.Minute)
	d.report(t.Context(), fmt.Errorf("open a second time: %w", blob.ErrUnreachable))
	c, err = store.Get[*v1alpha1.Cluster](t.Context(), d.cfg.Objects, "default", "c")
	d.must(err)
	version := c.ResourceVersion
	d.now = d.now.Add(time.Second)
	d.report(t.Context(), fmt.Errorf("open again: %w", blob.ErrUnreachable))
	c, err = store.Get[*v1alpha1.Cluster](t.Context(), d.cfg.Objects, "default", "c")
	d.must(err)
	if c.ResourceVersion != version {
		t.Error("the same error is written each second")
	}
	// what went wrong after a report was not archiving
	d.report(t.Context(), nil)
	d.report(t.Context(), errors.New("expire: ?"))
	c, err = store.Get[*v1alpha1.Cluster](t.Context(), d.cfg.Objects, "default", "c")
	d.must(err)
	if c.Status.Archive.LastError != "" {
		t.Errorf("last error %q", c.Status.Archive.LastError)
	}
	for _, end := range []struct {
		cause    error
		unwanted bool
		want     string
	}{
		{nil, false, "Stopped AgentEnded StandsStill"},
		{context.Canceled, true, "Stopped AgentEnded StandsStill"},
		{ErrServerAway, false, "Connecting ServerUnreachable StandsStill"},
		{ErrStandby, false, "Connecting Handover Handover"},
		{ErrServerAway, true, "Stopped NotEnabled StandsStill"},
	} {
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(end.cause)
		d.policy.Spec.Schedule.Logfile.Enable = !end.unwanted
		d.reportEnd(ctx)
		c, err = store.Get[*v1alpha1.Cluster](t.Context(), d.cfg.Objects, "default", "c")
		d.must(err)
		got := string(c.Status.Archive.State)
		for _, kind := range []string{v1alpha1.ConditionArchiving, v1alpha1.ConditionRecoverable} {
			for _, cond := range c.Status.Conditions {
				if cond.Type == kind {
					got += " " + cond.Reason
				}
			}
		}
		if got != end.want {
			t.Errorf("it ended for %v: %q, want %q", end.cause, got, end.want)
		}
	}
}
