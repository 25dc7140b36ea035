// SPDX-License-Identifier: Apache-2.0

package catalog

import (
	"slices"

	"github.com/kbcli/kbcli/engine/pg"
)

// Path is one way through the timelines: each position of the log belongs to one
// timeline of it.
type Path struct {
	pg.History
	size pg.SegmentSize
}

// Segment is the file that holds segment n on this path: that of the newest
// timeline that had begun by its end. It begins with a copy of what its ancestor
// wrote there.
func (p Path) Segment(n uint64) pg.Segment {
	for i := len(p.Entries) - 1; i >= 0; i-- {
		if n >= p.size.Number(p.Entries[i].End) {
			next := p.Timeline
			if i+1 < len(p.Entries) {
				next = p.Entries[i+1].Timeline
			}
			return pg.Segment{Timeline: next, Number: n}
		}
	}
	if len(p.Entries) > 0 {
		return pg.Segment{Timeline: p.Entries[0].Timeline, Number: n}
	}
	return pg.Segment{Timeline: p.Timeline, Number: n}
}

// Until is the path as it led to tli, one of its own timelines.
func (p Path) Until(tli pg.TimelineID) Path {
	i := slices.IndexFunc(p.Entries, func(e pg.HistoryEntry) bool { return e.Timeline == tli })
	if i < 0 {
		return p
	}
	return Path{pg.History{Timeline: tli, Entries: p.Entries[:i:i]}, p.size}
}

// owns tells whether what timeline tli wrote from from to to lies on this path.
func (p Path) owns(tli pg.TimelineID, from, to pg.LSN) bool {
	return p.TimelineAt(from) == tli && (to == from || p.TimelineAt(to-1) == tli)
}

// reach is how far the WAL goes on without a hole from at.
func (p Path) reach(inv *inventory, at pg.LSN) pg.LSN {
	for {
		n := p.size.Number(at)
		g := p.Segment(n)
		if to := inv.wholeTo(g); to > n {
			// as far as this timeline's files are the path's
			if i := slices.IndexFunc(p.Entries, func(e pg.HistoryEntry) bool { return e.Timeline == g.Timeline }); i >= 0 {
				to = min(to, max(p.size.Number(p.Entries[i].End), n+1))
			}
			at = p.size.Start(to)
			continue
		}
		end := at
		if t, ok := inv.tails[g]; ok && t > end {
			end = t
		}
		// where timelines ended, their own pieces may reach further than the
		// last one's first
		for _, old := range p.earlier(n) {
			own := pg.Segment{Timeline: old.Timeline, Number: n}
			t := inv.tails[own]
			if inv.has(own) {
				t = p.size.End(n)
			}
			end = max(end, min(t, old.End))
		}
		return end
	}
}

// earlier are the timelines that end in segment n, with their ends, the newest
// first: the file of each begins with a copy of what its ancestors wrote there. One
// that ends where the segment does has it whole.
func (p Path) earlier(n uint64) []pg.HistoryEntry {
	var out []pg.HistoryEntry
	for _, e := range slices.Backward(p.Entries) {
		if e.End > p.size.Start(n) && e.End < p.size.End(n) {
			out = append(out, e)
		}
	}
	return out
}
