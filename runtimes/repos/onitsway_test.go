// SPDX-License-Identifier: Apache-2.0

package repos

import (
	"context"
	"errors"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/engine/catalog"
	"github.com/kbcli/kbcli/engine/pg"
	"github.com/kbcli/kbcli/runtimes"
	"github.com/kbcli/kbcli/runtimes/store/files"
)

// What the archive is about to hold is waited for, and nothing else: where the server is
// known, until the repository has what it had written, else until it is past the moment of
// the question.
func TestOnItsWay(t *testing.T) {
	asked := time.Date(2026, 4, 17, 12, 0, 0, 0, time.UTC)
	// the cluster archived has a policy, and bare has none
	objects, err := files.Open(t.TempDir(), func() time.Time { return asked })
	if err != nil {
		t.Fatal(err)
	}
	policy := &v1alpha1.BackupPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "p"}}
	policy.Spec.ClusterRef, policy.Spec.Schedule.Logfile.Enable = "archived", true
	if err := objects.Create(t.Context(), policy); err != nil {
		t.Fatal(err)
	}
	set := &Set{Objects: objects}

	const streams, connects, stopped, blocked, gap = v1alpha1.ArchiveStreaming, v1alpha1.ArchiveConnecting, v1alpha1.ArchiveStopped, v1alpha1.ArchiveBlocked, v1alpha1.ArchiveGap
	outside := &catalog.OutsideWindowError{Windows: []catalog.Window{{To: asked.Add(-1500 * time.Millisecond)}}}
	byTime := func(d time.Duration) catalog.Target { return catalog.Target{Time: asked.Add(d)} }
	name, noName := catalog.Target{Name: "x"}, &catalog.NoRestorePointError{}
	lsn := func(at pg.LSN) catalog.Target { return catalog.Target{LSN: at} }
	beyond := func(at pg.LSN) error { return &catalog.PositionError{LSN: at, Before: 0x3000000} }
	xid := catalog.Target{XID: 7}
	const ago = -time.Second
	for _, c := range []struct {
		name    string
		target  catalog.Target
		err     error
		state   v1alpha1.ArchiveState
		proven  time.Duration // from asked on
		written pg.LSN        // the repository has 0/3000028; 0: the server cannot be asked
		change  func(*v1alpha1.Cluster, *onItsWay)
		want    bool
	}{
		{"a second ago, half a second behind", byTime(ago), outside, streams, ago, 0, nil, true},
		{"inside the window", byTime(-2 * time.Second), outside, streams, ago, 0, nil, false},
		{"before all windows", byTime(-999 * time.Hour), outside, streams, ago, 0, nil, false},
		{"yet to come", byTime(time.Second), outside, streams, ago, 0, nil, false},
		{"there is no window", byTime(ago), &catalog.OutsideWindowError{}, streams, ago, 0, nil, false},

		{"a name just given", name, noName, streams, ago, 0x3000060, nil, true},
		{"a name never given", name, noName, streams, ago, 0x3000028, nil, false},
		{"a name just given, to a server that cannot be asked", name, noName, streams, ago, 0, nil, true},
		{"a name never given, to a server that cannot be asked", name, noName, streams, time.Second, 0, nil, false},
		{"a name given too early", name, &catalog.NoRestorePointError{At: asked}, streams, ago, 0x3000060, nil, false},
		{"a position just written", lsn(0x3000060), beyond(0x3000060), streams, ago, 0x3000060, nil, true},
		{"a position yet to be written", lsn(0x4000060), beyond(0x4000060), streams, ago, 0x3000060, nil, false},
		{"a position of a server that cannot be asked", lsn(0x3000060), beyond(0x3000060), streams, ago, 0, nil, true},
		{"a position before the first backup", lsn(0x28), &catalog.PositionError{LSN: 0x28, Backup: "b"}, streams, ago, 0x3000060, nil, false},
		{"a transaction just begun", xid, &catalog.TransactionError{State: catalog.XactRunning}, streams, ago, 0x3000060, nil, true},
		{"a transaction never begun", xid, &catalog.TransactionError{State: catalog.XactUnknown}, streams, ago, 0x3000028, nil, false},
		{"a transaction that never ended", xid, &catalog.TransactionError{State: catalog.XactUnfinished}, streams, ago, 0x3000060, nil, false},

		{"the agent began again", name, noName, connects, ago, 0x3000060, nil, true},
		{"the agent ended, and another is to come", name, noName, stopped, ago, 0x3000060, nil, true},
		{"the agent ended with its pod, and the operator is asked", name, noName, stopped, ago, 0, nil, true},
		{"a time while the agent is away", byTime(ago), outside, stopped, ago, 0, nil, true},
		{"the cluster is stopped", name, noName, stopped, ago, 0, func(c *v1alpha1.Cluster, _ *onItsWay) { c.Spec.Stopped = true }, false},
		{"nobody is to archive", name, noName, stopped, ago, 0x3000060, func(c *v1alpha1.Cluster, _ *onItsWay) { c.Name = "bare" }, false},
		{"the repository does not take it", name, noName, blocked, ago, 0x3000060, nil, false},
		{"WAL is missing", name, noName, gap, ago, 0x3000060, nil, false},
		{"an earlier cluster of the name", name, noName, streams, ago, 0x3000060, func(_ *v1alpha1.Cluster, w *onItsWay) { w.src.Lineage = "old" }, false},
		{"a timeline that was left", name, noName, streams, ago, 0x3000060, func(_ *v1alpha1.Cluster, w *onItsWay) { w.target.Timeline = 1 }, false},
		{"another error", name, errors.New("no"), streams, ago, 0x3000060, nil, false},
		{"too long", name, noName, streams, ago, 0x3000060, func(_ *v1alpha1.Cluster, w *onItsWay) { w.until = time.Now().Add(-time.Second) }, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			cluster := &v1alpha1.Cluster{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "archived"}}
			cluster.Status.Lineage = "new"
			cluster.Status.Archive = &v1alpha1.ArchiveStatus{State: c.state, Timeline: 2, RepositoryLSN: "0/3000028", ProvenTime: v1alpha1.MicroTimeOf(asked.Add(c.proven))}
			known := AskedAt(asked)
			known.Written = func(context.Context, *v1alpha1.Cluster) (pg.LSN, error) {
				if c.written == 0 {
					return 0, errors.New("no server is here")
				}
				return c.written, nil
			}
			w := set.onItsWay(runtimes.Source{Namespace: "default", Cluster: "archived"}, c.target, known)
			if c.change != nil {
				c.change(cluster, w)
			}
			if got := w.comes(t.Context(), cluster, c.err); got != c.want {
				t.Errorf("it waits: %v", got)
			}
		})
	}
	if set.onItsWay(runtimes.Source{}, name, AskedAt(asked)).comes(t.Context(), nil, noName) {
		t.Error("it waits for a cluster that is gone")
	}
}

// The server is asked once: what it writes later was not asked for.
func TestOnItsWayEnds(t *testing.T) {
	c := &v1alpha1.Cluster{}
	c.Status.Archive = &v1alpha1.ArchiveStatus{State: v1alpha1.ArchiveStreaming, RepositoryLSN: "0/3000028"}
	at := pg.LSN(0x3000028)
	known := AskedAt(time.Now())
	known.Written = func(context.Context, *v1alpha1.Cluster) (pg.LSN, error) { at += 0x38; return at, nil }
	w := (&Set{}).onItsWay(runtimes.Source{}, catalog.Target{Name: "x"}, known)
	for i, has := range []string{"0/3000028", "0/3000030", "0/3000060", "0/3000028"} {
		c.Status.Archive.RepositoryLSN = has
		if got := w.comes(t.Context(), c, &catalog.NoRestorePointError{}); got != (i != 2) {
			t.Errorf("with %s in the repository it waits: %v", has, got)
		}
	}
}
