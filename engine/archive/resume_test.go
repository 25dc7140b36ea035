// SPDX-License-Identifier: Apache-2.0

package archive

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/kbcli/kbcli/engine/pg"
	"github.com/kbcli/kbcli/engine/repository"
)

// stock fills a lineage and a spool with bytes that are nobody's WAL.
type stock struct {
	t *testing.T
	a *Archiver
	l *repository.Lineage
}

func (s *stock) segment(g pg.Segment) {
	s.t.Helper()
	raw := bytes.Repeat([]byte{byte(g.Number)}, int(mb))
	if err := s.l.PutSegment(s.t.Context(), g, [][]byte{repository.Compress(nil, raw)}, xxhash.Sum64(raw)); err != nil {
		s.t.Fatal(err)
	}
}

func (s *stock) tail(g pg.Segment, from, to pg.LSN) {
	s.t.Helper()
	raw := bytes.Repeat([]byte{byte(g.Number)}, int(to-from))
	x := repository.Tail{Segment: g, From: mb.Start(g.Number) + from, To: mb.Start(g.Number) + to}
	if err := s.l.PutTail(s.t.Context(), x, [][]byte{repository.Compress(nil, raw)}, xxhash.Sum64(raw)); err != nil {
		s.t.Fatal(err)
	}
}

func (s *stock) history(tli pg.TimelineID, content string) {
	s.t.Helper()
	if err := s.l.PutHistory(s.t.Context(), tli, []byte(content)); err != nil {
		s.t.Fatal(err)
	}
}

func (s *stock) gap(tli pg.TimelineID, from pg.LSN, to pg.TimelineID, end pg.LSN) {
	s.t.Helper()
	if err := s.l.PutGap(s.t.Context(), repository.Gap{Timeline: tli, From: from, ToTimeline: to, To: end, Detected: time.Now()}); err != nil {
		s.t.Fatal(err)
	}
}

func (s *stock) position(tli pg.TimelineID, lsn pg.LSN) {
	s.t.Helper()
	if err := s.a.savePosition(place{tli, lsn}, false); err != nil {
		s.t.Fatal(err)
	}
}

func (s *stock) begin(tli pg.TimelineID, lsn pg.LSN) {
	s.t.Helper()
	if err := s.a.savePosition(place{tli, lsn}, true); err != nil {
		s.t.Fatal(err)
	}
}

// TestEnd asks where an archive ends, without and with what a spool remembers.
func TestEnd(t *testing.T) {
	at := func(tli pg.TimelineID, n uint64, off pg.LSN) place { return place{tli, mb.Start(n) + off} }
	tests := []struct {
		name string
		fill func(s *stock)
		want place
	}{
		{"nothing", func(*stock) {}, place{}},
		{"only begun", func(s *stock) { s.begin(1, mb.Start(4)) }, at(1, 4, 0)},
		{"begun", func(s *stock) { s.begin(1, mb.Start(4)); s.segment(seg(1, 4)); s.tail(seg(1, 5), 0, 9) }, at(1, 5, 9)},
		{"begun, put out of order", func(s *stock) { s.begin(1, mb.Start(4)); s.segment(seg(1, 5)) }, at(1, 4, 0)},
		{"a tail alone", func(s *stock) { s.tail(seg(1, 5), 0, 100) }, at(1, 5, 100)},
		{"a tail with a hole", func(s *stock) { s.tail(seg(1, 5), 0, 100); s.tail(seg(1, 5), 200, 300) }, at(1, 5, 100)},
		{"segments", func(s *stock) { s.segment(seg(1, 5)); s.segment(seg(1, 6)) }, at(1, 7, 0)},
		{"segments and tails", func(s *stock) {
			s.segment(seg(1, 5))
			s.tail(seg(1, 6), 0, 100)
			s.tail(seg(1, 6), 50, 200)
		}, at(1, 6, 200)},
		{"a hole", func(s *stock) { s.segment(seg(1, 5)); s.segment(seg(1, 7)); s.position(1, 0) }, at(1, 6, 0)},
		{"a declared gap", func(s *stock) {
			s.segment(seg(1, 5))
			s.gap(1, mb.Start(6)+50, 1, mb.Start(9))
			s.segment(seg(1, 9))
		}, at(1, 10, 0)},
		{"a declared gap at the end", func(s *stock) {
			s.segment(seg(1, 5))
			s.tail(seg(1, 6), 0, 50)
			s.gap(1, mb.Start(6)+50, 1, mb.Start(9))
			s.tail(seg(1, 9), 0, 10)
		}, at(1, 9, 10)},
		{"remembered behind a gap", func(s *stock) {
			s.segment(seg(1, 5))
			s.gap(1, mb.Start(6), 1, mb.Start(9))
			s.position(1, mb.Start(9))
		}, at(1, 9, 0)},
		{"remembered", func(s *stock) {
			s.segment(seg(1, 5))
			s.segment(seg(1, 7)) // a hole that was there before
			s.position(1, mb.Start(8))
			s.segment(seg(1, 8))
			s.tail(seg(1, 9), 0, 10)
		}, at(1, 9, 10)},
		{"remembered wrongly", func(s *stock) { s.segment(seg(1, 5)); s.position(1, mb.Start(9)) }, at(1, 6, 0)},
		{"a new timeline's tails", func(s *stock) {
			s.segment(seg(1, 5))
			s.tail(seg(1, 6), 0, 500)
			s.history(2, "1\t0/600100\tx\n")
			s.tail(seg(2, 6), 0, 700)
		}, at(2, 6, 700)},
		{"a new timeline's segments", func(s *stock) {
			s.segment(seg(1, 5))
			s.history(2, "1\t0/600100\tx\n")
			s.segment(seg(2, 6))
			s.segment(seg(1, 6))
			s.segment(seg(1, 7)) // a stray branch
		}, at(2, 7, 0)},
		{"a gap into a new timeline", func(s *stock) {
			s.segment(seg(1, 5))
			s.history(2, "1\t0/800100\tx\n")
			s.gap(1, mb.Start(6), 2, mb.Start(11))
			s.tail(seg(2, 11), 0, 5)
		}, at(2, 11, 5)},
		{"remembered on a new timeline", func(s *stock) {
			s.segment(seg(1, 5))
			s.history(2, "1\t0/600100\tx\n")
			s.position(2, mb.Start(6))
		}, at(2, 6, 0)},
	}
	for _, tt := range tests {
		a, l := memRig(t, mb, 7)
		tt.fill(&stock{t, a, l})
		got, err := a.repositoryEnd(t.Context())
		if err != nil || got != tt.want {
			t.Errorf("%s: %s on %s, %v; want %s on %s", tt.name, got.lsn, got.tli, err, tt.want.lsn, tt.want.tli)
		}
	}
}

// TestWalk follows a spool from where the repository ends.
func TestWalk(t *testing.T) {
	at := func(tli pg.TimelineID, n uint64, off pg.LSN) place { return place{tli, mb.Start(n) + off} }
	type files map[pg.Segment]int64
	full := int64(mb)
	tests := []struct {
		name  string
		spool files
		jumps map[place]jump
		end   place
		want  place
		left  files
	}{
		{"empty", nil, nil, at(1, 5, 9), at(1, 5, 9), files{}},
		{"goes on", files{seg(1, 5): full, seg(1, 6): 77}, nil, at(1, 5, 9), at(1, 6, 77), files{seg(1, 5): full, seg(1, 6): 77}},
		{"just full", files{seg(1, 5): full}, nil, at(1, 5, 9), at(1, 6, 0), files{seg(1, 5): full}},
		{"shipped before", files{seg(1, 4): full, seg(1, 5): 50}, nil, at(1, 5, 9), at(1, 5, 50), files{seg(1, 5): 50}},
		{"less than the repository", files{seg(1, 5): 5}, nil, at(1, 5, 9), at(1, 5, 9), files{seg(1, 5): 5}},
		{"with a hole", files{seg(1, 5): 50, seg(1, 7): 50}, nil, at(1, 5, 9), at(1, 5, 50), files{seg(1, 5): 50}},
		{
			"over a switch",
			files{seg(1, 5): 50, seg(2, 5): full, seg(2, 6): 3},
			map[place]jump{at(1, 5, 50): {to: 2, lsn: mb.Start(5)}},
			at(1, 5, 9), at(2, 6, 3),
			files{seg(1, 5): 50, seg(2, 5): full, seg(2, 6): 3},
		},
		{
			"over a gap and a switch",
			files{seg(1, 5): 50, seg(1, 9): 60, seg(2, 9): 70},
			map[place]jump{at(1, 5, 50): {to: 1, lsn: mb.Start(9)}, at(1, 9, 60): {to: 2, lsn: mb.Start(9)}},
			at(1, 5, 50), at(2, 9, 70),
			files{seg(1, 5): 50, seg(1, 9): 60, seg(2, 9): 70},
		},
		{
			"to an earlier timeline",
			files{seg(2, 9): 50, seg(1, 4): full, seg(1, 5): 7},
			map[place]jump{at(2, 9, 50): {to: 1, lsn: mb.Start(4)}},
			at(2, 9, 50), at(1, 5, 7),
			files{seg(2, 9): 50, seg(1, 4): full, seg(1, 5): 7},
		},
		{
			"given up",
			files{seg(1, 5): full, seg(1, 6): full, seg(1, 8): 8},
			map[place]jump{at(1, 6, 0): {to: 1, lsn: mb.Start(8)}},
			at(1, 5, 0), at(1, 8, 8),
			files{seg(1, 5): full, seg(1, 8): 8},
		},
		{
			"a jump that was made",
			files{seg(2, 5): 50},
			map[place]jump{at(1, 5, 50): {to: 2, lsn: mb.Start(5)}},
			at(2, 5, 0), at(2, 5, 50),
			files{seg(2, 5): 50},
		},
	}
	for _, tt := range tests {
		a, l := memRig(t, mb, 7)
		for g, n := range tt.spool {
			if err := os.WriteFile(filepath.Join(a.cfg.Spool, mb.Name(g)), make([]byte, n), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if err := a.setJumps(tt.jumps, func(*Status) {}); err != nil {
			t.Fatal(err)
		}
		a = newArchiver(t, l, a.cfg.Spool)
		if err := a.loadJumps(); err != nil {
			t.Fatal(err)
		}
		got, err := a.walk(tt.end)
		if err != nil || got != tt.want {
			t.Errorf("%s: %s on %s, %v; want %s on %s", tt.name, got.lsn, got.tli, err, tt.want.lsn, tt.want.tli)
		}
		left := a.spool.segments()
		ok := len(left) == len(tt.left)
		for _, g := range left {
			ok = ok && a.spool.held(g) == tt.left[g]
		}
		if !ok {
			t.Errorf("%s: left %v, want %v", tt.name, left, tt.left)
		}
	}
}
