// SPDX-License-Identifier: Apache-2.0

package journeys

import (
	"regexp"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

var commands = map[string]func(ts *testscript.TestScript, neg bool, args []string){
	"kbcli":       cmdKbcli,
	"until":       cmdUntil,
	"capture":     cmdCapture,
	"disk":        cmdDisk,
	"now":         cmdNow,
	"sleep":       cmdSleep,
	"stopagent":   cmdStopAgent,
	"stopservers": cmdStopServers,
}

func cmdKbcli(ts *testscript.TestScript, neg bool, args []string) {
	err := ts.Exec("kbcli", args...)
	switch {
	case err != nil && !neg:
		ts.Fatalf("kbcli %q: %v", args, err)
	case err == nil && neg:
		ts.Fatalf("kbcli %q succeeded", args)
	}
}

// cmdUntil tries a command again and again. It is run by itself, so that a
// command that is killed by the end of the time leaves no failure behind; its
// last stdout is what `stdout` and `capture` then look at.
func cmdUntil(ts *testscript.TestScript, neg bool, args []string) {
	var match *regexp.Regexp
	if len(args) > 1 && args[0] == "-match" {
		re, err := regexp.Compile(args[1])
		ts.Check(err)
		match, args = re, args[2:]
	}
	if neg || len(args) < 2 {
		ts.Fatalf("usage: until [-match REGEXP] DURATION COMMAND…")
	}
	limit, err := time.ParseDuration(args[0])
	ts.Check(err)
	for end := time.Now().Add(limit); ; time.Sleep(200 * time.Millisecond) {
		err := ts.Exec(args[1], args[2:]...)
		out := ts.ReadFile("stdout")
		if err == nil && (match == nil || match.MatchString(out)) {
			return
		}
		if time.Now().After(end) {
			ts.Fatalf("%q: %v after %s, and its last answer is\n%s%s", args[1:], err, limit, out, ts.ReadFile("stderr"))
		}
	}
}

func cmdCapture(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: capture NAME REGEXP")
	}
	re, err := regexp.Compile(`(?m)` + args[1])
	ts.Check(err)
	out := ts.ReadFile("stdout")
	m := re.FindStringSubmatch(out)
	if m == nil {
		ts.Fatalf("no %s in\n%s", args[1], out)
	}
	ts.Setenv(args[0], m[len(m)-1])
}

func cmdNow(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: now NAME")
	}
	ts.Setenv(args[0], time.Now().UTC().Format("2006-01-02T15:04:05.000000Z"))
}

func cmdSleep(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: sleep DURATION")
	}
	d, err := time.ParseDuration(args[0])
	ts.Check(err)
	time.Sleep(d)
}

func cmdStopAgent(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 0 {
		ts.Fatalf("usage: stopagent")
	}
	ts.Check(stopAgent(ts.Getenv("KBCLI_STATE_DIR")))
}

func cmdStopServers(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 0 {
		ts.Fatalf("usage: stopservers")
	}
	ts.Check(stopServers(ts.Getenv("KBCLI_STATE_DIR")))
}
