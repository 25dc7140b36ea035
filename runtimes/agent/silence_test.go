// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/engine/archive"
	"github.com/kbcli/kbcli/engine/basebackup"
	"github.com/kbcli/kbcli/runtimes/store"
)

// TestSilence: a standby is silent when nothing new is heard of it, unless it waits for the
// primary's agent.
func TestSilence(t *testing.T) {
	now := time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	var s silence
	var arch archive.Status
	hears := func(step string, phase string, done int64, after time.Duration, silent bool) {
		t.Helper()
		now = now.Add(after)
		st := &v1alpha1.StandbyStatus{Instance: "c-1", Progress: &v1alpha1.Progress{Phase: phase, BytesDone: done}}
		if err := s.hears(st, arch, now); (err != nil) != silent || silent && !strings.Contains(err.Error(), "c-1") {
			t.Errorf("%s: %v", step, err)
		}
	}
	arch.Received, arch.Repository = 100, 50
	hears("first", "copying", 1, 0, false)
	hears("soon", "copying", 1, silentFor-time.Second, false)
	hears("later", "copying", 1, time.Second, true)
	hears("it moves", "copying", 2, time.Second, false)
	hears("it waits", waitsForWAL, 2, time.Second, false)
	hears("as long as the WAL is not stored", waitsForWAL, 2, time.Hour, false)
	arch.Received, arch.Repository = 200, 100
	hears("it has what it waits for", waitsForWAL, 2, time.Second, false)
	hears("and says nothing", waitsForWAL, 2, silentFor, true)
	if err := new(silence).hears(&v1alpha1.StandbyStatus{}, arch, now); err != nil {
		t.Errorf("one that has said nothing yet: %v", err)
	}
}

// TestStandbyIsGone: a backup whose standby is gone for good is held up, in whatever phase.
func TestStandbyIsGone(t *testing.T) {
	defer func(d time.Duration) { silentFor = d }(silentFor)
	silentFor = 10 * time.Millisecond
	d := newDesk(t)
	b := &v1alpha1.Backup{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "b"}}
	b.Spec.ClusterRef, b.Spec.BackupType = "c", v1alpha1.BackupDatafile
	d.must(d.cfg.Objects.Create(t.Context(), b))
	for _, progress := range []*v1alpha1.Progress{nil, {Phase: "copying", BytesDone: 5}, {Phase: waitsForWAL}} {
		var err error
		b, err = store.MutateStatus(t.Context(), d.cfg.Objects, "default", "b", func(b *v1alpha1.Backup) error {
			b.Status.Phase = v1alpha1.BackupInProgress
			b.Status.Standby = &v1alpha1.StandbyStatus{Phase: v1alpha1.StandbyTaken, Instance: "c-1", Progress: progress}
			return nil
		})
		d.must(err)
		j := &job{name: "b", held: heldUp{clock: time.Now}}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() {
			_, err := d.awaitStandby(ctx, b, j, d.l, func() archive.Status { return archive.Status{} })
			done <- err
		}()
		var why error
		for deadline := time.Now().Add(30 * time.Second); why == nil && time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
			j.mu.Lock()
			x := j.progress
			j.mu.Unlock()
			j.look(x, nil)
			_, why = j.held.told()
		}
		if why == nil || !strings.Contains(why.Error(), "c-1") {
			t.Errorf("%+v: held up by %v", progress, why)
		}
		j.look(basebackup.Progress{Phase: "copying", Done: 7}, nil)
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	}
}
