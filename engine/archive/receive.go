// SPDX-License-Identifier: Apache-2.0

package archive

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kbcli/kbcli/engine/pg"
	"github.com/kbcli/kbcli/engine/pg/replication"
)

const (
	// askInterval is how often an idle server is asked for its clock.
	askInterval = 250 * time.Millisecond
	// replyInterval keeps the connection alive, well under any wal_sender_timeout
	// that people set.
	replyInterval = 500 * time.Millisecond
	// silence is how long a server may owe an answer.
	silence = time.Minute
	// tellInterval is how long WAL that nobody waits for may be in the spool before those who
	// make it durable, ship it and answer are told. A busy server sends some for each commit.
	tellInterval = 50 * time.Millisecond
	// gatherPause is how long the connection is left to gather messages that nobody waits for,
	// and gatherMost how many bytes at once say that there are enough without: to be woken for
	// each costs more than all else that is done with it. A server that fills the socket's
	// buffer meanwhile has it read without a pause then.
	gatherPause = 10 * time.Millisecond
	gatherMost  = 128 << 10
)

// link is one stream, and what its reader and its replier tell each other.
type link struct {
	a       *Archiver
	stream  *replication.Stream
	tli     pg.TimelineID
	standby bool

	wanted chan struct{} // the server wants to hear from us at once
	asked  atomic.Bool   // it owes us an answer
	heard  atomic.Int64  // when it last sent anything, Unix ns

	mu       sync.Mutex
	received pg.LSN      // in the spool
	server   pg.LSN      // where the server's WAL ended then
	told     pg.LSN      // of received, to everybody
	later    *time.Timer // tells the rest; nil: everybody knows
}

// got notes that WAL is in the spool up to lsn. In synchronous mode commits wait for it, and
// of a whole chunk there is something to do: everybody is told at once.
func (l *link) got(lsn, server pg.LSN) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.received, l.server = lsn, max(lsn, server)
	switch {
	case l.a.cfg.Sync || lsn/chunk != l.told/chunk:
		l.tellLocked()
	case l.later == nil:
		l.later = time.AfterFunc(tellInterval, l.tell)
	}
}

// tell tells everybody what got was told; nothing comes later of that.
func (l *link) tell() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.later != nil {
		l.tellLocked()
	}
}

func (l *link) tellLocked() {
	if l.later != nil {
		l.later.Stop()
		l.later = nil
	}
	l.told = l.received
	l.a.update(func(st *Status) {
		st.Received = max(st.Received, l.received)
		st.ServerLSN = l.server
	})
}

func (l *link) hear() { l.heard.Store(l.a.cfg.Clock().UnixNano()) }

// follow writes the stream into the spool until the timeline ends. A second
// goroutine answers the server, whatever the first is waiting for. After an error
// conn is closed.
func (a *Archiver) follow(ctx context.Context, conn *replication.Conn, stream *replication.Stream, at *place, standby bool) (replication.EndOfTimeline, error) {
	at.lsn = a.size.Floor(at.lsn)
	a.update(func(st *Status) {
		st.State, st.Timeline = Streaming, at.tli
		st.Received, st.Spooled, st.ServerLSN = at.lsn, at.lsn, at.lsn
		st.LastError, st.ErrorTime = nil, time.Time{}
	})
	l := &link{a: a, stream: stream, tli: at.tli, standby: standby, wanted: make(chan struct{}, 1), received: at.lsn, told: at.lsn}
	l.hear()
	ctx, cancel := context.WithCancelCause(ctx)
	replied := make(chan struct{})
	go func() {
		defer close(replied)
		if err := l.reply(ctx); err != nil {
			cancel(err)
		}
	}()
	end, err := l.read(ctx, at)
	if err != nil {
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		conn.Close() // frees a replier that is stuck in a write
	}
	cancel(nil)
	<-replied
	return end, err
}

// read takes what the server sends until the timeline ends.
func (l *link) read(ctx context.Context, at *place) (replication.EndOfTimeline, error) {
	a := l.a
	defer l.tell()
	var chain proofChain
	gathered := 0
	for {
		if a.spool.bytes() >= a.cfg.SpoolLimit {
			if err := a.makeRoom(*at); err != nil {
				return replication.EndOfTimeline{}, err
			}
		}
		msg, err := l.stream.Receive(ctx)
		if err != nil {
			return replication.EndOfTimeline{}, err
		}
		l.hear()
		switch m := msg.(type) {
		case *replication.Data:
			chain.reset()
			if err := a.store(at, m); err != nil {
				return replication.EndOfTimeline{}, err
			}
			l.got(at.lsn, m.ServerEnd)
			if gathered += len(m.Bytes); l.stream.Waiting() > 0 {
				continue
			}
			if !a.cfg.Sync && gathered < gatherMost {
				time.Sleep(gatherPause)
			}
			gathered = 0
		case *replication.Keepalive:
			l.tell()
			a.update(func(st *Status) { st.ServerLSN = m.ServerEnd })
			if m.ReplyRequested {
				select {
				case l.wanted <- struct{}{}:
				default:
				}
				continue // and so it is no answer
			}
			if t, ok := chain.add(m, at.lsn); ok && !l.standby {
				a.proven(proof{*at, t.Time()})
			}
			l.asked.Store(false)
		case *replication.EndOfTimeline:
			if at.lsn != m.Start {
				return *m, fmt.Errorf("timeline %s ended at %s and its WAL was received to %s", at.tli, m.Start, at.lsn)
			}
			return *m, nil
		}
	}
}

// store puts a message's WAL into the spool and moves at.
func (a *Archiver) store(at *place, m *replication.Data) error {
	if m.Start != at.lsn {
		return fmt.Errorf("the server sent WAL from %s, asked for %s", m.Start, at.lsn)
	}
	for b := m.Bytes; len(b) > 0; {
		n := min(int64(len(b)), int64(a.size)-a.size.Offset(at.lsn))
		if err := a.spool.write(at.tli, at.lsn, b[:n]); err != nil {
			var diverged *DivergedError
			if errors.As(err, &diverged) {
				return err
			}
			return &spoolError{err}
		}
		at.lsn += pg.LSN(n)
		b = b[n:]
	}
	return nil
}

// makeRoom does as the policy says when the spool has reached its limit.
func (a *Archiver) makeRoom(at place) error {
	if a.cfg.WhenFull == GapWhenFull {
		given, err := a.giveUp(at)
		if given || err != nil {
			return err
		}
	}
	if a.spool.bytes() >= a.most() {
		return errSpoolFull
	}
	return nil
}

// reply tells the server how far we are: at every advance, when it asks, and often
// enough to be alive. It asks for the server's clock, one question at a time.
func (l *link) reply(ctx context.Context) error {
	a := l.a
	var sent pg.LSN
	last := time.Time{}
	tick := time.NewTicker(askInterval)
	defer tick.Stop()
	for {
		a.mu.Lock()
		st, ch := a.st, a.changed
		a.mu.Unlock()
		acked := l.acked(&st)
		due, ask := acked > sent, false
		if !due {
			select {
			case <-ctx.Done():
				return nil
			case <-ch:
				continue
			case <-l.wanted:
				due = true
			case <-tick.C:
				ask = !l.asked.Load()
				due = ask || a.cfg.Clock().Sub(last) >= replyInterval
				if a.cfg.Clock().UnixNano()-l.heard.Load() > int64(silence) {
					return fmt.Errorf("nothing was heard from the server for %s", silence)
				}
			}
		}
		if !due {
			continue
		}
		if ask {
			l.asked.Store(true)
		}
		err := l.stream.Status(replication.Status{Write: st.Received, Flush: acked, Apply: acked, ReplyNow: ask})
		if errors.Is(err, replication.ErrStreamEnded) {
			return nil // the reader will hear it
		}
		if err != nil {
			return err
		}
		sent, last = acked, a.cfg.Clock()
	}
}

// acked is what the server may count on. What this stream has not brought again is
// left out: it is not compared yet.
func (l *link) acked(st *Status) pg.LSN {
	if !l.a.cfg.Sync {
		return st.Spooled
	}
	if st.RepositoryTimeline != l.tli {
		return 0
	}
	// what was put before the right was lost may have been put after it: another may
	// have looked already how far the archive reaches
	if may := l.a.cfg.May; may != nil && may() != nil {
		return 0
	}
	return min(st.Repository, st.Received)
}
