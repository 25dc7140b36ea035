// SPDX-License-Identifier: Apache-2.0

package journeys

import (
	"errors"
	"os"
	"os/exec"
	"strconv"

	"filippo.io/age"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/kbcli/kbcli/internal/testdisk"
)

func init() {
	commands["agekey"] = cmdAgeKey
	commands["code"] = cmdCode
	commands["smalldisk"] = cmdSmallDisk
}

// cmdCode runs a command that is to end with an exit code.
func cmdCode(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: code N COMMAND…")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	var ended *exec.ExitError
	switch err := ts.Exec(args[1], args[2:]...); {
	case errors.As(err, &ended):
		got = ended.ExitCode()
	case err != nil:
		ts.Fatalf("%q: %v", args[1:], err)
	}
	if got != want {
		ts.Fatalf("%q ended with code %d, want %d", args[1:], got, want)
	}
}

// cmdSmallDisk mounts a new file system of some megabytes, and puts its place into a
// variable.
func cmdSmallDisk(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: smalldisk MEGABYTES VARIABLE")
	}
	mb, err := strconv.ParseInt(args[0], 10, 64)
	ts.Check(err)
	dir, stop, err := testdisk.Mount("ext4", mb<<20)
	ts.Check(err)
	ts.Defer(func() {
		if err := errors.Join(stopAll(ts.Getenv("KBCLI_STATE_DIR")), stop()); err != nil {
			ts.Logf("%v", err)
		}
	})
	ts.Check(os.Chmod(dir, 0o777))
	ts.Setenv(args[1], dir)
}

// cmdAgeKey makes a key that opens what is sealed, and puts the one that seals into a
// variable.
func cmdAgeKey(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: agekey FILE VARIABLE")
	}
	key, err := age.GenerateX25519Identity()
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(key.String()+"\n"), 0o600))
	ts.Setenv(args[1], key.Recipient().String())
}
