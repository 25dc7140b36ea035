// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"io"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/kbcli/kbcli/internal/humantime"
)

func testRoot() *cobra.Command {
	a := newApp(Stdio{In: strings.NewReader(""), Out: io.Discard, Err: io.Discard})
	return newRoot(a)
}

func walk(c *cobra.Command, f func(*cobra.Command)) {
	f(c)
	for _, child := range c.Commands() {
		walk(child, f)
	}
}

// words splits a line as a shell does, as far as examples go.
func words(line string) []string {
	var out []string
	var word strings.Builder
	quote, in := rune(0), false
	for _, r := range line {
		switch {
		case quote != 0 && r == quote:
			quote = 0
		case quote != 0:
			word.WriteRune(r)
		case r == '\'' || r == '"':
			quote, in = r, true
		case r == ' ':
			if in || word.Len() > 0 {
				out = append(out, word.String())
			}
			word.Reset()
			in = false
		default:
			word.WriteRune(r)
		}
	}
	if in || word.Len() > 0 {
		out = append(out, word.String())
	}
	return out
}

var envWord = regexp.MustCompile(`^[A-Z_]+=`)

// TestHelp: every verb says in a sentence what it does, and has an example that its
// own flags and arguments take.
func TestHelp(t *testing.T) {
	walk(testRoot(), func(c *cobra.Command) {
		path := c.CommandPath()
		if c.Short == "" || strings.HasSuffix(c.Short, ".") {
			t.Errorf("%s: its short help is %q", path, c.Short)
		}
		if c.IsAdditionalHelpTopicCommand() {
			return
		}
		if c.Example == "" {
			t.Errorf("%s has no example", path)
		}
		c.LocalFlags().VisitAll(func(f *pflag.Flag) {
			if f.Usage == "" {
				t.Errorf("%s: --%s says nothing", path, f.Name)
			}
		})
		own := false
		for line := range strings.Lines(c.Example) {
			text, ok := strings.CutPrefix(strings.TrimRight(line, "\n"), "  ")
			if !ok || strings.HasPrefix(text, " ") {
				t.Errorf("%s: the example %q does not begin with two spaces", path, line)
			}
			text, _, _ = strings.Cut(text, " | ")
			text, _, _ = strings.Cut(text, " >")
			text = strings.TrimSuffix(strings.TrimPrefix(text, "source <("), ")")
			args := words(text)
			for len(args) > 0 && envWord.MatchString(args[0]) {
				args = args[1:]
			}
			if len(args) == 0 || args[0] != "kbcli" {
				t.Errorf("%s: the example %q does not run kbcli", path, line)
				continue
			}
			root := testRoot()
			target, rest, err := root.Find(args[1:])
			if err == nil {
				err = target.ParseFlags(rest)
			}
			if err == nil {
				err = target.ValidateArgs(target.Flags().Args())
			}
			if err == nil {
				err = target.ValidateFlagGroups()
			}
			if err != nil {
				t.Errorf("%s: the example %q: %v", path, line, err)
				continue
			}
			own = own || strings.HasPrefix(target.CommandPath(), path)
		}
		if !own {
			t.Errorf("%s: no example is its own", path)
		}
	})
}

// TestSpellings holds the commands against the spellings that are promised.
func TestSpellings(t *testing.T) {
	root := testRoot()
	for line, want := range map[string]string{
		"cluster list-backup": "list-backup", "cluster list-backups": "list-backup", "cluster ls-backup": "list-backup", "cluster ls-backups": "list-backup",
		"cluster list-backup-policy": "list-backup-policy", "cluster list-backup-policies": "list-backup-policy", "cluster list-bp": "list-backup-policy",
		"cluster edit-backup-policy": "edit-backup-policy", "cluster edit-bp": "edit-backup-policy",
		"cluster list-instances": "list-instances", "cluster list-events": "list-events", "cluster logs": "logs", "cluster restart": "restart",
	} {
		c, _, err := root.Find(strings.Fields(line))
		if err != nil || c.Name() != want {
			t.Errorf("%s is %v, %v", line, c.CommandPath(), err)
		}
	}
	for path, flags := range map[string]string{
		"cluster create-account":     "username=x u=x name=x",
		"cluster delete-account":     "username=x name=x auto-approve=true yes=true",
		"cluster grant-role":         "username=x name=x",
		"cluster backup":             "type=datafile backup-type=datafile method=datafile name=x backup-name=x policy=x backup-policy=x",
		"cluster list-backup":        "name=x backup-name=x",
		"cluster delete-backup":      "name=x backup-name=x auto-approve=true yes=true force=true",
		"cluster list-backup-policy": "name=x policy=x backup-policy=x",
		"cluster delete":             "auto-approve=true yes=true",
		"cluster stop":               "auto-approve=true yes=true",
		"cluster restart":            "auto-approve=true wait=true",
		"cluster restore":            "restore-to-time=now source-cluster=x backup=x backup-name=x restore-to-lsn=0/1 restore-to-xid=7 restore-to-name=x latest=true timeline=1 exclusive=true dry-run=true wait=true",
		"cluster create":             "cluster-definition=postgresql cluster-version=postgresql-15 set=replicas=1 termination-policy=Halt backup=b",
		"cluster connect":            "as-user=x show-example=true",
		"cluster attach":             "data-directory=/d connect=x",
		"kubeblocks install":         "set=a=b set-string=a=b values=f timeout=5m wait=true namespace=kb-system",
	} {
		c, _, err := testRoot().Find(strings.Fields(path))
		if err != nil {
			t.Errorf("%s: %v", path, err)
			continue
		}
		for _, f := range strings.Fields(flags) {
			name, value, _ := strings.Cut(f, "=")
			dashes := "--"
			if len(name) == 1 {
				dashes = "-"
			}
			if err := c.ParseFlags([]string{dashes + name + "=" + value}); err != nil {
				t.Errorf("%s: %v", path, err)
			}
		}
		if help := c.UsageString(); strings.Contains(help, "--yes") || strings.Contains(help, "backup-name") || strings.Contains(help, "Aliases") {
			t.Errorf("%s shows other spellings:\n%s", path, help)
		}
	}
}

// TestTopics: the pages of the manual name what they are about.
func TestTopics(t *testing.T) {
	b := newBench(t)
	out, _, code := b.run("help", "exit-codes")
	for _, n := range []int{
		exitFailed, exitUsage, exitWarned, exitNotFound, exitConflict, exitTimedOut, exitNoRepository, exitLocked, exitWrongKey,
		exitOutside, exitGap, exitUnverified, exitNotReached, exitNoPostgreSQL, exitNoStorage, 130, 143,
	} {
		if ok, _ := regexp.MatchString(`(?m)^ +`+number(int64(n))+` `, out); !ok || code != 0 {
			t.Errorf("code %d: the exit code %d is not explained", code, n)
		}
	}
	out, _, _ = b.run("help", "restore-time")
	for line := range strings.Lines(out) {
		text := strings.TrimSpace(line)
		if !strings.HasPrefix(line, "  ") || strings.HasPrefix(text, "kbcli ") {
			continue
		}
		example, _, _ := strings.Cut(text, "   ")
		for _, moment := range strings.Split(example, ", ") {
			env := humantime.Env{Now: pageNow, Earliest: pageNow.Add(-time.Hour), Latest: pageNow, Local: shanghai}
			if _, err := humantime.Parse(moment, env); err != nil {
				t.Errorf("help restore-time says %q: %v", moment, err)
			}
		}
	}
	out, _, _ = b.run("help", "json")
	for _, word := range []string{`"items"`, "-o yaml", "-o name", "-o wide", "UTC"} {
		if !strings.Contains(out, word) {
			t.Errorf("help json does not say %s", word)
		}
	}
}

// TestOutputs: every list and describe takes the four forms.
func TestOutputs(t *testing.T) {
	walk(testRoot(), func(c *cobra.Command) {
		if !strings.HasPrefix(c.Name(), "list") && !strings.HasPrefix(c.Name(), "describe") || c.Name() == "describe-config" {
			return
		}
		f := c.Flags().Lookup("output")
		if f == nil || f.Shorthand != "o" {
			t.Errorf("%s has no -o", c.CommandPath())
			return
		}
		// what no store keeps is not watched
		if kept := c.Name() != "list-accounts" && c.CommandPath() != "kbcli context list"; strings.HasPrefix(c.Name(), "list") && kept != (c.Flags().ShorthandLookup("w") != nil) {
			t.Errorf("%s has -w: %v", c.CommandPath(), !kept)
		}
		do, _ := c.GetFlagCompletionFunc("output")
		got, _ := do(c, nil, "")
		if diff := cmp.Diff([]string{"json", "yaml", "wide", "name"}, got); diff != "" {
			t.Errorf("%s: -want +got:\n%s", c.CommandPath(), diff)
		}
	})
}

func TestProgress(t *testing.T) {
	var b strings.Builder
	now := pageNow
	p := &progress{w: &b, clock: func() time.Time { return now }, next: now.Add(logEvery)}
	for i := range 25 {
		now = pageNow.Add(time.Duration(i) * time.Second)
		p.show("at " + number(int64(i+1)))
	}
	p.end()
	if diff := cmp.Diff("at 11\nat 21\n", b.String()); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	b.Reset()
	p = &progress{w: &b, clock: func() time.Time { return now }, terminal: true}
	p.show("a")
	p.show("a")
	p.show("b")
	p.end()
	if diff := cmp.Diff("\r\033[Ka\r\033[Kb\r\033[K", b.String()); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}
