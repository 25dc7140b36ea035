// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/engine/restore"
	"github.com/kbcli/kbcli/runtimes"
	"github.com/kbcli/kbcli/runtimes/store"
)

func newVerifyBackupCommand(a *app) *cobra.Command {
	var restored bool
	var output string
	c := &cobra.Command{
		Use: "verify-backup NAME", Short: "Read a backup back and check every byte of it", Args: oneName("backup"),
		Long: `Read a backup back from the repository and check every byte of it.

All that a restore of it would read is read: its list of files, each pack that this
names, and the WAL from its start to its end. Nothing is written. Damage is named,
and the exit code is 22. Pages that were wrong on the server already are listed, and
the exit code is 3.

On Kubernetes it is read by kbcli beside the cluster's server, a standby if there is one,
or by the operator where the cluster is gone.

With --restore it is restored instead, on this machine, in a directory of its own below
the state directory; started where nobody else reaches it; and every table and index of
every database is read with PostgreSQL's own tools. Nothing of it is left afterwards. It
takes the room of the cluster's data. On Kubernetes restore it into a cluster.`,
		Example: `  kbcli cluster verify-backup backup-default-my-pg-20230417195547
  kbcli cluster verify-backup backup-default-my-pg-20230417195547 --restore`,
		ValidArgsFunction: a.names(v1alpha1.KindBackup, 1),
		RunE: func(c *cobra.Command, args []string) error {
			if output != "" && output != "json" && output != "yaml" {
				return unknownOutput(output, "json|yaml")
			}
			return a.verifyBackup(c.Context(), args[0], restored, output)
		},
	}
	c.Flags().BoolVar(&restored, "restore", false, "restore it, start it and read it through")
	outputFlag(c, &output, "json|yaml")
	return c
}

func (a *app) verifyBackup(ctx context.Context, name string, restored bool, output string) error {
	s, err := a.objects(ctx)
	if err != nil {
		return err
	}
	b, err := store.Get[*v1alpha1.Backup](ctx, s, a.namespace, name)
	if err != nil {
		return err
	}
	if b.Status.Phase != v1alpha1.BackupCompleted {
		return conflict("backup %q is not completed.", name)
	}
	rt, err := a.runtime(ctx)
	if err != nil {
		return err
	}
	if restored {
		return a.tryBackup(ctx, rt, b, output)
	}
	v, ok := rt.(runtimes.Verifier)
	if !ok {
		return failed("backups cannot be read from here")
	}
	p := a.progress()
	r, err := v.Verify(ctx, b, func(done, total int64) {
		p.show(fmt.Sprintf("Verifying %s of %s", v1alpha1.FormatSize(done), v1alpha1.FormatSize(total)))
	})
	p.end()
	if err != nil {
		return notVerified(err)
	}
	if output != "" {
		if err := a.value(output, r); err != nil {
			return err
		}
	} else {
		a.verifyFacts(r).write(a.stdio.Out)
	}
	if n := len(r.BadPages); n > 0 {
		a.warn("%s had wrong checksums on the server when the backup was taken: the backup holds them as they were", count(n, "page"))
	}
	if output == "" {
		a.say("Backup %s verified", b.Name)
	}
	return nil
}

// tryBackup restores a backup and reads it through.
func (a *app) tryBackup(ctx context.Context, rt runtimes.Runtime, b *v1alpha1.Backup, output string) error {
	v, ok := rt.(runtimes.RestoreVerifier)
	if !ok {
		return failed("a backup is tried out on one machine only; on Kubernetes a restore tries it, as a cluster beside the others").
			hints("look at it, and delete it again: kbcli cluster delete verify-%s -n %s --auto-approve", b.Spec.ClusterRef, b.Namespace).
			then("kbcli cluster restore verify-%s --backup %s -n %s --wait", b.Spec.ClusterRef, b.Name, b.Namespace)
	}
	p := a.progress()
	r, err := v.VerifyRestore(ctx, b, func(words string) { p.show(words) })
	p.end()
	if err != nil {
		return notVerified(err)
	}
	if output != "" {
		return a.value(output, r)
	}
	var f facts
	f.add("Server", "PostgreSQL "+r.Version)
	f.add("Reached LSN", r.Reached)
	f.add("Databases", strings.Join(r.Databases, ", "))
	f.add("Relations", strconv.FormatInt(r.Relations, 10))
	f.add("Seconds", strconv.FormatFloat(r.Seconds, 'f', 1, 64))
	f.write(a.stdio.Out)
	a.say("Backup %s verified: it was restored, started and read through", b.Name)
	return nil
}

func (a *app) verifyFacts(r *restore.Report) facts {
	var f facts
	f.add("Files", strconv.FormatInt(r.Files, 10))
	f.add("Bytes", fmt.Sprintf("%d (%s)", r.Bytes, v1alpha1.FormatSize(r.Bytes)))
	f.add("Packs", strconv.Itoa(r.Packs))
	f.add("WAL Segments", strconv.Itoa(r.Segments))
	bad := "none"
	if len(r.BadPages) > 0 {
		bad = ""
		for i, p := range r.BadPages {
			if i == 10 {
				bad += fmt.Sprintf(" and %d more", len(r.BadPages)-i)
				break
			}
			if i > 0 {
				bad += ", "
			}
			bad += fmt.Sprintf("block %d of %s", p.Block, p.Path)
		}
	}
	f.add("Bad Pages", bad)
	return f
}

// notVerified gives damage a line for each object.
func notVerified(err error) error {
	var d *restore.DamagedError
	if !errors.As(err, &d) {
		return err
	}
	words := fmt.Sprintf("backup %s is damaged:", d.Backup)
	for _, x := range d.Damage {
		words += "\n\t" + x.Error()
	}
	p := newProblem(exitUnverified, "%s", words).hints("take another backup")
	p.cause = err
	return p
}
