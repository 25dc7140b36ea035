// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/kbcli/kbcli/engine/archive"
	"github.com/kbcli/kbcli/runtimes/local"
)

func init() { hiddenCommands = append(hiddenCommands, newWALAwaitCommand) }

// newWALAwaitCommand makes the program that a recovering server asks for WAL that
// does not wait yet. Its exit codes are restore_command's, not the table's.
func newWALAwaitCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use: local.AwaitCommand + " DIRECTORY FILE PATH", Short: "Wait for a file of WAL", Args: cobra.ExactArgs(3),
		Example: "  kbcli " + local.AwaitCommand + " recovery/wal 000000010000000000000003 pg_wal/RECOVERYXLOG",
		RunE: func(c *cobra.Command, args []string) error {
			code, err := archive.Await(c.Context(), args[0], args[1], args[2])
			if err != nil {
				fmt.Fprintln(a.stdio.Err, err)
			}
			if code != archive.AwaitFound {
				os.Exit(code) // not an error of ours: the server reads the code
			}
			return nil
		},
	}
}
