// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cespare/xxhash/v2"
	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/engine/blob"
	"github.com/kbcli/kbcli/engine/pg"
	"github.com/kbcli/kbcli/engine/repository"
	"github.com/kbcli/kbcli/runtimes"
	"github.com/kbcli/kbcli/runtimes/store"
)

// daily gives a desk a scheduled backup a day, two segments of WAL each, and moves its
// clock to the last.
func (d *desk) daily(days int) {
	d.Helper()
	raw := bytes.Repeat([]byte{7}, 1<<20)
	for n := range uint64(2*days + 4) {
		d.must(d.l.PutSegment(d.Context(), pg.Segment{Timeline: 1, Number: n + 1}, [][]byte{repository.Compress(nil, raw)}, xxhash.Sum64(raw)))
	}
	for day := range days {
		d.now = d.now.Add(24 * time.Hour)
		name, from := fmt.Sprintf("b%d", day), pg.LSN(2*day+2)<<20
		m := &repository.Manifest{
			Name: name, Type: "full", Version: 150000, Timeline: 1,
			StartLSN: from, StopLSN: from + 100, StartTime: d.now, StopTime: d.now,
		}
		d.must(d.l.PutBackup(d.Context(), m, &repository.Files{}))
		b := &v1alpha1.Backup{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, Labels: map[string]string{v1alpha1.LabelScheduled: "p"}, Finalizers: []string{BackupFinalizer}}}
		b.Spec.ClusterRef = "c"
		d.must(d.cfg.Objects.Create(d.Context(), b))
		d.finish(name, nil)
		d.look(d.believed)
	}
}

// believed lets the clock be seen, as it is each minute.
func (p *Protector) believed(ctx context.Context) error { return p.believe(ctx, p.cfg.Clock()) }

func (d *desk) policySet(change func(*v1alpha1.RetentionSpec)) {
	d.Helper()
	_, err := store.Mutate(d.Context(), d.cfg.Objects, "default", "p", func(o *v1alpha1.BackupPolicy) error {
		change(&o.Spec.Retention)
		return nil
	})
	d.must(err)
}

// later lets two hours pass and looks for what expired.
func (d *desk) later() {
	d.Helper()
	d.now = d.now.Add(2 * time.Hour)
	d.look(d.expire)
}

func (d *desk) wantBackups(names ...string) {
	d.Helper()
	if diff := cmp.Diff(names, d.backups()); diff != "" {
		d.Errorf("backups (-want +got):\n%s\n%s", diff, d.Protector.expiry.trouble)
	}
}

func TestExpireByNumber(t *testing.T) {
	d := newDesk(t)
	d.daily(5)
	d.policySet(func(r *v1alpha1.RetentionSpec) { r.TTL, r.MinBackups = "1h", 3 })
	d.later()
	d.wantBackups("b2", "b3", "b4")
	d.policySet(func(r *v1alpha1.RetentionSpec) { r.TTL, r.MinBackups, r.MaxBackups = "30d", 0, 2 })
	d.later()
	d.wantBackups("b3", "b4")
	d.policySet(func(r *v1alpha1.RetentionSpec) { r.TTL, r.MaxBackups = "1h", 0 })
	d.later()
	d.wantBackups("b4") // the newest never goes
}

func TestExpireRefusesDamage(t *testing.T) {
	d := newDesk(t)
	d.daily(3)
	key := "lineages/" + d.l.Info().ID + "/manifest/b2"
	whole, err := blob.ReadAll(t.Context(), d.repo.Store(), key, 1<<20)
	d.must(err)
	bad := bytes.Clone(whole)
	bad[len(bad)/2] ^= 1
	d.must(d.repo.Store().Replace(t.Context(), key, bytes.NewReader(bad)))
	d.policySet(func(r *v1alpha1.RetentionSpec) { r.TTL = "1h" })
	d.later()
	d.wantBackups("b0", "b1", "b2")
	if !strings.Contains(d.Protector.expiry.trouble, "manifest/b2") {
		t.Errorf("the policy says %q", d.Protector.expiry.trouble)
	}
	d.must(d.acceptPolicy(t.Context()))
	p, err := store.Get[*v1alpha1.BackupPolicy](t.Context(), d.cfg.Objects, "default", "p")
	d.must(err)
	if !strings.HasPrefix(p.Status.Message, "nothing expires: ") {
		t.Errorf("the policy says %q", p.Status.Message)
	}
	d.must(d.repo.Store().Replace(t.Context(), key, bytes.NewReader(whole)))
	d.later()
	d.wantBackups("b2")
	if d.Protector.expiry.trouble != "" {
		t.Errorf("the policy says %q", d.Protector.expiry.trouble)
	}
}

func TestExpireWaitsForRestores(t *testing.T) {
	d := newDesk(t)
	d.daily(3)
	c := &v1alpha1.Cluster{ObjectMeta: metav1.ObjectMeta{Namespace: "other", Name: "new"}}
	c.Spec.Restore = &v1alpha1.RestoreSpec{SourceCluster: "c", SourceNamespace: "default", Latest: true}
	d.must(d.cfg.Objects.Create(t.Context(), c))
	d.policySet(func(r *v1alpha1.RetentionSpec) { r.TTL = "1h" })
	phase := func(p v1alpha1.RestorePhase) {
		_, err := store.MutateStatus(t.Context(), d.cfg.Objects, "other", "new", func(c *v1alpha1.Cluster) error {
			c.Status.Restore = &v1alpha1.RestoreStatus{Phase: p}
			return nil
		})
		d.must(err)
	}
	d.later()
	phase(v1alpha1.RestoreRecovering)
	d.later()
	d.wantBackups("b0", "b1", "b2")
	phase(v1alpha1.RestoreCompleted)
	d.later()
	d.wantBackups("b2")
}

func TestExpireDoubtsClock(t *testing.T) {
	d := newDesk(t)
	d.daily(3)
	right := d.now
	d.now = d.now.AddDate(10, 0, 0)
	d.later()
	d.wantBackups("b0", "b1", "b2")
	if !strings.Contains(d.Protector.expiry.trouble, "the clock moved from 2026-11-04T12:00:30Z to 2036-11-04T14:00:30Z at once: if that is right, it is believed from 2036-11-05T14:00:30Z on") {
		t.Errorf("the policy says %q", d.Protector.expiry.trouble)
	}
	d.now = right // somebody set it right
	d.later()
	d.wantBackups("b0", "b1", "b2")
	if d.Protector.expiry.trouble != "" {
		t.Errorf("the policy says %q", d.Protector.expiry.trouble)
	}
	d.now = right.AddDate(0, 0, 30) // the machine was off for a month
	d.later()
	d.wantBackups("b0", "b1", "b2")
	for range 13 {
		d.later()
	}
	d.wantBackups("b2")
}

// TestExpireAfterGrace: what the policy does not promise is marked and can be used; it goes
// when it has been marked for the grace, and stays where the policy promises it again.
func TestExpireAfterGrace(t *testing.T) {
	d := newDesk(t)
	d.policySet(func(r *v1alpha1.RetentionSpec) { r.Grace = "6h" })
	d.daily(4)
	var told []string
	d.cfg.Event = func(object string, _ runtimes.EventType, reason, _ string) {
		if reason != "BackupExpired" || !slices.Contains(told, object+" "+reason) {
			told = append(told, object+" "+reason)
		}
	}
	marked := func(want ...string) {
		t.Helper()
		all, err := store.List[*v1alpha1.Backup](t.Context(), d.cfg.Objects, "default", nil)
		d.must(err)
		var got []string
		for _, b := range all {
			if b.DeletionTimestamp != nil {
				continue
			}
			if b.Status.MarkedTime.IsZero() != b.Status.DeletionTime.IsZero() {
				t.Errorf("%s is marked %s and goes %s", b.Name, b.Status.MarkedTime, b.Status.DeletionTime)
			}
			if !b.Status.MarkedTime.IsZero() {
				got = append(got, fmt.Sprintf("%s in %s", b.Name, b.Status.DeletionTime.Sub(d.now).Round(time.Hour)))
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("marked (-want +got):\n%s", diff)
		}
	}
	d.policySet(func(r *v1alpha1.RetentionSpec) { r.TTL = "1h" }) // a mistake
	d.later()
	marked("b0 in 6h0m0s", "b1 in 6h0m0s", "b2 in 6h0m0s")
	d.later()
	marked("b0 in 4h0m0s", "b1 in 4h0m0s", "b2 in 4h0m0s")
	d.policySet(func(r *v1alpha1.RetentionSpec) { r.TTL = "7d" })
	d.later()
	marked()
	d.wantBackups("b0", "b1", "b2", "b3")
	d.policySet(func(r *v1alpha1.RetentionSpec) { r.TTL = "1h" }) // meant
	d.later()
	d.now = d.now.Add(20 * time.Hour) // the machine sleeps: that counts for two hours
	d.look(d.expire)
	marked("b0 in 4h0m0s", "b1 in 4h0m0s", "b2 in 4h0m0s")

	// another agent takes over
	next := New(d.cfg)
	d.Protector.abandon()
	d.Protector = next
	d.later()
	d.wantBackups("b0", "b1", "b2", "b3")
	d.later()
	d.wantBackups("b3")
	if diff := cmp.Diff([]string{
		"Backup/b0 BackupMarked", "Backup/b1 BackupMarked", "Backup/b2 BackupMarked",
		"Backup/b0 BackupKept", "Backup/b1 BackupKept", "Backup/b2 BackupKept",
		"Backup/b0 BackupMarked", "Backup/b1 BackupMarked", "Backup/b2 BackupMarked",
		"Backup/b0 BackupExpired", "Backup/b1 BackupExpired", "Backup/b2 BackupExpired",
	}, told); diff != "" {
		t.Errorf("told (-want +got):\n%s", diff)
	}
}

// TestLeftoversAreSwept: what an interrupted backup left goes when nobody can go on with
// it, and not while one is in progress.
func TestLeftoversAreSwept(t *testing.T) {
	d := newDesk(t)
	d.policySet(func(r *v1alpha1.RetentionSpec) { r.Grace = "4h" })
	d.daily(2)
	for _, name := range []string{"lost", "going", "failed"} {
		var w repository.PackWriter
		w.Add([]byte(name), xxhash.Sum64String(name))
		_, err := d.l.PutPack(t.Context(), repository.PackRef{Backup: name, Number: 1}, &w)
		d.must(err)
	}
	for name, phase := range map[string]v1alpha1.BackupPhase{"going": v1alpha1.BackupInProgress, "failed": v1alpha1.BackupFailed} {
		b := &v1alpha1.Backup{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}}
		b.Spec.ClusterRef = "c"
		d.must(d.cfg.Objects.Create(t.Context(), b))
		b.Status.Phase, b.Status.Lineage = phase, d.l.Info().ID
		d.must(d.cfg.Objects.UpdateStatus(t.Context(), b))
	}
	left := func(want ...string) {
		t.Helper()
		got, err := d.l.Leftovers(t.Context())
		d.must(err)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("left (-want +got):\n%s", diff)
		}
	}
	d.later()
	left("failed", "going", "lost")
	d.later()
	left("failed", "going", "lost") // marked for two hours
	d.job = &job{}                  // it may be one of them
	for range 5 {
		d.later()
	}
	left("failed", "going", "lost")
	d.job = nil
	end := build(d.l.Info().ID)
	d.later()
	left("failed", "going", "lost")
	end()
	for range 4 {
		d.later()
	}
	left("going")
	d.wantBackups("b0", "b1", "failed", "going")
}

func TestBelieveClock(t *testing.T) {
	at := time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	note, err := BelieveClock("", at)
	if err != nil || note != "2026-11-01T12:00:00Z" {
		t.Fatal(note, err)
	}
	for _, c := range []struct {
		after   time.Duration
		note    string
		refused bool
	}{
		{time.Minute, "2026-11-01T12:00:00Z", false},    // not worth a note
		{time.Hour, "2026-11-01T13:00:00Z", false},      //
		{24 * time.Hour, "2026-11-02T12:00:00Z", false}, //
		{50 * time.Hour, "2026-11-02T12:00:00Z 2026-11-03T14:00:00Z", true},
		{60 * time.Hour, "2026-11-02T12:00:00Z 2026-11-03T14:00:00Z", true},
		{8760 * time.Hour, "2026-11-02T12:00:00Z 2027-11-01T12:00:00Z", true}, // it leapt again
		{8783 * time.Hour, "2026-11-02T12:00:00Z 2027-11-01T12:00:00Z", true},
		{8784 * time.Hour, "2027-11-02T12:00:00Z", false}, // it has stood for a day
		{-24 * time.Hour, "2026-10-31T12:00:00Z", false},  // set back: nothing is lost by that
	} {
		note, err = BelieveClock(note, at.Add(c.after))
		var refusal *ClockError
		if note != c.note || errors.As(err, &refusal) != c.refused {
			t.Errorf("after %s: %q, %v", c.after, note, err)
		}
	}
}

// TestExpireIsTheHoldersAlone: who does not hold the lineage's lock lets nothing go.
func TestExpireIsTheHoldersAlone(t *testing.T) {
	d := newDesk(t)
	d.daily(3)
	other, err := Lock(t.Context(), d.l, nil)
	d.must(err)
	d.policySet(func(r *v1alpha1.RetentionSpec) { r.TTL = "1h" })
	d.now = d.now.Add(2 * time.Hour)
	d.policy, err = d.defaultPolicy(t.Context())
	d.must(err)
	var locked *repository.LockedError
	if err := d.expire(t.Context()); !errors.As(err, &locked) {
		t.Fatalf("expire: %v", err)
	}
	d.wantBackups("b0", "b1", "b2")
	d.must(other.Unlock(t.Context()))
	for deadline := time.Now().Add(20 * time.Second); len(d.backups()) > 1; time.Sleep(100 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the lock was given back, and nothing expires")
		}
		d.now = d.now.Add(expireInterval)
		d.policy, err = d.defaultPolicy(t.Context())
		d.must(err)
		if err := d.expire(t.Context()); err != nil && !errors.As(err, &locked) {
			t.Fatal(err)
		}
	}
	d.abandon()
}
