// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"cmp"
	"slices"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/engine/catalog"
	"github.com/kbcli/kbcli/engine/repository"
)

// branchWindows are the windows of branches that the present path does not have.
func branchWindows(branches []catalog.Branch, present []catalog.Window) []v1alpha1.RecoverableWindow {
	var own []catalog.Window
	for _, b := range branches {
		for _, w := range b.Windows {
			same := func(x catalog.Window) bool {
				return x.FromLSN == w.FromLSN && x.ToLSN == w.ToLSN && x.Backup == w.Backup
			}
			if !b.Default && !slices.ContainsFunc(present, same) && !slices.ContainsFunc(own, same) {
				w.Timeline = b.Timeline // what chooses it
				own = append(own, w)
			}
		}
	}
	return WindowsOf(own)
}

// sameBranches compares the windows of branches, which do not move.
func sameBranches(a, b []v1alpha1.RecoverableWindow) bool {
	return slices.EqualFunc(a, b, func(x, y v1alpha1.RecoverableWindow) bool {
		return x.Timeline == y.Timeline && x.FromLSN == y.FromLSN && x.ToLSN == y.ToLSN && x.Backup == y.Backup
	})
}

// withGaps adds the gaps that the repository does not know yet. A gap grows while nothing
// is taken: the longer one is it.
func withGaps(known, more []repository.Gap) []repository.Gap {
	out := slices.Clone(known)
	for _, g := range more {
		i := slices.IndexFunc(out, func(k repository.Gap) bool { return k.Timeline == g.Timeline && k.From == g.From })
		switch {
		case i < 0:
			out = append(out, g)
		case out[i].To < g.To:
			out[i] = g
		}
	}
	slices.SortFunc(out, func(a, b repository.Gap) int {
		return cmp.Or(cmp.Compare(a.Timeline, b.Timeline), cmp.Compare(a.From, b.From))
	})
	return out
}

func gapsOf(gaps []repository.Gap) []v1alpha1.Gap {
	var out []v1alpha1.Gap
	for _, g := range gaps {
		out = append(out, v1alpha1.Gap{
			Timeline: int64(g.Timeline), From: g.From.String(), To: g.To.String(),
			Reason: g.Reason, Time: v1alpha1.MicroTimeOf(g.Detected),
		})
	}
	return out
}

// WindowsOf puts windows into the words of the objects.
func WindowsOf(ws []catalog.Window) []v1alpha1.RecoverableWindow {
	var out []v1alpha1.RecoverableWindow
	for _, w := range ws {
		out = append(out, v1alpha1.RecoverableWindow{
			Timeline: int64(w.Timeline), From: v1alpha1.MicroTimeOf(w.From), To: v1alpha1.MicroTimeOf(w.To),
			FromLSN: w.FromLSN.String(), ToLSN: w.ToLSN.String(), Backup: w.Backup,
		})
	}
	return out
}
