// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/runtimes/store"
)

type clusterDelete struct {
	approved bool
	timeout  time.Duration
}

func newClusterDeleteCommand(a *app) *cobra.Command {
	var o clusterDelete
	c := &cobra.Command{
		Use: "delete NAME…", Short: "Delete clusters; their backups stay, unless the termination policy is WipeOut", Args: someNames("cluster"),
		Example:           "  kbcli cluster delete my-pg",
		ValidArgsFunction: a.names(v1alpha1.KindCluster, 0),
		RunE:              func(c *cobra.Command, args []string) error { return o.run(c.Context(), a, args) },
	}
	approveFlag(c, &o.approved)
	c.Flags().DurationVar(&o.timeout, "timeout", 5*time.Minute, "how long to wait until each is gone")
	return c
}

func approveFlag(c *cobra.Command, approved *bool) {
	c.Flags().BoolVar(approved, "auto-approve", false, "do not ask for the name again")
	alias(c, "auto-approve", "yes")
}

func (o *clusterDelete) run(ctx context.Context, a *app, names []string) error {
	s, err := a.objects(ctx)
	if err != nil {
		return err
	}
	var clusters []*v1alpha1.Cluster
	for _, name := range names {
		c, err := store.Get[*v1alpha1.Cluster](ctx, s, a.namespace, name)
		if err != nil {
			return err
		}
		if isAttached(c) {
			return conflict("cluster %q is attached: its server is somebody else's, and is not deleted", name).
				then("kbcli cluster detach %s -n %s", name, a.namespace)
		}
		if c.Spec.TerminationPolicy == v1alpha1.TerminationDoNotTerminate {
			return conflict("cluster %q is protected by its termination policy DoNotTerminate", name)
		}
		clusters = append(clusters, c)
	}
	if !o.approved {
		for _, c := range clusters {
			a.note("%s", fate(c))
		}
	}
	if err := a.confirm(ctx, names, o.approved); err != nil {
		return err
	}
	if s, err = a.ready(ctx); err != nil {
		return err
	}
	for _, c := range clusters {
		err := s.Delete(ctx, v1alpha1.KindCluster, c.Namespace, c.Name, store.Preconditions{UID: string(c.UID)})
		if err != nil {
			return err
		}
		if _, err := follow(ctx, a, c.Namespace, c.Name, o.timeout, gone[*v1alpha1.Cluster](string(c.UID))); err != nil {
			return err
		}
		a.say("Cluster %s deleted", c.Name)
	}
	return nil
}

// fate says what goes with a cluster.
func fate(c *v1alpha1.Cluster) string {
	switch {
	case isAttached(c):
		return "Cluster " + c.Name + " will no longer be protected; its server and its backups stay."
	case c.Spec.TerminationPolicy == v1alpha1.TerminationWipeOut:
		return "Cluster " + c.Name + " will be deleted with all its data AND ALL ITS BACKUPS."
	case c.Spec.TerminationPolicy == v1alpha1.TerminationHalt:
		return "Cluster " + c.Name + " will be deleted; its data directory and its backups stay."
	}
	return "Cluster " + c.Name + " will be deleted with all its data; its backups stay."
}
