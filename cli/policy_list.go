// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"strconv"

	"github.com/spf13/cobra"

	"github.com/kbcli/kbcli/api/v1alpha1"
)

func newListPolicyCommand(a *app) *cobra.Command {
	var l listing
	var only []string
	c := &cobra.Command{
		Use: "list-backup-policy [CLUSTER…]", Aliases: []string{"list-backup-policies", "list-bp", "ls-bp"}, Short: "List backup policies",
		Example:           "  kbcli cluster list-backup-policy\n  kbcli cluster list-backup-policy my-pg",
		ValidArgsFunction: a.names(v1alpha1.KindCluster, 0),
		RunE: func(c *cobra.Command, args []string) error {
			policies, err := list[*v1alpha1.BackupPolicy](c.Context(), a, l)
			if err != nil {
				return err
			}
			if policies, err = pick(policies, only); err != nil {
				return err
			}
			policies = ofClusters(policies, args, func(p *v1alpha1.BackupPolicy) string { return p.Spec.ClusterRef })
			return show(a, l, policies, "backup policies", func(wide bool) *table { return a.policyTable(policies, l.all, wide) })
		},
	}
	l.flags(c, true)
	c.Flags().StringSliceVar(&only, "name", nil, "only these policies")
	alias(c, "name", "policy", "backup-policy")
	return c
}

// ofClusters keeps what belongs to one of clusters; all of it if there are none.
func ofClusters[T any](in []T, clusters []string, of func(T) string) []T {
	if len(clusters) == 0 {
		return in
	}
	var out []T
	for _, o := range in {
		for _, c := range clusters {
			if of(o) == c {
				out = append(out, o)
				break
			}
		}
	}
	return out
}

func (a *app) policyTable(policies []*v1alpha1.BackupPolicy, namespaces, wide bool) *table {
	t := &table{header: []string{"NAME", "DEFAULT", "CLUSTER", "CREATE-TIME", "STATUS"}}
	if wide {
		t.header = append(t.header, "REPOSITORY", "TTL", "LOGFILE", "LABELS")
	}
	if namespaces {
		t.header = append([]string{"NAMESPACE"}, t.header...)
	}
	for _, p := range policies {
		row := []string{p.Name, strconv.FormatBool(p.IsDefault()), p.Spec.ClusterRef, a.at(p.CreationTimestamp.Time), string(p.Status.Phase)}
		if wide {
			row = append(row, p.Spec.BackupRepoName, p.Spec.Retention.TTL, strconv.FormatBool(p.Spec.Schedule.Logfile.Enable), labels(p))
		}
		if namespaces {
			row = append([]string{p.Namespace}, row...)
		}
		t.add(row...)
	}
	return t
}
