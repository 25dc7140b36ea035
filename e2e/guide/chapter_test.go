// SPDX-License-Identifier: Apache-2.0

package guide

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// chapter is a file of the guide.
type chapter struct {
	text     string
	sessions []session
	notRun   int
	unknown  []string // blocks whose kind nobody knows
}

// session is a block of commands, and what it prints; empty if the guide does not say.
type session struct {
	script string
	want   string
	at     [2]int // where want is in the text; 0, 0 if it is not
}

var block = regexp.MustCompile("(?ms)(?:^<!-- not run: ([^\n]+) -->\n)?^```([a-z]*)\n(.*?)^```$")

// parse finds the blocks of a chapter.
func parse(text string) *chapter {
	c := &chapter{text: text}
	after := false // the block before was one that ran
	for _, m := range block.FindAllStringSubmatchIndex(text, -1) {
		kind, body := text[m[4]:m[5]], text[m[6]:m[7]]
		switch {
		case kind == "sh" && m[2] >= 0:
			c.notRun++
			after = false
			continue
		case kind == "sh":
			c.sessions = append(c.sessions, session{script: body})
			after = true
			continue
		case kind == "console" && after:
			s := &c.sessions[len(c.sessions)-1]
			s.want, s.at = body, [2]int{m[6], m[7]}
		case kind == "text":
		default:
			c.unknown = append(c.unknown, kind)
		}
		after = false
	}
	return c
}

func (c *chapter) problems() []string {
	var all []string
	for _, kind := range c.unknown {
		all = append(all, fmt.Sprintf("a block is %q: they are sh, console after sh, and text", kind))
	}
	if fences := strings.Count("\n"+c.text, "\n```"); fences%2 != 0 {
		all = append(all, "a block does not end")
	}
	return all
}

// updated is the chapter with what its blocks printed, where it says something else.
func (c *chapter) updated(outputs []string) string {
	text := c.text
	for i, s := range slices.Backward(c.sessions) {
		if s.at[1] == 0 {
			continue
		}
		if _, ok := matches(s.want, outputs[i]); ok && s.want != "" {
			continue
		}
		var kept []string
		for line := range strings.Lines(outputs[i]) {
			kept = append(kept, strings.TrimRight(line, " \n"))
		}
		text = text[:s.at[0]] + strings.TrimRight(strings.Join(kept, "\n"), "\n") + "\n" + text[s.at[1]:]
	}
	return text
}

func TestParse(t *testing.T) {
	c := parse("# A\n\n```sh\na\nb\n```\n\nprints\n\n```console\nc\n```\n\n<!-- not run: why -->\n```sh\nd\n```\n\n```text\ne\n```\n\n```bash\nf\n```\n")
	var scripts, wants []string
	for _, s := range c.sessions {
		scripts, wants = append(scripts, s.script), append(wants, s.want)
	}
	if diff := cmp.Diff([]string{"a\nb\n"}, scripts); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"c\n"}, wants); diff != "" {
		t.Error(diff)
	}
	if c.notRun != 1 || len(c.problems()) != 1 {
		t.Error(c.notRun, c.problems())
	}
}

func TestMatches(t *testing.T) {
	for _, test := range []struct {
		want, got string
		missing   string
	}{
		{"Cluster my-pg created\n", "note: x\nCluster my-pg created\n", ""},
		{"Cluster my-pg created\n", "Cluster other created\n", "Cluster my-pg created"},
		{"a\nb\n", "a\nx\nb\n", "b"},
		{"a\n…\nb\n", "a\nx\ny\nb\n", ""},
		{"NAME   AGE\nx      Apr 17,2023 19:56:40 UTC+0800   312 MB\n", "NAME AGE\nx Nov 02,2026 01:02:03 UTC+0800   7.1 kB\n", ""},
		{"1\n", "2\n", "1"},
		{" count\n-------\n     1\n(1 row)\n", " count\n-------\n     2\n(1 row)\n", "     1"},
		{"xid 751 at 0/3000028 …\n", "xid 9 at 1/A000028 and more\n", ""},
	} {
		missing, ok := matches(test.want, test.got)
		if missing != test.missing || ok != (test.missing == "") {
			t.Errorf("%q in %q: %q, %t", test.want, test.got, missing, ok)
		}
	}
}
