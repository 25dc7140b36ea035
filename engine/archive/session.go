// SPDX-License-Identifier: Apache-2.0

package archive

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/kbcli/kbcli/engine/pg"
	"github.com/kbcli/kbcli/engine/pg/client"
	"github.com/kbcli/kbcli/engine/pg/replication"
)

// receive keeps a connection to the server and streams from where the archive ends.
func (a *Archiver) receive(ctx context.Context, at place) error {
	pause := 100 * time.Millisecond
	for {
		if err := a.room(ctx); err != nil {
			return err
		}
		began := a.cfg.Clock()
		err := a.session(ctx, &at)
		if errors.Is(err, errSpoolFull) {
			continue
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if final(err) {
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

// errSpoolFull ends a session. A server whose walsender cannot send cannot shut down
// in order either; a slot without a connection keeps its WAL as well.
var errSpoolFull = errors.New("the spool is full")

// room waits while the spool is full.
func (a *Archiver) room(ctx context.Context) error {
	most := a.most()
	if a.spool.bytes() < most {
		return nil
	}
	a.cfg.Log.Warn("the spool is full: PostgreSQL keeps its WAL until the repository takes more", "limit", a.cfg.SpoolLimit)
	a.update(func(st *Status) { st.State = Blocked })
	err := a.await(ctx, func(*Status) bool { return a.spool.bytes() < most })
	if err == nil {
		a.update(func(st *Status) { st.State = Connecting })
	}
	return err
}

// most is how much the spool may take before reading stops. Where WAL is given up
// it needs room for a segment that arrives while those on their way are kept.
func (a *Archiver) most() int64 {
	if a.cfg.WhenFull == GapWhenFull {
		return a.cfg.SpoolLimit + 2*int64(a.size)
	}
	return a.cfg.SpoolLimit
}

// session is one connection: it ends with an error, or with ctx.
func (a *Archiver) session(ctx context.Context, at *place) error {
	conn, err := a.connect(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	id, err := a.identify(ctx, conn)
	if err != nil {
		return err
	}
	standby, err := a.standby(ctx, conn)
	if err != nil {
		return err
	}
	if at.lsn == 0 {
		if err := a.first(ctx, conn, at, standby); err != nil {
			return err
		}
	}
	for {
		if id.Timeline < at.tli {
			return fmt.Errorf("the server is on timeline %s and the archive already on %s: it is not the primary that was archived last", id.Timeline, at.tli)
		}
		stream, err := a.start(ctx, conn, *at)
		if err != nil {
			return a.refused(ctx, at, id, standby, err)
		}
		end, err := a.follow(ctx, conn, stream, at, standby)
		if err != nil {
			return a.refused(ctx, at, id, standby, err)
		}
		if err := a.fetchHistory(ctx, conn, end.Next); err != nil {
			return err
		}
		// what is held beyond the end was never part of the server's past
		if err := a.turn(at, jump{to: end.Next, lsn: a.size.Floor(end.Start)}); err != nil {
			return err
		}
		if id, err = a.identify(ctx, conn); err != nil {
			return err
		}
		if standby, err = a.standby(ctx, conn); err != nil {
			return err
		}
	}
}

// first chooses where an archive begins: the segment that the server writes now, whole.
// A backup of a standby begins with the last restartpoint, which lies behind: there an
// archive begins with what the slot keeps.
func (a *Archiver) first(ctx context.Context, conn *replication.Conn, at *place, standby bool) error {
	if err := a.makeSlot(ctx, conn); err != nil {
		return err
	}
	id, err := a.identify(ctx, conn) // after the slot, which keeps what follows
	if err != nil {
		return err
	}
	begin := place{id.Timeline, id.Flush}
	if standby {
		if begin, err = a.kept(ctx, conn, begin); err != nil {
			return err
		}
	}
	begin.lsn = a.size.Floor(begin.lsn)
	if begin.tli > 1 {
		if err := a.fetchHistory(ctx, conn, begin.tli); err != nil {
			return err
		}
	}
	// durable before anybody is told that all WAL from here on is kept
	if err := a.savePosition(begin, true); err != nil {
		return err
	}
	*at = begin
	a.update(func(st *Status) { st.RepositoryTimeline, st.Repository = at.tli, at.lsn })
	return nil
}

// kept is where the slot begins to keep WAL, if that is before at.
func (a *Archiver) kept(ctx context.Context, conn *replication.Conn, at place) (place, error) {
	ctx, cancel := context.WithTimeout(ctx, answer)
	defer cancel()
	slot, found, err := conn.ReadSlot(ctx, a.cfg.Slot)
	if !errors.Is(err, errors.ErrUnsupported) {
		if err == nil && found && slot.RestartLSN != 0 && slot.RestartLSN < at.lsn {
			at = place{slot.RestartTimeline, slot.RestartLSN}
		}
		return at, err
	}
	sql, err := client.Connect(ctx, a.cfg.Conninfo)
	if err != nil {
		return at, err
	}
	defer sql.Close()
	slots, err := sql.Slots(ctx)
	if err != nil {
		return at, err
	}
	for _, s := range slots {
		if s.Name == a.cfg.Slot && s.RestartLSN != 0 && s.RestartLSN < at.lsn {
			at.lsn = s.RestartLSN
		}
	}
	return at, nil
}

// refused finds out what it means that the server does not send what comes next. It
// moves at where there is a way on, by a connection of its own: the server says most
// of this when streaming has begun, and the connection is spent.
func (a *Archiver) refused(ctx context.Context, at *place, id replication.Identity, standby bool, why error) error {
	var removed *replication.SegmentRemovedError
	var history *replication.NotInHistoryError
	var ahead *replication.AheadError
	var err error
	switch {
	case ctx.Err() != nil || final(why):
		return why
	case errors.As(why, &ahead) && !standby && id.Timeline == at.tli:
		// a primary has all that it ever sent
		return &DivergedError{at.tli, id.Flush}
	case errors.As(why, &removed):
		err = a.again(ctx, func(conn *replication.Conn) error { return a.declareGap(ctx, conn, at, why) })
	case errors.As(why, &history) && id.Timeline > at.tli:
		err = a.again(ctx, func(conn *replication.Conn) error { return a.leaveStray(ctx, conn, at, id.Timeline) })
	}
	return errors.Join(why, err)
}

func (a *Archiver) again(ctx context.Context, fn func(*replication.Conn) error) error {
	conn, err := a.connect(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	return fn(conn)
}

// answer is how long a server may take to let us in, or to answer a question.
const answer = 20 * time.Second

func (a *Archiver) connect(ctx context.Context) (*replication.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, answer)
	defer cancel()
	return replication.Connect(ctx, a.cfg.Conninfo)
}

// standby tells whether the server is one. Its clock proves nothing: what the
// primary acknowledged may not have come to it yet.
func (a *Archiver) standby(ctx context.Context, conn *replication.Conn) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, answer)
	defer cancel()
	setting := "in_hot_standby"
	if conn.ServerVersion().Major() < 14 {
		setting = "transaction_read_only" // at least all standbys are
	}
	text, err := conn.Show(ctx, setting)
	return text == "on", err
}

// identify asks who the server is, and refuses another than the lineage's.
func (a *Archiver) identify(ctx context.Context, conn *replication.Conn) (replication.Identity, error) {
	ctx, cancel := context.WithTimeout(ctx, answer)
	defer cancel()
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
	ctx, cancel := context.WithTimeout(ctx, answer)
	defer cancel()
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
