// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/runtimes/store"
)

func newListBackupCommand(a *app) *cobra.Command {
	var l listing
	var only []string
	c := &cobra.Command{
		Use: "list-backup [CLUSTER…]", Aliases: []string{"list-backups", "ls-backup", "ls-backups"}, Short: "List backups, oldest first",
		Example:           "  kbcli cluster list-backup\n  kbcli cluster list-backup my-pg -o wide",
		ValidArgsFunction: a.names(v1alpha1.KindCluster, 0),
		RunE: func(c *cobra.Command, args []string) error {
			s, err := a.objects(c.Context())
			if err != nil {
				return err
			}
			x := listed[*v1alpha1.Backup]{
				plural: "backups", names: only, order: olderBackup,
				keep: func(b *v1alpha1.Backup) bool { return len(args) == 0 || slices.Contains(args, b.Spec.ClusterRef) },
				table: func(backups []*v1alpha1.Backup, wide bool) (*table, error) {
					lives, err := living(c.Context(), s)
					if err != nil {
						return nil, err
					}
					return a.backupTable(backups, lives, l.all, wide), nil
				},
			}
			return x.run(c.Context(), a, l)
		},
	}
	l.watchFlag(c)
	l.flags(c, true)
	c.Flags().StringSliceVar(&only, "name", nil, "only these backups")
	alias(c, "name", "backup-name")
	return c
}

func olderBackup(a, b *v1alpha1.Backup) int {
	return cmp.Or(backupTime(a).Compare(backupTime(b)), cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
}

// backupTime is when a backup was asked for. An object that was made again from
// the repository is younger than its backup.
func backupTime(b *v1alpha1.Backup) time.Time {
	if t := b.Status.StartTimestamp.Time; !t.IsZero() && (t.Before(b.CreationTimestamp.Time) || b.CreationTimestamp.IsZero()) {
		return t
	}
	return b.CreationTimestamp.Time
}

// living tells whether the cluster that a backup is of still is.
func living(ctx context.Context, s store.Store) (func(*v1alpha1.Backup) bool, error) {
	clusters, err := store.List[*v1alpha1.Cluster](ctx, s, "", nil)
	lineages := map[[2]string]string{}
	var broken store.BrokenObjects
	if errors.As(err, &broken) {
		for _, b := range broken {
			lineages[[2]string{b.Key.Namespace, b.Key.Name}] = ""
		}
	} else if err != nil {
		return nil, err
	}
	for _, c := range clusters {
		lineages[[2]string{c.Namespace, c.Name}] = c.Status.Lineage
	}
	return func(b *v1alpha1.Backup) bool {
		lineage, ok := lineages[[2]string{b.Namespace, b.Spec.ClusterRef}]
		// Another cluster of the same name has a lineage of its own.
		return ok && (lineage == "" || b.Status.Lineage == "" || lineage == b.Status.Lineage)
	}, nil
}

func (a *app) backupTable(backups []*v1alpha1.Backup, lives func(*v1alpha1.Backup) bool, namespaces, wide bool) *table {
	t := &table{header: []string{"NAME", "CLUSTER", "TYPE", "STATUS", "TOTAL-SIZE", "DURATION", "CREATE-TIME", "COMPLETION-TIME", "EXPIRATION"}}
	if wide {
		t.header = append(t.header, "REPOSITORY", "TIMELINE", "START-LSN", "STOP-LSN", "LABELS", "DELETED")
	}
	if namespaces {
		t.header = append([]string{"NAMESPACE"}, t.header...)
	}
	for _, b := range backups {
		cluster := b.Spec.ClusterRef
		if !lives(b) {
			cluster += " (deleted)"
		}
		st := &b.Status
		row := []string{
			b.Name, cluster, string(b.Spec.BackupType), backupPhase(b), size(st.TotalSize), lasted(b),
			a.at(backupTime(b)), a.at(st.CompletionTimestamp.Time), a.at(st.Expiration.Time),
		}
		if wide {
			row = append(row, st.Repo, number(st.Timeline), st.StartLSN, st.StopLSN, labels(b), a.at(st.DeletionTime.Time))
		}
		if namespaces {
			row = append([]string{b.Namespace}, row...)
		}
		t.add(row...)
	}
	return t
}

func backupPhase(b *v1alpha1.Backup) string {
	if b.DeletionTimestamp != nil {
		return string(v1alpha1.BackupDeleting)
	}
	return string(b.PhaseOrNew())
}

func lasted(b *v1alpha1.Backup) string {
	d := b.Status.Duration.Duration
	if d == 0 && !b.Status.StartTimestamp.IsZero() && !b.Status.CompletionTimestamp.IsZero() {
		d = b.Status.CompletionTimestamp.Sub(b.Status.StartTimestamp.Time)
	}
	switch {
	case d <= 0 && b.Status.CompletionTimestamp.IsZero():
		return ""
	case d < time.Second:
		return "1s"
	}
	return d.Round(time.Second).String()
}
