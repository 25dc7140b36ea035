// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/runtimes"
	"github.com/kbcli/kbcli/runtimes/store"
)

type clusterDetach struct {
	approved, force bool
	timeout         time.Duration
}

func newClusterDetachCommand(a *app) *cobra.Command {
	var o clusterDetach
	c := &cobra.Command{
		Use: "detach NAME", Short: "No longer protect a server that was attached; it goes on, and its backups stay", Args: oneName("cluster"),
		Long: `No longer protect a server that was attached. What it has committed is put into the
repository first; then the replication slot is dropped, and nothing of kbcli's is left on
the server. The server goes on as it is. Its backups stay, and the moments that could be
restored can be restored still.`,
		Example:           "  kbcli cluster detach main-15",
		ValidArgsFunction: a.names(v1alpha1.KindCluster, 1),
		RunE:              func(c *cobra.Command, args []string) error { return o.run(c.Context(), a, args[0]) },
	}
	approveFlag(c, &o.approved)
	c.Flags().BoolVar(&o.force, "force", false, "wait neither for the repository nor for a server that does not answer")
	c.Flags().DurationVar(&o.timeout, "timeout", 5*time.Minute, "how long to wait")
	return c
}

func isAttached(c *v1alpha1.Cluster) bool { return c.Spec.Local != nil && c.Spec.Local.Attached }

func (o *clusterDetach) run(ctx context.Context, a *app, name string) error {
	s, c, err := a.cluster(ctx, name)
	if err != nil {
		return err
	}
	if !isAttached(c) {
		return conflict("cluster %q is not attached: kbcli made its server", name).
			hints("to take the server away with its data: delete").then("kbcli cluster delete %s -n %s", name, a.namespace)
	}
	leftovers, err := o.check(ctx, a, c)
	if err != nil {
		return err
	}
	if !o.approved {
		a.note("%s", fate(c))
	}
	if err := a.confirm(ctx, []string{name}, o.approved); err != nil {
		return err
	}
	if s, err = a.ready(ctx); err != nil {
		return err
	}
	if err := o.letGo(ctx, a, s, c); err != nil {
		return err
	}
	a.say("Cluster %s detached", name)
	if len(leftovers) > 0 {
		a.warn("the server does not answer, and has still what kbcli made on it; it keeps its WAL for that. Run there:")
		for _, l := range leftovers {
			a.note("\t%s", l)
		}
	}
	return nil
}

// check asks the server whether it is there. With force the answer is what will be left
// on one that is not.
func (o *clusterDetach) check(ctx context.Context, a *app, c *v1alpha1.Cluster) ([]string, error) {
	rt, err := a.runtime(ctx)
	if err != nil {
		return nil, err
	}
	d, ok := rt.(runtimes.Detacher)
	if !ok || c.Status.Lineage == "" {
		return nil, nil // nothing was ever made there
	}
	down := d.CheckDetach(ctx, c)
	if down == nil {
		return nil, nil
	}
	leftovers, err := d.Leftovers(ctx, c)
	if err != nil {
		return nil, err
	}
	if o.force {
		return leftovers, nil
	}
	p := newProblem(exitNoPostgreSQL, "the server of cluster %q does not answer, and would keep WAL for kbcli for ever: %v", c.Name, down)
	p.cause = down
	return nil, p.hints("start it, or detach with --force and run on it later: %s", strings.Join(leftovers, " ")).
		then("kbcli cluster detach %s -n %s --force", c.Name, c.Namespace)
}

func (o *clusterDetach) letGo(ctx context.Context, a *app, s store.Store, c *v1alpha1.Cluster) error {
	if o.force {
		_, err := store.Mutate(ctx, s, c.Namespace, c.Name, func(c *v1alpha1.Cluster) error {
			if c.Annotations == nil {
				c.Annotations = map[string]string{}
			}
			c.Annotations[runtimes.AnnotationLeave] = "force"
			return nil
		})
		if err != nil {
			return err
		}
	}
	if err := s.Delete(ctx, v1alpha1.KindCluster, c.Namespace, c.Name, store.Preconditions{UID: string(c.UID)}); err != nil {
		return err
	}
	uid := string(c.UID)
	_, err := follow(ctx, a, c.Namespace, c.Name, o.timeout, func(o *v1alpha1.Cluster, exists bool) step {
		done := gone[*v1alpha1.Cluster](uid)(o, exists)
		if !done.done && o.Status.Message != "" {
			done.line = o.Status.Message
		}
		return done
	})
	var late *problem
	if errors.As(err, &late) && late.code == exitTimedOut {
		late.then("kbcli cluster detach %s -n %s --force", c.Name, c.Namespace)
	}
	return err
}
