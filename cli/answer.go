// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"github.com/spf13/cobra"

	"github.com/kbcli/kbcli/runtimes/kubernetes/ask"
)

func init() { hiddenCommands = append(hiddenCommands, newAnswerCommand) }

// newAnswerCommand makes the program that a command line elsewhere asks about the past of
// a cluster, because the repository can be read here.
func newAnswerCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use: ask.Command[1], Short: "Answer a question about the past, from stdin", Args: noArgs,
		Example: "  kbcli " + ask.Command[1],
		RunE: func(c *cobra.Command, _ []string) error {
			rt, err := a.runtime(c.Context())
			if err != nil {
				return err
			}
			return ask.Serve(c.Context(), rt, a.stdio.In, a.stdio.Out)
		},
	}
}
