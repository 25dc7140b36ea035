// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"slices"

	"github.com/spf13/cobra"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/runtimes/store"
)

func newClusterListCommand(a *app) *cobra.Command {
	var l listing
	c := &cobra.Command{
		Use: "list [NAME…]", Aliases: []string{"ls"}, Short: "List clusters",
		Example:           "  kbcli cluster list\n  kbcli cluster list -A -o wide",
		ValidArgsFunction: a.names(v1alpha1.KindCluster, 0),
		RunE: func(c *cobra.Command, args []string) error {
			x := listed[*v1alpha1.Cluster]{
				plural: "clusters", names: args,
				look: func(clusters ...*v1alpha1.Cluster) { a.doubt(c.Context(), clusters...) },
				table: func(clusters []*v1alpha1.Cluster, wide bool) (*table, error) {
					return a.clusterTable(clusters, wide), nil
				},
			}
			return x.run(c.Context(), a, l)
		},
	}
	l.watchFlag(c)
	l.flags(c, true)
	return c
}

// pick keeps the objects that were named, all of them when none was, and misses
// what is not there.
func pick[T v1alpha1.Object](objects []T, names []string) ([]T, error) {
	if len(names) == 0 {
		return objects, nil
	}
	var out []T
	for _, name := range names {
		n := len(out)
		for _, o := range objects {
			if o.GetName() == name {
				out = append(out, o)
			}
		}
		if len(out) == n {
			return nil, store.NotFound(v1alpha1.KindFor[T](), name)
		}
	}
	return slices.Clip(out), nil
}

func (a *app) clusterTable(clusters []*v1alpha1.Cluster, wide bool) *table {
	t := &table{header: []string{"NAME", "NAMESPACE", "CLUSTER-DEFINITION", "VERSION", "TERMINATION-POLICY", "STATUS", "CREATED-TIME"}}
	if wide {
		t.header = append(t.header, "PORT", "ARCHIVE", "LABELS")
	}
	for _, c := range clusters {
		row := []string{
			c.Name, c.Namespace, c.Spec.ClusterDefinitionRef, c.Spec.ClusterVersionRef,
			string(c.Spec.TerminationPolicy), clusterPhase(c), a.at(c.CreationTimestamp.Time),
		}
		if wide {
			archive := ""
			if c.Status.Archive != nil {
				archive = string(c.Status.Archive.State)
			}
			row = append(row, number(int64(c.Status.Port)), archive, labels(c))
		}
		t.add(row...)
	}
	return t
}

// clusterPhase is the phase, as people should see it before anybody has looked.
func clusterPhase(c *v1alpha1.Cluster) string {
	switch {
	case c.DeletionTimestamp != nil:
		return string(v1alpha1.ClusterDeleting)
	case c.Status.Phase == "" && c.Spec.Restore != nil:
		return string(v1alpha1.ClusterRestoring)
	case c.Status.Phase == "":
		return string(v1alpha1.ClusterCreating)
	}
	return string(c.Status.Phase)
}
