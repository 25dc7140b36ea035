// SPDX-License-Identifier: Apache-2.0

package catalog

import (
	"context"
	"fmt"
	"slices"

	"github.com/kbcli/kbcli/engine/pg"
)

// confirm lists the segments that a recovery will read and that only chapters told of.
// What is not there is forgotten, and then the target means something else.
func (c *Catalog) confirm(ctx context.Context, r *Resolution) (lost bool, err error) {
	size := c.inv.size
	end := size.Number(max(r.ReadTo, 1)-1) + 1
	for n := size.Number(r.Backup.StartLSN); n < end; {
		g := r.Path.Segment(n)
		if _, ok := c.chapterName(g); !ok {
			n++
			continue
		}
		to := n + 1
		for ; to < end; to++ {
			next := r.Path.Segment(to)
			if _, ok := c.chapterName(next); !ok || next.Timeline != g.Timeline {
				break
			}
		}
		gone, err := c.missing(ctx, g, to)
		if err != nil {
			return lost, err
		}
		lost = lost || gone
		n = to
	}
	return lost, nil
}

// missing lists the segments from g to the number to, forgets what is not there, and
// tells whether anything was.
func (c *Catalog) missing(ctx context.Context, g pg.Segment, to uint64) (bool, error) {
	var gone []pg.Segment
	for have, err := range c.l.Segments(ctx, g) {
		if err != nil {
			return false, err
		}
		if have.Timeline != g.Timeline || have.Number >= to {
			break
		}
		for ; g.Number < have.Number; g.Number++ {
			gone = append(gone, g)
		}
		g.Number = have.Number + 1
	}
	for ; g.Number < to; g.Number++ {
		gone = append(gone, g)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, g := range gone {
		c.inv.remove(g)
		delete(c.inv.chapters, c.l.ChapterOf(g))
	}
	return len(gone) > 0, nil
}

// remove forgets a whole segment.
func (inv *inventory) remove(g pg.Segment) {
	var left []span
	for _, s := range inv.whole[g.Timeline] {
		for _, s := range []span{{s.from, min(s.to, g.Number)}, {max(s.from, g.Number+1), s.to}} {
			if s.from < s.to {
				left = append(left, s)
			}
		}
	}
	inv.whole[g.Timeline] = left
}

// warnChapters tells of chapters that were passed over.
func (r *Resolution) warnChapters(c *Catalog) {
	c.mu.Lock()
	passed := slices.Clone(c.passed)
	c.mu.Unlock()
	if len(passed) > 0 {
		r.Warnings = append(r.Warnings, fmt.Sprintf("%d chapters cannot be read and the indexes were read instead, and that took longer: %v", len(passed), passed[0]))
	}
}
