// SPDX-License-Identifier: Apache-2.0

package journeys

import (
	"errors"
	"os"
	"path/filepath"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/kbcli/kbcli/internal/testdisk"
)

// cmdDisk puts the state directory on a new file system of a kind, in $DISK.
func cmdDisk(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: disk xfs|btrfs|ext4")
	}
	dir, stop, err := testdisk.Mount(args[0], 3<<30)
	ts.Check(err)
	state := filepath.Join(dir, "state")
	ts.Defer(func() {
		if err := errors.Join(stopAll(state), stop()); err != nil {
			ts.Logf("%v", err)
		}
	})
	ts.Check(os.Mkdir(state, 0o755))
	ts.Setenv("DISK", dir)
	ts.Setenv("KBCLI_STATE_DIR", state)
}
