// SPDX-License-Identifier: Apache-2.0

package local

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/engine/pg"
	"github.com/kbcli/kbcli/runtimes/store"
)

// TestExpire lets the agent's clock run eight days ahead of a policy of seven. That is not
// believed while the server's clock says otherwise, nor at once when nobody asks it;
// then the older of two scheduled backups goes, with its WAL, and what is promised is still
// there. When the cluster is deleted the newest backup stays, and one before it goes.
func TestExpire(t *testing.T) {
	m := newMachine(t)
	var ahead atomic.Int64
	m.stop()
	<-m.done
	m.clockOf = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	m.open(t, m.state)
	c := m.newCluster(t, "my-pg")
	m.sql(t, c, "create table t (id int)")
	scheduled := func(name string) *v1alpha1.Backup {
		b := &v1alpha1.Backup{ObjectMeta: metav1.ObjectMeta{
			Namespace: "default", Name: name, Labels: map[string]string{v1alpha1.LabelScheduled: v1alpha1.DefaultBackupPolicyName("my-pg")},
		}}
		b.Spec.ClusterRef = "my-pg"
		m.create(t, b)
		return until(t, m, "default", name, func(b *v1alpha1.Backup) bool { return b.Status.Phase == v1alpha1.BackupCompleted })
	}
	first := scheduled("b1")
	m.sql(t, c, "insert into t values (1)")
	m.sql(t, c, "select pg_switch_wal()")
	second := scheduled("b2")
	m.sql(t, c, "insert into t values (2)")
	var at time.Time
	m.sql(t, c, "select clock_timestamp()", &at)
	until(t, m, "default", "my-pg", func(c *v1alpha1.Cluster) bool {
		return len(c.Status.Windows) == 1 && c.Status.Windows[0].To.After(at)
	})
	if until(t, m, "default", "b1", func(b *v1alpha1.Backup) bool { return !b.Status.Expiration.IsZero() }); first.Status.Manual {
		t.Error("a scheduled backup counts as manual")
	}

	ahead.Store(int64(8 * 24 * time.Hour))
	// says waits until the policy says why nothing expires; a minute passes at each look
	says := func(words string) {
		t.Helper()
		until(t, m, "default", v1alpha1.DefaultBackupPolicyName("my-pg"), func(p *v1alpha1.BackupPolicy) bool {
			ahead.Add(int64(2 * time.Second))
			return strings.Contains(p.Status.Message, words)
		})
	}
	says("and the server's said")
	_, err := store.Mutate(t.Context(), m.objects, "default", v1alpha1.DefaultBackupPolicyName("my-pg"), func(p *v1alpha1.BackupPolicy) error {
		p.Spec.Schedule.Logfile.Enable = false // nobody asks the server any more
		p.Spec.Retention.Grace = "0h"
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	says("is believed from")
	m.get(t, "b1")
	ahead.Add(int64(25 * time.Hour))
	m.away(t, "b1")
	repo, _, err := m.repos.Named(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	l, err := repo.Lineage(t.Context(), second.Status.Lineage)
	if err != nil {
		t.Fatal(err)
	}
	start, err := pg.ParseLSN(second.Status.StartLSN)
	if err != nil {
		t.Fatal(err)
	}
	size := l.Info().SegmentSize
	oldest := func(ctx context.Context) uint64 {
		for g, err := range l.Segments(ctx, pg.Segment{}) {
			if err != nil {
				t.Fatal(err)
			}
			return g.Number
		}
		return 0
	}
	// the WAL goes a minute later; the clock takes it there
	for deadline := time.Now().Add(60 * time.Second); oldest(t.Context()) < size.Number(start); time.Sleep(200 * time.Millisecond) {
		ahead.Add(int64(5 * time.Second))
		if time.Now().After(deadline) {
			t.Fatalf("WAL from segment %d on is still there, backup b2 needs it from %d", oldest(t.Context()), size.Number(start))
		}
	}
	if n := oldest(t.Context()); n != size.Number(start) {
		t.Errorf("the oldest WAL is segment %d, backup b2 needs it from %d", n, size.Number(start))
	}
	x := m.restoreTo(t, "new-pg", "my-pg", at)
	var rows int
	m.sql(t, x, "select count(*) from t", &rows)
	if rows != 2 {
		t.Errorf("%d rows", rows)
	}

	// of a deleted cluster the newest stays, with its WAL
	third := scheduled("b3")
	if err := m.objects.Delete(t.Context(), v1alpha1.KindCluster, "default", "my-pg", store.Preconditions{}); err != nil {
		t.Fatal(err)
	}
	for range 9 { // a day at a time, as it passes
		ahead.Add(int64(23 * time.Hour))
		until(t, m, "", defaultRepo, func(o *v1alpha1.BackupRepo) bool {
			ahead.Add(int64(5 * time.Second))
			note, err := time.Parse(time.RFC3339, o.Annotations["dataprotection.kubeblocks.io/expiry-clock"])
			return err == nil && m.clockOf().Sub(note) < 2*time.Hour
		})
	}
	// its policy is gone: it is marked for a day, of which each look counts
	for deadline := time.Now().Add(60 * time.Second); time.Now().Before(deadline); time.Sleep(500 * time.Millisecond) {
		if _, err := store.Get[*v1alpha1.Backup](t.Context(), m.objects, "default", "b2"); apierrors.IsNotFound(err) {
			break
		}
		ahead.Add(int64(61 * time.Minute))
	}
	m.away(t, "b2")
	if start, err = pg.ParseLSN(third.Status.StartLSN); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(60 * time.Second); oldest(t.Context()) < size.Number(start); time.Sleep(200 * time.Millisecond) {
		ahead.Add(int64(time.Minute))
		if time.Now().After(deadline) {
			t.Fatalf("WAL from segment %d on is still there, backup b3 needs it from %d", oldest(t.Context()), size.Number(start))
		}
	}
	if r, err := m.Verify(t.Context(), m.get(t, "b3"), nil); err != nil || r.Files == 0 {
		t.Errorf("verify b3: %+v, %v", r, err)
	}
}
