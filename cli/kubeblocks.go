// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/runtimes/store"
)

// settingsAddon is the Addon that holds the settings of the installation. It is
// not listed.
const settingsAddon = "kubeblocks"

const keySnapshot = "snapshot-controller.enabled"

// installKeys are the settings there are. On one machine only the first does
// anything; the others are kept, for the day that this becomes a cluster.
var installKeys = []string{
	keySnapshot,
	"dataProtection.enableVolumeSnapshot",
	"dataProtection.backupPVCName",
	"dataProtection.backupPVCInitCapacity",
	"dataProtection.backupPVCStorageClassName",
	"dataProtection.backupPVCCreatePolicy",
}

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
and keep the settings.`,
		Example: "  kbcli kubeblocks install --set snapshot-controller.enabled=true\n  kbcli kubeblocks status",
	},
		newInstallCommand(a), newConfigCommand(a), newDescribeConfigCommand(a), newStatusCommand(a), newUpgradeCommand(a), newUninstallCommand(a))
}

func newInstallCommand(a *app) *cobra.Command {
	var o installation
	c := &cobra.Command{
		Use: "install", Short: "Install KubeBlocks", Args: noArgs,
		Example: "  kbcli kubeblocks install\n  kbcli kubeblocks install --set snapshot-controller.enabled=true",
		RunE: func(c *cobra.Command, _ []string) error {
			values, err := o.values()
			if err != nil {
				return err
			}
			if err := a.configure(c.Context(), values, false); err != nil {
				return err
			}
			a.say("KubeBlocks %s installed to namespace %s SUCCESSFULLY!", version, a.systemNamespace(c))
			return nil
		},
	}
	o.flags(c, true)
	return c
}

// systemNamespace is kb-system unless another is named.
func (a *app) systemNamespace(c *cobra.Command) string {
	if c.Flags().Changed("namespace") {
		return a.namespace
	}
	return "kb-system"
}

func newConfigCommand(a *app) *cobra.Command {
	var o installation
	c := &cobra.Command{
		Use: "config", Short: "Change settings", Args: noArgs,
		Example: "  kbcli kubeblocks config --set dataProtection.enableVolumeSnapshot=true",
		RunE:    func(c *cobra.Command, _ []string) error { return o.upgrade(c.Context(), a) },
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
			if o.version != "" && strings.TrimPrefix(o.version, "v") != strings.TrimPrefix(version, "v") {
				return usage("this program is release %s, and on one machine it is all there is", version).
					hints("install the program of release %s", o.version)
			}
			return o.upgrade(c.Context(), a)
		},
	}
	o.flags(c, true)
	return c
}

func (o *installation) upgrade(ctx context.Context, a *app) error {
	values, err := o.values()
	if err != nil {
		return err
	}
	if len(values) == 0 {
		a.say("Nothing to upgrade, --set, --version should be specified.")
		return nil
	}
	if err := a.configure(ctx, values, true); err != nil {
		return err
	}
	a.say("KubeBlocks has been upgraded  SUCCESSFULLY!")
	return nil
}

func (o *installation) values() (map[string]string, error) {
	var all []setting
	for _, path := range o.files {
		more, err := readValues(path)
		if err != nil {
			return nil, err
		}
		all = append(all, more...)
	}
	sets, err := parseSets(append(slices.Clone(o.sets), o.strings...))
	if err != nil {
		return nil, err
	}
	values := map[string]string{}
	for _, s := range append(all, sets...) {
		switch {
		case !slices.Contains(installKeys, s.key):
			return nil, unknownKey(s.key, installKeys)
		case s.key == keySnapshot || s.key == "dataProtection.enableVolumeSnapshot":
			if s.value != "true" && s.value != "false" {
				return nil, usage("%s: %q is not true or false", s.key, s.value)
			}
		}
		values[s.key] = s.value
	}
	return values, nil
}

// configure keeps settings and does what they say.
func (a *app) configure(ctx context.Context, values map[string]string, steps bool) error {
	done := func(what string) {
		if steps {
			a.say("%-50s OK", what)
		}
	}
	s, err := a.ready(ctx)
	if err != nil {
		return err
	}
	done("Check that the agent runs")
	if err := saveSettings(ctx, s, values); err != nil {
		return err
	}
	done("Keep the settings")
	if v := values[keySnapshot]; v != "" {
		quiet := *a
		var words strings.Builder
		quiet.stdio.Out = &words
		if err := quiet.setAddon(ctx, s, addonSnapshot, v == "true", nil); err != nil {
			return err
		}
		done(fmt.Sprintf("Addon %s", strings.TrimSpace(strings.TrimPrefix(words.String(), "addon.extensions.kubeblocks.io/"))))
	}
	return nil
}

func saveSettings(ctx context.Context, s store.Store, values map[string]string) error {
	set := func(x *v1alpha1.Addon) error {
		x.Spec.Description = "The settings of the installation."
		x.Spec.Install.Enabled = true
		if x.Spec.Install.Values == nil {
			x.Spec.Install.Values = map[string]string{}
		}
		maps.Copy(x.Spec.Install.Values, values)
		return nil
	}
	_, err := store.Mutate(ctx, s, "", settingsAddon, set)
	if apierrors.IsNotFound(err) {
		x := &v1alpha1.Addon{ObjectMeta: metav1.ObjectMeta{Name: settingsAddon}}
		_ = set(x)
		return s.Create(ctx, x)
	}
	return err
}

// installed is the settings, nil when nothing was installed.
func (a *app) installed(ctx context.Context) (*v1alpha1.Addon, error) {
	s, err := a.objects(ctx)
	if err != nil {
		return nil, err
	}
	x, err := store.Get[*v1alpha1.Addon](ctx, s, "", settingsAddon)
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	return x, err
}

func newDescribeConfigCommand(a *app) *cobra.Command {
	var output string
	c := &cobra.Command{
		Use: "describe-config", Short: "Show the settings", Args: noArgs,
		Example: "  kbcli kubeblocks describe-config",
		RunE: func(c *cobra.Command, _ []string) error {
			x, err := a.installed(c.Context())
			if err != nil {
				return err
			}
			values := map[string]string{}
			if x != nil {
				values = x.Spec.Install.Values
			}
			if output != "" {
				return a.value(output, values)
			}
			t := &table{header: []string{"KEY", "VALUE"}}
			for _, k := range installKeys {
				t.add(k, values[k])
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
			x, err := a.installed(c.Context())
			if err != nil {
				return err
			}
			words := "not installed"
			if x != nil {
				words = "installed"
			}
			clusters, err := list[*v1alpha1.Cluster](c.Context(), a, listing{all: true})
			if err != nil {
				return err
			}
			a.say("KubeBlocks %s is %s on this machine, with %s.\n", version, words, count(len(clusters), "cluster"))
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
	c := &cobra.Command{
		Use: "uninstall", Short: "Forget the settings; refused while there are clusters", Args: noArgs,
		Example: "  kbcli kubeblocks uninstall",
		RunE: func(c *cobra.Command, _ []string) error {
			ctx := c.Context()
			clusters, err := list[*v1alpha1.Cluster](ctx, a, listing{all: true})
			if err != nil {
				return err
			}
			if len(clusters) > 0 {
				return conflict("there %s", map[bool]string{true: "is 1 cluster", false: fmt.Sprintf("are %d clusters", len(clusters))}[len(clusters) == 1]).
					hints("delete them first").then("kbcli cluster list -A")
			}
			if err := a.confirm(ctx, []string{"kubeblocks"}, approved); err != nil {
				return err
			}
			s, err := a.objects(ctx)
			if err != nil {
				return err
			}
			err = s.Delete(ctx, v1alpha1.KindAddon, "", settingsAddon, store.Preconditions{})
			if err != nil && !apierrors.IsNotFound(err) {
				return err
			}
			a.say("Uninstall KubeBlocks done")
			return nil
		},
	}
	approveFlag(c, &approved)
	return c
}
