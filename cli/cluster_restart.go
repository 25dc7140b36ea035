// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/runtimes/store"
)

func newClusterRestartCommand(a *app) *cobra.Command {
	var wait, approved bool
	var timeout time.Duration
	c := &cobra.Command{
		Use: "restart NAME", Short: "Restart a cluster's servers", Args: oneName("cluster"),
		Long: `Restart a cluster's servers.

Connections are broken and what was not committed is lost. No data is, and WAL goes on
being archived without a gap.`,
		Example:           "  kbcli cluster restart my-pg --wait",
		ValidArgsFunction: a.names(v1alpha1.KindCluster, 1),
		RunE: func(c *cobra.Command, args []string) error {
			return a.restart(c.Context(), args[0], wait, timeout)
		},
	}
	waitFlags(c, &wait, &timeout, 5*time.Minute, "it serves again")
	// Nothing is destroyed, so nobody is asked; who is used to giving it may.
	approveFlag(c, &approved)
	_ = c.Flags().MarkHidden("auto-approve")
	return c
}

func (a *app) restart(ctx context.Context, name string, wait bool, timeout time.Duration) error {
	// Said before an agent is started.
	s, c, err := a.cluster(ctx, name)
	if err != nil {
		return err
	}
	if err := restartable(c); err != nil {
		return err
	}
	if s, err = a.ready(ctx); err != nil {
		return err
	}
	stamp := a.clock().UTC().Format(time.RFC3339Nano)
	_, err = store.Mutate(ctx, s, a.namespace, name, func(c *v1alpha1.Cluster) error {
		if err := restartable(c); err != nil {
			return err
		}
		if c.Annotations == nil {
			c.Annotations = map[string]string{}
		}
		c.Annotations[v1alpha1.AnnotationRestart] = stamp
		return nil
	})
	if err != nil {
		return err
	}
	if wait {
		_, err := follow(ctx, a, a.namespace, name, timeout, func(c *v1alpha1.Cluster, exists bool) step {
			return judgeRestart(c, exists, stamp)
		})
		if err != nil {
			return err
		}
		a.say("Cluster %s restarted", name)
		return nil
	}
	a.say("Cluster %s is restarting", name)
	return nil
}

func restartable(c *v1alpha1.Cluster) error {
	switch {
	case c.DeletionTimestamp != nil:
		return conflict("cluster %q is being deleted", c.Name)
	case c.Spec.Local != nil && c.Spec.Local.Attached:
		return conflict("cluster %q is attached: who runs its server restarts it", c.Name)
	case c.Spec.Stopped:
		return conflict("cluster %q is stopped", c.Name).then("kbcli cluster start %s -n %s", c.Name, c.Namespace)
	}
	return nil
}

// judgeRestart judges a cluster that was to be restarted at stamp.
func judgeRestart(c *v1alpha1.Cluster, exists bool, stamp string) step {
	switch {
	case !exists:
		return judgeRunning(c, exists)
	case c.Status.RestartedAt != stamp && c.Annotations[v1alpha1.AnnotationRestart] == stamp:
		if c.Status.Phase == v1alpha1.ClusterFailed {
			return step{err: clusterFailed(c)}
		}
		return step{line: "waiting for the agent"}
	}
	return judgeRunning(c, exists)
}
