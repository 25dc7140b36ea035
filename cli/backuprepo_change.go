// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/runtimes/store"
)

func newRepoDescribeCommand(a *app) *cobra.Command {
	var output string
	c := &cobra.Command{
		Use: "describe NAME", Short: "Show a backup repository", Args: oneName("backup repository"),
		Example:           "  kbcli backuprepo describe csi-s3",
		ValidArgsFunction: a.names(v1alpha1.KindBackupRepo, 1),
		RunE: func(c *cobra.Command, args []string) error {
			s, err := a.objects(c.Context())
			if err != nil {
				return err
			}
			r, err := store.Get[*v1alpha1.BackupRepo](c.Context(), s, "", args[0])
			if err != nil {
				return err
			}
			if done, err := a.object(output, r); done {
				return err
			}
			f := a.repoFacts(r)
			users, err := usersOf(c.Context(), s, r)
			if err != nil {
				return err
			}
			f.add("Used By", strings.Join(users, ", "))
			f.write(a.stdio.Out)
			return nil
		},
	}
	outputFlag(c, &output, describeForms)
	return c
}

func (a *app) repoFacts(r *v1alpha1.BackupRepo) facts {
	var f facts
	f.add("Name", r.Name)
	f.add("Status", repoPhase(r))
	f.add("Message", r.Status.Message)
	f.add("Storage Provider", string(r.Spec.StorageProvider))
	f.add("Place", repoPlace(r))
	if s := r.Spec.S3; s != nil {
		f.add("Endpoint", s.Endpoint)
		f.add("Region", s.Region)
		f.add("Credentials File", s.CredentialsFile)
	}
	if c := r.Spec.PersistentVolumeClaim; c != nil {
		f.add("Storage Class", c.StorageClassName)
		f.add("Capacity", c.Capacity.String())
		if v := r.Status.Volume; v.Capacity > 0 {
			f.add("Used", fmt.Sprintf("%d %% of %s", v.Used, v1alpha1.FormatSize(v.Capacity)))
		}
	}
	f.add("Default", strconv.FormatBool(r.Spec.Default))
	if s := r.Spec.Sealing; s != nil {
		f.add("Sealed To", strings.Join(s.Recipients, ", "))
		f.add("Identity File", s.IdentityFile)
	}
	f.add("Backups", strconv.FormatInt(r.Status.Backups, 10))
	f.add("Total Size", v1alpha1.FormatSize(r.Status.TotalSize))
	f.add("Create Time", a.at(r.CreationTimestamp.Time))
	return f
}

func newRepoUpdateCommand(a *app) *cobra.Command {
	var o repoFlags
	c := &cobra.Command{
		Use: "update NAME", Short: "Change how a backup repository is reached", Args: oneName("backup repository"),
		Example:           "  kbcli backuprepo update csi-s3 --credentials-file keys.ini\n  kbcli backuprepo update nas --default\n  kbcli backuprepo update backup-data --capacity 50Gi",
		ValidArgsFunction: a.names(v1alpha1.KindBackupRepo, 1),
		RunE: func(c *cobra.Command, args []string) error {
			ctx := c.Context()
			s, err := a.objects(ctx)
			if err != nil {
				return err
			}
			r, err := store.Get[*v1alpha1.BackupRepo](ctx, s, "", args[0])
			if err != nil {
				return err
			}
			old := *r
			if r.Spec.S3 != nil {
				s3 := *r.Spec.S3
				old.Spec.S3 = &s3
			}
			old.Spec.PersistentVolumeClaim = r.Spec.PersistentVolumeClaim.DeepCopy()
			if r.Spec.Sealing != nil {
				sealing := *r.Spec.Sealing
				old.Spec.Sealing = &sealing
			}
			if err := o.apply(c, a, r); err != nil {
				return err
			}
			if err := store.Admit(r, &old); err != nil {
				return err
			}
			if s, err = a.ready(ctx); err != nil {
				return err
			}
			if err := store.UpdateSpec(ctx, s, r); err != nil {
				return err
			}
			if err := a.settle(ctx, s, r, &old, o.timeout); err != nil {
				return err
			}
			if o.isDefault {
				if err := makeDefault(ctx, s, r.Name); err != nil {
					return err
				}
			}
			a.say("BackupRepo %s updated", r.Name)
			return nil
		},
	}
	o.flags(c)
	return c
}

func newRepoDeleteCommand(a *app) *cobra.Command {
	var approved bool
	var timeout time.Duration
	c := &cobra.Command{
		Use: "delete NAME", Short: "Forget a backup repository; what is in it stays", Args: oneName("backup repository"),
		Example:           "  kbcli backuprepo delete nas",
		ValidArgsFunction: a.names(v1alpha1.KindBackupRepo, 1),
		RunE: func(c *cobra.Command, args []string) error {
			ctx := c.Context()
			s, err := a.objects(ctx)
			if err != nil {
				return err
			}
			r, err := store.Get[*v1alpha1.BackupRepo](ctx, s, "", args[0])
			if err != nil {
				return err
			}
			if err := unused(ctx, s, r); err != nil {
				return err
			}
			if err := a.confirm(ctx, args, approved); err != nil {
				return err
			}
			if s, err = a.ready(ctx); err != nil {
				return err
			}
			if err := s.Delete(ctx, v1alpha1.KindBackupRepo, "", r.Name, store.Preconditions{UID: string(r.UID)}); err != nil {
				return err
			}
			if _, err := follow(ctx, a, "", r.Name, timeout, gone[*v1alpha1.BackupRepo](string(r.UID))); err != nil {
				return err
			}
			a.say("BackupRepo %s deleted", r.Name)
			return nil
		},
	}
	approveFlag(c, &approved)
	c.Flags().DurationVar(&timeout, "timeout", time.Minute, "how long to wait until it is gone")
	return c
}

// unused refuses to forget where a policy sends its backups, and the default.
func unused(ctx context.Context, s store.Store, r *v1alpha1.BackupRepo) error {
	users, err := usersOf(ctx, s, r)
	if err != nil {
		return err
	}
	switch {
	case len(users) > 0:
		return conflict("backup repository %q is used by %s", r.Name, strings.Join(users, ", ")).
			hints("make another repository the default, or name another in the policy").
			then("kbcli backuprepo list")
	case r.Spec.Default:
		return conflict("backup repository %q is the default", r.Name).
			hints("make another the default first, with kbcli backuprepo update NAME --default").
			then("kbcli backuprepo list")
	}
	return nil
}

// usersOf are the policies that send their backups to a repository, NAMESPACE/NAME.
func usersOf(ctx context.Context, s store.Store, r *v1alpha1.BackupRepo) ([]string, error) {
	policies, err := store.List[*v1alpha1.BackupPolicy](ctx, s, "", nil)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, p := range policies {
		if p.Spec.BackupRepoName == r.Name || p.Spec.BackupRepoName == "" && r.Spec.Default {
			out = append(out, p.Namespace+"/"+p.Name)
		}
	}
	return out, nil
}
