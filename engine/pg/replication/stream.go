// SPDX-License-Identifier: Apache-2.0

package replication

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/kbcli/kbcli/engine/pg"
)

// StartOptions says what to stream.
type StartOptions struct {
	Slot     string        // empty: without one, and the server may remove WAL that is not sent yet
	Timeline pg.TimelineID // the server's own or an ancestor of it
	LSN      pg.LSN        // the first byte wanted; a segment's start gives whole segments
}

// Stream is WAL on its way.
type Stream struct {
	conn  *Conn
	asked StartOptions
	next  pg.LSN // of the first byte not received
	clock atomic.Int64

	data      Data
	keepalive Keepalive
	ending    bool           // the server has no more WAL to send
	end       *EndOfTimeline // and has told what follows
	over      error          // what Receive returns for ever

	ended  bool // under wire.out: the server listens to no more statuses
	status [statusSize]byte
}

// Message is *Data, *Keepalive or *EndOfTimeline. It belongs to the Stream and
// holds until the next Receive.
type Message interface{ message() }

// Data is a piece of WAL. It can begin and end anywhere in a record, and cross
// from one segment into the next.
type Data struct {
	Start      pg.LSN       // of Bytes[0]
	ServerEnd  pg.LSN       // the end of the server's WAL when it sent this
	ServerTime pg.Timestamp // the server's clock then
	Bytes      []byte       // at most 128 KiB
}

// Keepalive says that there is no WAL to send.
type Keepalive struct {
	ServerEnd      pg.LSN
	ServerTime     pg.Timestamp
	ReplyRequested bool // answer with a Status at once, or the server hangs up
}

// EndOfTimeline is the last message of a Stream: all of the timeline that is
// part of the server's history was sent. The Conn takes commands again; fetch
// the next timeline's history, and start anew there at the start of the segment
// that holds Start.
type EndOfTimeline struct {
	Next  pg.TimelineID
	Start pg.LSN // where Next begins, the first byte that is not on this timeline
}

func (*Data) message()          {}
func (*Keepalive) message()     {}
func (*EndOfTimeline) message() {}

// Start begins to stream. ErrSlotNotFound, ErrSlotActive and ErrSlotInvalidated
// come from here, a *NotInHistoryError too; the server looks for the WAL itself
// only afterwards, so that a *SegmentRemovedError or *AheadError comes from the
// first Receive. When the timeline ends at o.LSN, that returns EndOfTimeline.
func (c *Conn) Start(ctx context.Context, o StartOptions) (*Stream, error) {
	s, err := c.start(ctx, o)
	if err != nil {
		return nil, fmt.Errorf("start streaming at %s on timeline %d: %w", o.LSN, o.Timeline, err)
	}
	return s, nil
}

func (c *Conn) start(ctx context.Context, o StartOptions) (*Stream, error) {
	command := "START_REPLICATION "
	if o.Slot != "" {
		quoted, err := slotName(o.Slot)
		if err != nil {
			return nil, err
		}
		command += "SLOT " + quoted + " "
	}
	if o.Timeline == 0 || o.LSN == 0 {
		return nil, errors.New("no timeline or position")
	}
	if c.version.Major() < 15 {
		// These refuse to stream on a connection that has not asked.
		if _, err := c.IdentifySystem(ctx); err != nil {
			return nil, err
		}
	}
	s := &Stream{conn: c, asked: o, next: o.LSN}
	if err := c.begin(fmt.Sprintf("%sPHYSICAL %s TIMELINE %d", command, o.LSN, uint32(o.Timeline))); err != nil {
		return nil, err
	}
	for {
		kind, body, err := c.wire.next(ctx)
		if err != nil {
			return nil, err
		}
		switch kind {
		case 'W':
			return s, nil
		case 'E':
			refused, err := s.refused(ctx, body)
			if err != nil {
				return nil, err
			}
			return nil, classify(refused, o)
		case 'T':
			// The timeline ends at o.LSN: there is nothing to copy, only the
			// next timeline to be told.
			s.ending, s.ended = true, true
			return s, nil
		case 'N', 'S':
		default:
			return nil, fmt.Errorf("server sent message %q in answer to START_REPLICATION", kind)
		}
	}
}

// refused reads an ErrorResponse and what follows it, and frees the connection
// for commands unless the server hung up.
func (s *Stream) refused(ctx context.Context, body []byte) (*pgconn.PgError, error) {
	refused, err := serverError(body)
	if err != nil {
		return nil, err
	}
	if refused.SeverityUnlocalized == "FATAL" || refused.SeverityUnlocalized == "PANIC" {
		return refused, nil
	}
	if _, _, err := s.conn.results(ctx); err == nil {
		s.conn.busy = false
	}
	return refused, nil
}

// Receive waits for the next message. After an error of ctx it can be called
// again and nothing is lost. Every other error ends the stream, and all later
// calls return it: an error of the server leaves the Conn to be used again
// unless it was FATAL; ErrServerStopping and an error of the network do not.
func (s *Stream) Receive(ctx context.Context) (Message, error) {
	if s.over != nil {
		return nil, s.over
	}
	m, err := s.receive(ctx)
	if err == nil {
		return m, nil
	}
	err = fmt.Errorf("receive WAL at %s on timeline %d: %w", s.next, s.asked.Timeline, err)
	if ctx.Err() == nil || !errors.Is(err, ctx.Err()) {
		s.over = err
	}
	return nil, err
}

// Waiting is how many bytes the server has sent that were read and not received yet.
func (s *Stream) Waiting() int { return s.conn.wire.w - s.conn.wire.r }

func (s *Stream) receive(ctx context.Context) (Message, error) {
	for {
		kind, body, err := s.conn.wire.next(ctx)
		if err != nil {
			return nil, err
		}
		switch {
		case kind == 'd' && !s.ending:
			return s.copied(body)
		case kind == 'c' && !s.ending:
			if err := s.answerEnd(); err != nil {
				return nil, err
			}
		case kind == 'D' && s.ending:
			if s.end, err = endOfTimeline(body); err != nil {
				return nil, err
			}
		case kind == 'Z' && s.ending:
			if s.conn.busy = false; s.end == nil {
				return nil, errNoNextTimeline
			}
			s.over = ErrStreamEnded
			return s.end, nil
		case kind == 'C' && !s.ending:
			s.stopStatus()
			return nil, ErrServerStopping
		case kind == 'E':
			s.stopStatus()
			refused, err := s.refused(ctx, body)
			if err != nil {
				return nil, err
			}
			return nil, classify(refused, s.asked)
		case kind == 'N', kind == 'S', kind == 'T', kind == 'C':
		default:
			return nil, fmt.Errorf("server sent message %q among WAL", kind)
		}
	}
}

func (s *Stream) copied(body []byte) (Message, error) {
	isData, err := cutCopyData(body, &s.data, &s.keepalive)
	if err != nil {
		return nil, err
	}
	if !isData {
		s.clock.Store(int64(s.keepalive.ServerTime))
		return &s.keepalive, nil
	}
	d := &s.data
	if d.Start != s.next {
		return nil, fmt.Errorf("server sent WAL from %s", d.Start)
	}
	if s.next += pg.LSN(len(d.Bytes)); s.next < d.Start {
		return nil, errMalformed
	}
	s.clock.Store(int64(d.ServerTime))
	return d, nil
}

// answerEnd agrees to the end of a timeline; the server then says which one
// follows.
func (s *Stream) answerEnd() error {
	w := s.conn.wire
	w.out.Lock()
	defer w.out.Unlock()
	s.ending, s.ended = true, true
	return w.sendLocked('c', make([]byte, 5))
}

var errNoNextTimeline = errors.New("server ended the stream and named no next timeline")

func endOfTimeline(body []byte) (*EndOfTimeline, error) {
	row, err := cutRow(body)
	if err != nil {
		return nil, err
	}
	if len(row) != 2 {
		return nil, errNoNextTimeline
	}
	next, err := pg.ParseTimelineID(string(row[0]))
	if err != nil {
		return nil, err
	}
	start, err := pg.ParseLSN(string(row[1]))
	if err != nil {
		return nil, err
	}
	return &EndOfTimeline{Next: next, Start: start}, nil
}

func (s *Stream) stopStatus() {
	s.conn.wire.out.Lock()
	s.ended = true
	s.conn.wire.out.Unlock()
}

// Status is how far the receiver is. Each position is the byte after the last
// one done; 0 says nothing about it.
type Status struct {
	Write pg.LSN // received and written to a file
	Flush pg.LSN // durable: the server may remove what lies before it, and commits wait for it under synchronous_commit=on
	Apply pg.LSN // what remote_apply waits for

	// Time is the receiver's clock, for pg_stat_replication.reply_time; 0 gives
	// back the server's own, of the last message.
	Time pg.Timestamp

	ReplyNow bool // ask for a Keepalive
}

const statusSize = 5 + 1 + 4*8 + 1

// Status tells the server how far the receiver is. It must come before
// wal_sender_timeout has passed (60 s, unless set otherwise) even when nothing
// changed. ErrStreamEnded after the end of the stream.
func (s *Stream) Status(st Status) error {
	if st.Time == 0 {
		st.Time = pg.Timestamp(s.clock.Load())
	}
	w := s.conn.wire
	w.out.Lock()
	defer w.out.Unlock()
	if s.ended {
		return ErrStreamEnded
	}
	b := s.status[:]
	b[5] = 'r'
	for i, v := range [...]uint64{uint64(st.Write), uint64(st.Flush), uint64(st.Apply), uint64(st.Time)} {
		binary.BigEndian.PutUint64(b[6+8*i:], v)
	}
	b[statusSize-1] = 0
	if st.ReplyNow {
		b[statusSize-1] = 1
	}
	return w.sendLocked('d', b)
}
