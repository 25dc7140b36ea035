// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/engine/repository"
	"github.com/kbcli/kbcli/runtimes"
	"github.com/kbcli/kbcli/runtimes/store"
)

func newBackupRepoCommand(a *app) *cobra.Command {
	return group(&cobra.Command{
		Use: "backuprepo", Aliases: []string{"backuprepos", "backup-repo"}, Short: "Say where backups live",
		Example: `  kbcli backuprepo create nas --provider filesystem --path /srv/backups --default
  kbcli backuprepo list`,
	},
		newRepoCreateCommand(a), newRepoListCommand(a), newRepoDescribeCommand(a), newRepoUpdateCommand(a), newRepoDeleteCommand(a))
}

// repoFlags are what create and update have in common.
type repoFlags struct {
	credentials  s3Credentials
	endpoint     string
	region       string
	caFile       string
	insecure     bool
	pathStyle    bool
	identityFile string
	isDefault    bool
	timeout      time.Duration
	claim        claimFlags
}

func (o *repoFlags) flags(c *cobra.Command) {
	f := c.Flags()
	f.StringVar(&o.endpoint, "endpoint", "", "the URL of the S3 service (default Amazon's of the region)")
	f.StringVar(&o.region, "region", "", "the S3 region")
	f.StringVar(&o.caFile, "ca-file", "", "a PEM file of authorities to trust besides the system's")
	f.BoolVar(&o.insecure, "insecure-skip-verify", false, "believe any certificate")
	f.BoolVar(&o.pathStyle, "path-style", false, "put the bucket into the path (default for services other than Amazon's)")
	f.StringVar(&o.identityFile, "identity-file", "", "an age identity that opens what is sealed")
	f.BoolVar(&o.isDefault, "default", false, "make it the repository of policies that name none")
	f.DurationVar(&o.timeout, "timeout", time.Minute, "how long to wait until it was tried")
	o.credentials.flags(c)
	f.StringVar(&o.claim.capacity, "capacity", "", "the size of the volume, for pvc (default "+v1alpha1.DefaultClaimCapacity+"); it can grow")
	f.StringVar(&o.claim.policy, "create-policy", "", "IfNotPresent or Never: whether the claim is made if there is none, for pvc (default IfNotPresent)")
}

func newRepoCreateCommand(a *app) *cobra.Command {
	var o repoFlags
	var provider, path, bucket, prefix, claim, class, mode string
	var recipients []string
	c := &cobra.Command{
		Use: "create NAME", Short: "Make a directory, a bucket or a volume a repository, or open the one that is there", Args: oneName("backup repository"),
		Example: `  kbcli backuprepo create nas --provider filesystem --path /srv/backups --default
  AWS_ACCESS_KEY_ID=… AWS_SECRET_ACCESS_KEY=… kbcli backuprepo create s3 --provider s3 --region eu-west-1 --bucket demo
  kbcli backuprepo create sealed --provider filesystem --path /srv/sealed --identity-file /mnt/safe/backup.key`,
		Long: createRepoHelp,
		RunE: func(c *cobra.Command, args []string) error {
			s, err := a.objects(c.Context())
			if err != nil {
				return err
			}
			// before its keys are put over another's
			switch _, err := s.Get(c.Context(), v1alpha1.KindBackupRepo, "", args[0]); {
			case err == nil:
				return store.AlreadyExists(v1alpha1.KindFor[*v1alpha1.BackupRepo](), args[0])
			case !apierrors.IsNotFound(err):
				return err
			}
			r := &v1alpha1.BackupRepo{ObjectMeta: metav1.ObjectMeta{Name: args[0]}}
			r.Spec.StorageProvider = v1alpha1.StorageProvider(provider)
			if path != "" {
				r.Spec.Filesystem = &v1alpha1.FilesystemRepo{Path: path}
			}
			if bucket != "" || provider == string(v1alpha1.ProviderS3) {
				r.Spec.S3 = &v1alpha1.S3Repo{Bucket: bucket, Prefix: prefix}
			}
			if claim != "" || provider == string(v1alpha1.ProviderPVC) {
				if claim == "" {
					claim = args[0]
				}
				r.Spec.PersistentVolumeClaim = &v1alpha1.ClaimRepo{ClaimName: claim, StorageClassName: class, AccessMode: v1alpha1.ClaimAccessMode(mode)}
				if err := a.claimsHere(c.Context()); err != nil {
					return err
				}
			}
			if len(recipients) == 0 && o.identityFile != "" {
				if recipients, err = recipientsOf(o.identityFile); err != nil {
					return err
				}
			}
			if len(recipients) > 0 {
				r.Spec.Sealing = &v1alpha1.SealingSpec{Recipients: recipients}
			}
			if err := o.apply(c, a, r); err != nil {
				return err
			}
			if err := store.Admit(r, nil); err != nil {
				return err
			}
			if s, err = a.ready(c.Context()); err != nil {
				return err
			}
			if err := s.Create(c.Context(), r); err != nil {
				return err
			}
			if err := a.settle(c.Context(), s, r, nil, o.timeout); err != nil {
				return err
			}
			if o.isDefault {
				if err := makeDefault(c.Context(), s, r.Name); err != nil {
					return err
				}
			}
			a.say("BackupRepo %s created", r.Name)
			return nil
		},
	}
	f := c.Flags()
	f.StringVar(&provider, "provider", "", "filesystem, s3 or pvc")
	f.StringVar(&path, "path", "", "the directory, for filesystem")
	f.StringVar(&bucket, "bucket", "", "the bucket, for s3")
	f.StringVar(&prefix, "prefix", "", "where in the bucket")
	f.StringVar(&claim, "claim", "", "the PersistentVolumeClaim in the operator's namespace, for pvc (default the name of the repository)")
	f.StringVar(&class, "storage-class", "", "the storage class of a claim that is made, for pvc (default Kubernetes' default)")
	f.StringVar(&mode, "access-mode", "", "the access mode of a claim that is made, for pvc (default "+string(v1alpha1.DefaultClaimMode)+", which is enough)")
	f.StringSliceVar(&recipients, "recipient", nil, "public keys to seal everything to, age1…")
	alias(c, "provider", "storage-provider")
	o.flags(c)
	return c
}

// recipientsOf are the public keys of an identity file: who opens what is there need not
// say for whom it was sealed.
func recipientsOf(path string) ([]string, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, usage("--identity-file: %v", err)
	}
	out, err := repository.RecipientsOf(string(b))
	if err != nil {
		return nil, usage("--identity-file %s: %v", path, err)
	}
	return out, nil
}

// apply puts the flags that were given into the spec, and credentials into a secret.
func (o *repoFlags) apply(c *cobra.Command, a *app, r *v1alpha1.BackupRepo) error {
	given := c.Flags().Changed
	for _, name := range []string{"endpoint", "region", "ca-file", "insecure-skip-verify", "path-style", "access-key", "credentials-file"} {
		if given(name) && r.Spec.S3 == nil {
			return usage("--%s is only for the provider s3", name)
		}
	}
	if err := o.claim.apply(given, r); err != nil {
		return err
	}
	if r.Spec.PersistentVolumeClaim != nil && !given("timeout") {
		o.timeout = volumeTimeout
	}
	if given("identity-file") {
		if r.Spec.Sealing == nil {
			return usage("--identity-file is only for a sealed repository")
		}
		path, err := a.within(c.Context(), r.Name+"-identity", o.identityFile, r.Spec.Sealing.IdentityFile == "")
		if err != nil {
			return err
		}
		r.Spec.Sealing.IdentityFile = path
	}
	s3 := r.Spec.S3
	if s3 == nil {
		return nil
	}
	if given("endpoint") {
		s3.Endpoint, s3.PathStyle = o.endpoint, !v1alpha1.AmazonEndpoint(o.endpoint)
	}
	if given("region") {
		s3.Region = o.region
	}
	if given("ca-file") {
		path, err := a.within(c.Context(), r.Name+"-ca", o.caFile, s3.CAFile == "")
		if err != nil {
			return err
		}
		s3.CAFile = path
	}
	if given("insecure-skip-verify") {
		s3.InsecureSkipVerify = o.insecure
	}
	if given("path-style") {
		s3.PathStyle = o.pathStyle
	}
	fresh := s3.CredentialsFile == ""
	path, err := o.credentials.keep(c.Context(), a, a.secretName(r.Name, fresh), fresh)
	if path != "" {
		s3.CredentialsFile = path
	}
	return err
}

// secretName is a name for a secret, beside the old one, which is right until the new one
// was tried.
func (a *app) secretName(name string, fresh bool) string {
	if fresh {
		return name
	}
	return name + "-" + a.clock().UTC().Format("20060102150405")
}

// within is where those who act find a file of this machine: here, or where its content
// is kept for them.
func (a *app) within(ctx context.Context, name, file string, fresh bool) (string, error) {
	rt, err := a.runtime(ctx)
	if err != nil {
		return "", err
	}
	keeper, ok := rt.(runtimes.FarKeeper)
	if !ok || file == "" {
		return file, nil
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return "", usage("%v", err)
	}
	return keeper.KeepSecret(ctx, a.secretName(name, fresh), data)
}

// tried waits until somebody has tried the repository.
func (a *app) tried(ctx context.Context, r *v1alpha1.BackupRepo, timeout time.Duration) error {
	generation := r.Generation
	_, err := follow(ctx, a, "", r.Name, timeout, func(o *v1alpha1.BackupRepo, exists bool) step {
		switch {
		case !exists:
			return step{err: store.NotFound(v1alpha1.KindFor[*v1alpha1.BackupRepo](), r.Name)}
		case o.Status.ObservedGeneration < generation:
			return step{line: "waiting for the agent"}
		case o.Status.Phase == v1alpha1.RepoReady:
			return step{done: true}
		case o.Status.Phase == v1alpha1.RepoFailed:
			return step{err: &placeError{r.Name, o.Status.Message}}
		}
		return step{line: strings.TrimSuffix(string(o.Status.Phase)+": "+o.Status.Message, ": ")}
	})
	return err
}

// placeError says why a repository could not be used, in the agent's words.
type placeError struct{ name, message string }

func (e *placeError) Error() string {
	return fmt.Sprintf("backup repository %q failed: %s", e.name, e.message)
}

// settle waits until somebody has tried a repository. If that fails nothing is as it was
// asked for: one that was made for it goes again, and a changed one is as it was before.
func (a *app) settle(ctx context.Context, s store.Store, r, old *v1alpha1.BackupRepo, timeout time.Duration) error {
	err := a.tried(ctx, r, timeout)
	var bad *placeError
	if !errors.As(err, &bad) {
		return err
	}
	undo := context.WithoutCancel(ctx)
	p := newProblem(exitNoStorage, "%v", err)
	if strings.Contains(bad.message, runtimes.WrongIdentity) {
		p.code = exitWrongKey
	}
	p.cause = err
	if old == nil {
		if derr := s.Delete(undo, v1alpha1.KindBackupRepo, "", r.Name, store.Preconditions{UID: string(r.UID)}); derr != nil && !apierrors.IsNotFound(derr) {
			return errors.Join(err, derr)
		}
		return p.hints("it was not created: nothing was changed")
	}
	_, uerr := store.Mutate(undo, s, "", r.Name, func(now *v1alpha1.BackupRepo) error {
		if now.Generation == r.Generation {
			now.Spec = old.Spec
		}
		return nil
	})
	if uerr != nil {
		return errors.Join(err, uerr)
	}
	return p.hints("it is reached as before: nothing was changed")
}

// makeDefault makes one repository the default, and no other: at most one is at any time.
func makeDefault(ctx context.Context, s store.Store, name string) error {
	all, err := store.List[*v1alpha1.BackupRepo](ctx, s, "", nil)
	if err != nil {
		return err
	}
	for _, r := range all {
		if r.Name == name || !r.Spec.Default {
			continue
		}
		if _, err := store.Mutate(ctx, s, "", r.Name, func(r *v1alpha1.BackupRepo) error { r.Spec.Default = false; return nil }); err != nil {
			return err
		}
	}
	_, err = store.Mutate(ctx, s, "", name, func(r *v1alpha1.BackupRepo) error { r.Spec.Default = true; return nil })
	return err
}

func newRepoListCommand(a *app) *cobra.Command {
	var l listing
	c := &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List backup repositories", Args: noArgs,
		Example: "  kbcli backuprepo list",
		RunE: func(c *cobra.Command, args []string) error {
			l.all = true // there are no namespaces to name
			x := listed[*v1alpha1.BackupRepo]{plural: "backup repositories", table: func(repos []*v1alpha1.BackupRepo, wide bool) (*table, error) {
				return a.repoTable(repos, wide), nil
			}}
			return x.run(c.Context(), a, l)
		},
	}
	l.watchFlag(c)
	l.flags(c, false)
	return c
}

func (a *app) repoTable(repos []*v1alpha1.BackupRepo, wide bool) *table {
	t := &table{header: []string{"NAME", "STATUS", "STORAGE-PROVIDER", "ACCESS-METHOD", "DEFAULT", "BACKUPS", "TOTAL-SIZE"}}
	if wide {
		t.header = append(t.header, "PLACE", "SEALED", "MESSAGE")
	}
	for _, r := range repos {
		row := []string{
			r.Name, repoPhase(r), string(r.Spec.StorageProvider), r.Spec.AccessMethod, strconv.FormatBool(r.Spec.Default),
			strconv.FormatInt(r.Status.Backups, 10), v1alpha1.FormatSize(r.Status.TotalSize),
		}
		if wide {
			row = append(row, repoPlace(r), strconv.FormatBool(r.Spec.Sealing != nil), r.Status.Message)
		}
		t.add(row...)
	}
	return t
}

func repoPhase(r *v1alpha1.BackupRepo) string {
	if r.DeletionTimestamp != nil {
		return string(v1alpha1.RepoDeleting)
	}
	if r.Status.Phase == "" {
		return string(v1alpha1.RepoPreChecking)
	}
	return string(r.Status.Phase)
}

func repoPlace(r *v1alpha1.BackupRepo) string {
	switch {
	case r.Spec.Filesystem != nil:
		return r.Spec.Filesystem.Path
	case r.Spec.S3 != nil && r.Spec.S3.Prefix != "":
		return "s3://" + r.Spec.S3.Bucket + "/" + r.Spec.S3.Prefix
	case r.Spec.S3 != nil:
		return "s3://" + r.Spec.S3.Bucket
	case r.Spec.PersistentVolumeClaim != nil:
		return "claim " + strings.TrimPrefix(r.Status.Volume.Namespace+"/"+r.Spec.PersistentVolumeClaim.ClaimName, "/")
	}
	return ""
}
