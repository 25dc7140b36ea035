// SPDX-License-Identifier: Apache-2.0

package catalog

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/kbcli/kbcli/engine/pg"
	"github.com/kbcli/kbcli/engine/pg/walscan"
	"github.com/kbcli/kbcli/engine/repository"
	"github.com/kbcli/kbcli/engine/repository/chapter"
	"github.com/kbcli/kbcli/engine/repository/walindex"
)

const (
	// clockSlack is how far stamps may run back without the clock having been set
	// back: a session may be held up between its stamp and its record.
	clockSlack = time.Second
	// clockReach is how much time before and after a target is looked at for a
	// clock that was set back, by the times of backups; farther away only backups
	// themselves would show it.
	clockReach = 25 * time.Hour
	// clockSegments bounds what is read for it, before the target and after.
	clockSegments = 4096
)

// stretch is a piece of the log along which the clock was not set back.
type stretch struct {
	from, to pg.LSN // of its first and last stamps
	lo, hi   time.Time
	stop     *walindex.Transaction // the first end in it that the target does not keep
}

// holds tells whether the clock showed t in the stretch.
func (s *stretch) holds(t time.Time) bool {
	return !t.Before(s.lo) && (s.stop != nil || !t.After(s.hi))
}

// warnClock tells, where the clock was set back so that a moment came more than once,
// which of them is restored and what would restore the others.
func (c *Catalog) warnClock(ctx context.Context, r *Resolution) error {
	all, from, to, err := c.stretches(ctx, r)
	if err != nil {
		return err
	}
	for _, s := range all {
		if r.Stop.LSN >= s.from && r.Stop.LSN <= s.to || !s.holds(r.Target.Time) {
			continue
		}
		where := "at the end of it"
		if s.stop != nil {
			where = fmt.Sprintf("before LSN %s, the end of transaction %d, exclusive", s.stop.Start, s.stop.XID)
		}
		r.Warnings = append(r.Warnings, fmt.Sprintf("the server's clock was set back, and showed %s also between LSN %s (%s) and LSN %s (%s): to have that moment, restore to %s",
			r.Target, s.from, stamp(s.lo), s.to, stamp(s.hi), where))
	}
	if from > 0 || to > 0 {
		text := "whether the server's clock was ever set back past this moment was only looked up"
		if from > 0 {
			text += fmt.Sprintf(" from LSN %s", from)
		}
		if to > 0 {
			text += fmt.Sprintf(" up to LSN %s", to)
		}
		r.Warnings = append(r.Warnings, text)
	}
	return nil
}

// stamped is a time that the server's clock showed at a position.
type stamped struct {
	lsn pg.LSN
	at  time.Time
	tx  *walindex.Transaction // nil for a backup's end
}

// stretches cuts the log around a stop where the clock was set back. A position that
// is not 0 tells that the search was broken off there.
func (c *Catalog) stretches(ctx context.Context, r *Resolution) (all []*stretch, cutFrom, cutTo pg.LSN, err error) {
	w, size := r.Window, c.inv.size
	var backups []stamped
	from, to := w.FromLSN, w.ToLSN
	for _, m := range c.manifests {
		if !c.within(r.Path, m, w) {
			continue
		}
		backups = append(backups, stamped{lsn: m.StopLSN, at: m.StopTime})
		if m.StopLSN < r.Stop.LSN && r.Target.Time.Sub(m.StopTime) >= clockReach {
			from = max(from, m.StopLSN)
		}
		if m.StopLSN > r.Stop.LSN && m.StopTime.Sub(r.Target.Time) >= clockReach {
			to = min(to, m.StopLSN)
		}
	}
	slices.SortFunc(backups, func(a, b stamped) int { return cmp.Compare(a.lsn, b.lsn) })
	at, first, end := size.Number(r.Stop.LSN), size.Number(from), size.Number(max(to, 1)-1)+1
	if at-first > clockSegments {
		first = at - clockSegments
		cutFrom = size.Start(first)
	}
	if end > at+clockSegments {
		end = at + clockSegments
		cutTo = size.Start(end)
	}
	b := stretchBuilder{r: r}
	will := func(s *chapter.Segment) bool {
		to := size.End(s.Index.Segment.Number)
		return s.Index.First >= w.FromLSN && (len(backups) == 0 || backups[0].lsn > to) && b.steady(s, to)
	}
	err = c.eachIndex(ctx, r.Path, first, end, w.ToLSN, will, func(_ uint64, x *walindex.Index, err error) error {
		if isDamage(err) || errors.Is(err, repository.ErrSealed) {
			return nil
		}
		if err != nil {
			return err
		}
		for i := range x.Transactions {
			tx := &x.Transactions[i]
			if !tx.Kind.Ends() || tx.Start < w.FromLSN || tx.End > w.ToLSN {
				continue
			}
			for len(backups) > 0 && backups[0].lsn <= tx.Start {
				b.add(backups[0])
				backups = backups[1:]
			}
			b.add(stamped{tx.Start, tx.Time.Time(), tx})
		}
		return nil
	})
	if err != nil {
		return nil, 0, 0, err
	}
	for _, s := range backups {
		b.add(s)
	}
	if n := len(b.all); n > 0 && cutTo == 0 && to == w.ToLSN {
		last := b.all[n-1]
		last.to = w.ToLSN
		if w.To.After(last.hi) {
			last.hi = w.To
		}
	}
	return b.all, cutFrom, cutTo, nil
}

type stretchBuilder struct {
	r   *Resolution
	all []*stretch
}

// steady tells that the clock was not set back in a segment and since before it, and that
// recovery does not stop in it: then its latest end and its last are all that count.
func (b *stretchBuilder) steady(s *chapter.Segment, to pg.LSN) bool {
	if !s.Ended {
		return true
	}
	if len(b.all) == 0 || slices.ContainsFunc(s.Index.Transactions, func(tx walindex.Transaction) bool { return tx.Kind == walscan.Prepare }) {
		return false
	}
	cur, p, from := b.all[len(b.all)-1], b.r.Path, s.Index.First
	const slack = clockSlack / time.Microsecond
	return p.TimelineAt(cur.to) == p.TimelineAt(from) && p.TimelineAt(from) == p.TimelineAt(to-1) &&
		s.Back <= pg.Timestamp(slack) && !s.Min.Time().Before(cur.hi.Add(-clockSlack)) &&
		(cur.stop != nil || !b.r.Target.passes(&walindex.Transaction{Time: s.Max}))
}

func (b *stretchBuilder) add(s stamped) {
	var cur *stretch
	if n := len(b.all); n > 0 {
		cur = b.all[n-1]
		slack := clockSlack
		if p := b.r.Path; p.TimelineAt(cur.to) != p.TimelineAt(s.lsn) {
			slack = 0 // another server's clock, and no session of before
		}
		if s.at.Before(cur.hi.Add(-slack)) {
			cur = nil
		}
	}
	if cur == nil {
		cur = &stretch{from: s.lsn, lo: s.at, hi: s.at}
		b.all = append(b.all, cur)
	}
	cur.to = s.lsn
	if s.at.After(cur.hi) {
		cur.hi = s.at
	}
	if cur.stop == nil && s.tx != nil && b.r.Target.passes(s.tx) {
		cur.stop = s.tx
	}
}
