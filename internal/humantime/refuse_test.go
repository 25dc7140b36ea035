// SPDX-License-Identifier: Apache-2.0

package humantime

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestSyntaxErrors(t *testing.T) {
	tests := []struct {
		in     string
		offset int
		says   string // part of the message
	}{
		{"", 0, "ends too early: want a moment such as"},
		{"   ", 3, "ends too early"},
		{"soon", 0, "want a moment such as"},
		{"tomorrow 10:00", 0, "want a moment such as"},
		{"@1681732600", 0, "want a moment such as"},
		{"1681732600", 0, "want a moment such as"},
		{"20230417T115640Z", 8, "want a unit"},
		{"\x00", 0, "want a moment such as"},
		{"١٠ minutes ago", 0, "want a moment such as"},
		{"10 minutes\u00a0ago", 10, "want ago"},
		{strings.Repeat("9", 200), 128, "too long"},

		{"04/05/2023", 0, "differs between countries"},
		{"04/05/2023 10:00 UTC", 0, "differs between countries"},
		{"17.04.2023 10:00 UTC", 0, "differs between countries"},
		{"04-05-2023 10:00 UTC", 0, "differs between countries"},

		{"2023-04-17", 10, "want a clock"},
		{"2023-04-17 ", 11, "want a clock"},
		{"2023-04-17T", 11, "two digits for the hour"},
		{"2023-04-17Z", 10, "want a clock"},
		{"2023-04-17_19:56:40Z", 10, "want a clock"},
		{"2023-04-17T 19:56:40Z", 11, "two digits for the hour"},
		{"2023-4-17 10:00 UTC", 5, "a month of two digits"},
		{"2023-04-7 10:00 UTC", 8, "a day of two digits"},
		{"2023-00-17 10:00 UTC", 5, "a month from 01 to 12"},
		{"2023-13-17 10:00 UTC", 5, "a month from 01 to 12"},
		{"2023-04-00 10:00 UTC", 8, "a day of April 2023, 1 to 30"},
		{"2023-04-31 10:00 UTC", 8, "a day of April 2023, 1 to 30"},
		{"2023-02-29 10:00 UTC", 8, "a day of February 2023, 1 to 28"},
		{"2100-02-29 10:00 UTC", 8, "a day of February 2100, 1 to 28"},
		{"Feb 30,2024 10:00 UTC", 4, "a day of February 2024, 1 to 29"},
		{"Apr 0,2023 10:00 UTC", 4, "a day of April 2023"},
		{"Apr 017,2023 10:00 UTC", 4, "a day of the month"},
		{"Apr 17,23 10:00 UTC", 7, "a year of four digits"},
		{"Apr 17,02023 10:00 UTC", 7, "a year of four digits"},
		{"Apr17,2023 10:00 UTC", 3, "a space and the day"},
		{"Apr 17 ,2023 10:00 UTC", 7, "a year of four digits"},
		{"Apr 17", 6, "a comma and the year"},
		{"Apr 17,2023", 11, "want a clock"},
		{"Apri 17,2023 10:00 UTC", 0, "want a moment such as"},
		{"17 Apr 2023 10:00 UTC", 3, "want a unit"},

		{"2023-04-17 9:30 UTC", 11, "two digits for the hour"},
		{"2023-04-17 24:00 UTC", 11, "00:00 of the next"},
		{"2023-04-17 25:00 UTC", 11, "00 to 23 for the hour"},
		{"2023-04-17 19:60 UTC", 14, "00 to 59 for the minute"},
		{"2023-04-17 19:5 UTC", 14, "two digits for the minute"},
		{"2023-04-17 19 UTC", 13, "a colon and the minutes"},
		{"2023-04-17 1956 UTC", 11, "two digits for the hour"},
		{"2016-12-31 23:59:60 UTC", 17, "no leap seconds"},
		{"2023-04-17 19:56:61 UTC", 17, "00 to 59 for the second"},
		{"2023-04-17 19:56: UTC", 17, "two digits for the second"},
		{"2023-04-17 19:56:40. UTC", 20, "digits of a second"},
		{"2023-04-17 19:56:40,123 UTC", 19, "want a zone"},
		{"2023-04-17 19:56.5 UTC", 16, "want a zone"},
		{"2023-04-17T19:56:40.1234567Z", 26, "counts microseconds"},
		{"2023-04-17T19:56:40.0000000001Z", 29, "counts microseconds"},
		{"2023-04-17 07:56 PM", 17, "am and pm are not read"},
		{"2023-04-17 07:56am", 16, "am and pm are not read"},

		{"2023-04-17 19:56:40 CST", 20, "CST is not one zone"},
		{"2023-04-17 19:56:40 EST", 20, "EST is not one zone"},
		{"2023-04-17 19:56:40 IST", 20, "IST is not one zone"},
		{"2023-04-17 19:56:40 GMT", 20, "GMT is not one zone"},
		{"2023-04-17 19:56:40 EST5EDT", 20, "EST5EDT is not one zone"},
		{"2023-04-17 19:56:40 GMT+8", 20, "GMT+8 is not one zone"},
		{"2023-04-17 19:56:40 Local", 20, "Local is not one zone"},
		{"2023-04-17 19:56:40 Etc/GMT+8", 20, "counts the wrong way round"},
		{"2023-04-17 19:56:40 Europe/Pariss", 20, "not in the time zone database"},
		{"2023-04-17 19:56:40 europe/paris", 20, "upper and lower case matter"},
		{"2023-04-17 19:56:40 America/Argentina", 20, "not in the time zone database"},
		{"2023-04-17 19:56:40 right/Europe/Paris", 20, "not in the time zone database"},
		{"2023-04-17 19:56:40 posix/Europe/Paris", 20, "not in the time zone database"},
		{"2023-04-17 19:56:40 UTC/Paris", 20, "not in the time zone database"},
		{"2023-04-17 19:56:40 /etc/passwd", 20, "want a zone"},
		{"2023-04-17 19:56:40 Europe/../../etc/passwd", 27, "want nothing more"},
		{"2023-04-17 19:56:40Europe/Paris", 19, "want a zone"},
		{"2023-04-17 19:56:40UTC", 19, "want a zone"},
		{"2023-04-17 19:56:40+02 Europe/Paris", 22, "want nothing more"},
		{"2023-04-17 19:56:40+8", 20, "an offset such as"},
		{"2023-04-17 19:56:40+", 20, "an offset such as"},
		{"2023-04-17 19:56:40+080", 20, "an offset such as"},
		{"2023-04-17 19:56:40+08:0", 23, "two digits for the minute"},
		{"2023-04-17 19:56:40+08:60", 23, "00 to 59 for the minute"},
		{"2023-04-17 19:56:40+0860", 19, "at most 15:59:59"},
		{"2023-04-17 19:56:40+053000", 20, "an offset such as"},
		{"2023-04-17 19:56:40+16", 19, "at most 15:59:59"},
		{"2023-04-17 19:56:40-99:59", 19, "at most 15:59:59"},
		{"2023-04-17 19:56:40 UTC +0800", 23, "want nothing more"},
		{"2023-04-17 19:56:40 UTC+", 24, "an offset such as"},
		{"2023-04-17 19:56:40 UTC++8", 24, "an offset such as"},
		{"2023-04-17 19:56:40 UTC0800", 23, "want nothing more"},
		{"2023-04-17 19:56:40 +0000 UTC", 25, "want nothing more"}, // Go's own String
		{"2023-04-17 19:56:40 −08", 20, "want a zone"},             // a typographic minus

		{"1999-12-31T23:59:59.999999Z", 0, "from 2000 to 2261"},
		{"2000-01-01 00:00 +08", 0, "from 2000 to 2261"},
		{"2262-01-01T00:00:00Z", 0, "from 2000 to 2261"},
		{"9999-12-31T23:59:59Z", 0, "from 2000 to 2261"},
		{"0000-01-01T00:00:00", 0, "from 2000 to 2261"},
		{"50000 days ago", 0, "from 2000 to 2261"},
		{"999999999 weeks ago", 0, "from 2000 to 2261"},
		{"106751 days 999999999 hours ago", 12, "from 2000 to 2261"},
		{"9999999999s ago", 0, "at most nine digits"},

		{"10m", 3, "want ago"},
		{"10 minutes", 10, "want ago"},
		{"10", 0, "want a moment such as"},
		{"10 ", 0, "want a moment such as"},
		{"10 ago", 3, "want a unit"},
		{"-10m ago", 0, "want a moment such as"},
		{"1.5h ago", 0, "differs between countries"},
		{"10mago", 2, "want a unit"},
		{"10m ago ago", 7, "want nothing more"},
		{"10m ago UTC", 7, "want nothing more"},
		{"30m2h ago", 3, "large to small"},
		{"1h1h ago", 2, "large to small"},
		{"1 month ago", 2, "differ in length"},
		{"2 years ago", 2, "differ in length"},
		{"1 fortnight ago", 2, "want a unit"},
		{"an hour ago", 0, "want a moment such as"},
		{"1 hour and 30 minutes ago", 7, "want ago"},

		{"now.", 3, "want nothing more"},
		{"nowadays", 0, "want a moment such as"},
		{"now UTC", 3, "want nothing more"},
		{"latest backup", 6, "want nothing more"},
		{"today", 5, "a space and a clock"},
		{"yesterday", 9, "a space and a clock"},
		{"yesterday noon", 10, "two digits for the hour"},
		{"today 9:30", 6, "two digits for the hour"},
		{"today 09:30 CST", 12, "CST is not one zone"},
		{"today T09:30", 6, "two digits for the hour"},
	}
	for _, test := range tests {
		m, err := Parse(test.in, env(t))
		var syntax *SyntaxError
		if !errors.As(err, &syntax) {
			t.Errorf("Parse(%q) = %v, %v, want a *SyntaxError", test.in, m, err)
			continue
		}
		if syntax.Offset != test.offset || !strings.Contains(err.Error(), test.says) {
			t.Errorf("Parse(%q): at %d: %v\nwant %q at %d", test.in, syntax.Offset, err, test.says, test.offset)
		}
		if diff := cmp.Diff(Moment{}, m, sameZone); diff != "" {
			t.Errorf("Parse(%q) returned a moment beside its error:\n%s", test.in, diff)
		}
	}
}

func TestNoZone(t *testing.T) {
	tests := []struct {
		in, local   string
		suggestions [2]string
	}{
		{"Apr 17,2023 19:56:40", "2023-04-17T19:56:40+08:00", [2]string{"Apr 17,2023 19:56:40 UTC+0800", "2023-04-17T11:56:40Z"}},
		{"2023-04-17 19:56", "2023-04-17T19:56:00+08:00", [2]string{"Apr 17,2023 19:56:00 UTC+0800", "2023-04-17T11:56:00Z"}},
		{"2023-04-17T19:56:40.123 ", "2023-04-17T19:56:40.123+08:00", [2]string{"2023-04-17 19:56:40.123 +08:00", "2023-04-17T11:56:40.123Z"}},
	}
	for _, test := range tests {
		_, err := Parse(test.in, env(t))
		var noZone *NoZoneError
		if !errors.As(err, &noZone) {
			t.Errorf("Parse(%q): %v, want a *NoZoneError", test.in, err)
			continue
		}
		if got := noZone.Local.Format(time.RFC3339Nano); got != test.local {
			t.Errorf("Parse(%q).Local = %s, want %s", test.in, got, test.local)
		}
		if diff := cmp.Diff(test.suggestions, noZone.Suggestions); diff != "" {
			t.Errorf("Parse(%q).Suggestions (-want +got)\n%s", test.in, diff)
		}
		for _, s := range noZone.Suggestions {
			if m, err := Parse(s, Env{}); err != nil || !m.Time.Equal(noZone.Local) {
				t.Errorf("suggestion %q: %v %v, want %v", s, m, err, noZone.Local)
			}
		}
	}
}

func TestDaylightSaving(t *testing.T) {
	paris := env(t)
	paris.Local = load(t, "Europe/Paris")
	spring, autumn := paris, paris
	spring.Now = instant(t, "2023-03-26T12:00:00Z")
	autumn.Now = instant(t, "2023-10-30T12:00:00Z")
	tests := []struct {
		in     string
		env    Env
		twice  bool
		values [2]string // Before and After, or First and Second
	}{
		{"2023-03-26 02:30 Europe/Paris", paris, false, [2]string{"2023-03-26 01:59:59 +01:00", "2023-03-26 03:00:00 +02:00"}},
		{"2023-03-26 02:00 Europe/Paris", paris, false, [2]string{"2023-03-26 01:59:59 +01:00", "2023-03-26 03:00:00 +02:00"}},
		{"Mar 26,2023 02:59:59.999999", paris, false, [2]string{"2023-03-26 01:59:59 +01:00", "2023-03-26 03:00:00 +02:00"}},
		{"today 02:30", spring, false, [2]string{"2023-03-26 01:59:59 +01:00", "2023-03-26 03:00:00 +02:00"}},
		{"2023-10-29 02:00 Europe/Paris", paris, true, [2]string{"2023-10-29 02:00:00 +02:00", "2023-10-29 02:00:00 +01:00"}},
		{"Oct 29,2023 02:59:59.5 Europe/Paris", paris, true, [2]string{"2023-10-29 02:59:59.5 +02:00", "2023-10-29 02:59:59.5 +01:00"}},
		{"2023-10-29T02:30", paris, true, [2]string{"2023-10-29 02:30:00 +02:00", "2023-10-29 02:30:00 +01:00"}},
		{"yesterday 02:30", autumn, true, [2]string{"2023-10-29 02:30:00 +02:00", "2023-10-29 02:30:00 +01:00"}},
		{"2023-10-01 02:15 Australia/Lord_Howe", paris, false, [2]string{"2023-10-01 01:59:59 +10:30", "2023-10-01 02:30:00 +11:00"}},
		{"2023-04-02 01:45 Australia/Lord_Howe", paris, true, [2]string{"2023-04-02 01:45:00 +11:00", "2023-04-02 01:45:00 +10:30"}},
		{"2099-03-29 02:30 Europe/Paris", paris, false, [2]string{"2099-03-29 01:59:59 +01:00", "2099-03-29 03:00:00 +02:00"}},

		// Samoa crossed the date line and had no 30 December 2011.
		{"2011-12-30 12:00 Pacific/Apia", paris, false, [2]string{"2011-12-29 23:59:59 -10:00", "2011-12-31 00:00:00 +14:00"}},
	}
	for _, test := range tests {
		_, err := Parse(test.in, test.env)
		var got [2]time.Time
		var zone *time.Location
		var skipped *SkippedError
		var ambiguous *AmbiguousError
		switch {
		case !test.twice && errors.As(err, &skipped):
			got, zone = [2]time.Time{skipped.Before, skipped.After}, skipped.Zone
		case test.twice && errors.As(err, &ambiguous):
			got, zone = [2]time.Time{ambiguous.First, ambiguous.Second}, ambiguous.Zone
		default:
			t.Errorf("Parse(%q): %T %v", test.in, err, err)
			continue
		}
		for i, want := range test.values {
			if FormatExact(got[i], zone) != want || !strings.Contains(err.Error(), want) {
				t.Errorf("Parse(%q): %v\nwant %s", test.in, err, want)
			}
			if m, err := Parse(want, Env{}); err != nil || !m.Time.Equal(got[i]) {
				t.Errorf("Parse(%q) = %v, %v", want, m, err)
			}
		}
	}
}
