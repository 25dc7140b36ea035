// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"slices"
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
			x := listed[*v1alpha1.BackupPolicy]{
				plural: "backup policies", names: only,
				keep: func(p *v1alpha1.BackupPolicy) bool { return len(args) == 0 || slices.Contains(args, p.Spec.ClusterRef) },
				table: func(policies []*v1alpha1.BackupPolicy, wide bool) (*table, error) {
					return a.policyTable(policies, l.all, wide), nil
				},
			}
			return x.run(c.Context(), a, l)
		},
	}
	l.watchFlag(c)
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
		t.header = append(t.header, "REPOSITORY", "TTL", "LOGFILE", "LABELS", "MIN-BACKUPS", "MAX-BACKUPS", "GRACE", "MESSAGE")
	}
	if namespaces {
		t.header = append([]string{"NAMESPACE"}, t.header...)
	}
	for _, p := range policies {
		row := []string{p.Name, strconv.FormatBool(p.IsDefault()), p.Spec.ClusterRef, a.at(p.CreationTimestamp.Time), string(p.Status.Phase)}
		if wide {
			row = append(row, p.Spec.BackupRepoName, p.Spec.Retention.TTL, strconv.FormatBool(p.Spec.Schedule.Logfile.Enable), labels(p),
				number(int64(p.Spec.Retention.MinBackups)), number(int64(p.Spec.Retention.MaxBackups)), p.Spec.Retention.Grace, p.Status.Message)
		}
		if namespaces {
			row = append([]string{p.Namespace}, row...)
		}
		t.add(row...)
	}
	return t
}
