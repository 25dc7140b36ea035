// SPDX-License-Identifier: Apache-2.0

package catalog

import (
	"context"
	"fmt"
	"time"

	"github.com/kbcli/kbcli/engine/pg"
	"github.com/kbcli/kbcli/engine/repository"
	"github.com/kbcli/kbcli/engine/repository/walindex"
)

// Target is the moment somebody wants back. Exactly one of Time, Latest, Backup and
// At is set.
type Target struct {
	Time      time.Time // commits stamped later are lost
	Exclusive bool      // commits stamped exactly Time are lost too
	Latest    bool      // all that the repository holds
	Backup    string    // as soon as this backup is consistent
	// At is what a target was found to mean before, with the backup to start from:
	// it is taken as it is.
	At       *Found
	Timeline pg.TimelineID // the path that leads there; 0 is to the newest
}

// Found is a resolved target, as it is written down.
type Found struct {
	Stop   Stop
	Backup string
}

// String names the target for people.
func (t Target) String() string {
	switch {
	case t.Latest:
		return "latest"
	case t.Backup != "":
		return "backup " + t.Backup
	case t.At != nil:
		return "LSN " + t.At.Stop.LSN.String()
	}
	return t.Time.UTC().Format("2006-01-02 15:04:05.999999Z07:00")
}

// OutsideWindowError says that a target lies in no window.
type OutsideWindowError struct {
	Target  Target
	Windows []Window
}

func (e *OutsideWindowError) Error() string {
	if len(e.Windows) == 0 {
		return fmt.Sprintf("%s cannot be reached: there is no window yet", e.Target)
	}
	return fmt.Sprintf("%s lies in no recoverable window", e.Target)
}

// GapError says that a target lies between two windows, where WAL is missing.
type GapError struct {
	Target        Target
	Before, After Window
	Gap           *repository.Gap // the declared reason, if there is one
}

func (e *GapError) Error() string {
	why := "its WAL is missing"
	if e.Gap != nil {
		why = e.Gap.Reason
	}
	return fmt.Sprintf("%s lies in a gap of the archive: %s", e.Target, why)
}

// NoBackupError says that a backup which was named is not there.
type NoBackupError struct{ Name string }

func (e *NoBackupError) Error() string { return fmt.Sprintf("backup %q does not exist", e.Name) }

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

// Resolution is a target found in the WAL.
type Resolution struct {
	Target Target
	Window Window
	Path   Path
	Backup *repository.Manifest
	Stop   Stop
	// Time is the moment that is reached: what was asked for, or the latest
	// that is proven.
	Time      time.Time
	LastKept  *walindex.Transaction // the last commit before the stop; nil: none since the backup began
	FirstLost *walindex.Transaction // the first commit after it; nil: none is known
	Settings  repository.Settings   // the greatest that replay demands
	// Tablespaces are made by the replay, where they stood on the source.
	Tablespaces []walindex.Tablespace
}

// Resolve finds the one byte that a target means, and the backup to start from.
func (c *Catalog) Resolve(ctx context.Context, t Target) (*Resolution, error) {
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
	if t.At != nil {
		return c.resolveFound(ctx, t, p, windows)
	}
	w, err := c.choose(t, windows)
	if err != nil {
		return nil, err
	}
	r := &Resolution{Target: t, Window: w, Path: p, Time: t.Time}
	if t.Latest {
		r.Time = w.To
	}
	for _, m := range c.manifests {
		if c.within(p, m, w) && !m.StopTime.After(r.Time) && (r.Backup == nil || m.StopLSN >= r.Backup.StopLSN) {
			r.Backup = m
		}
	}
	if r.Backup == nil {
		return nil, &OutsideWindowError{t, windows}
	}
	r.Settings = r.Backup.Settings
	if err := c.find(ctx, r); err != nil {
		return nil, err
	}
	return r, nil
}

// within tells whether a window can be reached from a backup. One that ended in the
// window may have begun before it, where WAL is missing.
func (c *Catalog) within(p Path, m *repository.Manifest, w Window) bool {
	return m.StopLSN >= w.FromLSN && m.StopLSN <= w.ToLSN && p.owns(m.Timeline, m.StartLSN, m.StopLSN) && c.reach(p, m) >= w.ToLSN
}

func (c *Catalog) choose(t Target, windows []Window) (Window, error) {
	if t.Latest && len(windows) > 0 {
		return windows[len(windows)-1], nil
	}
	for _, w := range windows {
		if w.Contains(t.Time) {
			return w, nil
		}
	}
	for i := 1; i < len(windows); i++ {
		before, after := windows[i-1], windows[i]
		if t.Time.After(before.To) && t.Time.Before(after.From) {
			e := &GapError{Target: t, Before: before, After: after}
			for _, g := range c.gaps {
				if g.From >= before.ToLSN && g.To <= after.FromLSN {
					e.Gap = &g
					break
				}
			}
			return Window{}, e
		}
	}
	return Window{}, &OutsideWindowError{t, windows}
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
			Target: t, Path: p, Backup: m, Time: m.StopTime, Settings: m.Settings,
			Window: Window{Timeline: m.Timeline, Backup: m.Name, From: m.StopTime, To: m.StopTime, FromLSN: m.StopLSN, ToLSN: m.StopLSN},
		}
		if err := c.find(ctx, r); err != nil {
			return nil, err
		}
		r.Stop = Stop{LSN: m.StopLSN, Immediate: true, Next: m.StopLSN}
		return r, nil
	}
	return nil, &NoBackupError{t.Backup}
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
			if !c.within(p, m, w) || t.At.Stop.LSN < m.StopLSN || t.At.Stop.LSN > w.ToLSN {
				continue
			}
			r := &Resolution{Target: t, Window: w, Path: p, Backup: m, Settings: m.Settings}
			if err := c.find(ctx, r); err != nil {
				return nil, err
			}
			r.Stop, r.Time = t.At.Stop, m.StopTime
			if r.LastKept != nil && r.LastKept.Time.Time().After(r.Time) {
				r.Time = r.LastKept.Time.Time()
			}
			return r, nil
		}
		return nil, &OutsideWindowError{t, windows}
	}
	return nil, &NoBackupError{t.At.Backup}
}

// find walks the WAL from the backup to the stop.
func (c *Catalog) find(ctx context.Context, r *Resolution) error {
	end := r.Window.ToLSN
	size := c.inv.size
	last := Stop{LSN: r.Backup.StopLSN, Immediate: true, Next: r.Backup.StopLSN}
	for n := size.Number(r.Backup.StartLSN); size.Start(n) < end; n++ {
		if err := ctx.Err(); err != nil {
			return err
		}
		upto := end
		if r.Target.Backup != "" && c.has(r.Path.Segment(n)) {
			upto = size.End(n) // the index that there is says more than is asked
		}
		x, err := c.index(ctx, r.Path, n, upto)
		if err != nil {
			return err
		}
		if x.Partial && size.Start(n) > r.Backup.StartLSN {
			return fmt.Errorf("read WAL segment %s: the record that reaches into it cannot be read", size.Name(r.Path.Segment(n)))
		}
		for i := range x.Transactions {
			tx := &x.Transactions[i]
			if !tx.Kind.Committed() || tx.End > upto || tx.Start < r.Backup.StartLSN {
				continue
			}
			if tx.Start >= r.Backup.StopLSN && r.lost(tx) {
				r.FirstLost = tx
				r.Stop = Stop{LSN: tx.Start, Next: tx.Start}
				r.demand(x, min(tx.Start, end))
				return nil
			}
			r.LastKept = tx
		}
		r.demand(x, end)
		if x.Last >= r.Backup.StopLSN {
			last = Stop{LSN: x.Last, Inclusive: true, Next: x.Next}
		}
	}
	r.Stop = last
	return nil
}

// lost tells whether a commit after the backup is stamped later than the target.
func (r *Resolution) lost(tx *walindex.Transaction) bool {
	switch {
	case r.Target.Latest:
		return false
	case r.Target.Backup != "":
		return true // who calls asks only of commits after it
	case r.Target.At != nil && r.Target.At.Stop.Inclusive:
		return tx.Start > r.Target.At.Stop.LSN
	case r.Target.At != nil:
		return tx.Start >= r.Target.At.Stop.LSN
	}
	at := tx.Time.Time()
	return at.After(r.Target.Time) || r.Target.Exclusive && at.Equal(r.Target.Time)
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
		s.MaxConnections = max(s.MaxConnections, p.MaxConnections)
		s.MaxWorkerProcesses = max(s.MaxWorkerProcesses, p.MaxWorkerProcesses)
		s.MaxWalSenders = max(s.MaxWalSenders, p.MaxWalSenders)
		s.MaxPreparedXacts = max(s.MaxPreparedXacts, p.MaxPreparedXacts)
		s.MaxLocksPerXact = max(s.MaxLocksPerXact, p.MaxLocksPerXact)
	}
}
