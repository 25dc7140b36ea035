// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/runtimes/store"
)

// TestRunAfterGap: one full backup is made after a gap, by itself; after one that failed
// the next waits; and none where archiving is not enabled or has not gone on.
func TestRunAfterGap(t *testing.T) {
	d := newDesk(t)
	after := func(want int, why string) {
		t.Helper()
		d.look(func(ctx context.Context) error { return d.runAfterGap(ctx, d.policy) })
		all, err := store.List[*v1alpha1.Backup](t.Context(), d.cfg.Objects, "default", nil)
		d.must(err)
		for _, b := range all {
			if b.Spec.BackupType != v1alpha1.BackupDatafile || b.Labels[v1alpha1.LabelScheduled] != "p" {
				t.Errorf("%s: %+v", why, b)
			}
		}
		if len(all) != want {
			t.Errorf("%s: there are %d backups, want %d", why, len(all), want)
		}
	}
	d.arch = &archiving{}
	d.last.archive = &v1alpha1.ArchiveStatus{State: v1alpha1.ArchiveGap, Gaps: []v1alpha1.Gap{
		{Timeline: 1, From: "0/1000000", To: "0/2000000", Time: v1alpha1.MicroTimeOf(d.now.Add(-time.Minute))},
	}}
	after(0, "archiving is not enabled")
	_, err := store.Mutate(t.Context(), d.cfg.Objects, "default", "p", func(o *v1alpha1.BackupPolicy) error {
		o.Spec.Schedule.Logfile.Enable = true
		return nil
	})
	d.must(err)
	d.last.archive.State = v1alpha1.ArchiveBlocked
	after(0, "it has not gone on")
	d.last.archive.State = v1alpha1.ArchiveGap
	after(1, "a gap")
	after(1, "it is waited for")
	all, err := store.List[*v1alpha1.Backup](t.Context(), d.cfg.Objects, "default", nil)
	d.must(err)
	d.finish(all[0].Name, func(s *v1alpha1.BackupStatus) {
		s.Phase, s.CompletionTimestamp = v1alpha1.BackupFailed, metav1.NewTime(d.now)
	})
	after(1, "it failed just now")
	d.now = d.now.Add(firstRetry)
	after(2, "a minute later")
	d.last.archive.State = v1alpha1.ArchiveStreaming
	d.now = d.now.Add(time.Hour)
	after(2, "a window goes on")
	d.arch = nil
}
