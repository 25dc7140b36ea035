// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"log/slog"

	"github.com/spf13/cobra"

	"github.com/kbcli/kbcli/runtimes/local"
)

func init() { hiddenCommands = append(hiddenCommands, newAgentCommand) }

// newAgentCommand makes `kbcli agent run`: what acts upon the objects of this
// machine. It is started by the first verb that needs it, or by systemd.
func newAgentCommand(a *app) *cobra.Command {
	run := &cobra.Command{
		Use: "run", Short: "Look after the clusters of this machine until a signal comes", Args: noArgs,
		Example: "  kbcli agent run --state-dir /var/lib/kubeblocks",
		RunE: func(c *cobra.Command, _ []string) error {
			dir, err := a.stateDirectory()
			if err != nil {
				return err
			}
			log := slog.New(slog.NewJSONHandler(a.stdio.Err, nil))
			rt, err := local.Open(c.Context(), local.Options{StateDir: dir, Clock: a.clock, Log: log})
			if err != nil {
				return err
			}
			err = rt.RunAgent(c.Context())
			if c.Context().Err() != nil {
				return nil // a signal is how it ends
			}
			return err
		},
	}
	return group(&cobra.Command{Use: "agent", Short: "The agent of this machine"}, run)
}
