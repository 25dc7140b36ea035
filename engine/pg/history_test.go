// SPDX-License-Identifier: Apache-2.0

package pg_test

import (
	"bytes"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kbcli/kbcli/engine/pg"
)

// As three promotions write it, the last of them a recovery to a time.
const history4 = "1\t0/3000148\tno recovery target specified\n" +
	"\n2\t0/40000A0\tno recovery target specified\n" +
	"\n3\t1/5000000\tbefore 2026-11-22 20:00:00.123456+00\n"

func TestParseHistory(t *testing.T) {
	want := pg.History{Timeline: 4, Entries: []pg.HistoryEntry{
		{Timeline: 1, End: 0x3000148, Reason: "no recovery target specified"},
		{Timeline: 2, End: 0x40000A0, Reason: "no recovery target specified"},
		{Timeline: 3, End: 0x1_05000000, Reason: "before 2026-11-22 20:00:00.123456+00"},
	}}
	for name, text := range map[string]string{
		"as written":      history4,
		"no blank lines":  "1\t0/3000148\tno recovery target specified\n2\t0/40000A0\tno recovery target specified\n3\t1/5000000\tbefore 2026-11-22 20:00:00.123456+00",
		"spaces, comment": "# made by hand\n 1 0/03000148 no recovery target specified\r\n\t2\t0/40000a0  no recovery target specified\n\n # x\n3 1/5000000 before 2026-11-22 20:00:00.123456+00\n",
	} {
		got, err := pg.ParseHistory(4, []byte(text))
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
	if diff := cmp.Diff(history4, string(want.Bytes())); diff != "" {
		t.Error(diff)
	}
}

func TestParseHistoryRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		tli  pg.TimelineID
		text string
	}{
		"timeline 0 itself":       {0, ""},
		"own timeline":            {2, "2\t0/3000148\tx\n"},
		"later timeline":          {2, "3\t0/3000148\tx\n"},
		"not increasing":          {5, "2\t0/3000148\tx\n1\t0/4000000\tx\n"},
		"the same twice":          {5, "2\t0/3000148\tx\n2\t0/4000000\tx\n"},
		"no number":               {5, "one\t0/3000148\tx\n"},
		"timeline 0":              {5, "0\t0/3000148\tx\n"},
		"timeline too large":      {5, "99999999999999999999\t0/3000148\tx\n"},
		"negative":                {5, "-1\t0/3000148\tx\n"},
		"no switch point":         {5, "1\n"},
		"half a switch point":     {5, "1\t0/\tx\n"},
		"no slash":                {5, "1\t03000148\tx\n"},
		"switch point too long":   {5, "1\t0/300000148\tx\n"},
		"switch point at nothing": {5, "1\t0/0\tx\n"},
		"garbage":                 {5, "\x00\x01\x02"},
	} {
		if got, err := pg.ParseHistory(c.tli, []byte(c.text)); err == nil {
			t.Errorf("%s: reads as %+v, want an error", name, got)
		}
	}
}

// TestParseHistoryBackwards: timeline 2 was left before it began, by a recovery that
// stopped on timeline 1.
func TestParseHistoryBackwards(t *testing.T) {
	h, err := pg.ParseHistory(3, []byte("1\t0/5000000\tx\n\n2\t0/3000148\tx\n"))
	if err != nil {
		t.Fatal(err)
	}
	for l, want := range map[pg.LSN]pg.TimelineID{0: 1, 0x3000147: 1, 0x3000148: 3, 0x5000000: 3} {
		if got := h.TimelineAt(l); got != want {
			t.Errorf("timeline at %s is %d, want %d", l, got, want)
		}
	}
	again, err := pg.ParseHistory(3, h.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(h, again); diff != "" {
		t.Error(diff)
	}
}

func TestHistoryQuestions(t *testing.T) {
	h, err := pg.ParseHistory(4, []byte(history4))
	if err != nil {
		t.Fatal(err)
	}
	for l, want := range map[pg.LSN]pg.TimelineID{
		0: 1, 0x3000147: 1, 0x3000148: 2, 0x400009F: 2, 0x40000A0: 3, 0x1_04FFFFFF: 3, 0x1_05000000: 4, 1<<64 - 1: 4,
	} {
		if got := h.TimelineAt(l); got != want {
			t.Errorf("timeline at %s is %d, want %d", l, got, want)
		}
		for tli := range pg.TimelineID(6) {
			if got := h.Contains(tli, l); got != (tli == want) {
				t.Errorf("Contains(%d, %s) = %v", tli, l, got)
			}
		}
	}
	for tli, want := range map[pg.TimelineID]pg.LSN{0: 0, 1: 0x3000148, 2: 0x40000A0, 3: 0x1_05000000, 4: 0, 5: 0} {
		if got, ok := h.SwitchPoint(tli); got != want || ok != (want != 0) {
			t.Errorf("SwitchPoint(%d) = %s, %v; want %s", tli, got, ok, want)
		}
	}
	first := pg.History{Timeline: 1}
	if !first.Contains(1, 0) || len(first.Bytes()) != 0 {
		t.Error("timeline 1 is its own only past")
	}
	// A server that was promoted twice without writing leaves an empty timeline behind.
	h, err = pg.ParseHistory(3, []byte("1\t0/3000148\tx\n2\t0/3000148\tx\n"))
	if err != nil || h.TimelineAt(0x3000148) != 3 || h.TimelineAt(0x3000147) != 1 {
		t.Errorf("empty timeline: %+v, %v", h, err)
	}
}

func TestHistoryReasonKeepsItsLine(t *testing.T) {
	h := pg.History{Timeline: 9, Entries: []pg.HistoryEntry{{Timeline: 1, End: 0x3000148, Reason: "at restore point \"a\n7\t0/0\r\""}}}
	got, err := pg.ParseHistory(9, h.Bytes())
	if err != nil || len(got.Entries) != 1 || got.Entries[0].Reason != "at restore point \"a 7\t0/0 \"" {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestHistoryFileName(t *testing.T) {
	for tli, name := range map[pg.TimelineID]string{1: "00000001.history", 0xAB: "000000AB.history", 1<<32 - 1: "FFFFFFFF.history"} {
		if got := pg.HistoryFileName(tli); got != name {
			t.Errorf("name of %d is %s, want %s", tli, got, name)
		}
		if got, err := pg.ParseHistoryFileName(name); got != tli || err != nil {
			t.Errorf("%s reads as %d, %v", name, got, err)
		}
	}
	for _, name := range []string{"", ".history", "2.history", "00000000.history", "000000ab.history", "00000002.histor", "00000002.history.bak", "000000002.history", "0000000G.history"} {
		if got, err := pg.ParseHistoryFileName(name); err == nil {
			t.Errorf("%q reads as %d, want an error", name, got)
		}
	}
}

// The file that each release writes is read, and written again byte for byte.
func TestHistoryOfServers(t *testing.T) {
	for _, major := range []int{13, 15, 18} {
		s := initdb(t, major)
		for want := pg.TimelineID(2); want <= 3; want++ {
			write(t, nil, s.dir, "recovery.signal")
			write(t, []byte("restore_command='false'\n"), s.dir, "postgresql.auto.conf")
			conn := s.start(t)
			for query(t, conn, "select pg_is_in_recovery()")[0][0] == "t" {
			}
			conn.Close(t.Context())
			s.stop()
			data := read(t, s.dir, "pg_wal", pg.HistoryFileName(want))
			h, err := pg.ParseHistory(want, data)
			if err != nil {
				t.Fatal(err)
			}
			if len(h.Entries) != int(want)-1 {
				t.Errorf("%d: %d entries in %q", major, len(h.Entries), data)
			}
			if got := h.Bytes(); !bytes.Equal(got, data) {
				t.Errorf("%d: wrote %q, the server %q", major, got, data)
			}
		}
	}
}

func FuzzHistory(f *testing.F) {
	f.Add(uint32(4), []byte(history4))
	f.Add(uint32(2), []byte("1 0/3000148"))
	f.Add(uint32(2), []byte("#\n\n1\t0/3000148\tx\ty\r\n"))
	f.Fuzz(func(t *testing.T, tli uint32, data []byte) {
		h, err := pg.ParseHistory(pg.TimelineID(tli), data)
		if err != nil {
			return
		}
		again, err := pg.ParseHistory(h.Timeline, h.Bytes())
		if err != nil {
			t.Fatalf("%q, written as %q: %v", data, h.Bytes(), err)
		}
		for i := range h.Entries {
			if h.Entries[i].Timeline != again.Entries[i].Timeline || h.Entries[i].End != again.Entries[i].End {
				t.Fatalf("%q, written as %q, reads as %+v", data, h.Bytes(), again)
			}
		}
		if !bytes.Equal(h.Bytes(), again.Bytes()) {
			t.Fatalf("%q is written as %q, then as %q", data, h.Bytes(), again.Bytes())
		}
		for _, e := range h.Entries {
			if end, ok := h.SwitchPoint(e.Timeline); !ok || end != e.End || h.Contains(e.Timeline, end) {
				t.Fatalf("switch point of %d: %s, %v", e.Timeline, end, ok)
			}
		}
	})
}

func FuzzHistoryFileName(f *testing.F) {
	f.Add("00000002.history")
	f.Add("000000ab.history")
	f.Fuzz(func(t *testing.T, name string) {
		if tli, err := pg.ParseHistoryFileName(name); err == nil && pg.HistoryFileName(tli) != name {
			t.Errorf("%q reads as %d", name, tli)
		}
	})
}
