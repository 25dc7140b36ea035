// SPDX-License-Identifier: Apache-2.0

package repos

import (
	"errors"
	"testing"
	"time"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/engine/catalog"
)

// What the archive is about to hold is waited for, and nothing else.
func TestOnItsWay(t *testing.T) {
	asked := time.Date(2026, 4, 17, 12, 0, 0, 0, time.UTC)
	outside := &catalog.OutsideWindowError{}
	for _, c := range []struct {
		name   string
		target catalog.Target
		proven time.Time
		state  v1alpha1.ArchiveState
		err    error
		over   bool
		want   bool
	}{
		{"a second ago, half a second behind", catalog.Target{Time: asked.Add(-time.Second)}, asked.Add(-1500 * time.Millisecond), v1alpha1.ArchiveStreaming, outside, false, true},
		{"it has come so far", catalog.Target{Time: asked.Add(-time.Second)}, asked, v1alpha1.ArchiveStreaming, outside, false, false},
		{"before all windows", catalog.Target{Time: asked.AddDate(-3, 0, 0)}, asked.Add(-time.Second), v1alpha1.ArchiveStreaming, outside, false, false},
		{"yet to come", catalog.Target{Time: asked.Add(time.Second)}, asked.Add(-time.Second), v1alpha1.ArchiveStreaming, outside, false, false},
		{"a name just given", catalog.Target{Name: "x"}, asked.Add(-time.Second), v1alpha1.ArchiveStreaming, &catalog.NoRestorePointError{}, false, true},
		{"a name never given", catalog.Target{Name: "x"}, asked.Add(time.Second), v1alpha1.ArchiveStreaming, &catalog.NoRestorePointError{}, false, false},
		{"nobody archives", catalog.Target{Name: "x"}, asked.Add(-time.Second), v1alpha1.ArchiveStopped, &catalog.NoRestorePointError{}, false, false},
		{"another error", catalog.Target{Name: "x"}, asked.Add(-time.Second), v1alpha1.ArchiveStreaming, errors.New("no"), false, false},
		{"too long", catalog.Target{Name: "x"}, asked.Add(-time.Second), v1alpha1.ArchiveStreaming, &catalog.NoRestorePointError{}, true, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			until := time.Now().Add(time.Minute)
			if c.over {
				until = time.Now().Add(-time.Second)
			}
			cluster := &v1alpha1.Cluster{}
			cluster.Status.Archive = &v1alpha1.ArchiveStatus{State: c.state, ProvenTime: v1alpha1.MicroTimeOf(c.proven)}
			if got := onItsWay(c.target, asked, until)(t.Context(), cluster, c.err); got != c.want {
				t.Errorf("it waits: %v", got)
			}
		})
	}
	if onItsWay(catalog.Target{Name: "x"}, asked, asked.AddDate(100, 0, 0))(t.Context(), nil, outside) {
		t.Error("it waits for a cluster that is gone")
	}
}
