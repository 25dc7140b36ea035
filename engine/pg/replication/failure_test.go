// SPDX-License-Identifier: Apache-2.0

package replication_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/kbcli/kbcli/engine/pg"
	"github.com/kbcli/kbcli/engine/pg/replication"
)

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
					t.Logf("the server was gone before it could be answered: %v", err)
					return
				}
			}
		}
		// a walsender that has just begun may be told to go like any session
		var refused *pgconn.PgError
		if !errors.Is(err, replication.ErrServerStopping) && !(errors.As(err, &refused) && refused.Code == "57P01") {
			t.Errorf("%v", err)
		}
	})
}

func TestCancelledReceiveLosesNothing(t *testing.T) {
	t.Run("plain", func(t *testing.T) {
		s := newServer(t, 15, "wal_keep_size=1GB")
		cutOften(t, s, s.connect(t))
	})
	t.Run("TLS", func(t *testing.T) {
		s := newServer(t, 15, "wal_keep_size=1GB")
		s.stop(syscall.SIGINT)
		port := s.offerTLS(t)
		s.start(t)
		c, err := replication.Connect(t.Context(), fmt.Sprintf("host=127.0.0.1 port=%d sslmode=require user=postgres", port))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		cutOften(t, s, c)
	})
}

// cutOften receives with contexts that hardly live long enough for a message.
func cutOften(t *testing.T, s *server, c *replication.Conn) {
	t.Helper()
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
