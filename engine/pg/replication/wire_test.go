// SPDX-License-Identifier: Apache-2.0

package replication

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/kbcli/kbcli/engine/pg"
)

// script is the server's side of a connection: what it sends, once or for ever.
type script struct {
	bytes   []byte
	at      int
	forever bool
	chunk   int // how much one read gives at most; 0 is no limit
}

func (s *script) Read(p []byte) (int, error) {
	if s.at == len(s.bytes) {
		if !s.forever {
			return 0, io.EOF
		}
		s.at = 0
	}
	if s.chunk > 0 && len(p) > s.chunk {
		p = p[:s.chunk]
	}
	n := copy(p, s.bytes[s.at:])
	s.at += n
	return n, nil
}

func (s *script) Write(p []byte) (int, error)      { return len(p), nil }
func (s *script) Close() error                     { return nil }
func (s *script) LocalAddr() net.Addr              { return nil }
func (s *script) RemoteAddr() net.Addr             { return nil }
func (s *script) SetDeadline(time.Time) error      { return nil }
func (s *script) SetReadDeadline(time.Time) error  { return nil }
func (s *script) SetWriteDeadline(time.Time) error { return nil }

func frame(kind byte, body ...byte) []byte {
	b := binary.BigEndian.AppendUint32([]byte{kind}, uint32(4+len(body)))
	return append(b, body...)
}

func walFrame(start, end uint64, bytes ...byte) []byte {
	b := binary.BigEndian.AppendUint64([]byte{'w'}, start)
	b = binary.BigEndian.AppendUint64(b, end)
	b = binary.BigEndian.AppendUint64(b, 42)
	return frame('d', append(b, bytes...)...)
}

func keepaliveFrame(end uint64, reply byte) []byte {
	b := binary.BigEndian.AppendUint64([]byte{'k'}, end)
	b = binary.BigEndian.AppendUint64(b, 43)
	return frame('d', append(b, reply)...)
}

func rowFrame(values ...string) []byte {
	b := binary.BigEndian.AppendUint16(nil, uint16(len(values)))
	for _, v := range values {
		b = append(binary.BigEndian.AppendUint32(b, uint32(len(v))), v...)
	}
	return frame('D', b...)
}

func errorFrame(severity, code, message, routine string) []byte {
	return frame('E', []byte("S"+severity+"\x00V"+severity+"\x00C"+code+"\x00M"+message+"\x00R"+routine+"\x00\x00")...)
}

func streamOf(s *script) *Stream {
	c := &Conn{wire: newWire(s, s), busy: true}
	return &Stream{conn: c, asked: StartOptions{Timeline: 1, LSN: 0x100}, next: 0x100}
}

func join(frames ...[]byte) []byte {
	var b []byte
	for _, f := range frames {
		b = append(b, f...)
	}
	return b
}

// What a server may send, however the network cuts it.
func TestReceive(t *testing.T) {
	sent := join(
		frame('N', 'S', 'L', 'O', 'G', 0, 0), keepaliveFrame(0x200, 1), walFrame(0x100, 0x200, 1, 2, 3), frame('S', 'a', 0, 'b', 0),
		walFrame(0x103, 0x200, 4), frame('c'), frame('T', 0, 0), rowFrame("2", "0/104"), frame('C', 0), frame('C', 0), frame('Z', 'I'))
	for _, chunk := range []int{0, 1, 7} {
		s := streamOf(&script{bytes: sent, chunk: chunk})
		var got []any
		for {
			m, err := s.Receive(t.Context())
			if err != nil {
				if !errors.Is(err, ErrStreamEnded) {
					t.Error(err)
				}
				break
			}
			switch m := m.(type) {
			case *Data:
				d := *m
				d.Bytes = append([]byte{}, d.Bytes...)
				got = append(got, d)
			case *Keepalive:
				got = append(got, *m)
			case *EndOfTimeline:
				got = append(got, *m)
			}
		}
		want := []any{
			Keepalive{ServerEnd: 0x200, ServerTime: 43, ReplyRequested: true},
			Data{Start: 0x100, ServerEnd: 0x200, ServerTime: 42, Bytes: []byte{1, 2, 3}},
			Data{Start: 0x103, ServerEnd: 0x200, ServerTime: 42, Bytes: []byte{4}},
			EndOfTimeline{Next: 2, Start: 0x104},
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("in chunks of %d: %s", chunk, diff)
		}
		if s.conn.busy {
			t.Error("the connection is not free at the end")
		}
	}
}

func TestReceiveRefuses(t *testing.T) {
	for name, sent := range map[string][]byte{
		"nothing":             nil,
		"half a header":       {'d', 0, 0},
		"half a message":      walFrame(0x100, 0x200, 1, 2, 3)[:20],
		"a gap":               walFrame(0x101, 0x200, 1),
		"a repetition":        walFrame(0x0FF, 0x200, 1),
		"no size":             {'d', 0, 0, 0, 3},
		"a huge size":         {'d', 0x7F, 0, 0, 0},
		"a negative size":     {'d', 0xFF, 0xFF, 0xFF, 0xFF},
		"an empty copy":       frame('d'),
		"an unknown copy":     frame('d', 'x'),
		"a short WAL message": frame('d', 'w', 0, 0),
		"a long keepalive":    append(keepaliveFrame(1, 0)[:4], append([]byte{23}, append(keepaliveFrame(1, 0)[5:], 0)...)...),
		"an unknown message":  frame('G'),
		"a row among WAL":     rowFrame("2", "0/104"),
		"no next timeline":    join(frame('c'), frame('C', 0), frame('Z', 'I')),
		"an odd row":          join(frame('c'), rowFrame("2"), frame('Z', 'I')),
		"timeline 0":          join(frame('c'), rowFrame("0", "0/104"), frame('Z', 'I')),
		"no position":         join(frame('c'), rowFrame("2", "104"), frame('Z', 'I')),
		"a cut row":           join(frame('c'), frame('D', 0, 1, 0, 0, 0, 9, 'x')),
		"an endless error":    frame('E', 'S', 'x'),
	} {
		s := streamOf(&script{bytes: sent})
		m, err := s.Receive(t.Context())
		if err == nil {
			t.Errorf("%s: received %+v", name, m)
			continue
		}
		if _, again := s.Receive(t.Context()); again != err {
			t.Errorf("%s: %v, then %v", name, err, again)
		}
	}
	s := streamOf(&script{bytes: frame('C', 'C', 'O', 'P', 'Y', ' ', '0', 0)})
	if _, err := s.Receive(t.Context()); !errors.Is(err, ErrServerStopping) {
		t.Errorf("orderly end: %v", err)
	}
}

// The WAL passes without an allocation, across the end of the buffer too.
func TestReceiveAllocatesNothing(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	s := streamOf(&script{bytes: walFrame(0x100, 0x200, make([]byte, 100_000)...), forever: true})
	total := 0
	if n := testing.AllocsPerRun(1000, func() {
		m, err := s.Receive(ctx)
		if err != nil {
			t.Fatal(err)
		}
		total += len(m.(*Data).Bytes)
		s.next = 0x100 // the script repeats itself
		if err := s.Status(Status{Write: 1, Flush: 1}); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations a message", n)
	}
	if total < 1000*100_000 {
		t.Errorf("received %d bytes", total)
	}
}

func TestClassify(t *testing.T) {
	asked := StartOptions{Timeline: 3, LSN: 0x3000000}
	for name, c := range map[string]struct {
		code, message, routine string
		asked                  StartOptions
		want                   error
		segment                string
	}{
		"removed":        {"58P01", "das angeforderte WAL-Segment 00000001000000000000000B wurde schon entfernt", "XLogReadDetermineTimeline", asked, &SegmentRemovedError{}, "00000001000000000000000B"},
		"removed, where": {"58P01", "fichier manquant", "x", asked, &SegmentRemovedError{}, ""},
		"no history":     {"58P01", "Datei fehlt", "SendTimeLineHistory", StartOptions{Timeline: 3}, &NotInHistoryError{}, ""},
		"never on it":    {"XX000", "angeforderte Zeitleiste 3 ist nicht in der History dieses Servers", "tliSwitchPoint", asked, &NotInHistoryError{}, ""},
		"left before":    {"XX000", "angeforderter Startpunkt 0/3000000 auf Zeitleiste 3 ist nicht in der History dieses Servers", "StartReplication", asked, &NotInHistoryError{}, ""},
		"ahead":          {"XX000", "angeforderter Startpunkt 0/3000000 ist vor der WAL-Flush-Position dieses Servers 0/2000000", "StartReplication", asked, &AheadError{}, ""},
		"no slot":        {"42704", "x", "ReplicationSlotAcquire", asked, ErrSlotNotFound, ""},
		"slot twice":     {"42710", "x", "ReplicationSlotCreate", StartOptions{}, ErrSlotExists, ""},
		"slot in use":    {"55006", "x", "ReplicationSlotAcquire", asked, ErrSlotActive, ""},
		"slot lost":      {"55000", "x", "ReplicationSlotAcquire", asked, ErrSlotInvalidated, ""},
	} {
		refused, err := serverError(errorFrame("FEHLER", c.code, c.message, c.routine)[5:])
		if err != nil {
			t.Fatal(err)
		}
		got := classify(refused, c.asked)
		var same bool
		switch want := c.want.(type) {
		case *SegmentRemovedError:
			same = errors.As(got, &want) && want.Segment == c.segment
		case *NotInHistoryError:
			same = errors.As(got, &want) && want.Timeline == 3 && want.LSN == c.asked.LSN
		case *AheadError:
			same = errors.As(got, &want) && want.LSN == c.asked.LSN
		default:
			same = errors.Is(got, want)
		}
		var inner *pgconn.PgError
		if !same || !errors.As(got, &inner) || inner.Code != c.code {
			t.Errorf("%s: %#v", name, got)
		}
	}
	for _, plain := range []*pgconn.PgError{
		{Code: "55000", Routine: "StartReplication", Message: "cannot use a logical replication slot for physical replication"},
		{Code: "XX000", Routine: "WALRead"},
		{Code: "57P01"},
		{Code: "42501"},
	} {
		if got := classify(plain, asked); got != error(plain) {
			t.Errorf("%v became %v", plain, got)
		}
	}
}

func FuzzReceive(f *testing.F) {
	f.Add(join(keepaliveFrame(1, 1), walFrame(0x100, 0x200, 1, 2), frame('c'), rowFrame("2", "0/104"), frame('Z', 'I')), uint8(3))
	f.Add(join(errorFrame("ERROR", "58P01", "m", "r"), frame('Z', 'I')), uint8(0))
	f.Add(frame('D', 0, 3, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0, 0, 1, 'a', 0, 0, 0, 0), uint8(0))
	f.Fuzz(func(t *testing.T, sent []byte, chunk uint8) {
		s := streamOf(&script{bytes: sent, chunk: int(chunk)})
		next := pg.LSN(0x100)
		for {
			m, err := s.Receive(t.Context())
			if err != nil {
				break
			}
			if d, ok := m.(*Data); ok {
				if d.Start != next {
					t.Fatalf("WAL from %s, want %s", d.Start, next)
				}
				next += pg.LSN(len(d.Bytes))
			}
		}
		from := &script{bytes: sent}
		c := &Conn{wire: newWire(from, from)}
		c.results(t.Context())
		if row, err := cutRow(sent); err == nil {
			size := 2
			for _, v := range row {
				size += 4 + len(v)
			}
			if size != len(sent) {
				t.Fatalf("a row of %d bytes from %d", size, len(sent))
			}
		}
	})
}

func BenchmarkReceive(b *testing.B) {
	s := streamOf(&script{bytes: walFrame(0x100, 0x200, make([]byte, 128<<10)...), forever: true})
	b.SetBytes(128 << 10)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.Receive(b.Context()); err != nil {
			b.Fatal(err)
		}
		s.next = 0x100
	}
}
