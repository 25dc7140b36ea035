// SPDX-License-Identifier: Apache-2.0

package humantime

import (
	"errors"
	"math/rand/v2"
	"testing"
	"time"
)

// check that everything printed for t in loc reads back.
func checkRoundTrip(tb testing.TB, t time.Time, loc *time.Location) {
	tb.Helper()
	for _, form := range []struct {
		text string
		want time.Time
	}{
		{Format(t, loc), t.Truncate(time.Minute)},
		{FormatSeconds(t, loc), t.Truncate(time.Second)},
		{FormatExact(t, loc), t},
		{t.In(loc).Format(time.RFC3339Nano), t},
	} {
		m, err := Parse(form.text, Env{})
		if err != nil || !m.Time.Equal(form.want) {
			tb.Fatalf("%v printed as %q, read as %v, %v", t, form.text, m.Time, err)
		}
	}
}

func randomTime(r *rand.Rand) time.Time {
	span := limit.Sub(first) // saturates at 292 years, more than the range
	return first.Add(time.Duration(r.Int64N(int64(span)))).Truncate(time.Microsecond)
}

func TestEveryFixedOffsetReadsBack(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for minutes := -16*60 + 1; minutes < 16*60; minutes++ {
		loc := time.FixedZone("", minutes*60)
		for range 8 {
			checkRoundTrip(t, randomTime(r), loc)
		}
		checkRoundTrip(t, first.Add(time.Minute), loc)
		checkRoundTrip(t, limit.Add(-time.Microsecond), loc)
	}
}

// An offset with seconds, or beyond PostgreSQL's, is one that the layouts
// cannot say. What is printed is still the instant.
func TestOddOffsetsReadBack(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for _, seconds := range []int{1, -1, 59, 561, -561, 20700 + 30, maxOffset, -maxOffset, maxOffset + 1, 99 * 3600, -99 * 3600} {
		loc := time.FixedZone("", seconds)
		at := randomTime(r)
		for _, text := range []string{FormatSeconds(at, loc), FormatExact(at, loc)} {
			m, err := Parse(text, Env{})
			if err != nil || !m.Time.Truncate(time.Second).Equal(at.Truncate(time.Second)) {
				t.Errorf("offset %d: %v printed as %q, read as %v, %v", seconds, at, text, m.Time, err)
			}
		}
	}
}

func TestFormat(t *testing.T) {
	at := instant(t, "2023-04-07T11:56:40.123456Z")
	for _, test := range []struct{ got, want string }{
		{Format(at, load(t, "Asia/Shanghai")), "Apr 07,2023 19:56 UTC+0800"},
		{FormatSeconds(at, load(t, "Asia/Shanghai")), "Apr 07,2023 19:56:40 UTC+0800"},
		{FormatExact(at, load(t, "Asia/Shanghai")), "2023-04-07 19:56:40.123456 +08:00"},
		{FormatExact(at.Truncate(time.Second), load(t, "Asia/Kathmandu")), "2023-04-07 17:41:40 +05:45"},
		{Format(at, nil), "Apr 07,2023 11:56 UTC+0000"},
		{FormatSeconds(at, time.FixedZone("LMT", 561)), "Apr 07,2023 12:05:40 UTC+0009"},
	} {
		if test.got != test.want {
			t.Errorf("got %q, want %q", test.got, test.want)
		}
	}
}

// Every instant around every change of the clocks, read from the wall, is
// either that instant or one of the two of an AmbiguousError; and a wall clock
// refused as skipped is one that no instant shows.
func TestNamedZonesAgreeWithTheDatabase(t *testing.T) {
	for _, name := range []string{
		"Europe/Paris", "America/New_York", "Australia/Lord_Howe", "Pacific/Apia", "Africa/Casablanca",
		"America/Caracas", "Asia/Pyongyang", "Asia/Kathmandu", "Antarctica/Troll", "America/Nuuk", "Asia/Tehran",
	} {
		loc := load(t, name)
		at := time.Date(2000, 1, 2, 0, 0, 0, 0, time.UTC)
		for changes := 0; changes < 24; changes++ {
			_, end := at.In(loc).ZoneBounds()
			if end.IsZero() || end.Year() > 2060 {
				break
			}
			at = end
			for minutes := -26 * 60; minutes <= 26*60; minutes += 15 {
				checkWall(t, end.Add(time.Duration(minutes)*time.Minute), loc)
			}
		}
	}
}

func checkWall(t *testing.T, at time.Time, loc *time.Location) {
	t.Helper()
	const layout = "2006-01-02 15:04:05"
	text := at.In(loc).Format(layout) + " " + loc.String()
	m, err := Parse(text, Env{})
	var ambiguous *AmbiguousError
	switch {
	case err == nil && m.Time.Equal(at):
	case errors.As(err, &ambiguous) && (ambiguous.First.Equal(at) || ambiguous.Second.Equal(at)):
		if ambiguous.First.In(loc).Format(layout) != ambiguous.Second.In(loc).Format(layout) {
			t.Fatalf("%q: %v", text, err)
		}
	default:
		t.Fatalf("%v reads %q, which is %v, %v", at, text, m.Time, err)
	}

	// The same number of UTC on this wall: perhaps a clock that never showed.
	text = at.UTC().Format(layout) + " " + loc.String()
	m, err = Parse(text, Env{})
	var skipped *SkippedError
	switch {
	case errors.As(err, &skipped):
		// time.Date moves a skipped clock to one that exists.
		wall := at.UTC()
		moved := time.Date(wall.Year(), wall.Month(), wall.Day(), wall.Hour(), wall.Minute(), wall.Second(), 0, loc)
		if moved.Format(layout) == at.UTC().Format(layout) {
			t.Fatalf("%q refused as skipped, and %v shows it", text, moved)
		}
		if skipped.After.Sub(skipped.Before) != time.Second {
			t.Fatalf("%q: neighbours %v and %v", text, skipped.Before, skipped.After)
		}
	case errors.As(err, &ambiguous):
	case err != nil:
		t.Fatalf("%q: %v", text, err)
	case m.Time.In(loc).Format(layout)+" "+loc.String() != text:
		t.Fatalf("%q read as %v", text, m.Time.In(loc))
	}
}

// No accepted text stays accepted with something before or behind it.
func TestGarbageAroundIsRefused(t *testing.T) {
	accepted := []string{
		"Apr 17,2023 19:56:40 UTC+0800", "2023-04-17T11:56:40Z", "2023-04-17 19:56:40.123+08", "2023-04-17 19:56:40.123456 +08:00",
		"2023-04-17 13:56:40 Europe/Paris", "10 minutes ago", "2h30m ago", "yesterday 15:00 +01", "today 09:30 Etc/UTC", "now", "earliest", "latest",
	}
	for _, text := range accepted {
		if _, err := Parse(text, env(t)); err != nil {
			t.Fatalf("Parse(%q): %v", text, err)
		}
		for _, garbage := range []string{"x", " x", ";", "'", "~", "\x00", "\u00a0", "é", " UTC", " ago", "ZZ", "+1", "/", ".", ":", " ~ now", "1 "} {
			if m, err := Parse(text+garbage, env(t)); err == nil {
				t.Errorf("Parse(%q) = %v", text+garbage, m.Time)
			}
			if m, err := Parse(garbage+text, env(t)); err == nil {
				t.Errorf("Parse(%q) = %v", garbage+text, m.Time)
			}
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{
		"Apr 17,2023 19:56:40 UTC+0800", "2023-04-17T11:56:40.123456Z", "2023-04-17 19:56:40.123+08", "2023-04-17 12:05:41+00:09:01",
		"2023-03-26 02:30 Europe/Paris", "2h30m ago", "1 week 2 days ago", "yesterday 15:00 +01", "today 09:30 UTC", "now", "earliest", "latest",
		"04/05/2023", "2023-04-17 19:56:40", "2016-12-31 23:59:60Z", "2023-04-17 19:56:40 CST", "December 31, 2261 23:59 UTC-15:59",
	} {
		f.Add(s)
	}
	local := load(f, "Europe/Paris")
	e := Env{
		Now: instant(f, "2023-10-29T12:00:00Z"), Local: local,
		Earliest: instant(f, "2023-10-01T00:00:00Z"), Latest: instant(f, "2023-10-29T11:59:59Z"),
	}
	f.Fuzz(func(t *testing.T, s string) {
		m, err := Parse(s, e)
		if err != nil {
			checkError(t, s, err)
			return
		}
		if again, err := Parse(s, e); err != nil || !again.Time.Equal(m.Time) {
			t.Fatalf("%q read as %v and then as %v, %v", s, m.Time, again.Time, err)
		}
		if m.Time.Location() != time.UTC || !m.Time.Equal(m.Time.Truncate(time.Microsecond)) || m.Zone == nil || !inRange(m.Time) {
			t.Fatalf("%q read as %v", s, m)
		}
		for _, loc := range []*time.Location{time.UTC, local} {
			checkRoundTrip(t, m.Time, loc)
		}
		if back, err := Parse(FormatExact(m.Time, m.Zone), Env{}); err != nil || !back.Time.Equal(m.Time) {
			t.Fatalf("%q shown as %q, read as %v, %v", s, FormatExact(m.Time, m.Zone), back.Time, err)
		}
		if got, err := Parse(s+"!", e); err == nil {
			t.Fatalf("%q read as %v", s+"!", got.Time)
		}
	})
}

func checkError(t *testing.T, s string, err error) {
	t.Helper()
	var syntax *SyntaxError
	var noZone *NoZoneError
	var skipped *SkippedError
	var ambiguous *AmbiguousError
	switch {
	case errors.As(err, &syntax):
		if syntax.Offset < 0 || syntax.Offset > len(syntax.Input) || syntax.Want == "" {
			t.Fatalf("%q: %#v", s, syntax)
		}
	case errors.As(err, &noZone):
		for _, suggestion := range noZone.Suggestions {
			if m, err := Parse(suggestion, Env{}); err != nil || !m.Time.Equal(noZone.Local) {
				t.Fatalf("%q suggests %q, read as %v, %v", s, suggestion, m.Time, err)
			}
		}
	case errors.As(err, &skipped), errors.As(err, &ambiguous):
	default:
		t.Fatalf("%q: an error of type %T: %v", s, err, err)
	}
	if err.Error() == "" {
		t.Fatalf("%q: an empty error", s)
	}
}

func FuzzFormat(f *testing.F) {
	f.Add(int64(1681732600123456), 8*60)
	f.Add(int64(946684800000000), 5*60+45)
	f.Add(int64(9214646399999999), -15*60-59)
	f.Fuzz(func(t *testing.T, micros int64, minutes int) {
		at := time.UnixMicro(micros).UTC()
		if !inRange(at.Truncate(time.Minute)) || !inRange(at) || minutes <= -16*60 || minutes >= 16*60 {
			return
		}
		checkRoundTrip(t, at, time.FixedZone("", minutes*60))
	})
}
