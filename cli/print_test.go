// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"slices"
	"strings"
	"testing"
	"testing/quick"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/internal/humantime"
)

func TestTable(t *testing.T) {
	for _, c := range []struct {
		t    table
		want string
	}{
		{table{header: []string{"NAME", "X"}}, "NAME   X\n"},
		{table{header: []string{"A", "B", "C"}, rows: [][]string{{"long-er", "", "é"}, {"", "two\nlines", ""}}}, "A         B           C\nlong-er   <none>      é\n<none>    two lines   <none>\n"},
		{table{header: []string{"A", "B", "C"}, rows: [][]string{{"x", "", ""}}, blanks: true}, "A   B   C\nx\n"},
	} {
		var b strings.Builder
		c.t.write(&b)
		if diff := cmp.Diff(c.want, b.String()); diff != "" {
			t.Errorf("-want +got:\n%s", diff)
		}
	}
}

func TestBox(t *testing.T) {
	var b strings.Builder
	result("created user: myuser, with password: oJ3bAiK7pr").write(&b)
	want := `+---------+-------------------------------------------------+
| RESULT  | MESSAGE                                         |
+---------+-------------------------------------------------+
| Success | created user: myuser, with password: oJ3bAiK7pr |
+---------+-------------------------------------------------+
`
	if diff := cmp.Diff(want, b.String()); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// TestSpan: both ends of what is printed are in the window, whatever its fractions.
func TestSpan(t *testing.T) {
	a := &app{zone: shanghai}
	f := func(from uint32, length uint32) bool {
		first := time.UnixMicro(1681732548_000000 + int64(from)).UTC()
		last := first.Add(time.Duration(length%3_000_000) * time.Microsecond)
		text := a.span(first, last)
		for end := range strings.SplitSeq(text, " ~ ") {
			m, err := humantime.Parse(end, humantime.Env{})
			if err != nil || m.Time.Before(first) || m.Time.After(last) {
				t.Logf("%q of %q: %v, %v", end, text, m.Time, err)
				return false
			}
		}
		return true
	}
	if err := quick.Check(f, &quick.Config{MaxCount: 2000}); err != nil {
		t.Error(err)
	}
}

func TestSets(t *testing.T) {
	for in, want := range map[string][]setting{
		"a=1":                               {{"a", "1"}},
		"a.b=1,c=2":                         {{"a.b", "1"}, {"c", "2"}},
		"schedule.x.cron=0 6,18 * * *,a=b":  {{"schedule.x.cron", "0 6,18 * * *"}, {"a", "b"}},
		`a=x\,b=y`:                          {{"a", "x,b=y"}},
		"a=https://h/?x=1":                  {{"a", "https://h/?x=1"}},
		"snapshot-controller.enabled=true":  {{"snapshot-controller.enabled", "true"}},
		"a=":                                {{"a", ""}},
		"secret.secretKey=a+b/c==,b.c=demo": {{"secret.secretKey", "a+b/c=="}, {"b.c", "demo"}},
		"a=1,":                              nil,
		"a":                                 nil,
		"":                                  nil,
		"=1":                                nil,
		"a..b=1":                            nil,
	} {
		got, err := parseSets([]string{in})
		if !slices.Equal(got, want) || (err == nil) != (want != nil) {
			t.Errorf("%q is %q, %v", in, got, err)
		}
	}
}

func FuzzSets(f *testing.F) {
	f.Add(`a=x\,b=y,c=0 6,18 * * *`)
	f.Fuzz(func(t *testing.T, text string) {
		sets, err := parseSets([]string{text})
		if err != nil {
			return
		}
		// What was read says the same when it is written again.
		var again []string
		for _, s := range sets {
			again = append(again, s.key+"="+strings.ReplaceAll(s.value, ",", `\,`))
		}
		if back, err := parseSets([]string{strings.Join(again, ",")}); err != nil || !slices.Equal(back, sets) {
			t.Errorf("%q is %q, then %q, %v", text, sets, back, err)
		}
	})
}

func TestProgressLine(t *testing.T) {
	p := &v1alpha1.Progress{Phase: "files", BytesDone: 100_000_000, BytesTotal: 312_000_000, SegmentsDone: 1, SegmentsTotal: 4}
	p.StartedAt.Time = pageNow
	for _, c := range []struct {
		p    *v1alpha1.Progress
		want string
	}{
		{nil, "Fetching"},
		{&v1alpha1.Progress{}, "Fetching"},
		{&v1alpha1.Progress{BytesDone: 5}, "Fetching: 5 B"},
		{p, "Fetching files: 100 MB of 312 MB, segment 1 of 4, 10.0 MB/s, 21 s left"},
	} {
		if got := progressLine(c.p, "Fetching", pageNow.Add(10*time.Second)); got != c.want {
			t.Errorf("%q, want %q", got, c.want)
		}
	}
}
