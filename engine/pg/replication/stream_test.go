// SPDX-License-Identifier: Apache-2.0

package replication_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

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
		from := mib.Floor(parseLSN(t, s.sql(t, "select pg_last_wal_replay_lsn()")))
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
		// A standby sends on what it has received, and may leave the timeline before
		// the end of that: with the last whole record.
		if end.Next != 2 || end.Start > from+pg.LSN(old.Len()) {
			t.Fatalf("received to %s, then %+v", from+pg.LSN(old.Len()), *end)
		}
		old.Truncate(int(end.Start - from))
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
