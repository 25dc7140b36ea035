// SPDX-License-Identifier: Apache-2.0

package catalog

import (
	"context"
	"errors"
	"slices"

	"github.com/kbcli/kbcli/engine/pg"
	"github.com/kbcli/kbcli/engine/repository"
	"github.com/kbcli/kbcli/engine/repository/chapter"
	"github.com/kbcli/kbcli/engine/repository/walindex"
)

// searchBack is how many segments at the end of a window are searched for a moment
// that only a clock which was set back can have put there.
const searchBack = 256

// resolveTime finds what recovery_target_time stops at, from the newest backup that
// ended by that time.
func (c *Catalog) resolveTime(ctx context.Context, t Target, p Path, windows []Window) (*Resolution, error) {
	w, err := c.choose(ctx, t, p, windows)
	if err != nil {
		return nil, err
	}
	upto := w.ToLSN
	for {
		m := c.base(p, w, upto, func(m *repository.Manifest) bool { return !m.StopTime.After(t.Time) })
		if m == nil {
			return nil, c.outside(ctx, &OutsideWindowError{Target: t, Windows: windows, ClockSetBack: w.Contains(t.Time)})
		}
		r := &Resolution{Target: t, Window: w, Path: p, Backup: m, Time: t.Time}
		if err := c.find(ctx, r, t.passes); err != nil {
			return nil, err
		}
		if !r.Stop.Inclusive && !r.Stop.Immediate {
			return r, c.warnClock(ctx, r)
		}
		// nothing is stamped later: the end of the window is meant if it is proven
		to, err := c.endTime(ctx, p, m, w.ToLSN)
		if err != nil {
			return nil, err
		}
		if !t.Time.After(to) {
			return r, c.warnClock(ctx, r)
		}
		upto = m.StopLSN - 1 // the clock was set back since that moment
	}
}

// passes tells whether PostgreSQL stops before an end of a transaction.
func (t Target) passes(tx *walindex.Transaction) bool {
	at := tx.Time.Time()
	return at.After(t.Time) || t.Exclusive && at.Equal(t.Time)
}

// choose finds the window of a time.
func (c *Catalog) choose(ctx context.Context, t Target, p Path, windows []Window) (Window, error) {
	for _, w := range windows {
		if w.Contains(t.Time) {
			return w, nil
		}
	}
	// a clock that was set back may hide it
	for _, w := range slices.Backward(windows) {
		if hidden, err := c.hides(ctx, t, p, w); err != nil || hidden {
			return w, err
		}
	}
	for i := 1; i < len(windows); i++ {
		before, after := windows[i-1], windows[i]
		if t.Time.After(before.To) && t.Time.Before(after.From) {
			return Window{}, c.gapBetween(t, before, after)
		}
	}
	return Window{}, c.outside(ctx, &OutsideWindowError{Target: t, Windows: windows})
}

// hides tells whether recovery to t, which is later than the window's end, stops before an
// end of a transaction towards the end of w.
func (c *Catalog) hides(ctx context.Context, t Target, p Path, w Window) (bool, error) {
	if !t.Time.After(w.To) {
		return false, nil
	}
	m := c.base(p, w, w.ToLSN, func(m *repository.Manifest) bool { return !m.StopTime.After(t.Time) })
	if m == nil {
		return false, nil
	}
	size, found := c.inv.size, false
	last := size.Number(max(w.ToLSN, 1) - 1)
	first := size.Number(w.FromLSN)
	if last-first >= searchBack {
		first = last - searchBack + 1
	}
	err := c.eachIndex(ctx, p, first, last+1, w.ToLSN, func(s *chapter.Segment) bool {
		return !s.Ended || !t.passes(&walindex.Transaction{Time: s.Max})
	}, func(_ uint64, x *walindex.Index, err error) error {
		if isDamage(err) || errors.Is(err, repository.ErrSealed) {
			return nil
		}
		if err != nil {
			return err
		}
		for i := range x.Transactions {
			if tx := &x.Transactions[i]; tx.Kind.Ends() && tx.Start >= w.FromLSN && t.passes(tx) {
				found = true
				return errEnough
			}
		}
		return nil
	})
	return found, err
}

func (c *Catalog) gapBetween(t Target, before, after Window) error {
	return &GapError{Target: t, Before: before, After: after, Gap: c.declared(before.ToLSN, after.FromLSN)}
}

// declared is the gap that was declared between two positions, or nil.
func (c *Catalog) declared(from, to pg.LSN) *repository.Gap {
	for _, g := range c.gaps {
		if g.From >= from && g.To <= to {
			return &g
		}
	}
	return nil
}

// outside looks for a time on the other paths.
func (c *Catalog) outside(ctx context.Context, e *OutsideWindowError) error {
	if e.Target.Time.IsZero() || e.Target.Timeline != 0 {
		return e
	}
	branches, err := c.Branches(ctx)
	if err != nil {
		return e // what is known is enough to refuse
	}
	for _, b := range branches {
		for _, w := range b.Windows {
			if !b.Default && w.Contains(e.Target.Time) {
				w.Timeline = b.Timeline
				e.Elsewhere = append(e.Elsewhere, w)
			}
		}
	}
	return e
}
