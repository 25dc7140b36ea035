// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/runtimes"
)

func newListInstancesCommand(a *app) *cobra.Command {
	var l listing
	c := &cobra.Command{
		Use: "list-instances [NAME…]", Aliases: []string{"list-instance", "ls-instances", "ls-instance"}, Short: "List the servers of clusters",
		Long: `List the servers of clusters.

ROLE and ACCESSMODE are what the server itself says. On one machine STORAGE is what
the data takes on its disk, and how large its file system is.`,
		Example:           "  kbcli cluster list-instances\n  kbcli cluster list-instances my-pg -o json",
		ValidArgsFunction: a.names(v1alpha1.KindCluster, 0),
		RunE: func(c *cobra.Command, args []string) error {
			ctx := c.Context()
			lister, err := asker[runtimes.InstanceLister](ctx, a, "instances")
			if err != nil {
				return err
			}
			get := func(ctx context.Context) ([]runtimes.Instance, error) { return a.instances(ctx, lister, l, args) }
			if l.watch {
				key := func(i runtimes.Instance) string { return i.Namespace + "/" + i.Name }
				return watchValues(ctx, a, l.output, get, key, instanceName, a.instanceTable)
			}
			instances, err := get(ctx)
			if err != nil {
				return err
			}
			return showValues(a, l.output, instances, instanceName, func() { a.none("instances", l.all) },
				func(wide bool) *table { return a.instanceTable(instances, wide) })
		},
	}
	l.flags(c, true)
	l.watchFlag(c)
	return c
}

// instanceName is as Kubernetes names what it is there.
func instanceName(i runtimes.Instance) string { return "instance/" + i.Name }

func (a *app) instances(ctx context.Context, lister runtimes.InstanceLister, l listing, names []string) ([]runtimes.Instance, error) {
	clusters, err := list[*v1alpha1.Cluster](ctx, a, l)
	if err != nil {
		return nil, err
	}
	if clusters, err = pick(clusters, names); err != nil {
		return nil, err
	}
	var out []runtimes.Instance
	for _, c := range clusters {
		got, err := lister.Instances(ctx, c)
		if err != nil {
			return nil, err
		}
		out = append(out, got...)
	}
	return out, nil
}

func (a *app) instanceTable(instances []runtimes.Instance, _ bool) *table {
	t := &table{header: []string{
		"NAME", "NAMESPACE", "CLUSTER", "COMPONENT", "STATUS", "ROLE", "ACCESSMODE", "AZ",
		"CPU(REQUEST/LIMIT)", "MEMORY(REQUEST/LIMIT)", "STORAGE", "NODE", "CREATED-TIME",
	}}
	for _, i := range instances {
		t.add(i.Name, i.Namespace, i.Cluster, i.Component, i.Status, i.Role, i.AccessMode, i.Zone, i.CPU, i.Memory, i.Storage, i.Node, a.at(i.Created))
	}
	return t
}
