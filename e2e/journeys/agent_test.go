// SPDX-License-Identifier: Apache-2.0

package journeys

import (
	"os/exec"

	"github.com/rogpeppe/go-internal/testscript"
)

func init() {
	commands["build"] = cmdBuild
}

// cmdBuild makes a kbcli that says it is another version.
func cmdBuild(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: build VERSION FILE")
	}
	if out, err := exec.Command("../../deploy/build.sh", ts.MkAbs(args[1]), args[0]).CombinedOutput(); err != nil {
		ts.Fatalf("build kbcli: %v\n%s", err, out)
	}
}
