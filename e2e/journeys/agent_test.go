// SPDX-License-Identifier: Apache-2.0

package journeys

import (
	"os"
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
	build := exec.Command("go", "build", "-ldflags", "-X github.com/kbcli/kbcli/cli.version="+args[0],
		"-o", ts.MkAbs(args[1]), "github.com/kbcli/kbcli/cmd/kbcli")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		ts.Fatalf("build kbcli: %v\n%s", err, out)
	}
}
