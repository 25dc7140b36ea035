// SPDX-License-Identifier: Apache-2.0

package pg_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kbcli/kbcli/engine/pg"
)

func TestParseLSN(t *testing.T) {
	for text, want := range map[string]pg.LSN{
		"0/0":               0,
		"0/3000028":         0x3000028,
		"16/B374D848":       0x16_B374D848,
		"16/b374d848":       0x16_B374D848,
		"1/00000010":        0x1_00000010,
		"FFFFFFFF/FFFFFFFF": 0xFFFFFFFF_FFFFFFFF,
	} {
		got, err := pg.ParseLSN(text)
		if err != nil || got != want {
			t.Errorf("ParseLSN(%q) = %v, %v; want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"", "/", "0", "0/", "/0", "0/0/0", "0/ 1", "+1/0", "-1/0", "0x1/0", "123456789/0", "0/123456789", "G/0"} {
		if got, err := pg.ParseLSN(text); err == nil {
			t.Errorf("ParseLSN(%q) = %v, want an error", text, got)
		}
	}
}

func TestWordsInJSON(t *testing.T) {
	type words struct {
		LSN    pg.LSN
		System pg.SystemID
	}
	want := words{0x16_B374D848, 7711106745330944979}
	b, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(`{"LSN":"16/B374D848","System":"7711106745330944979"}`, string(b)); diff != "" {
		t.Error(diff)
	}
	var got words
	if err := json.Unmarshal(b, &got); err != nil || got != want {
		t.Errorf("read back %v, %v; want %v", got, err, want)
	}
	for _, bad := range []string{`{"LSN":"x"}`, `{"System":"-1"}`} {
		if err := json.Unmarshal([]byte(bad), &got); err == nil {
			t.Errorf("%s was accepted", bad)
		}
	}
}

func TestParseNumbers(t *testing.T) {
	if got, err := pg.ParseTimelineID("4294967295"); got != 1<<32-1 || err != nil {
		t.Errorf("largest timeline: %v, %v", got, err)
	}
	if got, err := pg.ParseSystemID("18446744073709551615"); got != 1<<64-1 || err != nil {
		t.Errorf("largest system identifier: %v, %v", got, err)
	}
	for _, bad := range []string{"", "0", "-1", "+1", "4294967296", "1 ", "0x1"} {
		if got, err := pg.ParseTimelineID(bad); err == nil {
			t.Errorf("ParseTimelineID(%q) = %v, want an error", bad, got)
		}
	}
	for _, bad := range []string{"", "-1", "+1", "18446744073709551616", "0x1"} {
		if got, err := pg.ParseSystemID(bad); err == nil {
			t.Errorf("ParseSystemID(%q) = %v, want an error", bad, got)
		}
	}
}

func TestTimestamp(t *testing.T) {
	for text, want := range map[string]pg.Timestamp{
		"2000-01-01T00:00:00Z":        0,
		"1999-12-31T23:59:59.999999Z": -1,
		"2026-11-22T21:12:27.123456Z": 848697147123456,
	} {
		at, err := time.Parse(time.RFC3339Nano, text)
		if err != nil {
			t.Fatal(err)
		}
		if got := pg.TimestampOf(at); got != want {
			t.Errorf("TimestampOf(%s) = %d, want %d", text, got, want)
		}
		if got := want.Time(); !got.Equal(at) || got.Location() != time.UTC {
			t.Errorf("Time of %d is %v, want %s", want, got, text)
		}
	}
	if got := pg.TimestampOf(time.Unix(946684800, -1)); got != -1 {
		t.Errorf("a nanosecond before 2000 is %d, want -1: cut towards the past", got)
	}
}

func TestStrings(t *testing.T) {
	got := []string{
		pg.RelFileLocator{Spc: 1663, DB: 5, Rel: 16384}.String(),
		pg.MainFork.String(), pg.FSMFork.String(), pg.VMFork.String(), pg.InitFork.String(), pg.ForkNumber(9).String(),
		pg.Version(150020).String(),
	}
	want := []string{"1663/5/16384", "main", "fsm", "vm", "init", "9", "15.20"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if got := pg.Version(150020).Major(); got != 15 {
		t.Errorf("major of 150020 is %d", got)
	}
}

func FuzzLSN(f *testing.F) {
	for _, s := range []string{"0/0", "16/B374D848", "ffffffff/FFFFFFFF", "/", "1/ 2"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		l, err := pg.ParseLSN(s)
		if err != nil {
			return
		}
		if again, err := pg.ParseLSN(l.String()); err != nil || again != l {
			t.Errorf("%q: %s reads as %v, %v", s, l, again, err)
		}
		if hi, lo, _ := strings.Cut(s, "/"); len(hi) > 8 || len(lo) > 8 {
			t.Errorf("%q was accepted", s)
		}
	})
}

func FuzzNumbers(f *testing.F) {
	for _, s := range []string{"0", "1", "4294967295", "18446744073709551615", "-0", "１"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if v, err := pg.ParseTimelineID(s); err == nil {
			if again, err := pg.ParseTimelineID(v.String()); err != nil || again != v || v == 0 {
				t.Errorf("timeline %q reads as %v, then %v, %v", s, v, again, err)
			}
		}
		if v, err := pg.ParseSystemID(s); err == nil {
			if again, err := pg.ParseSystemID(v.String()); err != nil || again != v {
				t.Errorf("system identifier %q reads as %v, then %v, %v", s, v, again, err)
			}
		}
	})
}

func FuzzTimestamp(f *testing.F) {
	f.Add(int64(0))
	f.Add(int64(-1))
	f.Add(int64(848697147123456))
	f.Fuzz(func(t *testing.T, v int64) {
		// What PostgreSQL accepts: 4713 BC to the year 294276.
		if v < -211813488000000000 || v >= 9223371331200000000 {
			return
		}
		if got := pg.TimestampOf(pg.Timestamp(v).Time()); got != pg.Timestamp(v) {
			t.Errorf("%d comes back as %d", v, got)
		}
	})
}
