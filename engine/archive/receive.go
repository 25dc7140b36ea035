// SPDX-License-Identifier: Apache-2.0

package archive

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/kbcli/kbcli/engine/pg"
	"github.com/kbcli/kbcli/engine/pg/replication"
	"github.com/kbcli/kbcli/engine/repository"
)

// askInterval is how often an idle server is asked for its clock. Three answers
// without WAL between them prove the first one's time.
const askInterval = 250 * time.Millisecond

// replyInterval keeps the connection alive, well under wal_sender_timeout.
const replyInterval = 5 * time.Second

// receive keeps a connection to the server and streams from where the archive ends.
func (a *Archiver) receive(ctx context.Context, at place) error {
	pause := 100 * time.Millisecond
	for {
		began := a.cfg.Clock()
		err := a.session(ctx, &at)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		var disk *spoolError
		if final(err) || errors.As(err, &disk) {
			return err
		}
		a.update(func(st *Status) {
			st.State = Connecting
			st.LastError, st.ErrorTime = err, a.cfg.Clock()
		})
		a.cfg.Log.Warn("connection to the server ended", "error", err)
		if a.cfg.Clock().Sub(began) > 10*time.Second {
			pause = 100 * time.Millisecond
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
		}
		pause = min(2*pause, 3*time.Second)
	}
}

// spoolError is a failure of the local disk.
type spoolError struct{ err error }

func (e *spoolError) Error() string { return e.err.Error() }
func (e *spoolError) Unwrap() error { return e.err }

// session is one connection: it ends with an error, or with ctx.
func (a *Archiver) session(ctx context.Context, at *place) error {
	conn, err := replication.Connect(ctx, a.cfg.Conninfo)
	if err != nil {
		return err
	}
	defer conn.Close()
	id, err := a.identify(ctx, conn)
	if err != nil {
		return err
	}
	if at.lsn == 0 {
		// the first time: the segment that the server writes now, whole
		if err := a.makeSlot(ctx, conn); err != nil {
			return err
		}
		*at = place{id.Timeline, a.size.Floor(id.Flush)}
		if id.Timeline > 1 {
			if err := a.fetchHistory(ctx, conn, id.Timeline); err != nil {
				return err
			}
		}
		a.update(func(st *Status) { st.RepositoryTimeline, st.Repository = at.tli, at.lsn })
	}
	for {
		if id.Timeline < at.tli {
			return fmt.Errorf("the server is on timeline %s and the archive already on %s: it is not the primary that was archived last", id.Timeline, at.tli)
		}
		stream, err := a.start(ctx, conn, *at)
		switch fault := classify(err); {
		case err == nil:
		case fault == faultRemoved:
			if err := a.declareGap(ctx, conn, at, id, err); err != nil {
				return err
			}
			continue
		case fault == faultHistory && id.Timeline > at.tli:
			if err := a.leaveStray(ctx, conn, at, id.Timeline); err != nil {
				return err
			}
			continue
		default:
			return err
		}
		end, err := a.follow(ctx, stream, at)
		switch fault := classify(err); {
		case err == nil:
		case fault == faultRemoved:
			// the server says so only after it agreed to stream; the
			// connection is spent, the next one finds the gap on its own
			return a.gapAfter(ctx, at, err)
		case fault == faultHistory && id.Timeline > at.tli:
			conn2, cerr := replication.Connect(ctx, a.cfg.Conninfo)
			if cerr != nil {
				return errors.Join(err, cerr)
			}
			lerr := a.leaveStray(ctx, conn2, at, id.Timeline)
			return errors.Join(err, lerr, conn2.Close())
		default:
			return err
		}
		if err := a.fetchHistory(ctx, conn, end.Next); err != nil {
			return err
		}
		a.turn(at, place{at.tli, end.Start}, jump{to: end.Next, lsn: a.size.Floor(end.Start)})
		if id, err = a.identify(ctx, conn); err != nil {
			return err
		}
	}
}

// identify asks who the server is, and refuses another than the lineage's.
func (a *Archiver) identify(ctx context.Context, conn *replication.Conn) (replication.Identity, error) {
	id, err := conn.IdentifySystem(ctx)
	if err != nil {
		return id, err
	}
	text, err := conn.Show(ctx, "wal_segment_size")
	if err != nil {
		return id, err
	}
	size, err := parseSize(text)
	if err != nil {
		return id, err
	}
	return id, a.cfg.Lineage.Check(id.SystemID, conn.ServerVersion().Major(), size)
}

// parseSize reads what SHOW wal_segment_size prints: "16MB", "1GB".
func parseSize(s string) (pg.SegmentSize, error) {
	var n uint64
	var unit string
	if _, err := fmt.Sscanf(s, "%d%s", &n, &unit); err != nil || n > 1024 {
		return 0, fmt.Errorf("wal_segment_size %q is not understood", s)
	}
	size := pg.SegmentSize(0)
	switch unit {
	case "MB":
		size = pg.SegmentSize(n << 20)
	case "GB":
		size = pg.SegmentSize(n << 30)
	}
	if !size.Valid() {
		return 0, fmt.Errorf("wal_segment_size %q is not understood", s)
	}
	return size, nil
}

func (a *Archiver) makeSlot(ctx context.Context, conn *replication.Conn) error {
	err := conn.CreateSlot(ctx, a.cfg.Slot, true, false)
	if errors.Is(err, replication.ErrSlotExists) {
		return nil
	}
	return err
}

// start asks for WAL from at. A slot that is gone or was invalidated is made anew:
// whether WAL was lost with it shows in whether the server still has at.
func (a *Archiver) start(ctx context.Context, conn *replication.Conn, at place) (*replication.Stream, error) {
	o := replication.StartOptions{Slot: a.cfg.Slot, Timeline: at.tli, LSN: a.size.Floor(at.lsn)}
	stream, err := conn.Start(ctx, o)
	switch {
	case errors.Is(err, replication.ErrSlotNotFound):
	case errors.Is(err, replication.ErrSlotInvalidated):
		if err := conn.DropSlot(ctx, a.cfg.Slot); err != nil {
			return nil, err
		}
	default:
		return stream, err
	}
	a.cfg.Log.Warn("the replication slot is gone, making it anew", "slot", a.cfg.Slot)
	if err := a.makeSlot(ctx, conn); err != nil {
		return nil, err
	}
	return conn.Start(ctx, o)
}

type fault int

const (
	faultNone fault = iota
	faultRemoved
	faultHistory
)

func classify(err error) fault {
	var removed *replication.SegmentRemovedError
	var history *replication.NotInHistoryError
	switch {
	case errors.As(err, &removed):
		return faultRemoved
	case errors.As(err, &history):
		return faultHistory
	}
	return faultNone
}

// turn records that the stretch at at.tli ends at end and goes on at j, and moves at.
func (a *Archiver) turn(at *place, end place, j jump) {
	*at = place{j.to, j.lsn}
	a.update(func(st *Status) {
		a.jumps[end] = j
		st.Timeline, st.Received, st.Spooled = j.to, j.lsn, j.lsn
	})
}

// heldEnd is where the WAL that is held ends in the stretch that at lies in.
func (a *Archiver) heldEnd(at place) pg.LSN {
	g := pg.Segment{Timeline: at.tli, Number: a.size.Number(at.lsn)}
	return max(a.size.Floor(at.lsn)+pg.LSN(a.spool.held(g)), at.lsn)
}

func (a *Archiver) declareGap(ctx context.Context, conn *replication.Conn, at *place, id replication.Identity, why error) error {
	if err := a.makeSlot(ctx, conn); err != nil {
		return err
	}
	// only what follows a new backup can be restored, so the present is as
	// good a place to begin as any
	to := a.size.Floor(id.Flush)
	from := a.heldEnd(*at)
	if id.Timeline != at.tli {
		if err := a.fetchHistory(ctx, conn, id.Timeline); err != nil {
			return err
		}
	} else if to <= from {
		return fmt.Errorf("the server has removed WAL that it must still have: %w", why)
	}
	gap := repository.Gap{
		Timeline: at.tli, From: from, ToTimeline: id.Timeline, To: to,
		Reason: why.Error(), Detected: a.cfg.Clock().UTC().Truncate(time.Microsecond),
	}
	if st := a.Status(); st.RepositoryTimeline == at.tli {
		gap.From = max(gap.From, st.Repository)
	}
	a.cfg.Log.Error("WAL is lost: the server removed it before it was archived; a new backup is needed",
		"timeline", gap.Timeline, "from", gap.From, "to", gap.To, "reason", gap.Reason)
	a.update(func(st *Status) { st.Gaps = append(st.Gaps, gap) })
	a.turn(at, place{at.tli, from}, jump{to: id.Timeline, lsn: to, gap: &gap})
	return nil
}

func (a *Archiver) gapAfter(ctx context.Context, at *place, why error) error {
	conn, err := replication.Connect(ctx, a.cfg.Conninfo)
	if err != nil {
		return errors.Join(why, err)
	}
	defer conn.Close()
	id, err := a.identify(ctx, conn)
	if err != nil {
		return errors.Join(why, err)
	}
	if err := a.declareGap(ctx, conn, at, id, why); err != nil {
		return err
	}
	return why
}

// leaveStray moves to the timeline that the server is on when WAL was archived
// past the point where that timeline left ours: what we hold beyond is a branch
// that nobody followed.
func (a *Archiver) leaveStray(ctx context.Context, conn *replication.Conn, at *place, now pg.TimelineID) error {
	if err := a.fetchHistory(ctx, conn, now); err != nil {
		return err
	}
	content, err := a.spool.history(now)
	if err != nil {
		return &spoolError{err}
	}
	h, err := pg.ParseHistory(now, content)
	if err != nil {
		return err
	}
	fork, ok := h.SwitchPoint(at.tli)
	if !ok {
		return fmt.Errorf("timeline %s of the server does not descend from timeline %s of the archive", now, at.tli)
	}
	next := now
	for i, e := range h.Entries {
		if e.Timeline == at.tli && i+1 < len(h.Entries) {
			next = h.Entries[i+1].Timeline
		}
	}
	if next != now {
		if err := a.fetchHistory(ctx, conn, next); err != nil {
			return err
		}
	}
	end := a.heldEnd(*at)
	a.cfg.Log.Warn("the server left the archived timeline before the archive's end; what lies beyond stays as a branch",
		"timeline", at.tli, "left at", fork, "archived to", end)
	a.turn(at, place{at.tli, end}, jump{to: next, lsn: a.size.Floor(fork)})
	return nil
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

// follow writes the stream into the spool until the timeline ends. A second
// goroutine answers the server, whatever the first is waiting for.
func (a *Archiver) follow(ctx context.Context, stream *replication.Stream, at *place) (replication.EndOfTimeline, error) {
	begin := a.size.Floor(at.lsn)
	a.update(func(st *Status) {
		st.State, st.Timeline, st.Received = Streaming, at.tli, begin
		st.Spooled = begin
		st.LastError, st.ErrorTime = nil, time.Time{}
	})
	at.lsn = begin
	ask := make(chan struct{}, 1)
	var end replication.EndOfTimeline
	g, gctx := errgroup.WithContext(ctx)
	rctx, stop := context.WithCancel(gctx)
	g.Go(func() error {
		err := a.reply(rctx, stream, at.tli, ask)
		if rctx.Err() != nil && gctx.Err() == nil {
			return nil
		}
		return err
	})
	g.Go(func() error {
		defer stop()
		var err error
		end, err = a.read(gctx, stream, at, ask)
		return err
	})
	err := g.Wait()
	return end, err
}

func (a *Archiver) read(ctx context.Context, stream *replication.Stream, at *place, ask chan<- struct{}) (replication.EndOfTimeline, error) {
	var chain proofChain
	for {
		if err := a.room(ctx, *at); err != nil {
			return replication.EndOfTimeline{}, err
		}
		msg, err := stream.Receive(ctx)
		if err != nil {
			return replication.EndOfTimeline{}, err
		}
		switch m := msg.(type) {
		case *replication.Data:
			if m.Start != at.lsn {
				return replication.EndOfTimeline{}, fmt.Errorf("the server sent WAL from %s, asked for %s", m.Start, at.lsn)
			}
			for b := m.Bytes; len(b) > 0; {
				n := min(int64(len(b)), int64(a.size)-a.size.Offset(at.lsn))
				if err := a.spool.write(at.tli, at.lsn, b[:n]); err != nil {
					var diverged *DivergedError
					if errors.As(err, &diverged) {
						return replication.EndOfTimeline{}, err
					}
					return replication.EndOfTimeline{}, &spoolError{err}
				}
				at.lsn += pg.LSN(n)
				b = b[n:]
			}
			chain.reset()
			a.update(func(st *Status) {
				st.Received = max(st.Received, at.lsn)
				st.ServerLSN = max(at.lsn, m.ServerEnd)
			})
		case *replication.Keepalive:
			if t, ok := chain.add(m, at.lsn); ok {
				a.proven(proof{*at, t.Time()})
			}
			a.update(func(st *Status) { st.ServerLSN = m.ServerEnd })
			if m.ReplyRequested {
				select {
				case ask <- struct{}{}:
				default:
				}
			}
		case *replication.EndOfTimeline:
			if at.lsn != m.Start {
				return *m, fmt.Errorf("timeline %s ended at %s and its WAL was received to %s", at.tli, m.Start, at.lsn)
			}
			return *m, nil
		}
	}
}

// room waits while the spool is full, or makes room as the policy says.
func (a *Archiver) room(ctx context.Context, at place) error {
	if a.spool.bytes() < a.cfg.SpoolLimit {
		return nil
	}
	if a.cfg.WhenFull == GapWhenFull {
		return a.giveUp(at)
	}
	a.cfg.Log.Warn("the spool is full: PostgreSQL keeps its WAL until the repository takes more", "limit", a.cfg.SpoolLimit)
	a.update(func(st *Status) { st.State = Blocked })
	err := a.await(ctx, func(*Status) bool { return a.spool.bytes() < a.cfg.SpoolLimit })
	a.update(func(st *Status) { st.State = Streaming })
	return err
}

// reply tells the server how far we are: at every advance, when it asks, and every
// few seconds. On an idle server it also asks for the clock.
func (a *Archiver) reply(ctx context.Context, stream *replication.Stream, tli pg.TimelineID, ask <-chan struct{}) error {
	var sent pg.LSN
	last := time.Time{}
	tick := time.NewTicker(askInterval)
	defer tick.Stop()
	for {
		a.mu.Lock()
		st, ch := a.st, a.changed
		a.mu.Unlock()
		acked := st.Spooled
		if a.cfg.Sync {
			acked = 0
			if st.RepositoryTimeline == tli {
				acked = st.Repository
			}
		}
		due := acked > sent
		idle := false
		if !due {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-ch:
				continue
			case <-ask:
				due = true
			case <-tick.C:
				idle = st.Received >= st.ServerLSN
				due = idle || a.cfg.Clock().Sub(last) >= replyInterval
			}
		}
		if !due {
			continue
		}
		err := stream.Status(replication.Status{Write: st.Received, Flush: acked, Apply: acked, ReplyNow: idle})
		if err != nil {
			return err
		}
		sent, last = acked, a.cfg.Clock()
	}
}
