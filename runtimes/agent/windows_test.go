// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kbcli/kbcli/engine/catalog"
	"github.com/kbcli/kbcli/engine/repository"
)

func TestWithGaps(t *testing.T) {
	known := []repository.Gap{{Timeline: 1, From: 5, To: 7}, {Timeline: 1, From: 20, To: 30}}
	for _, c := range []struct {
		name       string
		more, want []repository.Gap
	}{
		{"nothing more", nil, known},
		{"the same", known[1:], known},
		{"it grew", []repository.Gap{{Timeline: 1, From: 20, To: 40}}, []repository.Gap{known[0], {Timeline: 1, From: 20, To: 40}}},
		{"it was shorter", []repository.Gap{{Timeline: 1, From: 20, To: 25}}, known},
		{"not in the repository yet", []repository.Gap{{Timeline: 1, From: 9, To: 11}}, []repository.Gap{known[0], {Timeline: 1, From: 9, To: 11}, known[1]}},
		{"of a later timeline", []repository.Gap{{Timeline: 2, From: 1, To: 2}}, []repository.Gap{known[0], known[1], {Timeline: 2, From: 1, To: 2}}},
	} {
		if diff := cmp.Diff(c.want, withGaps(known, c.more)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.name, diff)
		}
	}
}

// TestBranchWindows: only what the present path does not have is told of another, with
// the timeline that chooses it.
func TestBranchWindows(t *testing.T) {
	first := catalog.Window{Timeline: 1, FromLSN: 10, ToLSN: 20, Backup: "a"}
	present := []catalog.Window{first, {Timeline: 3, FromLSN: 30, ToLSN: 90, Backup: "b"}}
	left := catalog.Window{Timeline: 1, FromLSN: 30, ToLSN: 50, Backup: "b"}
	got := branchWindows([]catalog.Branch{
		{Timeline: 3, Default: true, Windows: present},
		{Timeline: 2, Windows: []catalog.Window{first, left}},
		{Timeline: 1, Windows: []catalog.Window{first, left, {Timeline: 1, FromLSN: 60, ToLSN: 61, Backup: "c"}}},
	}, present)
	var rows [][3]any
	for _, w := range got {
		rows = append(rows, [3]any{w.Timeline, w.ToLSN, w.Backup})
	}
	if diff := cmp.Diff([][3]any{{int64(2), "0/32", "b"}, {int64(1), "0/3D", "c"}}, rows); diff != "" {
		t.Errorf("branches (-want +got):\n%s", diff)
	}
	if !sameBranches(got, got) || sameBranches(got, got[:1]) {
		t.Error("branches are compared wrong")
	}
}
