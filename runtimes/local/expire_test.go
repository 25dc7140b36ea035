// SPDX-License-Identifier: Apache-2.0

package local

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/engine/pg"
)

// TestExpire lets the agent's clock run eight days ahead of a policy of seven: the older
// of two scheduled backups goes, with its WAL, and what is promised is still there.
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
	deadline := time.Now().Add(60 * time.Second)
	for {
		_, err := m.objects.Get(t.Context(), v1alpha1.KindBackup, "default", "b1")
		if apierrors.IsNotFound(err) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("b1 is still there: %v", err)
		}
		time.Sleep(100 * time.Millisecond)
	}
	repo, _, err := m.repos.named(t.Context(), "")
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
}
