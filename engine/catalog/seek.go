// SPDX-License-Identifier: Apache-2.0

package catalog

import (
	"context"
	"fmt"
	"slices"

	"github.com/kbcli/kbcli/engine/pg"
	"github.com/kbcli/kbcli/engine/repository/chapter"
	"github.com/kbcli/kbcli/engine/repository/walindex"
)

// stopAt is the stop before or after the record at start.
func stopAt(start, end pg.LSN, exclusive bool) Stop {
	if exclusive {
		return Stop{LSN: start, Next: start}
	}
	return Stop{LSN: start, Inclusive: true, Next: end}
}

// settle makes the resolution of a stop in w, from the newest backup that is
// consistent there. It is nil if none is.
func (c *Catalog) settle(ctx context.Context, t Target, p Path, w Window, s Stop) (*Resolution, error) {
	m := c.base(p, w, s.Next, nil)
	if m == nil {
		return nil, nil
	}
	r := &Resolution{Target: t, Window: w, Path: p, Backup: m, Stop: s}
	if err := c.find(ctx, r, nil); err != nil {
		return nil, err
	}
	r.Time = r.moment()
	return r, nil
}

// resolveLSN finds the first record that starts at an LSN or later.
func (c *Catalog) resolveLSN(ctx context.Context, t Target, p Path, windows []Window) (*Resolution, error) {
	i := slices.IndexFunc(windows, func(w Window) bool { return t.LSN < w.ToLSN })
	if i < 0 {
		return nil, c.beyond(ctx, t, p, windows[len(windows)-1])
	}
	w := windows[i]
	if i > 0 && t.LSN < w.FromLSN {
		return nil, c.gapBetween(t, windows[i-1], w)
	}
	if t.LSN+pg.LSN(c.inv.size) < w.FromLSN {
		return nil, c.tooEarly(ctx, t, p, w) // the WAL there may not be kept
	}
	at, err := c.recordAt(ctx, p, t.LSN, w.ToLSN)
	switch {
	case err != nil && t.LSN < w.FromLSN:
		return nil, c.tooEarly(ctx, t, p, w)
	case err != nil:
		return nil, err
	case at.start == 0:
		return nil, c.beyond(ctx, t, p, w)
	}
	r, err := c.settle(ctx, t, p, w, stopAt(at.start, at.end, t.Exclusive))
	switch {
	case err != nil:
		return nil, err
	case r == nil:
		return nil, c.tooEarly(ctx, t, p, w)
	}
	if at.before < t.LSN && t.LSN < at.beforeEnd {
		r.Warnings = append(r.Warnings, fmt.Sprintf("LSN %s lies inside the record at %s: as PostgreSQL does, the restore goes on to the next record, at %s", t.LSN, at.before, at.start))
	}
	return r, nil
}

// tooEarly is the error of a position before the first backup of w is consistent.
func (c *Catalog) tooEarly(ctx context.Context, t Target, p Path, w Window) error {
	at, err := c.recordAt(ctx, p, w.FromLSN, w.ToLSN)
	if err != nil {
		return err
	}
	return &PositionError{LSN: t.LSN, After: at.start, Backup: w.Backup, Consistent: w.FromLSN, End: w.ToLSN}
}

// beyond is the error of a position behind the last record of w.
func (c *Catalog) beyond(ctx context.Context, t Target, p Path, w Window) error {
	at, err := c.recordAt(ctx, p, min(t.LSN, w.ToLSN), w.ToLSN)
	if err != nil {
		return err
	}
	return &PositionError{LSN: t.LSN, Before: at.before, End: w.ToLSN}
}

// resolveXID finds the end of a transaction.
func (c *Catalog) resolveXID(ctx context.Context, t Target, p Path, windows []Window) (*Resolution, error) {
	var early, prepared *walindex.Transaction
	for _, w := range slices.Backward(windows) {
		var tx *walindex.Transaction
		err := c.eachBack(ctx, p, w, func(s *chapter.Segment) bool { return !s.Mentions(t.XID) }, func(x *walindex.Index) bool {
			for i := range slices.Backward(x.Transactions) {
				at := &x.Transactions[i]
				switch {
				case at.XID != t.XID || at.End > w.ToLSN:
				case at.Kind.Ends():
					tx = at
					return false
				case prepared == nil:
					prepared = at
				}
			}
			return true
		})
		if err != nil {
			return nil, err
		}
		if tx == nil {
			continue
		}
		r, err := c.settle(ctx, t, p, w, stopAt(tx.Start, tx.End, t.Exclusive))
		if err != nil {
			return nil, err
		}
		if r == nil {
			early = tx
			continue
		}
		if !tx.Kind.Committed() {
			r.Warnings = append(r.Warnings, fmt.Sprintf("transaction %d, or a part of a transaction with that number, was rolled back at %s: nothing of it is in any restore", t.XID, tx.Start))
		}
		return r, nil
	}
	switch {
	case early != nil:
		return nil, &TransactionError{XID: t.XID, State: XactInBackup, LSN: early.Start}
	case prepared != nil:
		open, err := c.gids(ctx, p, openSet{t.XID: prepared}, windows[len(windows)-1].ToLSN)
		if err != nil {
			return nil, err
		}
		return nil, &TransactionError{XID: t.XID, State: XactPrepared, GID: open[0].GID, LSN: prepared.Start}
	}
	return nil, c.whatBecame(ctx, t.XID, p, windows)
}

// resolveName finds the newest restore point of a name, and counts the others.
func (c *Catalog) resolveName(ctx context.Context, t Target, p Path, windows []Window) (*Resolution, error) {
	type point struct {
		walindex.RestorePoint
		w Window
	}
	var same []point
	none := &NoRestorePointError{Name: t.Name}
	for _, w := range slices.Backward(windows) {
		err := c.eachBack(ctx, p, w, always, func(x *walindex.Index) bool {
			for _, rp := range slices.Backward(x.RestorePoints) {
				switch {
				case rp.Start >= w.ToLSN:
				case rp.Name == t.Name && rp.Start < w.FromLSN:
					none.At = rp.Time.Time()
				case rp.Name == t.Name:
					same = append(same, point{rp, w})
				case len(none.Known) < 10 && rp.Start >= w.FromLSN && !slices.Contains(none.Known, rp.Name):
					none.Known = append(none.Known, rp.Name)
				}
			}
			return true
		})
		if err != nil {
			return nil, err
		}
	}
	if len(same) == 0 {
		return nil, none
	}
	newest := same[0]
	at, err := c.recordAt(ctx, p, newest.Start, newest.w.ToLSN)
	if err != nil {
		return nil, err
	}
	r, err := c.settle(ctx, t, p, newest.w, stopAt(at.start, at.end, false))
	if err != nil {
		return nil, err
	}
	if r == nil {
		return nil, &NoRestorePointError{Name: t.Name, At: newest.Time.Time()}
	}
	r.Time = newest.Time.Time()
	if older := same[1:]; len(older) > 0 {
		text := fmt.Sprintf("%d restore points have the name %q: this is the newest, of %s. Restore to the LSN of an older one to have it:", len(same), t.Name, stamp(r.Time))
		for i, o := range older {
			if i == 5 {
				text += fmt.Sprintf(" and %d more", len(older)-i)
				break
			}
			text += fmt.Sprintf(" %s (%s)", o.Start, stamp(o.Time.Time()))
		}
		r.Warnings = append(r.Warnings, text)
	}
	return r, nil
}

// eachBack hands the indexes of what can be replayed for w to fn, the newest first,
// until it returns false: what a chapter says of one where that is enough. Damage is
// passed over: what lies in it cannot be reached.
func (c *Catalog) eachBack(ctx context.Context, p Path, w Window, will enough, fn func(*walindex.Index) bool) error {
	size := c.inv.size
	first := size.Number(w.FromLSN)
	for _, m := range c.manifests {
		if m.Name == w.Backup {
			first = size.Number(m.StartLSN)
		}
	}
	end := size.Number(max(w.ToLSN, 1)-1) + 1
	for told := end; end > first; {
		if end <= told {
			told = max(first, end-min(end, keepFetched*c.l.ChapterLength()))
			c.prefetchChapters(ctx, p, told, end)
		}
		from := first
		if end-first > batch {
			from = end - batch
		}
		c.prefetch(ctx, p, from, end, will)
		for n := end; n > from; n-- {
			if err := ctx.Err(); err != nil {
				return err
			}
			x, err := c.briefly(ctx, p, n-1, w.ToLSN, will)
			if isDamage(err) {
				continue
			}
			if err != nil {
				return err
			}
			if !fn(x) {
				return nil
			}
		}
		end = from
	}
	return nil
}
