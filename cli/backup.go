// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"time"

	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/runtimes/kubernetes"
	"github.com/kbcli/kbcli/runtimes/store"
)

type backup struct {
	kind, policy, name string
	target             string
	wait               bool
	timeout            time.Duration
	limits             limiting
}

func newBackupCommand(a *app) *cobra.Command {
	var o backup
	c := &cobra.Command{
		Use: "backup NAME", Short: "Take a backup", Args: oneName("cluster"),
		Long: `Take a backup of the type that is asked for:

datafile     every file, into the repository
snapshot     clones of the files, on the cluster's own file system: at once, and restored
             at once, but lost with that disk. snapshot.copyToRepository in the backup
             policy puts them into the repository afterwards. It needs the addon
             snapshot-controller, and XFS or btrfs. On Kubernetes it is a VolumeSnapshot of
             the volume, and needs a VolumeSnapshotClass for the volume's driver.
incremental  the blocks that changed since the last backup in the repository, as the WAL
             tells. It restores alone and at once, as a datafile backup does, and the
             backup that it was compared with may be deleted. Where there is none, or
             the WAL cannot tell, every file is read, and the backup's message says why.

On Kubernetes a datafile or an incremental backup can be of a standby: the agent beside that
one reads its files, and the primary's are not touched. --target standby fails where there is
none that follows the primary; --target prefer-standby is of the primary then, and says so.

On a busy server --nice, --idle-io, --upload and --workers hold it back, and --memory bounds
it; what they leave open the policy says (spec.limits).`,
		Example:           "  kbcli cluster backup my-pg\n  kbcli cluster backup my-pg --type datafile --wait\n  kbcli cluster backup my-pg --type incremental\n  kbcli cluster backup my-pg --type datafile --target standby",
		ValidArgsFunction: a.names(v1alpha1.KindCluster, 1),
		RunE: func(c *cobra.Command, args []string) error {
			if o.name == "" && c.Flags().Changed("name") { // of a variable that nobody set
				return usage("--name is empty").hints("leave it out, and the name is backup-NAMESPACE-CLUSTER-TIME")
			}
			return o.run(c.Context(), a, args[0])
		},
	}
	f := c.Flags()
	f.StringVar(&o.kind, "type", "", "snapshot, datafile or incremental (default snapshot where the storage can, else datafile)")
	f.StringVar(&o.target, "target", "", "the server whose files are read: primary, standby or prefer-standby (default what the policy says)")
	f.StringVar(&o.policy, "policy", "", "the backup policy (default the cluster's own)")
	f.StringVar(&o.name, "name", "", "the name of the backup (default backup-NAMESPACE-CLUSTER-TIME)")
	waitFlags(c, &o.wait, &o.timeout, 24*time.Hour, "the backup is complete")
	o.limits.flags(c, "upload")
	alias(c, "type", "backup-type", "method")
	alias(c, "policy", "backup-policy")
	alias(c, "name", "backup-name")
	a.completeFlag(c, "policy", v1alpha1.KindBackupPolicy)
	_ = c.RegisterFlagCompletionFunc("target", cobra.FixedCompletions([]string{"primary", "standby", "prefer-standby"}, cobra.ShellCompDirectiveNoFileComp))
	_ = c.RegisterFlagCompletionFunc("type", cobra.FixedCompletions([]string{"snapshot", "datafile", "incremental"}, cobra.ShellCompDirectiveNoFileComp))
	return c
}

func (o *backup) run(ctx context.Context, a *app, cluster string) error {
	s, err := a.objects(ctx)
	if err != nil {
		return err
	}
	p, err := o.findPolicy(ctx, s, a.namespace, cluster)
	if err != nil {
		return err
	}
	c, err := store.Get[*v1alpha1.Cluster](ctx, s, a.namespace, cluster)
	if err != nil {
		return err
	}
	limits, err := o.limits.spec("upload")
	if err != nil {
		return err
	}
	b := &v1alpha1.Backup{Spec: v1alpha1.BackupSpec{ClusterRef: cluster, BackupPolicyName: p.Name, BackupType: v1alpha1.BackupType(o.kind), Target: v1alpha1.BackupTarget(o.target), Limits: limits}}
	b.Namespace, b.Name = a.namespace, o.name
	if b.Name == "" {
		b.Name = "unnamed" // only to be judged
	}
	if err := store.Admit(b, nil); err != nil {
		return err
	}
	if s, err = a.ready(ctx); err != nil {
		return err
	}
	if c, err = a.running(ctx, c); err != nil {
		return err
	}
	if err := o.chooseType(ctx, a, c, b); err != nil {
		return err
	}
	if err := fitsTarget(a, c, b); err != nil {
		return err
	}
	if b.Spec.BackupType == v1alpha1.BackupIncremental {
		if err := noteFirst(ctx, a, s, b); err != nil {
			return err
		}
	}
	if err := o.create(ctx, a, s, b); err != nil {
		return err
	}
	a.say("Backup %s created successfully, you can view the progress:\n\tkbcli cluster list-backup --name=%s -n %s", b.Name, b.Name, b.Namespace)
	if !o.wait {
		return nil
	}
	done, err := follow(ctx, a, b.Namespace, b.Name, o.timeout, a.judgeBackup)
	if err == nil && done.Status.Message != "" {
		a.note("note: %s", done.Status.Message)
	}
	return err
}

// fitsTarget refuses a standby where there can be none.
func fitsTarget(a *app, c *v1alpha1.Cluster, b *v1alpha1.Backup) error {
	if err := store.Admit(b, nil); err != nil { // a snapshot may have been chosen since
		return err
	}
	if b.Spec.Target != v1alpha1.TargetStandby {
		return nil
	}
	var why string
	if _, remote := a.rt.(*kubernetes.Runtime); !remote {
		why = "on one machine it has one server"
	} else if c.Spec.Replicas < 2 {
		why = "it has one server"
	}
	if why == "" {
		return nil
	}
	return failed("cluster %q has no standby: %s", c.Name, why).hints("--target prefer-standby takes the primary where there is no standby").
		then("kbcli cluster backup %s --type %s -n %s", c.Name, b.Spec.BackupType, c.Namespace)
}

// noteFirst says where there is nothing yet that an incremental backup could build on.
func noteFirst(ctx context.Context, a *app, s store.Store, b *v1alpha1.Backup) error {
	all, err := store.List[*v1alpha1.Backup](ctx, s, b.Namespace, map[string]string{v1alpha1.LabelCluster: b.Spec.ClusterRef})
	var broken store.BrokenObjects
	if err != nil && !errors.As(err, &broken) {
		return err
	}
	for _, have := range all {
		if have.Spec.BackupType != v1alpha1.BackupSnapshot && have.DeletionTimestamp == nil && have.Status.Phase == v1alpha1.BackupCompleted {
			return nil
		}
	}
	a.note("note: no backup of cluster %q is in the repository yet: this one reads every file", b.Spec.ClusterRef)
	return nil
}

// chooseType fills the type in where nobody asked for one, and refuses a snapshot
// where there can be none.
func (o *backup) chooseType(ctx context.Context, a *app, c *v1alpha1.Cluster, b *v1alpha1.Backup) error {
	if o.kind != "" && b.Spec.BackupType != v1alpha1.BackupSnapshot {
		return nil
	}
	rt, err := a.runtime(ctx)
	if err != nil {
		return err
	}
	kind, why := rt.BackupType(ctx, c)
	if o.kind != "" {
		if kind == v1alpha1.BackupSnapshot {
			return nil
		}
		return failed("a snapshot of cluster %q cannot be made: %s", c.Name, why).
			then("kbcli cluster backup %s --type datafile -n %s", c.Name, c.Namespace)
	}
	b.Spec.BackupType = kind
	note := "note: the type of the backup is " + string(kind)
	if why != "" {
		note += ": " + why
	}
	a.note("%s", note)
	return nil
}

func (o *backup) findPolicy(ctx context.Context, s store.Store, namespace, cluster string) (*v1alpha1.BackupPolicy, error) {
	if o.policy == "" {
		p, err := defaultPolicy(ctx, s, namespace, cluster)
		if asMissing(err) {
			if _, e := s.Get(ctx, v1alpha1.KindCluster, namespace, cluster); apierrors.IsNotFound(e) {
				return nil, missing("%v", err).hints("there is no cluster %q in namespace %s", cluster, namespace)
			}
		}
		return p, err
	}
	p, err := store.Get[*v1alpha1.BackupPolicy](ctx, s, namespace, o.policy)
	if err != nil {
		return nil, err
	}
	if p.Spec.ClusterRef != cluster {
		return nil, usage("backup policy %q is that of cluster %q", p.Name, p.Spec.ClusterRef)
	}
	return p, nil
}

func asMissing(err error) bool {
	p, ok := err.(*problem)
	return ok && p.code == exitNotFound
}

// create stores b under the name of this second, or of the next that is free:
// two backups of one cluster never share a second.
func (o *backup) create(ctx context.Context, a *app, s store.Store, b *v1alpha1.Backup) error {
	for {
		now := a.clock().UTC()
		if o.name == "" {
			b.Name = v1alpha1.BackupName(b.Namespace, b.Spec.ClusterRef, now)
		}
		err := s.Create(ctx, b)
		if o.name != "" || !apierrors.IsAlreadyExists(err) {
			return err
		}
		b.ObjectMeta = metav1.ObjectMeta{Namespace: b.Namespace}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(now.Truncate(time.Second).Add(time.Second).Sub(now)):
		}
	}
}

func (a *app) judgeBackup(b *v1alpha1.Backup, exists bool) step {
	if !exists {
		return step{err: failed("the backup was deleted before it was complete")}
	}
	switch b.PhaseOrNew() {
	case v1alpha1.BackupCompleted:
		return step{done: true}
	case v1alpha1.BackupFailed:
		return step{err: newProblem(codeOf(b.Status.Reason), "backup %q failed: %s", b.Name, b.Status.FailureReason).
			then("kbcli cluster describe-backup %s -n %s", b.Name, b.Namespace)}
	case v1alpha1.BackupDeleting:
		return step{err: conflict("backup %q is being deleted", b.Name)}
	}
	return step{line: progressLine(b.Status.Progress, string(b.PhaseOrNew()), a.clock())}
}
