// SPDX-License-Identifier: Apache-2.0

package replication_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/kbcli/kbcli/engine/pg"
	"github.com/kbcli/kbcli/engine/pg/replication"
)

const mib pg.SegmentSize = 1 << 20

// collect receives until the stream has reached end, or ended before.
func collect(t *testing.T, s *replication.Stream, to *bytes.Buffer, from, end pg.LSN) *replication.EndOfTimeline {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for {
		m, err := s.Receive(ctx)
		if err != nil {
			t.Fatal(err)
		}
		switch m := m.(type) {
		case *replication.Data:
			if m.Start != from+pg.LSN(to.Len()) || m.ServerEnd < m.Start || m.ServerTime.Time().Year() < 2020 {
				t.Fatalf("WAL from %s, server at %s, %s, while %s is next", m.Start, m.ServerEnd, m.ServerTime.Time(), from+pg.LSN(to.Len()))
			}
			to.Write(m.Bytes)
		case *replication.EndOfTimeline:
			return m
		}
		if from+pg.LSN(to.Len()) >= end {
			return nil
		}
	}
}

// same compares WAL from the start of a segment with the server's files.
func same(t *testing.T, s *server, tli pg.TimelineID, from pg.LSN, got []byte) {
	t.Helper()
	for n := mib.Number(from); len(got) > 0; n++ {
		name := mib.Name(pg.Segment{Timeline: tli, Number: n})
		file, err := os.ReadFile(filepath.Join(s.dir, "pg_wal", name))
		if err != nil {
			t.Fatal(err)
		}
		k := min(len(got), len(file))
		if !bytes.Equal(got[:k], file[:k]) {
			t.Errorf("segment %s differs from what was streamed", name)
		}
		got = got[k:]
	}
}

func parseLSN(t *testing.T, s string) pg.LSN {
	t.Helper()
	l, err := pg.ParseLSN(s)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestStreamIsTheServersWAL(t *testing.T) {
	eachMajor(t, func(t *testing.T, major int) {
		s := newServer(t, major, "wal_keep_size=1GB")
		c := s.connect(t)
		if got := c.ServerVersion().Major(); got != major {
			t.Errorf("version is %s, want %d", c.ServerVersion(), major)
		}
		id, err := c.IdentifySystem(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if want := s.sql(t, "select system_identifier from pg_control_system()"); id.SystemID.String() != want || id.Timeline != 1 || id.Flush == 0 {
			t.Errorf("%+v, want system %s", id, want)
		}
		if size, err := c.Show(t.Context(), "wal_segment_size"); size != "1MB" || err != nil {
			t.Errorf("segment size %s, %v", size, err)
		}
		s.traffic(t, 3)
		from := mib.Floor(id.Flush)
		stream, err := c.Start(t.Context(), replication.StartOptions{Timeline: 1, LSN: from})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.IdentifySystem(t.Context()); err == nil {
			t.Error("a command was taken while streaming")
		}
		var written sync.WaitGroup
		written.Go(func() { s.traffic(t, 3) })
		var got bytes.Buffer
		collect(t, stream, &got, from, from+6<<20)
		written.Wait()
		end := parseLSN(t, s.sql(t, "select pg_current_wal_flush_lsn()"))
		collect(t, stream, &got, from, end)
		same(t, s, 1, from, got.Bytes())
		if got.Len() < 6<<20 {
			t.Errorf("only %d bytes were streamed", got.Len())
		}
	})
}

func TestSlotLifeCycle(t *testing.T) {
	eachMajor(t, func(t *testing.T, major int) {
		s := newServer(t, major)
		ctx := t.Context()
		c := s.connect(t)
		if err := c.DropSlot(ctx, "s1"); !errors.Is(err, replication.ErrSlotNotFound) {
			t.Errorf("dropping no slot: %v", err)
		}
		if err := c.CreateSlot(ctx, "s1", false, false); err != nil {
			t.Fatal(err)
		}
		if err := c.CreateSlot(ctx, "s1", true, false); !errors.Is(err, replication.ErrSlotExists) {
			t.Errorf("making a slot twice: %v", err)
		}
		readSlot := func(name string, want bool) replication.Slot {
			t.Helper()
			slot, found, err := c.ReadSlot(ctx, name)
			if major < 15 {
				if !errors.Is(err, errors.ErrUnsupported) {
					t.Errorf("read slot on %d: %v", major, err)
				}
				return slot
			}
			if err != nil || found != want {
				t.Errorf("read slot %s: %v, %v", name, found, err)
			}
			return slot
		}
		readSlot("nil", false)
		if got := readSlot("s1", true); got != (replication.Slot{}) {
			t.Errorf("a slot that reserves nothing: %+v", got)
		}
		if err := c.DropSlot(ctx, "s1"); err != nil {
			t.Fatal(err)
		}
		if err := c.CreateSlot(ctx, "s1", true, false); err != nil {
			t.Fatal(err)
		}
		before := parseLSN(t, s.sql(t, "select restart_lsn from pg_replication_slots"))
		if got := readSlot("s1", true); major >= 15 && (got.RestartLSN != before || got.RestartTimeline != 1) {
			t.Errorf("slot at %+v, server says %s", got, before)
		}
		if err := c.CreateSlot(ctx, "s2", true, true); err != nil {
			t.Fatal(err)
		}

		stream, err := c.Start(ctx, replication.StartOptions{Slot: "s1", Timeline: 1, LSN: mib.Floor(before)})
		if err != nil {
			t.Fatal(err)
		}
		other := s.connect(t)
		if _, err := other.Start(ctx, replication.StartOptions{Slot: "s1", Timeline: 1, LSN: mib.Floor(before)}); !errors.Is(err, replication.ErrSlotActive) {
			t.Errorf("streaming twice from a slot: %v", err)
		}
		if err := other.DropSlot(ctx, "s1"); !errors.Is(err, replication.ErrSlotActive) {
			t.Errorf("dropping a slot in use: %v", err)
		}
		if _, err := other.Start(ctx, replication.StartOptions{Slot: "nil", Timeline: 1, LSN: before}); !errors.Is(err, replication.ErrSlotNotFound) {
			t.Errorf("streaming from no slot: %v", err)
		}
		if _, err := other.IdentifySystem(ctx); err != nil {
			t.Errorf("after refusals: %v", err)
		}

		s.traffic(t, 2)
		end := parseLSN(t, s.sql(t, "select pg_current_wal_flush_lsn()"))
		var got bytes.Buffer
		collect(t, stream, &got, mib.Floor(before), end)
		if err := stream.Status(replication.Status{Write: end, Flush: end - 8, Apply: end - 16}); err != nil {
			t.Fatal(err)
		}
		s.await(t, "select restart_lsn from pg_replication_slots where slot_name = 's1'", (end - 8).String())
		s.await(t, "select write_lsn || ' ' || flush_lsn || ' ' || replay_lsn from pg_stat_replication where application_name = 'under_test' and state = 'streaming'",
			end.String()+" "+(end-8).String()+" "+(end-16).String())
		if year := s.sql(t, "select extract(year from reply_time) > 2020 from pg_stat_replication where reply_time is not null"); year != "t" {
			t.Error("the time of the reply is not a clock's")
		}
		c.Close()
		s.await(t, "select count(*) from pg_replication_slots", "1") // the temporary one is gone
		s.await(t, "select count(*) from pg_replication_slots where active", "0")
		if err := other.DropSlot(ctx, "s1"); err != nil {
			t.Error(err)
		}
	})
}

func TestKeepalives(t *testing.T) {
	s := newServer(t, 15, "wal_sender_timeout=1s")
	c := s.connect(t)
	id, err := c.IdentifySystem(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	stream, err := c.Start(t.Context(), replication.StartOptions{Timeline: 1, LSN: id.Flush})
	if err != nil {
		t.Fatal(err)
	}
	var asked, answered int
	for start := time.Now(); time.Since(start) < 3*time.Second; {
		m, err := stream.Receive(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		k, ok := m.(*replication.Keepalive)
		if !ok {
			continue
		}
		if d := time.Since(k.ServerTime.Time()); d < -time.Second || d > 10*time.Second || k.ServerEnd < id.Flush {
			t.Errorf("keepalive of %s, server at %s", k.ServerTime.Time(), k.ServerEnd)
		}
		if k.ReplyRequested {
			asked++
			if err := stream.Status(replication.Status{Flush: id.Flush}); err != nil {
				t.Fatal(err)
			}
		}
	}
	if asked < 2 {
		t.Errorf("asked for %d replies in three timeouts", asked)
	}
	if err := stream.Status(replication.Status{Flush: id.Flush, ReplyNow: true}); err != nil {
		t.Fatal(err)
	}
	for answered == 0 {
		m, err := stream.Receive(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if k, ok := m.(*replication.Keepalive); ok && !k.ReplyRequested {
			answered++
		}
	}
	// Without an answer the server hangs up.
	for {
		_, err := stream.Receive(t.Context())
		if err != nil {
			t.Log(err)
			break
		}
	}
}

func TestPromotionInMidStream(t *testing.T) {
	eachMajor(t, func(t *testing.T, major int) {
		primary := newServer(t, major, "wal_keep_size=1GB", "hot_standby=on")
		s := primary.standby(t)
		primary.traffic(t, 2)
		ctx := t.Context()
		c := s.connect(t)
		from := mib.Floor(parseLSN(t, primary.sql(t, "select pg_current_wal_flush_lsn()"))) - 1<<20
		stream, err := c.Start(ctx, replication.StartOptions{Timeline: 1, LSN: from})
		if err != nil {
			t.Fatal(err)
		}
		var promoted sync.WaitGroup
		promoted.Go(func() {
			primary.traffic(t, 2)
			s.sql(t, "select pg_promote()")
			s.traffic(t, 2)
		})
		var old bytes.Buffer
		end := collect(t, stream, &old, from, 1<<63)
		promoted.Wait()
		if end.Next != 2 || end.Start != from+pg.LSN(old.Len()) {
			t.Fatalf("received to %s, then %+v", from+pg.LSN(old.Len()), *end)
		}
		if _, err := stream.Receive(ctx); !errors.Is(err, replication.ErrStreamEnded) {
			t.Errorf("receive after the end: %v", err)
		}
		if err := stream.Status(replication.Status{Flush: end.Start}); !errors.Is(err, replication.ErrStreamEnded) {
			t.Errorf("status after the end: %v", err)
		}
		name, data, err := c.TimelineHistory(ctx, end.Next)
		if err != nil || name != "00000002.history" {
			t.Fatalf("history %q, %v", name, err)
		}
		file, err := os.ReadFile(filepath.Join(s.dir, "pg_wal", name))
		if err != nil || !bytes.Equal(file, data) {
			t.Errorf("history is %q, on disk %q, %v", data, file, err)
		}
		h, err := pg.ParseHistory(end.Next, data)
		if err != nil {
			t.Fatal(err)
		}
		if at, ok := h.SwitchPoint(1); !ok || at != end.Start {
			t.Errorf("history switches at %s, stream ended at %s", at, end.Start)
		}
		// The end of the old timeline is on the new one too, byte for byte.
		again := mib.Floor(end.Start)
		stream, err = c.Start(ctx, replication.StartOptions{Timeline: 2, LSN: again})
		if err != nil {
			t.Fatal(err)
		}
		stop := parseLSN(t, s.sql(t, "select pg_current_wal_flush_lsn()"))
		var young bytes.Buffer
		collect(t, stream, &young, again, stop)
		same(t, s, 2, again, young.Bytes())
		k := int(end.Start - again)
		if !bytes.Equal(young.Bytes()[:k], old.Bytes()[old.Len()-k:]) {
			t.Error("the old timeline's end is not what the new one begins with")
		}
		pasts(t, s, end.Start)
	})
}

// pasts asks a server on timeline 2 for what is and is not in its history.
func pasts(t *testing.T, s *server, fork pg.LSN) {
	t.Helper()
	ctx := t.Context()
	c := s.connect(t)
	// Exactly where timeline 1 ended there is nothing to copy.
	stream, err := c.Start(ctx, replication.StartOptions{Timeline: 1, LSN: fork})
	if err != nil {
		t.Fatal(err)
	}
	m, err := stream.Receive(ctx)
	if end, ok := m.(*replication.EndOfTimeline); !ok || err != nil || end.Next != 2 || end.Start != fork {
		t.Errorf("at the end of timeline 1: %+v, %v", m, err)
	}
	if err := stream.Status(replication.Status{}); !errors.Is(err, replication.ErrStreamEnded) {
		t.Errorf("status of an empty stream: %v", err)
	}
	for _, o := range []replication.StartOptions{{Timeline: 1, LSN: fork + 1<<20}, {Timeline: 5, LSN: fork}, {Timeline: 3, LSN: fork}} {
		_, err := c.Start(ctx, o)
		if e := mustAs[*replication.NotInHistoryError](t, err); e.Timeline != o.Timeline || e.LSN != o.LSN {
			t.Errorf("%+v: %+v", o, e)
		}
		t.Log(err)
	}
	_, _, err = c.TimelineHistory(ctx, 9)
	if e := mustAs[*replication.NotInHistoryError](t, err); e.Timeline != 9 {
		t.Errorf("history of timeline 9: %+v", e)
	}
	// A position that is not written yet is found out after the copy has begun.
	stream, err = c.Start(ctx, replication.StartOptions{Timeline: 2, LSN: fork + 1<<30})
	if err != nil {
		t.Fatal(err)
	}
	_, err = stream.Receive(ctx)
	if e := mustAs[*replication.AheadError](t, err); e.LSN != fork+1<<30 {
		t.Errorf("%+v", e)
	}
	if _, err := c.IdentifySystem(ctx); err != nil {
		t.Errorf("after an error in the stream: %v", err)
	}
}

func TestRemovedSegment(t *testing.T) {
	eachMajor(t, func(t *testing.T, major int) {
		s := newServer(t, major, "min_wal_size=2MB", "max_wal_size=2MB", "wal_keep_size=0")
		ctx := t.Context()
		c := s.connect(t)
		id, err := c.IdentifySystem(ctx)
		if err != nil {
			t.Fatal(err)
		}
		from := mib.Floor(id.Flush)
		s.traffic(t, 4)
		s.sql(t, "checkpoint")
		s.traffic(t, 4)
		s.sql(t, "checkpoint")
		stream, err := c.Start(ctx, replication.StartOptions{Timeline: 1, LSN: from})
		if err == nil {
			_, err = stream.Receive(ctx)
		}
		e := mustAs[*replication.SegmentRemovedError](t, err)
		if want := mib.Name(pg.Segment{Timeline: 1, Number: mib.Number(from)}); e.Segment != want {
			t.Errorf("segment %q, want %s", e.Segment, want)
		}
		if refused := mustAs[*pgconn.PgError](t, err); refused.Code != "58P01" {
			t.Error(refused)
		}
		t.Log(err)
		if err := stream.Status(replication.Status{}); !errors.Is(err, replication.ErrStreamEnded) {
			t.Errorf("status after the error: %v", err)
		}
		if _, again := stream.Receive(ctx); again != err {
			t.Errorf("receive after %v: %v", err, again)
		}
		if _, err := c.IdentifySystem(ctx); err != nil {
			t.Errorf("after an error in the stream: %v", err)
		}
	})
}

// A slot that lost WAL: 18 says so; before, the position alone can tell.
func TestInvalidatedSlot(t *testing.T) {
	eachMajor(t, func(t *testing.T, major int) {
		s := newServer(t, major, "min_wal_size=2MB", "max_wal_size=2MB", "max_slot_wal_keep_size=2MB")
		ctx := t.Context()
		c := s.connect(t)
		if err := c.CreateSlot(ctx, "lost", true, false); err != nil {
			t.Fatal(err)
		}
		from := mib.Floor(parseLSN(t, s.sql(t, "select restart_lsn from pg_replication_slots")))
		for range 2 {
			s.traffic(t, 5)
			s.sql(t, "checkpoint")
		}
		s.await(t, "select wal_status from pg_replication_slots", "lost")
		stream, err := c.Start(ctx, replication.StartOptions{Slot: "lost", Timeline: 1, LSN: from})
		if major >= 18 {
			if !errors.Is(err, replication.ErrSlotInvalidated) {
				t.Errorf("%v", err)
			}
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		_, err = stream.Receive(ctx)
		mustAs[*replication.SegmentRemovedError](t, err)
	})
}

func TestServerKilled(t *testing.T) {
	eachMajor(t, func(t *testing.T, major int) {
		s := newServer(t, major)
		c := s.connect(t)
		id, err := c.IdentifySystem(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		stream, err := c.Start(t.Context(), replication.StartOptions{Timeline: 1, LSN: id.Flush})
		if err != nil {
			t.Fatal(err)
		}
		time.AfterFunc(200*time.Millisecond, func() { s.proc.Process.Kill() })
		start := time.Now()
		for err == nil {
			_, err = stream.Receive(t.Context())
		}
		if d := time.Since(start); d > 20*time.Second {
			t.Errorf("it took %s to find out", d)
		}
		t.Log(err)
		if _, err := c.IdentifySystem(t.Context()); err == nil {
			t.Error("a dead connection takes commands")
		}
	})
}

func TestServerStopped(t *testing.T) {
	eachMajor(t, func(t *testing.T, major int) {
		s := newServer(t, major)
		c := s.connect(t)
		id, err := c.IdentifySystem(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		stream, err := c.Start(t.Context(), replication.StartOptions{Timeline: 1, LSN: id.Flush})
		if err != nil {
			t.Fatal(err)
		}
		s.proc.Process.Signal(syscall.SIGINT)
		at := id.Flush
		for err == nil {
			var m replication.Message
			m, err = stream.Receive(t.Context())
			if d, ok := m.(*replication.Data); ok {
				at = d.Start + pg.LSN(len(d.Bytes))
			}
			if err == nil {
				// The server waits until everything is flushed.
				if err := stream.Status(replication.Status{Write: at, Flush: at, Apply: at}); err != nil {
					t.Fatal(err)
				}
			}
		}
		if !errors.Is(err, replication.ErrServerStopping) {
			t.Errorf("%v", err)
		}
	})
}

func TestCancelledReceiveLosesNothing(t *testing.T) {
	s := newServer(t, 15, "wal_keep_size=1GB")
	c := s.connect(t)
	id, err := c.IdentifySystem(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	from := mib.Floor(id.Flush)
	stream, err := c.Start(t.Context(), replication.StartOptions{Timeline: 1, LSN: from})
	if err != nil {
		t.Fatal(err)
	}
	var written sync.WaitGroup
	written.Go(func() { s.traffic(t, 4) })
	var got bytes.Buffer
	cuts := 0
	for got.Len() < 4<<20 {
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Microsecond)
		m, err := stream.Receive(ctx)
		if d, ok := m.(*replication.Data); ok {
			got.Write(d.Bytes)
		}
		if err != nil {
			if cuts++; !errors.Is(err, context.DeadlineExceeded) {
				t.Fatal(err)
			}
		}
		cancel()
	}
	written.Wait()
	collect(t, stream, &got, from, parseLSN(t, s.sql(t, "select pg_current_wal_flush_lsn()")))
	same(t, s, 1, from, got.Bytes())
	t.Logf("cut %d times", cuts)
	if cuts == 0 {
		t.Error("never cut")
	}

	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(100*time.Millisecond, cancel)
	var err2 error
	for err2 == nil {
		_, err2 = stream.Receive(ctx)
	}
	if !errors.Is(err2, context.Canceled) {
		t.Error(err2)
	}
	// Close frees a Receive that nothing else would.
	time.AfterFunc(100*time.Millisecond, func() { c.Close() })
	for err = nil; err == nil; {
		_, err = stream.Receive(context.Background())
	}
	t.Log(err)
}

func TestStatusBesideReceive(t *testing.T) {
	s := newServer(t, 15)
	c := s.connect(t)
	if err := c.CreateSlot(t.Context(), "s", true, false); err != nil {
		t.Fatal(err)
	}
	from := mib.Floor(parseLSN(t, s.sql(t, "select restart_lsn from pg_replication_slots")))
	stream, err := c.Start(t.Context(), replication.StartOptions{Slot: "s", Timeline: 1, LSN: from})
	if err != nil {
		t.Fatal(err)
	}
	done, stop := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			default:
				if err := stream.Status(replication.Status{Write: from, Flush: from, ReplyNow: true}); err != nil {
					t.Error(err)
					return
				}
			}
		}
	}()
	s.traffic(t, 4)
	var got bytes.Buffer
	collect(t, stream, &got, from, from+4<<20)
	close(stop)
	for open := true; open; { // the server's answers must be read, or it stops reading
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		stream.Receive(ctx)
		cancel()
		select {
		case <-done:
			open = false
		default:
		}
	}
	same(t, s, 1, from, got.Bytes())
}
