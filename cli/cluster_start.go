// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/runtimes/store"
)

func newClusterStartCommand(a *app) *cobra.Command {
	var timeout time.Duration
	c := &cobra.Command{
		Use: "start NAME", Short: "Start a stopped cluster", Args: oneName("cluster"),
		Example:           "  kbcli cluster start my-pg",
		ValidArgsFunction: a.names(v1alpha1.KindCluster, 1),
		RunE: func(c *cobra.Command, args []string) error {
			if err := a.setStopped(c.Context(), args[0], false, timeout); err != nil {
				return err
			}
			a.say("Cluster %s started", args[0])
			return nil
		},
	}
	c.Flags().DurationVar(&timeout, "timeout", 5*time.Minute, "how long to wait")
	return c
}

func newClusterStopCommand(a *app) *cobra.Command {
	var timeout time.Duration
	var approved bool
	c := &cobra.Command{
		Use: "stop NAME", Short: "Stop a cluster's servers and keep its data", Args: oneName("cluster"),
		Example:           "  kbcli cluster stop my-pg",
		ValidArgsFunction: a.names(v1alpha1.KindCluster, 1),
		RunE: func(c *cobra.Command, args []string) error {
			_, o, err := a.cluster(c.Context(), args[0])
			if err != nil {
				return err
			}
			if err := ours(o); err != nil {
				return err
			}
			if err := a.confirm(c.Context(), args, approved); err != nil {
				return err
			}
			if err := a.setStopped(c.Context(), args[0], true, timeout); err != nil {
				return err
			}
			a.say("Cluster %s stopped", args[0])
			return nil
		},
	}
	approveFlag(c, &approved)
	c.Flags().DurationVar(&timeout, "timeout", 5*time.Minute, "how long to wait")
	return c
}

// ours refuses a cluster whose server somebody else runs.
func ours(c *v1alpha1.Cluster) error {
	if !isAttached(c) {
		return nil
	}
	return conflict("cluster %q is attached: who runs its server starts and stops it", c.Name).
		hints("to stop protecting it: kbcli cluster detach %s -n %s", c.Name, c.Namespace)
}

func (a *app) setStopped(ctx context.Context, name string, stopped bool, timeout time.Duration) error {
	s, err := a.ready(ctx)
	if err != nil {
		return err
	}
	c, err := store.Mutate(ctx, s, a.namespace, name, func(c *v1alpha1.Cluster) error {
		if err := ours(c); err != nil {
			return err
		}
		c.Spec.Stopped = stopped
		return nil
	})
	if err != nil {
		return err
	}
	_, err = follow(ctx, a, a.namespace, name, timeout, func(o *v1alpha1.Cluster, exists bool) step {
		switch {
		case !exists:
			return step{err: store.NotFound(v1alpha1.KindFor[*v1alpha1.Cluster](), name)}
		case o.Status.ObservedGeneration < c.Generation:
			return step{line: "waiting for the agent"}
		case stopped:
			if o.Status.Phase == v1alpha1.ClusterFailed {
				return step{err: clusterFailed(o)}
			}
			return step{done: o.Status.Phase == v1alpha1.ClusterStopped, line: string(o.Status.Phase)}
		}
		return judgeRunning(o, exists)
	})
	return err
}
