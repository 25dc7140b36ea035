// SPDX-License-Identifier: Apache-2.0

package catalog

import (
	"context"
	"slices"

	"github.com/kbcli/kbcli/engine/pg"
)

// Branch is one path of timelines that something can be restored from.
type Branch struct {
	Timeline pg.TimelineID `json:"timeline"` // at its end: what chooses it
	Default  bool          `json:"default"`  // it leads to what is live now
	Windows  []Window      `json:"windows"`  // oldest first
	Holes    []Hole        `json:"holes,omitempty"`
}

// Hole is what lies between two windows of a path.
type Hole struct {
	Before Window `json:"before"`
	After  Window `json:"after"`
	Reason string `json:"reason"`
}

// Branches lists all paths, the default one first and then the newest. A path
// that holds nothing which an earlier one of the list does not is left out.
func (c *Catalog) Branches(ctx context.Context) ([]Branch, error) {
	main, err := c.Path(0)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	tlis := c.inv.timelines()
	c.mu.Unlock()
	for _, m := range c.manifests {
		tlis = append(tlis, m.Timeline)
	}
	slices.Sort(tlis)
	tlis = slices.Compact(tlis)
	slices.Reverse(tlis)
	if i := slices.Index(tlis, main.Timeline); i > 0 {
		tlis = slices.Insert(slices.Delete(tlis, i, i+1), 0, main.Timeline)
	}
	var out []Branch
	var paths []Path
	for _, tli := range tlis {
		p, err := c.Path(tli)
		if err != nil {
			if c.damaged[tli] != nil {
				continue // Load told
			}
			return nil, err
		}
		windows, err := c.Windows(ctx, tli)
		if err != nil {
			return nil, err
		}
		own := func(w Window) bool {
			return !slices.ContainsFunc(paths, func(q Path) bool { return w.ToLSN <= sharedTo(p, q) })
		}
		if !slices.ContainsFunc(windows, own) {
			continue
		}
		b := Branch{Timeline: tli, Default: tli == main.Timeline, Windows: windows}
		for i := 1; i < len(windows); i++ {
			h := Hole{Before: windows[i-1], After: windows[i], Reason: missingWAL}
			if g := c.declared(h.Before.ToLSN, h.After.FromLSN); g != nil {
				h.Reason = g.Reason
			}
			b.Holes = append(b.Holes, h)
		}
		out, paths = append(out, b), append(paths, p)
	}
	return out, nil
}

// sharedTo is how far two paths are the same.
func sharedTo(p, q Path) pg.LSN {
	const all = ^pg.LSN(0)
	i := 0
	for i < len(p.Entries) && i < len(q.Entries) && p.Entries[i].Timeline == q.Entries[i].Timeline && p.Entries[i].End == q.Entries[i].End {
		i++
	}
	// what each has from there on: one timeline, as far as it goes
	next := func(p Path) (pg.TimelineID, pg.LSN) {
		if i < len(p.Entries) {
			return p.Entries[i].Timeline, p.Entries[i].End
		}
		return p.Timeline, all
	}
	pt, pe := next(p)
	qt, qe := next(q)
	if pt == qt {
		return min(pe, qe)
	}
	if i == 0 {
		return 0
	}
	return p.Entries[i-1].End
}
