// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/engine/pg"
	"github.com/kbcli/kbcli/runtimes/store"
)

type backupDelete struct {
	names    []string
	force    bool
	approved bool
	timeout  time.Duration
}

func newDeleteBackupCommand(a *app) *cobra.Command {
	var o backupDelete
	c := &cobra.Command{
		Use: "delete-backup CLUSTER", Short: "Delete backups", Args: oneName("cluster"),
		Long: `Delete backups of a cluster, which may itself be deleted already.

With --name those; with --force alone all of them. A backup without which moments
that are kept could no longer be reached is refused, unless --force is given.`,
		Example: `  kbcli cluster delete-backup my-pg --name backup-default-my-pg-20230417195547
  kbcli cluster delete-backup my-pg --force`,
		ValidArgsFunction: a.names(v1alpha1.KindCluster, 1),
		RunE:              func(c *cobra.Command, args []string) error { return o.run(c.Context(), a, args[0]) },
	}
	f := c.Flags()
	f.StringSliceVar(&o.names, "name", nil, "the backups, B1,B2")
	f.BoolVar(&o.force, "force", false, "all backups of the cluster; with --name, also those that are needed")
	f.DurationVar(&o.timeout, "timeout", 5*time.Minute, "how long to wait until each is gone")
	approveFlag(c, &o.approved)
	alias(c, "name", "backup-name")
	a.completeFlag(c, "name", v1alpha1.KindBackup)
	return c
}

func (o *backupDelete) run(ctx context.Context, a *app, cluster string) error {
	if len(o.names) == 0 && !o.force {
		return usage("Missing --name as backup name.").then("kbcli cluster list-backup %s -n %s", cluster, a.namespace)
	}
	s, err := a.objects(ctx)
	if err != nil {
		return err
	}
	all, err := backupsOf(ctx, s, a.namespace, cluster)
	if err != nil {
		return err
	}
	doomed, typed := all, []string{cluster}
	if len(o.names) > 0 {
		if doomed, err = o.named(ctx, s, a.namespace, cluster); err != nil {
			return err
		}
		typed = o.names
	}
	if len(doomed) == 0 {
		a.none("backups", false)
		return nil
	}
	if !o.force {
		if err := a.refuseRead(ctx, s, doomed); err != nil {
			return err
		}
		if err := a.refuseNeeded(ctx, s, cluster, all, doomed); err != nil {
			return err
		}
	}
	if !o.approved && len(o.names) == 0 {
		a.note("All %s of cluster %s will be deleted:", count(len(doomed), "backup"), cluster)
		for _, b := range doomed {
			a.note("  %s", b.Name)
		}
	}
	if err := a.confirm(ctx, typed, o.approved); err != nil {
		return err
	}
	if s, err = a.ready(ctx); err != nil {
		return err
	}
	for _, b := range doomed {
		if err := a.deleteBackup(ctx, s, b, o.timeout); err != nil {
			return err
		}
		a.say("Backup %s deleted", b.Name)
	}
	return nil
}

// deleteBackup removes the object; the agent, which holds a finalizer, removes
// what is in the repository first.
func (a *app) deleteBackup(ctx context.Context, s store.Store, b *v1alpha1.Backup, timeout time.Duration) error {
	err := s.Delete(ctx, v1alpha1.KindBackup, b.Namespace, b.Name, store.Preconditions{UID: string(b.UID)})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	there := gone[*v1alpha1.Backup](string(b.UID))
	_, err = follow(ctx, a, b.Namespace, b.Name, timeout, func(o *v1alpha1.Backup, exists bool) step {
		st := there(o, exists)
		if !st.done && o.Status.FailureReason != "" && o.Status.Phase == v1alpha1.BackupDeleting {
			st.line += ": " + o.Status.FailureReason
		}
		return st
	})
	return err
}

func backupsOf(ctx context.Context, s store.Store, namespace, cluster string) ([]*v1alpha1.Backup, error) {
	all, err := store.List[*v1alpha1.Backup](ctx, s, namespace, nil)
	if err != nil {
		return nil, err
	}
	out := ofClusters(all, []string{cluster}, func(b *v1alpha1.Backup) string { return b.Spec.ClusterRef })
	slices.SortStableFunc(out, olderBackup)
	return out, nil
}

func (o *backupDelete) named(ctx context.Context, s store.Store, namespace, cluster string) ([]*v1alpha1.Backup, error) {
	var out []*v1alpha1.Backup
	for i, name := range o.names {
		b, err := store.Get[*v1alpha1.Backup](ctx, s, namespace, name)
		if err != nil {
			return nil, err
		}
		if b.Spec.ClusterRef != cluster {
			return nil, usage("backup %q is of cluster %q, not of %q", name, b.Spec.ClusterRef, cluster)
		}
		if !slices.Contains(o.names[:i], name) {
			out = append(out, b)
		}
	}
	return out, nil
}

// refuseRead fails if a restore that goes on reads one of the backups.
func (a *app) refuseRead(ctx context.Context, s store.Store, doomed []*v1alpha1.Backup) error {
	clusters, err := store.List[*v1alpha1.Cluster](ctx, s, "", nil)
	var broken store.BrokenObjects
	if err != nil && !errors.As(err, &broken) {
		return err
	}
	for _, c := range clusters {
		r := c.Spec.Restore
		if r == nil || c.DeletionTimestamp != nil || c.Status.Phase != "" && c.Status.Phase != v1alpha1.ClusterRestoring {
			continue
		}
		for _, b := range doomed {
			reads := r.Backup == b.Name || r.Resolved != nil && r.Resolved.BackupName == b.Name
			if reads && r.SourceNamespace == b.Namespace && r.SourceCluster == b.Spec.ClusterRef {
				return conflict("backup %q is being restored into cluster %q", b.Name, c.Name).
					hints("wait until that is done, or give --force").
					then("kbcli cluster describe %s -n %s", c.Name, c.Namespace)
			}
		}
	}
	return nil
}

// refuseNeeded fails if a window of a cluster that is kept would have no backup
// left to begin with. The past of a deleted cluster is nobody's promise.
func (a *app) refuseNeeded(ctx context.Context, s store.Store, cluster string, all, doomed []*v1alpha1.Backup) error {
	c, err := store.Get[*v1alpha1.Cluster](ctx, s, a.namespace, cluster)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, w := range c.Status.Windows {
		var of []*v1alpha1.Backup
		for _, b := range all {
			if b.Status.Phase == v1alpha1.BackupCompleted && within(b, lineageOf(all, c, w), w) {
				of = append(of, b)
			}
		}
		last := func(b *v1alpha1.Backup) bool {
			return slices.ContainsFunc(doomed, func(d *v1alpha1.Backup) bool { return d.Name == b.Name })
		}
		if len(of) > 0 && !slices.ContainsFunc(of, func(b *v1alpha1.Backup) bool { return !last(b) }) {
			return conflict("backup %q is the last from which %s can be restored: with it the moments %s are lost", of[len(of)-1].Name, cluster, a.span(w.From.Time, w.To.Time)).
				hints("take another backup first, or give --force")
		}
	}
	return nil
}

// lineageOf is the lineage of a window, which is that of the backup it begins with: a
// cluster that changed its repository has windows of several.
func lineageOf(all []*v1alpha1.Backup, c *v1alpha1.Cluster, w v1alpha1.RecoverableWindow) string {
	for _, b := range all {
		if b.Name == w.Backup && b.Status.Lineage != "" {
			return b.Status.Lineage
		}
	}
	return c.Status.Lineage
}

// within tells whether a backup ends in a window, so that it can be restored from it.
func within(b *v1alpha1.Backup, lineage string, w v1alpha1.RecoverableWindow) bool {
	if b.Status.Lineage != "" && lineage != "" && b.Status.Lineage != lineage {
		return false
	}
	if b.Name == w.Backup {
		return true
	}
	stop, err := pg.ParseLSN(b.Status.StopLSN)
	from, err2 := pg.ParseLSN(w.FromLSN)
	to, err3 := pg.ParseLSN(w.ToLSN)
	return err == nil && err2 == nil && err3 == nil && stop >= from && stop <= to
}
