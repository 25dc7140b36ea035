// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"github.com/spf13/cobra"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/runtimes"
)

func newClusterLogsCommand(a *app) *cobra.Command {
	var o runtimes.LogOptions
	c := &cobra.Command{
		Use: "logs NAME", Short: "Print the log of a cluster's server, or of the agent about it", Args: oneName("cluster"),
		Example: `  kbcli cluster logs my-pg --tail 100
  kbcli cluster logs my-pg -f
  kbcli cluster logs my-pg --agent --tail 20`,
		ValidArgsFunction: a.names(v1alpha1.KindCluster, 1),
		RunE: func(c *cobra.Command, args []string) error {
			ctx := c.Context()
			_, cluster, err := a.cluster(ctx, args[0])
			if err != nil {
				return err
			}
			reader, err := asker[runtimes.LogReader](ctx, a, "logs")
			if err != nil {
				return err
			}
			err = reader.Logs(ctx, cluster, o, a.stdio.Out)
			if err == nil && ctx.Err() != nil {
				return a.watched(ctx)
			}
			return err
		},
	}
	f := c.Flags()
	f.BoolVar(&o.Agent, "agent", false, "what the agent did for the cluster, a JSON object a line")
	f.IntVar(&o.Tail, "tail", -1, "only the last lines; -1 is all")
	f.BoolVarP(&o.Follow, "follow", "f", false, "go on with each new line, until ^C")
	return c
}
