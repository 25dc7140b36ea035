// SPDX-License-Identifier: Apache-2.0

package restore

import (
	"context"
	"fmt"
	"time"

	"github.com/kbcli/kbcli/engine/pg"
	"github.com/kbcli/kbcli/engine/pg/client"
)

// NotReachedError says that a recovery ended elsewhere than planned.
type NotReachedError struct {
	Planned pg.LSN
	Reached pg.LSN
	// Other is what differs although the LSNs agree; empty if they do not.
	Other string
}

func (e *NotReachedError) Error() string {
	if e.Other != "" {
		return fmt.Sprintf("recovery ended at %s as planned, but %s", e.Reached, e.Other)
	}
	return fmt.Sprintf("recovery ended at %s and not at %s as planned", e.Reached, e.Planned)
}

// judge compares what a recovery came to with the plan: where it ended, the time of the
// last transaction that was replayed, and the two commits beside the stop.
func (p *Plan) judge(reached *Reached) error {
	size := p.lineage.Info().SegmentSize
	e := &NotReachedError{Planned: p.EndLSN, Reached: reached.LSN}
	if bodyOf(size, reached.LSN) != bodyOf(size, p.EndLSN) {
		return e
	}
	var last time.Time
	if p.lastEnded != nil {
		last = p.lastEnded.Time.Time()
	}
	switch {
	case !p.Immediate && !last.Equal(reached.LastCommit):
		e.Other = fmt.Sprintf("the last transaction that was replayed is of %s and not of %s", whenever(reached.LastCommit), whenever(last))
	case p.LastKept != nil && reached.kept.is("aborted", "in progress"):
		e.Other = fmt.Sprintf("transaction %d is %s", p.LastKept.XID, reached.kept)
	case p.FirstLost != nil && reached.lost.is("committed"):
		e.Other = fmt.Sprintf("transaction %d is %s", p.FirstLost.XID, reached.lost)
	default:
		return nil
	}
	return e
}

func whenever(t time.Time) string {
	if t.IsZero() {
		return "no time"
	}
	return t.UTC().Format("2006-01-02 15:04:05.999999Z")
}

// bodyOf steps over a page header that l may stand before: a record's start and the end
// of the one before differ by it.
func bodyOf(size pg.SegmentSize, l pg.LSN) pg.LSN {
	const shortHeader, longHeader = 24, 40
	switch {
	case size.Offset(l) == 0:
		return l + longHeader
	case l%pg.BlockSize == 0:
		return l + shortHeader
	}
	return l
}

// xactFate is what pg_xact_status says of a transaction; empty is that it is too old
// or was not begun.
type xactFate string

func (f xactFate) is(any ...xactFate) bool {
	for _, a := range any {
		if f == a {
			return true
		}
	}
	return false
}

// fates asks the recovered server of the commits beside the stop. It must be asked
// before anything is written there: a number that was lost is given out again.
func (s *recoverer) fates(ctx context.Context, c *client.Conn, out *Reached) error {
	for _, one := range []struct {
		commit *Commit
		fate   *xactFate
	}{{s.plan.LastKept, &out.kept}, {s.plan.FirstLost, &out.lost}} {
		if one.commit == nil {
			continue
		}
		// the number that is not longer ago than half of all there are, with its epoch
		const ask = `with n as (select pg_snapshot_xmax(pg_current_snapshot())::text::numeric as next),
			f as (select next, next - mod(next - $1::bigint + 4294967296, 4294967296) as full_xid from n)
			select coalesce(case when full_xid < next and full_xid >= 3 and next - full_xid < 2147483648
				then pg_xact_status(full_xid::text::xid8) end, '') from f`
		if err := c.SQL().QueryRow(ctx, ask, int64(one.commit.XID)).Scan(one.fate); err != nil {
			return fmt.Errorf("ask the recovered server of transaction %d: %w", one.commit.XID, err)
		}
	}
	return nil
}
