// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"errors"
	"fmt"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/runtimes/store"
)

// TestStruck: a backup that ended because the objects could not be reached is begun again;
// one for which that lasts has failed, and says why.
func TestStruck(t *testing.T) {
	d := newDesk(t)
	b := &v1alpha1.Backup{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "b"}}
	b.Spec.ClusterRef, b.Spec.BackupType = "c", v1alpha1.BackupDatafile
	d.must(d.cfg.Objects.Create(t.Context(), b))
	away := fmt.Errorf("read volume claim x: %w", store.ErrUnreachable)
	ends := func(ran time.Duration) (v1alpha1.BackupPhase, error) {
		t.Helper()
		done := make(chan struct{})
		close(done)
		d.job = &job{name: "b", began: d.now.Add(-ran), cancel: func() {}, done: done, err: away, held: heldUp{clock: d.cfg.Clock}}
		err := d.reapJob(t.Context())
		if d.job != nil {
			t.Fatal("the job is still there")
		}
		now, gerr := store.Get[*v1alpha1.Backup](t.Context(), d.cfg.Objects, "default", "b")
		d.must(gerr)
		return now.PhaseOrNew(), err
	}
	for _, ran := range []time.Duration{time.Second, 2 * time.Hour, time.Second} {
		phase, err := ends(ran)
		if phase != v1alpha1.BackupNew || !errors.Is(err, store.ErrUnreachable) {
			t.Errorf("after %s it is %s, %v", ran, phase, err)
		}
		d.now = d.now.Add(heldUpLimit - time.Minute)
	}
	d.now = d.now.Add(2 * time.Minute)
	if phase, err := ends(time.Second); phase != v1alpha1.BackupFailed || err != nil {
		t.Errorf("after long it is %s, %v", phase, err)
	}
}
