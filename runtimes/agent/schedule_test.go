// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"testing"
	"time"

	"github.com/cespare/xxhash/v2"
	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/engine/blob/mem"
	"github.com/kbcli/kbcli/engine/pg"
	"github.com/kbcli/kbcli/engine/repository"
	"github.com/kbcli/kbcli/runtimes/store"
	"github.com/kbcli/kbcli/runtimes/store/files"
)

// desk is a Protector without a server, whose clock the test sets.
type desk struct {
	*testing.T
	*Protector
	now  time.Time
	repo *repository.Repository
	l    *repository.Lineage
}

func (d *desk) must(err error) {
	d.Helper()
	if err != nil {
		d.Fatal(err)
	}
}

func newDesk(t *testing.T) *desk {
	d := &desk{T: t, now: time.Date(2026, 11, 1, 12, 0, 30, 0, time.UTC)}
	clock := func() time.Time { return d.now }
	objects, err := files.Open(t.TempDir(), clock)
	d.must(err)
	d.repo, err = repository.Create(t.Context(), mem.New(nil), repository.Options{Clock: clock})
	d.must(err)
	d.l, err = d.repo.CreateLineage(t.Context(), repository.LineageInfo{Namespace: "default", Cluster: "c", SystemID: 1, Major: 15, SegmentSize: 1 << 20})
	d.must(err)
	c := &v1alpha1.Cluster{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "c"}}
	d.must(objects.Create(t.Context(), c))
	c.Status.Lineage = d.l.Info().ID
	d.must(objects.UpdateStatus(t.Context(), c))
	o := &v1alpha1.BackupPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "p"}}
	o.Spec.ClusterRef = "c"
	o.Spec.Retention.Grace = "0h"
	o.Spec.Schedule.Datafile = v1alpha1.Schedule{Enable: true, CronExpression: "0 18 * * *"}
	d.must(objects.Create(t.Context(), o))
	d.Protector = New(Config{
		Objects: objects, Namespace: "default", Cluster: "c", Clock: clock, Log: slog.New(slog.DiscardHandler),
		OpenRepo: func(context.Context, string) (*repository.Repository, string, error) { return d.repo, "local", nil },
	})
	return d
}

// look reads the policy anew and runs one of the Protector's duties.
func (d *desk) look(do func(context.Context) error) {
	d.Helper()
	var err error
	d.policy, err = d.defaultPolicy(d.Context())
	d.must(err)
	d.must(do(d.Context()))
}

func (d *desk) backups() (names []string) {
	all, err := store.List[*v1alpha1.Backup](d.Context(), d.cfg.Objects, "default", nil)
	d.must(err)
	for _, b := range all {
		if b.DeletionTimestamp == nil {
			names = append(names, b.Name)
		}
	}
	return names
}

func (d *desk) finish(name string, f func(*v1alpha1.BackupStatus)) {
	d.Helper()
	_, err := store.MutateStatus(d.Context(), d.cfg.Objects, "default", name, func(b *v1alpha1.Backup) error {
		b.Status.Phase, b.Status.CompletionTimestamp, b.Status.Lineage = v1alpha1.BackupCompleted, metav1.NewTime(d.now), d.l.Info().ID
		if f != nil {
			f(&b.Status)
		}
		return nil
	})
	d.must(err)
}

func TestSchedule(t *testing.T) {
	d := newDesk(t)
	const first, caught = "backup-default-c-20261101180000", "backup-default-c-20261105180000"
	want := func(names ...string) {
		t.Helper()
		d.look(d.runSchedule)
		if diff := cmp.Diff(names, d.backups()); diff != "" {
			t.Fatalf("at %s: backups (-want +got):\n%s", d.now, diff)
		}
	}
	want()                                                 // nothing was missed before it was switched on
	d.now = time.Date(2026, 11, 1, 18, 0, 0, 0, time.UTC)  // the moment itself
	want(first)                                            //
	d.now = time.Date(2026, 11, 6, 17, 59, 0, 0, time.UTC) // days pass, and it is not done
	want(first)
	d.finish(first, nil)
	want(first, caught) // what was missed is caught up once
	d.finish(caught, nil)
	want(first, caught)
	d.look(d.runSchedule)
	last := d.policy.Status.LastScheduleTime["datafile"].UTC()
	if !last.Equal(time.Date(2026, 11, 5, 18, 0, 0, 0, time.UTC)) {
		t.Errorf("last schedule time %s", last)
	}
}

func TestExpire(t *testing.T) {
	d := newDesk(t)
	raw := bytes.Repeat([]byte{7}, 1<<20)
	for n := range uint64(30) {
		g := pg.Segment{Timeline: 1, Number: n + 1}
		d.must(d.l.PutSegment(t.Context(), g, [][]byte{repository.Compress(nil, raw)}, xxhash.Sum64(raw)))
	}
	d.look(d.runSchedule)
	start := d.now
	var names []string
	for day := range 10 { // a backup a day, a segment each, by hand on day 1
		d.now = start.Add(time.Duration(day) * 24 * time.Hour)
		name := fmt.Sprintf("b%d", day)
		names = append(names, name)
		from := pg.LSN(2*day+2) << 20
		m := &repository.Manifest{
			Name: name, Type: "full", Manual: day == 1, Version: 150000, Timeline: 1,
			StartLSN: from, StopLSN: from + 100, StartTime: d.now, StopTime: d.now,
		}
		d.must(d.l.PutBackup(t.Context(), m, &repository.Files{}))
		b := &v1alpha1.Backup{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, Finalizers: []string{BackupFinalizer}}}
		b.Spec.ClusterRef = "c"
		if !m.Manual {
			b.Labels = map[string]string{v1alpha1.LabelScheduled: "p"}
		}
		d.must(d.cfg.Objects.Create(t.Context(), b))
		d.finish(name, func(s *v1alpha1.BackupStatus) { s.Manual = m.Manual })
	}
	d.look(d.expire) // the promised time begins on day 2
	if diff := cmp.Diff(slices.Concat(names[1:]), d.backups()); diff != "" {
		t.Fatalf("backups (-want +got):\n%s", diff)
	}
	segments := func() (out []uint64) {
		for g, err := range d.l.Segments(t.Context(), pg.Segment{}) {
			d.must(err)
			out = append(out, g.Number)
		}
		return out
	}
	if n := len(segments()); n != 30 {
		t.Errorf("%d segments while a backup that needs them is there", n)
	}
	d.must(d.l.DeleteBackup(t.Context(), "b0", func(uint32) bool { return false })) // as the runtime does
	d.now = d.now.Add(expireInterval)
	d.look(d.expire)
	// the segment of the manual backup, and all from day 2's on
	if got := segments(); got[0] != 4 || got[1] != 6 || len(got) != 26 {
		t.Errorf("segments %v", got)
	}
	b, err := store.Get[*v1alpha1.Backup](t.Context(), d.cfg.Objects, "default", "b5")
	d.must(err)
	if !b.Status.Expiration.Time.Equal(start.Add(12 * 24 * time.Hour)) {
		t.Errorf("expiration %s", b.Status.Expiration)
	}
	if b, err = store.Get[*v1alpha1.Backup](t.Context(), d.cfg.Objects, "default", "b1"); err != nil || !b.Status.Expiration.IsZero() {
		t.Errorf("a manual backup expires at %s, %v", b.Status.Expiration, err)
	}
}
