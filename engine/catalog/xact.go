// SPDX-License-Identifier: Apache-2.0

package catalog

import (
	"context"
	"slices"

	"github.com/kbcli/kbcli/engine/pg"
	"github.com/kbcli/kbcli/engine/pg/walscan"
	"github.com/kbcli/kbcli/engine/repository/chapter"
	"github.com/kbcli/kbcli/engine/repository/walindex"
)

// readBack is how many segments of WAL are read to say why a transaction is no target.
const readBack = 256

// older tells whether a was given out before b, as PostgreSQL compares numbers that
// come round.
func older(a, b pg.XID) bool { return int32(a-b) < 0 }

// whatBecame says why no end of a transaction is in any window. Where what would tell
// is damaged the damage is the answer.
func (c *Catalog) whatBecame(ctx context.Context, xid pg.XID, p Path, windows []Window) error {
	e := &TransactionError{XID: xid}
	for _, w := range slices.Backward(windows) {
		found, err := c.parent(ctx, e, p, w)
		if err != nil {
			return err
		}
		if found {
			return e
		}
	}
	last := windows[len(windows)-1]
	if m := c.base(p, last, last.ToLSN, nil); m != nil {
		open, err := c.preparedInBackup(ctx, m)
		if err != nil {
			return err
		}
		if _, still := open[xid]; still {
			e.State = XactPrepared
			return e
		}
	}
	first := windows[0]
	err := c.walk(ctx, p, c.inv.size.Number(c.startOf(first)), first.ToLSN, func(r *walscan.Record) error {
		next, _, ok, err := r.RunningXacts()
		if !ok || err != nil || r.Start < c.startOf(first) {
			return err
		}
		if older(xid, next) {
			e.State = XactEarlier
		}
		return errEnough
	})
	if err != nil {
		return err
	}
	if e.State != "" {
		return e
	}
	next, oldest, err := c.runningAtEnd(ctx, p, last)
	switch {
	case err != nil:
		return err
	case next != 0 && !older(xid, next):
		e.State, e.Next = XactUnknown, next
	case oldest != 0 && !older(xid, oldest):
		e.State, e.LSN = XactRunning, last.ToLSN
	default:
		e.State = XactUnfinished
	}
	return e
}

// startOf is where the backup that a window begins with starts.
func (c *Catalog) startOf(w Window) pg.LSN {
	for _, m := range c.manifests {
		if m.Name == w.Backup {
			return m.StartLSN
		}
	}
	return w.FromLSN
}

// parent finds the commit that made a subtransaction's changes count.
func (c *Catalog) parent(ctx context.Context, e *TransactionError, p Path, w Window) (found bool, err error) {
	var where []uint64
	err = c.eachBack(ctx, p, w, func(s *chapter.Segment) bool { return !s.Nested }, func(x *walindex.Index) bool {
		if slices.ContainsFunc(x.Transactions, func(tx walindex.Transaction) bool {
			return tx.Subxacts > 0 && tx.Kind.Committed() && older(tx.XID, e.XID) && tx.End <= w.ToLSN
		}) {
			where = append(where, x.Segment.Number)
		}
		return len(where) < readBack
	})
	if err != nil {
		return false, err
	}
	size := c.inv.size
	for _, n := range where {
		err := c.walk(ctx, p, n, min(size.End(n), w.ToLSN), func(r *walscan.Record) error {
			x, ok, err := r.Xact()
			if !ok || err != nil || !x.Kind.Committed() || !slices.Contains(x.Subxacts, e.XID) {
				return err
			}
			e.State, e.Parent, e.LSN, found = XactSub, x.XID, r.Start, true
			return errEnough
		})
		if err != nil || found {
			return found, err
		}
	}
	return false, nil
}

// runningAtEnd finds which number was the next to be given out at the end of a window,
// and the oldest that was in progress when the server last logged that. 0 is unknown.
func (c *Catalog) runningAtEnd(ctx context.Context, p Path, w Window) (next, oldest pg.XID, err error) {
	size := c.inv.size
	last := size.Number(max(w.ToLSN, 1) - 1)
	for n := last; n >= size.Number(c.startOf(w)) && last-n < readBack; n-- {
		err := c.walk(ctx, p, n, min(size.End(n), w.ToLSN), func(r *walscan.Record) error {
			if r.XID != 0 && (next == 0 || !older(r.XID, next)) {
				next = r.XID + 1
			}
			x, o, ok, err := r.RunningXacts()
			if ok && err == nil {
				oldest = o
				if next == 0 || older(next, x) {
					next = x
				}
			}
			return err
		})
		if err != nil || oldest != 0 || n == 0 {
			return next, oldest, err
		}
	}
	return next, oldest, nil
}
