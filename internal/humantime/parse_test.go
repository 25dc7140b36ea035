// SPDX-License-Identifier: Apache-2.0

package humantime

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func load(t testing.TB, name string) *time.Location {
	t.Helper()
	loc, err := time.LoadLocation(name)
	if err != nil {
		t.Fatal(err)
	}
	return loc
}

func instant(t testing.TB, s string) time.Time {
	t.Helper()
	v, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		t.Fatal(err)
	}
	return v.UTC()
}

// env is the page's afternoon: 20:00 in Shanghai, noon in UTC.
func env(t testing.TB) Env {
	return Env{
		Now:      instant(t, "2023-04-17T12:00:00.1234567Z"),
		Local:    load(t, "Asia/Shanghai"),
		Earliest: instant(t, "2023-04-17T11:55:48Z"),
		Latest:   instant(t, "2023-04-17T11:57:01.5Z"),
	}
}

func TestParseAbsolute(t *testing.T) {
	tests := []struct{ in, want string }{
		// The page's own.
		{"Apr 17,2023 19:56:40 UTC+0800", "2023-04-17T11:56:40Z"},
		{"Apr 17,2023 19:55:48 UTC+0800", "2023-04-17T11:55:48Z"},
		{"Apr 17,2023 19:57:01 UTC+0800", "2023-04-17T11:57:01Z"},
		{"Apr 20,2023 18:13 UTC+0800", "2023-04-20T10:13:00Z"},

		// Variations of it.
		{"Apr 7,2023 19:56:40 UTC+0800", "2023-04-07T11:56:40Z"},
		{"Apr 07, 2023 19:56:40 UTC+0800", "2023-04-07T11:56:40Z"},
		{"April 17 2023 19:56:40 UTC+0800", "2023-04-17T11:56:40Z"},
		{"SEPTEMBER 30,2023 00:00 utc-0330", "2023-09-30T03:30:00Z"},
		{"may 1,2023 19:56:40.25 UTC+05:45", "2023-05-01T14:11:40.25Z"},
		{"Apr 17,2023 19:56:40 UTC", "2023-04-17T19:56:40Z"},
		{"Apr 17,2023 19:56:40 UTC+8", "2023-04-17T11:56:40Z"},
		{"Apr 17,2023 19:56:40 UTC-11", "2023-04-18T06:56:40Z"},
		{"Apr 17,2023  19:56:40  UTC+0800", "2023-04-17T11:56:40Z"},
		{" \tApr 17,2023 19:56:40 UTC+0800\r\n", "2023-04-17T11:56:40Z"},
		{"Apr 17,2023 19:56:40 Asia/Shanghai", "2023-04-17T11:56:40Z"},

		// RFC 3339.
		{"2023-04-17T11:56:40Z", "2023-04-17T11:56:40Z"},
		{"2023-04-17t11:56:40z", "2023-04-17T11:56:40Z"},
		{"2023-04-17 11:56:40Z", "2023-04-17T11:56:40Z"},
		{"2023-04-17T19:56:40+08:00", "2023-04-17T11:56:40Z"},
		{"2023-04-17T11:56:40-00:00", "2023-04-17T11:56:40Z"},
		{"2023-04-17T11:56Z", "2023-04-17T11:56:00Z"},
		{"2023-04-17T11:56:40.5Z", "2023-04-17T11:56:40.5Z"},
		{"2023-04-17T11:56:40.123456Z", "2023-04-17T11:56:40.123456Z"},
		{"2023-04-17T11:56:40.123456000Z", "2023-04-17T11:56:40.123456Z"},
		{"2023-04-17T11:56:40.000000000000Z", "2023-04-17T11:56:40Z"},
		{"2024-02-29T00:00:00Z", "2024-02-29T00:00:00Z"},
		{"2000-02-29T00:00:00Z", "2000-02-29T00:00:00Z"},
		{"2000-01-01T00:00:00Z", "2000-01-01T00:00:00Z"},
		{"1999-12-31T23:00:00-01:00", "2000-01-01T00:00:00Z"},
		{"2261-12-31T23:59:59.999999Z", "2261-12-31T23:59:59.999999Z"},
		{"2262-01-01T00:00:00+00:01", "2261-12-31T23:59:00Z"},

		// PostgreSQL, as timestamptz and log_line_prefix print it.
		{"2023-04-17 19:56:40.123+08", "2023-04-17T11:56:40.123Z"},
		{"2023-04-17 19:56:40+0800", "2023-04-17T11:56:40Z"},
		{"2023-04-17 19:56:40 +0800", "2023-04-17T11:56:40Z"},
		{"2023-04-17 17:41:40.5+05:45", "2023-04-17T11:56:40.5Z"},
		{"2023-04-17 17:41:40+0545", "2023-04-17T11:56:40Z"},
		{"2023-04-17 08:26:40-03:30", "2023-04-17T11:56:40Z"},
		{"2023-04-17 12:05:41+00:09:01", "2023-04-17T11:56:40Z"},
		{"2023-04-17 11:56:40.988197 UTC", "2023-04-17T11:56:40.988197Z"},
		{"2023-04-17 23:59:59+15:59:59", "2023-04-17T08:00:00Z"},

		// Zones by name.
		{"2023-04-17 13:56:40 Europe/Paris", "2023-04-17T11:56:40Z"},
		{"2023-01-17T12:56:40 Europe/Paris", "2023-01-17T11:56:40Z"},
		{"2023-04-17 17:41:40 Asia/Kathmandu", "2023-04-17T11:56:40Z"},
		{"2023-04-17 08:56:40 America/Argentina/Buenos_Aires", "2023-04-17T11:56:40Z"},
		{"2023-04-17 11:56:40 Etc/UTC", "2023-04-17T11:56:40Z"},
		{"2023-04-17 07:56:40 America/Port-au-Prince", "2023-04-17T11:56:40Z"},
		{"2100-07-01 12:00 Europe/Paris", "2100-07-01T10:00:00Z"},

		// The edges of daylight saving in Paris and on Lord Howe, half an hour.
		{"2023-03-26 01:59:59.999999 Europe/Paris", "2023-03-26T00:59:59.999999Z"},
		{"2023-03-26 03:00 Europe/Paris", "2023-03-26T01:00:00Z"},
		{"2023-10-29 01:59:59.999999 Europe/Paris", "2023-10-28T23:59:59.999999Z"},
		{"2023-10-29 03:00 Europe/Paris", "2023-10-29T02:00:00Z"},
		{"2023-10-29 02:30 +02:00", "2023-10-29T00:30:00Z"},
		{"2023-10-01 02:30 Australia/Lord_Howe", "2023-09-30T15:30:00Z"},
		{"2023-04-02 02:00 Australia/Lord_Howe", "2023-04-01T15:30:00Z"},
	}
	for _, test := range tests {
		m, err := Parse(test.in, env(t))
		if err != nil {
			t.Errorf("Parse(%q): %v", test.in, err)
			continue
		}
		got := m.Time.Format(time.RFC3339Nano)
		if got != test.want || m.Keyword != None || m.Relative || m.Zone == nil {
			t.Errorf("Parse(%q) = %s %v %v, want %s", test.in, got, m.Keyword, m.Relative, test.want)
		}
	}
}

func TestParseRelative(t *testing.T) {
	tests := []struct {
		in, want string
		keyword  Keyword
	}{
		{"now", "2023-04-17T12:00:00.123456Z", Now},
		{"NOW", "2023-04-17T12:00:00.123456Z", Now},
		{"earliest", "2023-04-17T11:55:48Z", Earliest},
		{" Latest ", "2023-04-17T11:57:01.5Z", Latest},
		{"10 minutes ago", "2023-04-17T11:50:00.123456Z", None},
		{"10m ago", "2023-04-17T11:50:00.123456Z", None},
		{"10 M AGO", "2023-04-17T11:50:00.123456Z", None},
		{"2h30m ago", "2023-04-17T09:30:00.123456Z", None},
		{"2h 30m ago", "2023-04-17T09:30:00.123456Z", None},
		{"1 hour 30 minutes ago", "2023-04-17T10:30:00.123456Z", None},
		{"1 Hour 30 Minutes 5 Seconds Ago", "2023-04-17T10:29:55.123456Z", None},
		{"90s ago", "2023-04-17T11:58:30.123456Z", None},
		{"0 seconds ago", "2023-04-17T12:00:00.123456Z", None},
		{"1 day ago", "2023-04-16T12:00:00.123456Z", None},
		{"2 weeks 1d ago", "2023-04-02T12:00:00.123456Z", None},
		{"0010m ago", "2023-04-17T11:50:00.123456Z", None},
		{"2023 minutes ago", "2023-04-16T02:17:00.123456Z", None},
		{"yesterday 15:00", "2023-04-16T07:00:00Z", None},
		{"Yesterday 15:00:30.5", "2023-04-16T07:00:30.5Z", None},
		{"today 09:30", "2023-04-17T01:30:00Z", None},
		{"today 09:30 UTC", "2023-04-17T09:30:00Z", None},
		{"yesterday 23:00 America/New_York", "2023-04-17T03:00:00Z", None},
		{"today 09:30 UTC+0545", "2023-04-17T03:45:00Z", None},
	}
	for _, test := range tests {
		m, err := Parse(test.in, env(t))
		if err != nil {
			t.Errorf("Parse(%q): %v", test.in, err)
			continue
		}
		got := m.Time.Format(time.RFC3339Nano)
		relative := test.keyword != Earliest && test.keyword != Latest
		if got != test.want || m.Keyword != test.keyword || m.Relative != relative || m.Zone == nil {
			t.Errorf("Parse(%q) = %s %v %v, want %s", test.in, got, m.Keyword, m.Relative, test.want)
		}
	}
}

// The local day begins sixteen hours before UTC's in Kiritimati and Now is
// still yesterday in Honolulu: "today" follows the clock that it is read on.
func TestTodayFollowsTheZone(t *testing.T) {
	e := Env{Now: instant(t, "2023-04-17T10:30:00Z")}
	for zone, want := range map[string]string{
		"Pacific/Kiritimati": "2023-04-17T10:00:00Z",
		"Pacific/Honolulu":   "2023-04-17T10:00:00Z",
		"UTC":                "2023-04-17T00:00:00Z",
	} {
		e.Local = load(t, zone)
		m, err := Parse("today 00:00", e)
		if err != nil {
			t.Fatal(err)
		}
		if got := m.Time.Format(time.RFC3339); got != want {
			t.Errorf("today 00:00 in %s = %s, want %s", zone, got, want)
		}
	}
}

func TestParseWithoutEnv(t *testing.T) {
	for _, in := range []string{"now", "10m ago", "today 10:00", "yesterday 10:00"} {
		if _, err := Parse(in, Env{}); err != ErrNoClock {
			t.Errorf("Parse(%q) without a clock: %v, want ErrNoClock", in, err)
		}
	}
	for in, keyword := range map[string]Keyword{"earliest": Earliest, "latest": Latest} {
		m, err := Parse(in, Env{})
		if diff := cmp.Diff(Moment{Keyword: keyword, Zone: time.UTC}, m, sameZone); err != nil || diff != "" {
			t.Errorf("Parse(%q) without a window: %v, (-want +got)\n%s", in, err, diff)
		}
	}
}

var sameZone = cmp.Comparer(func(a, b *time.Location) bool { return a.String() == b.String() })

func TestKeywordString(t *testing.T) {
	for k, want := range map[Keyword]string{None: "", Now: "now", Earliest: "earliest", Latest: "latest", 9: "Keyword(9)"} {
		if got := k.String(); got != want {
			t.Errorf("Keyword(%d).String() = %q, want %q", int(k), got, want)
		}
	}
}

func TestZoneIsTheOneWritten(t *testing.T) {
	e := env(t)
	for in, want := range map[string]string{
		"2023-04-17 13:56:40 Europe/Paris": "2023-04-17 13:56:40 +02:00",
		"2023-04-17T19:56:40+05:45":        "2023-04-17 19:56:40 +05:45",
		"2023-04-17T19:56:40Z":             "2023-04-17 19:56:40 +00:00",
		"today 19:56:40":                   "2023-04-17 19:56:40 +08:00",
		"latest":                           "2023-04-17 19:57:01.5 +08:00",
	} {
		m, err := Parse(in, e)
		if err != nil {
			t.Fatal(err)
		}
		if got := FormatExact(m.Time, m.Zone); got != want {
			t.Errorf("Parse(%q) shows as %s, want %s", in, got, want)
		}
	}
}
