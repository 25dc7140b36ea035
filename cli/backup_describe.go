// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/runtimes/store"
)

func newDescribeBackupCommand(a *app) *cobra.Command {
	var output string
	c := &cobra.Command{
		Use: "describe-backup NAME", Short: "Show a backup", Args: oneName("backup"),
		Example:           "  kbcli cluster describe-backup backup-default-my-pg-20230417195547",
		ValidArgsFunction: a.names(v1alpha1.KindBackup, 1),
		RunE: func(c *cobra.Command, args []string) error {
			s, err := a.objects(c.Context())
			if err != nil {
				return err
			}
			b, err := store.Get[*v1alpha1.Backup](c.Context(), s, a.namespace, args[0])
			if err != nil {
				return err
			}
			if done, err := a.object(output, b); done {
				return err
			}
			lives, err := living(c.Context(), s)
			if err != nil {
				return err
			}
			a.backupFacts(b, lives(b)).write(a.stdio.Out)
			return nil
		},
	}
	outputFlag(c, &output, describeForms)
	return c
}

func (a *app) backupFacts(b *v1alpha1.Backup, lives bool) facts {
	var f facts
	st := &b.Status
	cluster := b.Spec.ClusterRef
	if !lives {
		cluster += " (deleted)"
	}
	f.add("Name", b.Name)
	f.add("Namespace", b.Namespace)
	f.add("Cluster", cluster)
	f.add("Type", string(b.Spec.BackupType))
	f.add("Policy", b.Spec.BackupPolicyName)
	f.add("Manual", strconv.FormatBool(st.Manual || b.Labels[v1alpha1.LabelScheduled] == ""))
	f.add("Status", backupPhase(b))
	f.add("Failure Reason", st.FailureReason)
	f.add("Message", st.Message)
	if p := st.Progress; p != nil {
		switch b.PhaseOrNew() {
		case v1alpha1.BackupNew, v1alpha1.BackupInProgress:
			f.add("Progress", progressLine(p, p.Phase, a.clock()))
		}
	}
	f.add("Total Size", size(st.TotalSize))
	f.add("Duration", lasted(b))
	f.add("Create Time", a.at(backupTime(b)))
	f.add("Completion Time", a.at(st.CompletionTimestamp.Time))
	f.add("Expiration", a.at(st.Expiration.Time))
	if !st.DeletionTime.IsZero() {
		f.add("Deleted", a.at(st.DeletionTime.Time)+", unless the policy promises it again: marked "+a.at(st.MarkedTime.Time))
	}
	f.add("Repository", st.Repo)
	f.add("Lineage", st.Lineage)
	f.add("Snapshot Path", st.SnapshotPath)
	f.add("Volume Snapshot", st.VolumeSnapshot)
	f.add("Copy Of", b.Spec.CopyOf)
	f.add("Limits", limitWords(b.Spec.Limits))
	f.add("Target", string(b.Spec.Target))
	if s := st.Standby; s != nil {
		f.add("Taken Of", strings.TrimSpace("standby "+s.Instance))
	}
	f.add("Timeline", number(st.Timeline))
	f.add("Start LSN", st.StartLSN)
	f.add("Stop LSN", st.StopLSN)
	if !st.StopTime.IsZero() {
		f.add("Recoverable From", a.exact(st.StopTime.Time))
	}
	return f
}
