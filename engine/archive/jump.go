// SPDX-License-Identifier: Apache-2.0

package archive

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"time"

	"github.com/kbcli/kbcli/engine/blob"
	"github.com/kbcli/kbcli/engine/pg"
	"github.com/kbcli/kbcli/engine/pg/replication"
	"github.com/kbcli/kbcli/engine/repository"
	"github.com/kbcli/kbcli/internal/atomicfile"
)

// jump is where one stretch of WAL ends and the next begins: a timeline switch, or
// a gap. It is durable in the spool before WAL of the next stretch is, and until
// the position behind it is: without it what the spool holds behind it would
// follow nothing.
type jump struct {
	to  pg.TimelineID
	lsn pg.LSN // a segment's start
	gap *repository.Gap
}

type place struct {
	tli pg.TimelineID
	lsn pg.LSN
}

const jumpsFile = "jumps.json"

type jumpDoc struct {
	Timeline   pg.TimelineID   `json:"timeline"`
	End        pg.LSN          `json:"end"`
	ToTimeline pg.TimelineID   `json:"toTimeline"`
	To         pg.LSN          `json:"to"`
	Gap        *repository.Gap `json:"gap,omitempty"`
}

func (a *Archiver) loadJumps() error {
	b, err := os.ReadFile(filepath.Join(a.cfg.Spool, jumpsFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return &spoolError{fmt.Errorf("spool: %w", err)}
	}
	var docs []jumpDoc
	if err := json.Unmarshal(b, &docs); err != nil {
		return &spoolError{fmt.Errorf("spool: read %s: %w", jumpsFile, err)}
	}
	jumps := map[place]jump{}
	for _, d := range docs {
		jumps[place{d.Timeline, d.End}] = jump{d.ToTimeline, d.To, d.Gap}
	}
	a.update(func(st *Status) {
		a.jumps, st.Gaps = jumps, nil
		for _, j := range jumps {
			if j.gap != nil {
				st.Gaps = append(st.Gaps, *j.gap)
			}
		}
	})
	return nil
}

// setJumps makes jumps durable and then the truth. a.turning is held.
func (a *Archiver) setJumps(jumps map[place]jump, then func(*Status)) error {
	docs := make([]jumpDoc, 0, len(jumps))
	for at, j := range jumps {
		docs = append(docs, jumpDoc{at.tli, at.lsn, j.to, j.lsn, j.gap})
	}
	b, err := json.Marshal(docs)
	if err != nil {
		return err
	}
	if err := atomicfile.Write(filepath.Join(a.cfg.Spool, jumpsFile), b, 0o600); err != nil {
		return &spoolError{fmt.Errorf("spool: %w", err)}
	}
	a.update(func(st *Status) {
		a.jumps = jumps
		then(st)
	})
	return nil
}

// jumpAt is the jump at the end of a stretch, if it ends there.
func (a *Archiver) jumpAt(end place) (jump, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	j, ok := a.jumps[end]
	return j, ok
}

// turn ends the stretch that at lies in where the WAL that is held ends, goes on at
// j, and moves at.
func (a *Archiver) turn(at *place, j jump) error {
	// all of the old stretch is part of it, so all of it must be there again
	// after a power cut
	if err := a.spool.end(pg.Segment{Timeline: at.tli, Number: a.size.Number(at.lsn)}); err != nil {
		return &spoolError{err}
	}
	a.turning.Lock()
	defer a.turning.Unlock()
	jumps := maps.Clone(a.jumps)
	jumps[place{at.tli, a.heldEnd(*at)}] = j
	err := a.setJumps(jumps, func(st *Status) {
		st.Timeline, st.Received, st.Spooled = j.to, j.lsn, j.lsn
		if j.gap != nil {
			st.Gaps = append(st.Gaps, *j.gap)
		}
	})
	if err == nil {
		*at = place{j.to, j.lsn}
	}
	return err
}

// heldEnd is where the WAL that is held ends in the stretch that at lies in. It can
// lie behind at, where WAL is being streamed again.
func (a *Archiver) heldEnd(at place) pg.LSN {
	g := pg.Segment{Timeline: at.tli, Number: a.size.Number(at.lsn)}
	return max(a.size.Floor(at.lsn)+pg.LSN(a.spool.held(g)), at.lsn)
}

// declareGap goes on from what the server writes now, after it removed what should
// have come next. Only what follows a new backup can be restored, so the present is
// as good a place to begin as any.
func (a *Archiver) declareGap(ctx context.Context, conn *replication.Conn, at *place, why error) error {
	if err := a.makeSlot(ctx, conn); err != nil {
		return err
	}
	id, err := a.identify(ctx, conn) // after the slot, which keeps what follows
	if err != nil {
		return err
	}
	to, from := a.size.Floor(id.Flush), a.heldEnd(*at)
	if st := a.Status(); st.RepositoryTimeline == at.tli {
		from = max(from, st.Repository)
	}
	if id.Timeline != at.tli {
		if err := a.fetchHistory(ctx, conn, id.Timeline); err != nil {
			return err
		}
	}
	switch {
	case to > from:
	case id.Timeline > at.tli:
		// the new timeline's segment holds a copy of what came before it
		return a.turn(at, jump{to: id.Timeline, lsn: to})
	default:
		return fmt.Errorf("the server has removed WAL that it must still have: %w", why)
	}
	gap := repository.Gap{
		Timeline: at.tli, From: from, ToTimeline: id.Timeline, To: to,
		Reason: why.Error(), Detected: a.cfg.Clock().UTC().Truncate(time.Microsecond),
	}
	a.cfg.Log.Error("WAL is lost: the server removed it before it was archived; a new backup is needed",
		"timeline", gap.Timeline, "from", gap.From, "to", gap.To, "reason", gap.Reason)
	return a.turn(at, jump{to: id.Timeline, lsn: to, gap: &gap})
}

// leaveStray moves to the path that the server is on when it does not hold what was
// archived: it left our path before the archive's end. What we hold beyond is a
// branch that nobody followed. Archiving goes on where the paths part, or where
// our part of the common one ends.
func (a *Archiver) leaveStray(ctx context.Context, conn *replication.Conn, at *place, now pg.TimelineID) error {
	if err := a.fetchHistory(ctx, conn, now); err != nil {
		return err
	}
	theirs, err := a.history(ctx, now)
	if err != nil {
		return err
	}
	ours, err := a.history(ctx, at.tli)
	if err != nil {
		return err
	}
	end := a.heldEnd(*at)
	for i := len(theirs.Entries) - 1; i >= 0; i-- {
		e := theirs.Entries[i]
		have, ok := ours.SwitchPoint(e.Timeline)
		if e.Timeline == at.tli {
			have, ok = end, true
		}
		if !ok {
			continue
		}
		to := place{e.Timeline, a.size.Floor(have)}
		if e.End <= have {
			to = place{now, a.size.Floor(e.End)}
			if i+1 < len(theirs.Entries) {
				to.tli = theirs.Entries[i+1].Timeline
			}
		}
		if to.tli != now && to.tli > 1 {
			if err := a.fetchHistory(ctx, conn, to.tli); err != nil {
				return err
			}
		}
		a.cfg.Log.Warn("the server left the archived path before the archive's end; what lies beyond stays as a branch",
			"timeline", at.tli, "archived to", end, "left at", e.End, "going on with", to.tli)
		return a.turn(at, jump{to: to.tli, lsn: to.lsn})
	}
	return fmt.Errorf("timeline %s of the server has no past in common with timeline %s of the archive", now, at.tli)
}

// history is the path to a timeline, as the spool or the repository knows it.
func (a *Archiver) history(ctx context.Context, tli pg.TimelineID) (pg.History, error) {
	content, err := a.spool.history(tli)
	if err != nil {
		return pg.History{}, &spoolError{err}
	}
	if content == nil && tli > 1 {
		content, err = a.cfg.Lineage.History(ctx, tli)
		if err != nil && !errors.Is(err, blob.ErrNotExist) {
			return pg.History{}, err
		}
	}
	return pg.ParseHistory(tli, content)
}

func (a *Archiver) fetchHistory(ctx context.Context, conn *replication.Conn, tli pg.TimelineID) error {
	_, content, err := conn.TimelineHistory(ctx, tli)
	if err != nil {
		return err
	}
	if _, err := pg.ParseHistory(tli, content); err != nil {
		return err
	}
	if err := a.spool.putHistory(tli, content); err != nil {
		return &spoolError{err}
	}
	return nil
}

// giveUp makes room in a full spool: the whole segments that wait behind the one
// being shipped are dropped, and the gap declared. False means that there is
// nothing that may be dropped.
func (a *Archiver) giveUp(at place) (bool, error) {
	a.turning.Lock()
	defer a.turning.Unlock()
	from, to := a.afterShipping(), a.size.Floor(at.lsn)
	if from.tli != at.tli || to <= from.lsn {
		return false, nil
	}
	gap := repository.Gap{
		Timeline: at.tli, From: from.lsn, ToTimeline: at.tli, To: to,
		Reason:   fmt.Sprintf("the repository did not take WAL and the spool reached its limit of %d bytes", a.cfg.SpoolLimit),
		Detected: a.cfg.Clock().UTC().Truncate(time.Microsecond),
	}
	a.cfg.Log.Error("WAL is given up: the spool is full and the policy says not to wait; a new backup is needed",
		"timeline", gap.Timeline, "from", gap.From, "to", gap.To)
	jumps := maps.Clone(a.jumps)
	old := jumps[from] // the same gap, when it was shorter
	jumps[from] = jump{to: at.tli, lsn: to, gap: &gap}
	err := a.setJumps(jumps, func(st *Status) {
		if n := len(st.Gaps); old.gap != nil && n > 0 && st.Gaps[n-1] == *old.gap {
			st.Gaps = st.Gaps[:n-1]
		}
		st.Gaps = append(st.Gaps, gap)
	})
	if err != nil {
		return false, err
	}
	for n := a.size.Number(from.lsn); n < a.size.Number(to); n++ {
		if err := a.spool.remove(pg.Segment{Timeline: at.tli, Number: n}); err != nil {
			return false, &spoolError{err}
		}
	}
	return true, nil
}

// afterShipping is where the shipper goes on after the segment that it works on.
func (a *Archiver) afterShipping() place {
	a.mu.Lock()
	defer a.mu.Unlock()
	g := a.shipping
	for end, j := range a.jumps {
		if end.tli == g.Timeline && a.size.Number(end.lsn) == g.Number {
			return place{j.to, j.lsn} // its stretch ends in this segment
		}
	}
	return place{g.Timeline, a.size.End(g.Number)}
}
