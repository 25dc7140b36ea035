// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"errors"
	"fmt"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/engine/catalog"
	"github.com/kbcli/kbcli/engine/pg"
	"github.com/kbcli/kbcli/engine/repository"
	"github.com/kbcli/kbcli/runtimes/store"
)

// TestBoundWaits: after n failures in a row the next backup waits, twice as long each
// time; and it waits for every backup that is not at its end.
func TestBoundWaits(t *testing.T) {
	d := newDesk(t)
	last := &repository.Manifest{Name: "b", Written: d.now.Add(-24 * time.Hour)}
	put := func(name string, kind v1alpha1.BackupType, scheduled bool, phase v1alpha1.BackupPhase, at time.Time) {
		b := &v1alpha1.Backup{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}}
		if scheduled {
			b.Labels = map[string]string{v1alpha1.LabelScheduled: "p"}
		}
		b.Spec.ClusterRef, b.Spec.BackupType = "c", kind
		d.must(d.cfg.Objects.Create(t.Context(), b))
		b.Status.Phase, b.Status.CompletionTimestamp = phase, metav1.NewTime(at)
		d.must(d.cfg.Objects.UpdateStatus(t.Context(), b))
	}
	waits := func(at time.Time, want bool) {
		t.Helper()
		got, err := d.boundWaits(t.Context(), last, at)
		if err != nil || got != want {
			t.Errorf("at %s it waits: %v, %v", at.Format(time.TimeOnly), got, err)
		}
	}
	waits(d.now, false)
	put("manual", v1alpha1.BackupIncremental, false, v1alpha1.BackupFailed, d.now)
	put("full", v1alpha1.BackupDatafile, true, v1alpha1.BackupFailed, d.now)
	put("older", v1alpha1.BackupIncremental, true, v1alpha1.BackupFailed, last.Written.Add(-time.Second))
	waits(d.now, false)
	for i, wait := range []time.Duration{time.Minute, 2 * time.Minute, 4 * time.Minute, 8 * time.Minute, 16 * time.Minute, 32 * time.Minute, time.Hour, time.Hour} {
		put(fmt.Sprint("f", i), v1alpha1.BackupIncremental, true, v1alpha1.BackupFailed, d.now)
		waits(d.now.Add(wait-time.Second), true)
		waits(d.now.Add(wait), false)
		d.now = d.now.Add(wait)
	}
	put("new", v1alpha1.BackupDatafile, false, v1alpha1.BackupInProgress, time.Time{})
	waits(d.now.Add(48*time.Hour), true)
}

// TestScheduledIncremental: the schedule makes Backups of its type.
func TestScheduledIncremental(t *testing.T) {
	d := newDesk(t)
	_, err := store.Mutate(t.Context(), d.cfg.Objects, "default", "p", func(o *v1alpha1.BackupPolicy) error {
		o.Spec.Schedule.Datafile.Enable = false
		o.Spec.Schedule.Incremental = v1alpha1.Schedule{Enable: true, CronExpression: "0 * * * *"}
		return nil
	})
	d.must(err)
	d.look(d.runSchedule)
	d.now = d.now.Add(time.Hour)
	d.look(d.runSchedule)
	d.look(d.runSchedule)
	all, err := store.List[*v1alpha1.Backup](t.Context(), d.cfg.Objects, "default", nil)
	d.must(err)
	if len(all) != 1 || all[0].Spec.BackupType != v1alpha1.BackupIncremental || all[0].Labels[v1alpha1.LabelScheduled] != "p" {
		t.Errorf("backups: %+v", all)
	}
}

// TestLastWhole: an incremental backup builds on the one that began last of those whose
// bytes are in the repository, on its own way of timelines, and that stay.
func TestLastWhole(t *testing.T) {
	d := newDesk(t)
	d.must(d.l.PutHistory(t.Context(), 2, []byte("1\t0/500000\tno reason\n")))
	for _, m := range []*repository.Manifest{
		{Name: "first", Type: repository.TypeFull, Timeline: 1, StartLSN: 0x100028, StopLSN: 0x100100},
		{Name: "second", Type: repository.TypeIncremental, Timeline: 1, StartLSN: 0x200028, StopLSN: 0x200100},
		{Name: "stray", Type: repository.TypeFull, Timeline: 1, StartLSN: 0x400028, StopLSN: 0x500100},
		{Name: "after", Type: repository.TypeIncremental, Timeline: 2, StartLSN: 0x600028, StopLSN: 0x600100},
	} {
		d.must(d.l.PutBackup(t.Context(), m, &repository.Files{}))
	}
	cat, err := catalog.Load(t.Context(), d.l)
	d.must(err)
	for _, c := range []struct {
		tli  pg.TimelineID
		but  map[string]bool
		want string
	}{
		{2, nil, "after"},
		{2, map[string]bool{"after": true}, "second"},
		{2, map[string]bool{"after": true, "second": true}, "first"},
		{2, map[string]bool{"after": true, "second": true, "first": true}, ""},
		{1, nil, "stray"},
		{7, nil, ""},
	} {
		got := ""
		if m := lastWhole(cat, c.tli, c.but); m != nil {
			got = m.Name
		}
		if got != c.want {
			t.Errorf("on timeline %s without %v: %q, want %q", c.tli, c.but, got, c.want)
		}
	}

	// while one is being taken nothing of the lineage is deleted
	end := build(d.l.Info().ID)
	b := &v1alpha1.Backup{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "first"}}
	b.Status.Lineage = d.l.Info().ID
	var busy *BuildingError
	if err := DeleteBackup(t.Context(), d.repo, b, nil); !errors.As(err, &busy) {
		t.Errorf("deleting: %v", err)
	}
	end()
	// nor while another process takes it, as the agent of a pod does
	taken := func(kind v1alpha1.BackupType, phase v1alpha1.BackupPhase, lineage string) *v1alpha1.Backup {
		o := &v1alpha1.Backup{}
		o.Spec.BackupType, o.Status.Phase, o.Status.Lineage = kind, phase, lineage
		return o
	}
	gone := taken(v1alpha1.BackupIncremental, v1alpha1.BackupInProgress, b.Status.Lineage)
	gone.DeletionTimestamp = &metav1.Time{Time: d.now}
	others := []*v1alpha1.Backup{
		b, gone, taken(v1alpha1.BackupDatafile, v1alpha1.BackupInProgress, b.Status.Lineage),
		taken(v1alpha1.BackupIncremental, v1alpha1.BackupFailed, b.Status.Lineage), taken(v1alpha1.BackupIncremental, v1alpha1.BackupInProgress, "another"),
	}
	going := append(others, taken(v1alpha1.BackupIncremental, v1alpha1.BackupInProgress, b.Status.Lineage))
	if err := DeleteBackup(t.Context(), d.repo, b, going); !errors.As(err, &busy) {
		t.Errorf("deleting beside another process: %v", err)
	}
	d.must(DeleteBackup(t.Context(), d.repo, b, others))
}
