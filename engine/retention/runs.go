// SPDX-License-Identifier: Apache-2.0

package retention

import (
	"cmp"
	"slices"

	"github.com/kbcli/kbcli/engine/pg"
)

// runs are in order, and no two of them touch.
type runs []Run

// join puts runs in order and together.
func join(list []Run) runs {
	list = slices.Clone(list)
	slices.SortFunc(list, func(a, b Run) int {
		return cmp.Or(cmp.Compare(a.Timeline, b.Timeline), cmp.Compare(a.From, b.From))
	})
	var out runs
	for _, r := range list {
		if r.From >= r.To {
			continue
		}
		if n := len(out); n > 0 && out[n-1].Timeline == r.Timeline && r.From <= out[n-1].To {
			out[n-1].To = max(out[n-1].To, r.To)
			continue
		}
		out = append(out, r)
	}
	return out
}

func (rs runs) has(g pg.Segment) bool {
	_, ok := slices.BinarySearchFunc(rs, g, func(r Run, g pg.Segment) int {
		switch {
		case r.Timeline != g.Timeline:
			return cmp.Compare(r.Timeline, g.Timeline)
		case r.To <= g.Number:
			return -1
		case r.From > g.Number:
			return 1
		}
		return 0
	})
	return ok
}

// without is what of rs is not in other.
func (rs runs) without(other runs) runs {
	var out runs
	for _, r := range rs {
		for _, o := range other {
			if o.Timeline != r.Timeline || o.To <= r.From || r.From >= r.To {
				continue
			}
			if o.From >= r.To {
				break
			}
			if o.From > r.From {
				out = append(out, Run{r.Timeline, r.From, o.From})
			}
			r.From = o.To
		}
		if r.From < r.To {
			out = append(out, r)
		}
	}
	return out
}
