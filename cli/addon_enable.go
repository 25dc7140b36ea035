// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"time"

	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/runtimes/store"
)

var s3Keys = []string{"secret.accessKey", "secret.secretKey", "secret.endpoint", "secret.region", "storageClass.singleBucket"}

type addonEnable struct {
	sets    []string
	files   []string
	timeout time.Duration
}

func newAddonEnableCommand(a *app) *cobra.Command {
	var o addonEnable
	c := &cobra.Command{
		Use: "enable NAME", Short: "Enable an addon", Args: oneName("addon"),
		Long: `Enable an addon.

snapshot-controller: backups are snapshots where the storage can.

csi-s3: backups and WAL go to S3, and the bucket becomes the default repository. It takes
secret.accessKey, secret.secretKey, secret.endpoint, secret.region and
storageClass.singleBucket. Keys that are not set are taken from $AWS_ACCESS_KEY_ID and
$AWS_SECRET_ACCESS_KEY, or asked for. They are kept in a file that only its owner reads, on
Kubernetes in a Secret. There the addon also makes the storage class csi-s3: nothing is
mounted, for kbcli reads and writes the bucket itself.`,
		Example: `  kbcli addon enable snapshot-controller
  kbcli addon enable csi-s3 --set secret.endpoint=https://s3.eu-west-1.amazonaws.com,secret.region=eu-west-1,storageClass.singleBucket=demo
  kbcli addon enable csi-s3 -f values.yaml`,
		ValidArgsFunction: completeAddons,
		RunE:              func(c *cobra.Command, args []string) error { return o.run(c.Context(), a, args[0]) },
	}
	f := c.Flags()
	f.StringArrayVar(&o.sets, "set", nil, "key=value,…")
	f.StringArrayVarP(&o.files, "values", "f", nil, "a YAML file of keys and values")
	f.DurationVar(&o.timeout, "timeout", time.Minute, "how long to wait until the storage was tried, and the addon is turned on")
	return c
}

func newAddonDisableCommand(a *app) *cobra.Command {
	var approved bool
	var timeout time.Duration
	c := &cobra.Command{
		Use: "disable NAME", Short: "Disable an addon", Args: oneName("addon"),
		Example:           "  kbcli addon disable snapshot-controller",
		ValidArgsFunction: completeAddons,
		RunE: func(c *cobra.Command, args []string) error {
			ctx := c.Context()
			if _, err := a.addon(ctx, args[0]); err != nil {
				return err
			}
			s, err := a.objects(ctx)
			if err != nil {
				return err
			}
			r, err := store.Get[*v1alpha1.BackupRepo](ctx, s, "", args[0])
			if args[0] == addonS3 && err == nil && r.Spec.Default {
				return conflict("backups go to %s: it is the default repository", addonS3).
					then("kbcli backuprepo list").hints("make another repository the default first")
			}
			if s, err = a.ready(ctx); err != nil {
				return err
			}
			return a.setAddon(ctx, s, args[0], false, nil, timeout)
		},
	}
	c.Flags().DurationVar(&timeout, "timeout", time.Minute, "how long to wait until it is turned off")
	approveFlag(c, &approved)
	return c
}

func (o *addonEnable) run(ctx context.Context, a *app, name string) error {
	var settings []setting
	for _, path := range o.files {
		more, err := readValues(path)
		if err != nil {
			return err
		}
		settings = append(settings, more...)
	}
	sets, err := parseSets(o.sets)
	if err != nil {
		return err
	}
	settings = append(settings, sets...)
	if _, err := a.addon(ctx, name); err != nil {
		return err
	}
	if name != addonS3 {
		if len(settings) > 0 {
			return usage("addon %s takes no settings", name)
		}
		s, err := a.ready(ctx)
		if err != nil {
			return err
		}
		return a.setAddon(ctx, s, name, true, nil, o.timeout)
	}
	return o.enableS3(ctx, a, settings)
}

// enableS3 makes a repository of the bucket, has it tried, and only then makes
// it the default: wrong keys must not stop an archive that works.
func (o *addonEnable) enableS3(ctx context.Context, a *app, settings []setting) error {
	s, err := a.objects(ctx)
	if err != nil {
		return err
	}
	r, err := store.Get[*v1alpha1.BackupRepo](ctx, s, "", addonS3)
	fresh := apierrors.IsNotFound(err)
	if err != nil && !fresh {
		return err
	}
	var old *v1alpha1.BackupRepo
	secret := addonS3
	if !fresh {
		old = &v1alpha1.BackupRepo{Spec: r.Spec}
		if r.Spec.S3 != nil {
			s3 := *r.Spec.S3
			old.Spec.S3 = &s3
		}
		// beside the old keys, which are right until the new ones were tried
		secret += "-" + a.clock().UTC().Format("20060102150405")
	}
	if fresh {
		r = &v1alpha1.BackupRepo{ObjectMeta: metav1.ObjectMeta{Name: addonS3}}
	}
	if r.Spec.S3 == nil {
		r.Spec.StorageProvider, r.Spec.S3 = v1alpha1.ProviderS3, &v1alpha1.S3Repo{}
	}
	keys := s3Credentials{ask: r.Spec.S3.CredentialsFile == ""}
	values, err := s3Values(settings, r.Spec.S3, &keys)
	if err != nil {
		return err
	}
	if r.Spec.S3.Bucket == "" {
		return usage("missing storageClass.singleBucket, the bucket").then("kbcli addon enable --help")
	}
	if err := store.Admit(r, nil); err != nil {
		return err
	}
	path, err := keys.keep(ctx, a, secret, keys.ask)
	if err != nil {
		return err
	}
	if path != "" {
		r.Spec.S3.CredentialsFile = path
	}
	if s, err = a.ready(ctx); err != nil {
		return err
	}
	if fresh {
		err = s.Create(ctx, r)
	} else {
		err = store.UpdateSpec(ctx, s, r)
	}
	if err != nil {
		return err
	}
	if err := a.settle(ctx, s, r, old, o.timeout); err != nil {
		return err
	}
	if err := makeDefault(ctx, s, addonS3); err != nil {
		return err
	}
	return a.setAddon(ctx, s, addonS3, true, values, o.timeout)
}

// s3Values puts settings where they belong: secrets into keys, the rest into the
// repository and the returned values.
func s3Values(settings []setting, s3 *v1alpha1.S3Repo, keys *s3Credentials) (map[string]string, error) {
	values := map[string]string{}
	for _, x := range settings {
		switch x.key {
		case "secret.accessKey":
			keys.accessKey = x.value
			continue
		case "secret.secretKey":
			keys.secretKey = x.value
			continue
		case "secret.endpoint":
			s3.Endpoint, s3.PathStyle = x.value, !v1alpha1.AmazonEndpoint(x.value)
		case "secret.region":
			s3.Region = x.value
		case "storageClass.singleBucket":
			s3.Bucket = x.value
		default:
			return nil, unknownKey(x.key, s3Keys)
		}
		values[x.key] = x.value
	}
	return values, nil
}
