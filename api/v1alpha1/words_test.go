// SPDX-License-Identifier: Apache-2.0

package v1alpha1

import (
	"encoding/json"
	"testing"
	"time"
)

func TestParseTTL(t *testing.T) {
	for in, want := range map[string]time.Duration{
		"7d": 168 * time.Hour, "168h": 168 * time.Hour, "1D": 24 * time.Hour, "007H": 7 * time.Hour, "36500d": maxTTL,
		"": 0, "7": 0, "d": 0, "7w": 0, "-7d": 0, "7d ": 0, "1d12h": 0, "0h": 0, "36501d": 0, "99999999999999999999d": 0,
	} {
		got, err := ParseTTL(in)
		if got != want || (err == nil) != (want > 0) {
			t.Errorf("ParseTTL(%q) is %v, %v", in, got, err)
		}
	}
}

func TestParseGrace(t *testing.T) {
	for in, want := range map[string]time.Duration{
		"": 24 * time.Hour, "0h": 0, "0D": 0, "2d": 48 * time.Hour, "6H": 6 * time.Hour, "36500d": maxTTL,
		"0": -1, "d": -1, "1w": -1, "-1h": -1, "36501d": -1,
	} {
		got, err := ParseGrace(in)
		if err == nil && got != want || (err == nil) != (want >= 0) {
			t.Errorf("ParseGrace(%q) is %v, %v", in, got, err)
		}
	}
}

func TestParseCron(t *testing.T) {
	from := time.Date(2023, 4, 17, 20, 0, 0, 0, time.FixedZone("", 8*3600)) // 12:00 UTC, a Monday
	for in, want := range map[string]string{
		"0 18 * * *":   "2023-04-17T18:00:00Z",
		"*/5 * * * *":  "2023-04-17T12:05:00Z",
		"0 18 * * 0":   "2023-04-23T18:00:00Z",
		"0 0 29 2 *":   "2024-02-29T00:00:00Z",
		" 0 18 * * * ": "2023-04-17T18:00:00Z",
		"":             "", "* * * *": "", "* * * * * *": "", "@daily": "", "TZ=UTC 0 18 * * *": "", "CRON_TZ=X": "", "TZ=": "",
		"61 * * * *": "", "0 0 31 2 *": "", "0 0 * * 7": "", "a b c d e": "", "*/0 * * * *": "", "5-1 * * * *": "",
	} {
		c, err := ParseCron(in)
		if want == "" {
			if err == nil {
				t.Errorf("ParseCron(%q) succeeded", in)
			}
			continue
		}
		if err != nil {
			t.Errorf("ParseCron(%q): %v", in, err)
		} else if got := c.Next(from).Format(time.RFC3339); got != want {
			t.Errorf("%q: next is %s, want %s", in, got, want)
		}
	}
}

func FuzzParseCron(f *testing.F) {
	f.Add("*/5 0-23/2 1,15 * MON")
	f.Add("TZ=")
	f.Fuzz(func(t *testing.T, s string) {
		c, err := ParseCron(s)
		if err == nil && c.Next(time.Unix(0, 0)).IsZero() {
			t.Errorf("%q never comes", s)
		}
	})
}

func TestFormatSize(t *testing.T) {
	for in, want := range map[int64]string{
		0: "0 B", 999: "999 B", 1000: "1.00 kB", 9994: "9.99 kB", 9995: "10.0 kB", 99949: "99.9 kB", 999499: "999 kB", 999500: "1.00 MB",
		312_000_000: "312 MB", 61_234_567: "61.2 MB", 1 << 40: "1.10 TB", 1<<63 - 1: "9.22 EB", -1500: "-1.50 kB", -1 << 63: "-9.22 EB",
	} {
		if got := FormatSize(in); got != want {
			t.Errorf("FormatSize(%d) is %q, want %q", in, got, want)
		}
	}
}

func TestMicroTime(t *testing.T) {
	for in, want := range map[string]string{
		"2023-04-17T11:56:40Z":               "2023-04-17T11:56:40.000000Z",
		"2023-04-17T19:56:40.1234569+08:00":  "2023-04-17T11:56:40.123456Z",
		"1969-12-31T23:59:59.9999999Z":       "1969-12-31T23:59:59.999999Z",
		"9999-12-31T23:59:59.999999999Z":     "9999-12-31T23:59:59.999999Z",
		"2023-04-17T11:56:40.1234567891234Z": "2023-04-17T11:56:40.123456Z",
		"2023-04-17 11:56:40Z":               "",
		"2023-04-17T1:56:40Z":                "",
		"2023-04-17T11:56:40,5Z":             "",
		"2023-04-17T11:56:40":                "",
		"9999-12-31T23:59:59-01:00":          "",
		"2023-02-30T11:56:40Z":               "",
		"":                                   "",
	} {
		m, err := ParseMicroTime(in)
		if want == "" {
			if err == nil {
				t.Errorf("%q is taken for %v", in, m)
			}
			continue
		}
		if err != nil || m.String() != want {
			t.Errorf("%q is %v, %v", in, m, err)
		}
		b, err := json.Marshal(struct{ T MicroTime }{m})
		var back struct{ T MicroTime }
		if err != nil || string(b) != `{"T":"`+want+`"}` || json.Unmarshal(b, &back) != nil || back.T != m {
			t.Errorf("%s does not come back: %v, %v", b, back.T, err)
		}
	}
	if b, err := json.Marshal(MicroTime{}); err != nil || string(b) != "null" {
		t.Errorf("zero is %s, %v", b, err)
	}
}

func TestBackupName(t *testing.T) {
	at := time.Date(2023, 4, 17, 19, 55, 47, 0, time.FixedZone("", 8*3600))
	if got := BackupName("default", "my-pg", at); got != "backup-default-my-pg-20230417195547" {
		t.Error(got)
	}
}
