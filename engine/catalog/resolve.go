// SPDX-License-Identifier: Apache-2.0

package catalog

import (
	"context"
	"fmt"
	"time"

	"github.com/kbcli/kbcli/engine/pg"
	"github.com/kbcli/kbcli/engine/pg/walscan"
	"github.com/kbcli/kbcli/engine/repository"
	"github.com/kbcli/kbcli/engine/repository/chapter"
	"github.com/kbcli/kbcli/engine/repository/walindex"
)

// Stop is the one byte of WAL at which a recovery ends.
type Stop struct {
	// LSN is the start of a record: the first that is not replayed, or with
	// Inclusive the last that is.
	LSN       pg.LSN
	Inclusive bool
	// Immediate stops as soon as the backup is consistent; LSN is then where that is.
	Immediate bool
	// Next is where the first record that is not replayed starts or would start:
	// what a recovery that went right has reached.
	Next pg.LSN
}

// keeps tells whether the record that starts at lsn is replayed.
func (s Stop) keeps(lsn pg.LSN) bool { return lsn < s.LSN || s.Inclusive && lsn == s.LSN }

// Resolution is a target found in the WAL.
type Resolution struct {
	Target Target
	Window Window
	Path   Path
	Backup *repository.Manifest
	Stop   Stop
	// ReadTo is the end of the last record that recovery must be able to read: one
	// that it stops before is read too.
	ReadTo pg.LSN
	// Time is the moment that is reached: what was asked for, or the latest
	// that is proven.
	Time      time.Time
	LastKept  *walindex.Transaction // the last commit before the stop; nil: none since the backup began
	FirstLost *walindex.Transaction // the first commit after it; nil: none is known
	// LastEnded is the last end of a transaction, also by rollback, that PostgreSQL
	// notes the time of on its way; nil: none.
	LastEnded *walindex.Transaction
	Settings  repository.Settings // the greatest that replay demands
	Records   uint64              // about how many are replayed
	// Minimal is a record before the stop from which on the server ran with
	// wal_level=minimal: recovery refuses it. 0 if there is none.
	Minimal pg.LSN
	// Tablespaces are made by the replay, where they stood on the source.
	Tablespaces []walindex.Tablespace
	// Prepared are transactions that are prepared at the stop and will be again.
	Prepared []Prepared
	// Warnings say what else the target could mean, and what will surprise; for people.
	Warnings []string
}

// Resolve finds the one byte that a target means, and the backup to start from. The
// segments that will be replayed were all listed: none of them is there by the word of a
// chapter alone.
func (c *Catalog) Resolve(ctx context.Context, t Target) (*Resolution, error) {
	for {
		r, err := c.resolve(ctx, t)
		if err != nil {
			return nil, err
		}
		lost, err := c.confirm(ctx, r)
		if err != nil {
			return nil, err
		}
		if !lost {
			r.warnChapters(c)
			return r, nil
		}
	}
}

func (c *Catalog) resolve(ctx context.Context, t Target) (*Resolution, error) {
	p, err := c.Path(t.Timeline)
	if err != nil {
		return nil, err
	}
	if t.Backup != "" {
		return c.resolveBackup(ctx, t)
	}
	windows, err := c.Windows(ctx, t.Timeline)
	if err != nil {
		return nil, err
	}
	switch {
	case t.At != nil:
		return c.resolveFound(ctx, t, p, windows)
	case len(windows) == 0:
		return nil, &OutsideWindowError{Target: t}
	case t.Earliest:
		r, err := c.resolveBackup(ctx, Target{Backup: windows[0].Backup})
		if err == nil {
			r.Target = t
		}
		return r, err
	case t.Latest:
		return c.resolveLatest(ctx, t, p, windows[len(windows)-1])
	case t.LSN != 0:
		return c.resolveLSN(ctx, t, p, windows)
	case t.XID != 0:
		return c.resolveXID(ctx, t, p, windows)
	case t.Name != "":
		return c.resolveName(ctx, t, p, windows)
	}
	return c.resolveTime(ctx, t, p, windows)
}

// within tells whether a window can be reached from a backup. One that ended in the
// window may have begun before it, where WAL is missing.
func (c *Catalog) within(p Path, m *repository.Manifest, w Window) bool {
	return m.StopLSN >= w.FromLSN && m.StopLSN <= w.ToLSN && p.owns(m.Timeline, m.StartLSN, m.StopLSN) && c.reach(p, m) >= w.ToLSN
}

// base is the newest backup in w that is consistent by lsn; nil is none.
func (c *Catalog) base(p Path, w Window, lsn pg.LSN, may func(*repository.Manifest) bool) *repository.Manifest {
	var best *repository.Manifest
	for _, m := range c.manifests {
		if m.StopLSN > lsn || may != nil && !may(m) || !c.within(p, m, w) {
			continue
		}
		// of a snapshot and its copy, the one that is there at once
		if best == nil || m.StopLSN > best.StopLSN || m.StopLSN == best.StopLSN && best.Snapshot == nil {
			best = m
		}
	}
	return best
}

func (c *Catalog) resolveLatest(ctx context.Context, t Target, p Path, w Window) (*Resolution, error) {
	r := &Resolution{Target: t, Window: w, Path: p, Time: w.To, Backup: c.base(p, w, w.ToLSN, nil)}
	if r.Backup == nil {
		return nil, &OutsideWindowError{Target: t, Windows: []Window{w}}
	}
	return r, c.find(ctx, r, nil)
}

func (c *Catalog) resolveBackup(ctx context.Context, t Target) (*Resolution, error) {
	for _, m := range c.manifests {
		if m.Name != t.Backup {
			continue
		}
		p, err := c.Path(m.Timeline)
		if err != nil {
			return nil, err
		}
		if err := c.l.Covers(ctx, m.Timeline, m.StartLSN, m.StopLSN); err != nil {
			return nil, err
		}
		r := &Resolution{
			Target: t, Path: p, Backup: m, Time: m.StopTime,
			Window: Window{Timeline: m.Timeline, Backup: m.Name, From: m.StopTime, To: m.StopTime, FromLSN: m.StopLSN, ToLSN: m.StopLSN},
			Stop:   Stop{LSN: m.StopLSN, Immediate: true, Next: m.StopLSN},
		}
		return r, c.find(ctx, r, nil)
	}
	return nil, c.noBackup(t.Backup)
}

// resolveFound takes up a target that was resolved before: what was promised then is
// what is done, although more may be known now.
func (c *Catalog) resolveFound(ctx context.Context, t Target, p Path, windows []Window) (*Resolution, error) {
	if t.At.Stop.Immediate {
		return c.resolveBackup(ctx, Target{Backup: t.At.Backup})
	}
	for _, m := range c.manifests {
		if m.Name != t.At.Backup {
			continue
		}
		for _, w := range windows {
			if !c.within(p, m, w) || t.At.Stop.LSN < m.StopLSN && t.At.Stop.Next < m.StopLSN || t.At.Stop.LSN > w.ToLSN {
				continue
			}
			r := &Resolution{Target: t, Window: w, Path: p, Backup: m, Stop: t.At.Stop}
			if err := c.find(ctx, r, nil); err != nil {
				return nil, err
			}
			r.Time = r.moment()
			return r, nil
		}
		return nil, &OutsideWindowError{Target: t, Windows: windows}
	}
	return nil, c.noBackup(t.At.Backup)
}

// moment is the time of what is reached, by the commits that are kept.
func (r *Resolution) moment() time.Time {
	if x := r.LastKept; x != nil && x.Start >= r.Backup.StopLSN {
		return x.Time.Time()
	}
	return r.Backup.StopTime
}

// find walks the WAL from the backup to the stop, and on to the first commit after
// it. Without a stop, ends tells of an end of a transaction after the backup whether
// recovery stops before it; where none does, or ends is nil, the stop is after the last
// record of the window.
// What ends says it says of all that are stamped later, too.
func (c *Catalog) find(ctx context.Context, r *Resolution, ends func(*walindex.Transaction) bool) error {
	end, size := r.Window.ToLSN, c.inv.size
	r.Settings = r.Backup.Settings
	known := r.Stop != Stop{} // or found on the way
	last := Stop{LSN: r.Backup.StopLSN, Immediate: true, Next: r.Backup.StopLSN}
	open, err := c.preparedInBackup(ctx, r.Backup)
	if err != nil {
		return err
	}
	var ended *walindex.Transaction // the one before LastEnded
	from, lastSegment, upto := size.Number(r.Backup.StartLSN), size.Number(max(end, 1)-1), end
	if r.Stop.Immediate && c.has(r.Path.Segment(lastSegment)) {
		upto = size.End(lastSegment) // the index that there is says more than is asked
	}
	will := func(s *chapter.Segment) bool {
		switch {
		case known:
			return size.End(s.Index.Segment.Number) <= r.Stop.LSN || !s.Ended
		case ends != nil:
			return !s.Ended || !ends(&walindex.Transaction{Time: s.Max})
		}
		return true
	}
	err = c.eachIndex(ctx, r.Path, from, lastSegment+1, upto, will, func(n uint64, x *walindex.Index, err error) error {
		beyond := known && size.Start(n) > r.Stop.Next
		if beyond && err != nil && isDamage(err) {
			return errEnough // nothing that is replayed
		}
		if err != nil {
			return err
		}
		if x.Partial && !beyond && size.Start(n) > r.Backup.StartLSN {
			return fmt.Errorf("read WAL segment %s: the record that reaches into it cannot be read", size.Name(r.Path.Segment(n)))
		}
		for i := range x.Transactions {
			tx := &x.Transactions[i]
			if tx.Start < r.Backup.StartLSN || tx.End > end && !r.Stop.Immediate {
				continue
			}
			if !known && ends != nil && tx.Kind.Ends() && tx.Start >= r.Backup.StopLSN && ends(tx) {
				r.Stop, known = Stop{LSN: tx.Start, Next: tx.Start}, true
			}
			if known && tx.Start == r.Stop.LSN {
				r.ReadTo = tx.End
			}
			if known && !r.Stop.keeps(tx.Start) {
				if tx.Kind.Committed() && r.FirstLost == nil {
					r.FirstLost = tx
				}
				continue
			}
			open.note(tx)
			if tx.Kind.Committed() {
				r.LastKept = tx
			}
			if tx.Kind.Ends() {
				ended, r.LastEnded = r.LastEnded, tx
			}
		}
		if !beyond {
			stop := end
			if known {
				stop = r.Stop.Next
			}
			r.demand(x, stop)
			r.weigh(x, stop)
		}
		if x.Last >= r.Backup.StopLSN {
			last = Stop{LSN: x.Last, Inclusive: true, Next: x.Next}
		}
		if r.FirstLost != nil {
			return errEnough
		}
		return nil
	})
	if err != nil {
		return err
	}
	if !known {
		r.Stop = last
	}
	if x := r.LastEnded; x != nil && x.Start == r.Stop.LSN {
		r.LastEnded = ended // it stops at this one before it notes its time
	}
	if err := c.readTo(ctx, r); err != nil {
		return err
	}
	if r.Prepared, err = c.gids(ctx, r.Path, open, end); err != nil {
		return err
	}
	r.warnPrepared()
	return nil
}

// readTo finds the end of the record that recovery stops before.
func (c *Catalog) readTo(ctx context.Context, r *Resolution) error {
	if r.ReadTo == 0 && !r.Stop.Immediate && !r.Stop.Inclusive {
		at, err := c.recordAt(ctx, r.Path, r.Stop.LSN, r.Window.ToLSN)
		if err != nil {
			return err
		}
		r.ReadTo = at.end
	}
	r.ReadTo = max(r.ReadTo, r.Stop.Next)
	return nil
}

// demand notes what the records before stop demand: settings and tablespaces.
func (r *Resolution) demand(x *walindex.Index, stop pg.LSN) {
	for _, t := range x.Tablespaces {
		if t.Start < stop && t.Start >= r.Backup.StartLSN {
			r.Tablespaces = append(r.Tablespaces, t)
		}
	}
	s := &r.Settings
	for _, p := range x.Parameters {
		if p.Start >= stop {
			return
		}
		if p.WalLevel == walscan.WalLevelMinimal && p.Start >= r.Backup.StartLSN && r.Minimal == 0 {
			r.Minimal = p.Start
		}
		s.MaxConnections = max(s.MaxConnections, p.MaxConnections)
		s.MaxWorkerProcesses = max(s.MaxWorkerProcesses, p.MaxWorkerProcesses)
		s.MaxWalSenders = max(s.MaxWalSenders, p.MaxWalSenders)
		s.MaxPreparedXacts = max(s.MaxPreparedXacts, p.MaxPreparedXacts)
		s.MaxLocksPerXact = max(s.MaxLocksPerXact, p.MaxLocksPerXact)
	}
}
