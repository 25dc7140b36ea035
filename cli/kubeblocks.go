// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/runtimes"
	"github.com/kbcli/kbcli/runtimes/kubernetes"
	"github.com/kbcli/kbcli/runtimes/kubernetes/names"
	"github.com/kbcli/kbcli/runtimes/local"
	"github.com/kbcli/kbcli/runtimes/store"
)

// settingsAddon is the Addon that holds the settings of an installation on one machine. It
// is not listed.
const settingsAddon = local.SettingsAddon

// The settings that this package knows the meaning of.
const (
	keySnapshot = "snapshot-controller.enabled"
	keyVolumes  = "dataProtection.enableVolumeSnapshot"
	keyClass    = runtimes.SettingClaimClass
)

// installKeys are the settings that there are everywhere.
var installKeys = local.Settings{}.SettingKeys()

// installation is the flags of install, config and upgrade.
type installation struct {
	sets, strings, files []string
	version              string
	wait                 bool
	timeout              time.Duration
}

func (o *installation) flags(c *cobra.Command, version bool) {
	f := c.Flags()
	f.StringArrayVar(&o.sets, "set", nil, "key=value,…")
	f.StringArrayVar(&o.strings, "set-string", nil, "key=value,…, the values always texts")
	f.StringArrayVarP(&o.files, "values", "f", nil, "a YAML file of keys and values")
	f.BoolVar(&o.wait, "wait", true, "wait until it is done")
	f.DurationVar(&o.timeout, "timeout", 5*time.Minute, "how long to wait")
	if version {
		f.StringVar(&o.version, "version", "", "the release")
	}
}

func newKubeBlocksCommand(a *app) *cobra.Command {
	return group(&cobra.Command{
		Use: "kubeblocks", Aliases: []string{"kb"}, Short: "Install and configure KubeBlocks",
		Long: `Install and configure KubeBlocks.

On one machine there is nothing to install: the commands see to it that the agent runs,
and keep the settings. On Kubernetes they install the Helm chart kubeblocks, which is
inside this program and of its release.`,
		Example: "  kbcli kubeblocks install --set snapshot-controller.enabled=true\n  kbcli kubeblocks status",
	},
		newInstallCommand(a), newConfigCommand(a), newDescribeConfigCommand(a), newStatusCommand(a), newUpgradeCommand(a), newUninstallCommand(a))
}

func newInstallCommand(a *app) *cobra.Command {
	var o installation
	c := &cobra.Command{
		Use: "install", Short: "Install KubeBlocks", Args: noArgs,
		Example: `  kbcli kubeblocks install
  kbcli kubeblocks install --set snapshot-controller.enabled=true
  kbcli kubeblocks install -f values.yaml`,
		RunE: func(c *cobra.Command, _ []string) error {
			inst, err := a.installer(c.Context())
			if err != nil {
				return err
			}
			if err := o.sameRelease(a); err != nil {
				return err
			}
			i, err := o.read(a, c, inst)
			if err != nil {
				return err
			}
			i.Step = func(string) {}
			if err := inst.Install(c.Context(), i); err != nil {
				return err
			}
			if err := a.turn(c.Context(), i); err != nil {
				return err
			}
			a.say("KubeBlocks %s installed to namespace %s SUCCESSFULLY!", version, i.Namespace)
			return nil
		},
	}
	o.flags(c, true)
	return c
}

// installer is the runtime as what can be installed into.
func (a *app) installer(ctx context.Context) (runtimes.Installer, error) {
	rt, err := a.runtime(ctx)
	if err != nil {
		return nil, err
	}
	inst, ok := rt.(runtimes.Installer)
	if !ok {
		return nil, failed("nothing can be installed here")
	}
	return inst, nil
}

// systemNamespace is kb-system unless another is named.
func (a *app) systemNamespace(c *cobra.Command) string {
	if c.Flags().Changed("namespace") {
		return a.namespace
	}
	return names.SystemNamespace
}

func newConfigCommand(a *app) *cobra.Command {
	var o installation
	c := &cobra.Command{
		Use: "config", Short: "Change settings", Args: noArgs,
		Example: "  kbcli kubeblocks config --set dataProtection.enableVolumeSnapshot=true",
		RunE:    func(c *cobra.Command, _ []string) error { return o.upgrade(c, a) },
	}
	o.flags(c, false)
	return c
}

func newUpgradeCommand(a *app) *cobra.Command {
	var o installation
	c := &cobra.Command{
		Use: "upgrade", Short: "Go to another release", Args: noArgs,
		Example: "  kbcli kubeblocks upgrade --set dataProtection.enableVolumeSnapshot=true",
		RunE: func(c *cobra.Command, _ []string) error {
			if err := o.sameRelease(a); err != nil {
				return err
			}
			return o.upgrade(c, a)
		},
	}
	o.flags(c, true)
	return c
}

// sameRelease refuses to install another release than this program's: it has no other.
func (o *installation) sameRelease(a *app) error {
	if o.version == "" || strings.TrimPrefix(o.version, "v") == strings.TrimPrefix(version, "v") {
		return nil
	}
	what := "on one machine it is all there is"
	if _, ok := a.rt.(*kubernetes.Runtime); ok {
		what = "it installs the chart that is in it"
	}
	return usage("this program is release %s, and %s", version, what).hints("install the program of release %s", o.version)
}

func (o *installation) upgrade(c *cobra.Command, a *app) error {
	inst, err := a.installer(c.Context())
	if err != nil {
		return err
	}
	i, err := o.read(a, c, inst)
	if err != nil {
		return err
	}
	if len(i.Values) == 0 && o.version == "" {
		a.say("Nothing to upgrade, --set, --version should be specified.")
		return nil
	}
	i.Step = func(what string) { a.say("%-50s OK", what) }
	if err := inst.Configure(c.Context(), i); err != nil {
		return err
	}
	if err := a.turn(c.Context(), i); err != nil {
		return err
	}
	a.say("KubeBlocks has been upgraded  SUCCESSFULLY!")
	return nil
}

// read puts files and --set together, the last says most, and refuses keys there are not.
func (o *installation) read(a *app, c *cobra.Command, inst runtimes.Installer) (runtimes.Installation, error) {
	i := runtimes.Installation{Namespace: a.systemNamespace(c), Values: map[string]any{}, Wait: o.wait, Timeout: o.timeout}
	for _, path := range o.files {
		tree, err := readTree(path)
		if err != nil {
			return i, err
		}
		if err := merge(i.Values, "", tree); err != nil {
			return i, err
		}
	}
	for _, texts := range []struct {
		texts []string
		typed func(string) any
	}{{o.sets, typed}, {o.strings, func(s string) any { return s }}} {
		sets, err := parseSets(texts.texts)
		if err != nil {
			return i, err
		}
		for _, s := range sets {
			if err := merge(i.Values, "", map[string]any{s.key: texts.typed(s.value)}); err != nil {
				return i, err
			}
		}
	}
	known := inst.SettingKeys()
	for _, s := range flatten(nil, "", i.Values) {
		switch {
		case !isKnown(known, s.key):
			return i, unknownKey(s.key, known)
		case s.key == keySnapshot || s.key == keyVolumes:
			if s.value != "true" && s.value != "false" {
				return i, usage("%s: %q is not true or false", s.key, s.value)
			}
		}
	}
	return i, nil
}

// isKnown tells whether there is such a key, or one with a dot at its end that it begins with.
func isKnown(known []string, key string) bool {
	return slices.ContainsFunc(known, func(k string) bool {
		return k == key || strings.HasSuffix(k, ".") && strings.HasPrefix(key, k)
	})
}

// typed is a value as YAML would have it: true, 3, null, or a text.
func typed(s string) any {
	switch s {
	case "true", "false":
		return s == "true"
	case "null":
		return nil
	}
	if n, err := strconv.ParseInt(s, 10, 64); err == nil && strconv.FormatInt(n, 10) == s {
		return n
	}
	return s
}

// merge puts a tree, whose keys may have dots, into another.
func merge(into map[string]any, prefix string, tree map[string]any) error {
	for _, key := range slices.Sorted(maps.Keys(tree)) {
		at, v := into, tree[key]
		parts := strings.Split(key, ".")
		if strings.Contains(key, "/") { // the name of a label
			parts = []string{key}
		}
		for n, part := range parts[:len(parts)-1] {
			below, ok := at[part].(map[string]any)
			if _, there := at[part]; there && !ok {
				return usage("%s%s is given both as a value and with keys below it", prefix, strings.Join(parts[:n+1], "."))
			}
			if !ok {
				below = map[string]any{}
				at[part] = below
			}
			at = below
		}
		last := parts[len(parts)-1]
		more, ok := v.(map[string]any)
		if !ok {
			at[last] = v
			continue
		}
		below, ok := at[last].(map[string]any)
		if !ok {
			below = map[string]any{}
			at[last] = below
		}
		if err := merge(below, prefix+key+".", more); err != nil {
			return err
		}
	}
	return nil
}

// turn does what settings say about addons and repositories, once they are kept. It says
// its steps.
func (a *app) turn(ctx context.Context, i runtimes.Installation) error {
	values := map[string]string{}
	for _, s := range flatten(nil, "", i.Values) {
		values[s.key] = s.value
	}
	_, remote := a.rt.(*kubernetes.Runtime)
	snapshots := values[keySnapshot]
	if remote && snapshots == "" && values[keyVolumes] == "true" {
		snapshots = "true" // without the addon there is nobody who takes any
	}
	if snapshots != "" {
		quiet := *a
		var words strings.Builder
		quiet.stdio.Out = &words
		timeout := i.Timeout
		if !i.Wait {
			timeout = 0
		}
		if err := quiet.setAddon(ctx, a.rt.Store(), addonSnapshot, snapshots == "true", nil, timeout); err != nil {
			return err
		}
		i.Step(fmt.Sprintf("Addon %s", strings.TrimSpace(strings.TrimPrefix(words.String(), "addon.extensions.kubeblocks.io/"))))
	}
	if remote && values[keyClass] == addonS3 {
		return a.pointBackups(ctx, i)
	}
	if remote && (values[keyClass] != "" || values[runtimes.SettingClaim] != "" || values[runtimes.SettingClaimCapacity] != "" || values[runtimes.SettingClaimPolicy] != "") {
		return a.pointToClaim(ctx, i)
	}
	return nil
}

// pointToClaim makes the claim that the settings describe a repository, and the repository
// that of the policies that name none. Until its volume was tried nothing else changes.
func (a *app) pointToClaim(ctx context.Context, i runtimes.Installation) error {
	inst, err := a.installer(ctx)
	if err != nil {
		return err
	}
	x, err := inst.Installed(ctx)
	if err != nil || x == nil {
		return err
	}
	want, err := runtimes.ClaimWished(x.Settings)
	switch {
	case err != nil:
		return usage("%v", err)
	case want == nil && x.Settings[runtimes.SettingClaim] == "":
		a.note("no claim is named: backups go where they went; %s names one", runtimes.SettingClaim)
		return nil
	case want == nil:
		return a.pointBackups(ctx, i)
	}
	if err := store.Admit(want, nil); err != nil {
		return err
	}
	s := a.rt.Store()
	r, err := store.Get[*v1alpha1.BackupRepo](ctx, s, "", want.Name)
	var old *v1alpha1.BackupRepo
	switch {
	case apierrors.IsNotFound(err):
		r = want
		err = s.Create(ctx, r)
		if apierrors.IsAlreadyExists(err) { // the operator has read the settings meanwhile
			r, err = store.Get[*v1alpha1.BackupRepo](ctx, s, "", want.Name)
			old = r
		}
	case err == nil:
		if r.Spec.PersistentVolumeClaim == nil {
			return conflict("backup repository %q is there, and not on a claim", r.Name).hints("name the claim otherwise")
		}
		was := *r
		was.Spec.PersistentVolumeClaim = r.Spec.PersistentVolumeClaim.DeepCopy()
		old = &was
		c := r.Spec.PersistentVolumeClaim
		c.CreatePolicy = want.Spec.PersistentVolumeClaim.CreatePolicy
		if x.Settings[runtimes.SettingClaimCapacity] != "" {
			c.Capacity = want.Spec.PersistentVolumeClaim.Capacity
		}
		if err = store.Admit(r, old); err == nil {
			err = store.UpdateSpec(ctx, s, r)
		}
	}
	if err != nil {
		return err
	}
	i.Step("Make backup repository " + r.Name)
	if !i.Wait {
		a.note("backups go there when its volume was tried: kbcli backuprepo update %s --default", r.Name)
		return nil
	}
	if err := a.settle(ctx, s, r, old, i.Timeout); err != nil {
		return err
	}
	if err := makeDefault(ctx, s, r.Name); err != nil {
		return err
	}
	i.Step("Backups go to " + r.Name)
	return nil
}

// pointBackups makes the bucket of csi-s3 the repository of the policies that name none.
func (a *app) pointBackups(ctx context.Context, i runtimes.Installation) error {
	_, err := store.Get[*v1alpha1.BackupRepo](ctx, a.rt.Store(), "", addonS3)
	if apierrors.IsNotFound(err) {
		a.note("backups will go to %s when that addon is enabled: kbcli addon enable %s --help", addonS3, addonS3)
		return nil
	}
	if err != nil {
		return err
	}
	if err := makeDefault(ctx, a.rt.Store(), addonS3); err != nil {
		return err
	}
	i.Step("Backups go to " + addonS3)
	return nil
}

func newDescribeConfigCommand(a *app) *cobra.Command {
	var output string
	c := &cobra.Command{
		Use: "describe-config", Short: "Show the settings", Args: noArgs,
		Example: "  kbcli kubeblocks describe-config",
		RunE: func(c *cobra.Command, _ []string) error {
			inst, err := a.installer(c.Context())
			if err != nil {
				return err
			}
			x, err := inst.Installed(c.Context())
			if err != nil {
				return err
			}
			values := map[string]string{}
			if x != nil {
				values = x.Settings
			}
			if output != "" {
				return a.value(output, values)
			}
			keys := inst.SettingKeys()
			for _, k := range slices.Sorted(maps.Keys(values)) {
				if !slices.Contains(keys, k) {
					keys = append(keys, k)
				}
			}
			t := &table{header: []string{"KEY", "VALUE"}}
			for _, k := range keys {
				if !strings.HasSuffix(k, ".") {
					t.add(k, values[k])
				}
			}
			t.write(a.stdio.Out)
			return nil
		},
	}
	outputFlag(c, &output, "json|yaml")
	return c
}

func newStatusCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "status", Short: "Show what is installed", Args: noArgs,
		Example: "  kbcli kubeblocks status",
		RunE: func(c *cobra.Command, _ []string) error {
			inst, err := a.installer(c.Context())
			if err != nil {
				return err
			}
			x, err := inst.Installed(c.Context())
			if err != nil {
				return err
			}
			words, release, place := "installed", version, "on this machine"
			if _, remote := a.rt.(*kubernetes.Runtime); remote && x == nil {
				return &kubernetes.OperatorError{}
			}
			if x == nil {
				words = "not installed"
			} else {
				release, place = x.Version, x.Place
			}
			clusters, err := list[*v1alpha1.Cluster](c.Context(), a, listing{all: true})
			if err != nil {
				return err
			}
			a.say("KubeBlocks %s is %s %s, with %s.", release, words, place, count(len(clusters), "cluster"))
			if x != nil && x.State != "" {
				a.say("%s", x.State)
			}
			a.say("")
			addons, err := allAddons(c.Context(), a, listing{})
			if err != nil {
				return err
			}
			addonTable(addons).write(a.stdio.Out)
			return nil
		},
	}
}

func newUninstallCommand(a *app) *cobra.Command {
	var approved bool
	u := runtimes.Uninstallation{}
	c := &cobra.Command{
		Use: "uninstall", Short: "Take the installation away; refused while there are clusters", Args: noArgs,
		Long: `Take the installation away; refused while there are clusters.

On one machine it forgets the settings. On Kubernetes it takes the operator away, and the pods
that serve the volumes of repositories. The kinds and the objects, the list of backups among
them, stay unless --remove-definitions is given; the Secrets with the keys of repositories, the
volumes' claims and what is in a repository stay in any case, and "backuprepo create" brings
the backups back.`,
		Example: "  kbcli kubeblocks uninstall",
		RunE: func(c *cobra.Command, _ []string) error {
			ctx := c.Context()
			inst, err := a.installer(ctx)
			if err != nil {
				return err
			}
			if err := a.noClusters(ctx); err != nil {
				return err
			}
			if err := a.confirm(ctx, []string{"kubeblocks"}, approved); err != nil {
				return err
			}
			u.Namespace, u.Step = a.systemNamespace(c), func(what string) { a.say("%-50s OK", what) }
			if err := inst.Uninstall(ctx, u); err != nil {
				return err
			}
			a.say("Uninstall KubeBlocks done")
			return nil
		},
	}
	approveFlag(c, &approved)
	c.Flags().BoolVar(&u.Definitions, "remove-definitions", false, "on Kubernetes, also the kinds and all objects of them; repositories keep what they hold")
	c.Flags().DurationVar(&u.Timeout, "timeout", 5*time.Minute, "how long to wait")
	return c
}

// noClusters refuses when there are clusters. Where the kinds are not known there are none.
func (a *app) noClusters(ctx context.Context) error {
	if _, remote := a.rt.(*kubernetes.Runtime); remote {
		inst, err := a.installer(ctx)
		if err != nil {
			return err
		}
		x, err := inst.Installed(ctx)
		if err != nil {
			return err
		}
		if x == nil {
			return &kubernetes.OperatorError{}
		}
	}
	clusters, err := list[*v1alpha1.Cluster](ctx, a, listing{all: true})
	if err != nil {
		return err
	}
	if len(clusters) == 0 {
		return nil
	}
	return conflict("there %s", map[bool]string{true: "is 1 cluster", false: fmt.Sprintf("are %d clusters", len(clusters))}[len(clusters) == 1]).
		hints("delete them first").then("kbcli cluster list -A")
}
