// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/runtimes/kubernetes"
	"github.com/kbcli/kbcli/runtimes/store"
)

const (
	addonS3       = "csi-s3"
	addonSnapshot = "snapshot-controller"
)

// knownAddons are the addons that there are, enabled or not.
func knownAddons() []*v1alpha1.Addon {
	s3 := &v1alpha1.Addon{ObjectMeta: metav1.ObjectMeta{Name: addonS3}}
	s3.Spec.Description = "Keeps backups and WAL in a bucket of S3."
	snapshot := &v1alpha1.Addon{ObjectMeta: metav1.ObjectMeta{Name: addonSnapshot}}
	snapshot.Spec.Description = "Takes backups as snapshots of the volume or the file system."
	snapshot.Spec.Installable.AutoInstall = true
	out := []*v1alpha1.Addon{s3, snapshot}
	for _, x := range out {
		x.SetDefaults()
		x.Status.Phase = v1alpha1.AddonDisabled
	}
	return out
}

func newAddonCommand(a *app) *cobra.Command {
	return group(&cobra.Command{
		Use: "addon", Aliases: []string{"addons"}, Short: "Turn pieces on and off: snapshots, storage on S3",
		Example: "  kbcli addon list\n  kbcli addon enable snapshot-controller",
	}, newAddonListCommand(a), newAddonDescribeCommand(a), newAddonEnableCommand(a), newAddonDisableCommand(a))
}

func newAddonListCommand(a *app) *cobra.Command {
	var l listing
	c := &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List addons", Args: noArgs,
		Example: "  kbcli addon list",
		RunE: func(c *cobra.Command, args []string) error {
			if l.watch {
				name := func(x *v1alpha1.Addon) string { return typedName(x) }
				return watchValues(c.Context(), a, l.output, func(ctx context.Context) ([]*v1alpha1.Addon, error) { return allAddons(ctx, a, l) },
					name, name, func(addons []*v1alpha1.Addon, _ bool) *table { return addonTable(addons) })
			}
			addons, err := allAddons(c.Context(), a, l)
			if err != nil {
				return err
			}
			l.all = true
			return show(a, l, addons, "addons", func(bool) *table { return addonTable(addons) })
		},
	}
	l.watchFlag(c)
	l.flags(c, false)
	return c
}

// allAddons are those that are stored, and the known ones that are not.
func allAddons(ctx context.Context, a *app, l listing) ([]*v1alpha1.Addon, error) {
	stored, err := list[*v1alpha1.Addon](ctx, a, l)
	if err != nil {
		return nil, err
	}
	out := slices.DeleteFunc(stored, func(x *v1alpha1.Addon) bool { return x.Name == settingsAddon })
	for _, k := range knownAddons() {
		has := slices.ContainsFunc(out, func(x *v1alpha1.Addon) bool { return x.Name == k.Name })
		if !has && l.selector == "" {
			out = append(out, k)
		}
	}
	slices.SortFunc(out, func(x, y *v1alpha1.Addon) int { return strings.Compare(x.Name, y.Name) })
	return out, nil
}

func addonTable(addons []*v1alpha1.Addon) *table {
	t := &table{header: []string{"NAME", "TYPE", "STATUS", "EXTRAS", "AUTO-INSTALL", "AUTO-INSTALLABLE-SELECTOR"}, blanks: true}
	for _, x := range addons {
		var selectors []string
		for _, s := range x.Spec.Installable.Selectors {
			selectors = append(selectors, "{key="+s.Key+",op="+s.Operator+",values=["+strings.Join(s.Values, ",")+"]}")
		}
		t.add(x.Name, x.Spec.Type, string(addonPhase(x)), strings.Join(x.Spec.Install.Extras, ","),
			strconv.FormatBool(x.Spec.Installable.AutoInstall), strings.Join(selectors, " "))
	}
	return t
}

func addonPhase(x *v1alpha1.Addon) v1alpha1.AddonPhase {
	switch {
	case x.Status.Phase != "":
		return x.Status.Phase
	case x.Spec.Install.Enabled:
		return v1alpha1.AddonEnabled
	}
	return v1alpha1.AddonDisabled
}

func newAddonDescribeCommand(a *app) *cobra.Command {
	var output string
	c := &cobra.Command{
		Use: "describe NAME", Short: "Show an addon", Args: oneName("addon"),
		Example:           "  kbcli addon describe csi-s3",
		ValidArgsFunction: completeAddons,
		RunE: func(c *cobra.Command, args []string) error {
			x, err := a.addon(c.Context(), args[0])
			if err != nil {
				return err
			}
			if done, err := a.object(output, x); done {
				return err
			}
			var f facts
			f.add("Name", x.Name)
			f.add("Description", x.Spec.Description)
			f.add("Type", x.Spec.Type)
			f.add("Status", string(addonPhase(x)))
			f.add("Message", x.Status.Message)
			f.add("Auto Install", strconv.FormatBool(x.Spec.Installable.AutoInstall))
			for _, k := range slices.Sorted(maps.Keys(x.Spec.Install.Values)) {
				f.add(k, x.Spec.Install.Values[k])
			}
			f.write(a.stdio.Out)
			return nil
		},
	}
	outputFlag(c, &output, describeForms)
	return c
}

func completeAddons(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return []string{addonS3, addonSnapshot}, cobra.ShellCompDirectiveNoFileComp
}

// addon is one that is stored, or known.
func (a *app) addon(ctx context.Context, name string) (*v1alpha1.Addon, error) {
	s, err := a.objects(ctx)
	if err != nil {
		return nil, err
	}
	x, err := store.Get[*v1alpha1.Addon](ctx, s, "", name)
	if !apierrors.IsNotFound(err) && name != settingsAddon {
		return x, err
	}
	for _, k := range knownAddons() {
		if k.Name == name {
			return k, nil
		}
	}
	return nil, store.NotFound(v1alpha1.KindFor[*v1alpha1.Addon](), name)
}

// setAddon stores whether an addon is wanted and what was set, and prints so. Where an
// operator turns it on and off it waits for that, timeout long; with 0 it does not.
func (a *app) setAddon(ctx context.Context, s store.Store, name string, enabled bool, values map[string]string, timeout time.Duration) error {
	known, err := a.addon(ctx, name)
	if err != nil {
		return err
	}
	before := ""
	set := func(x *v1alpha1.Addon) error {
		before = x.ResourceVersion
		x.Spec.Install.Enabled = enabled
		for k, v := range values {
			if x.Spec.Install.Values == nil {
				x.Spec.Install.Values = map[string]string{}
			}
			x.Spec.Install.Values[k] = v
		}
		return nil
	}
	var x *v1alpha1.Addon
	if known.ResourceVersion == "" {
		if !enabled {
			a.addonSaid(known, enabled, false)
			return nil
		}
		x = known
		_ = set(x)
		err = s.Create(ctx, x)
	} else {
		x, err = store.Mutate(ctx, s, "", name, set)
	}
	if err != nil {
		return err
	}
	changed := before != x.ResourceVersion
	if _, remote := a.rt.(*kubernetes.Runtime); remote {
		err = a.addonTurned(ctx, x, timeout)
	} else {
		err = turnHere(ctx, s, x, enabled)
	}
	if err != nil {
		return err
	}
	a.addonSaid(x, enabled, changed)
	return nil
}

// turnHere says that an addon is as it should be: on one machine there is nobody else to
// say so, for the piece is in this program.
func turnHere(ctx context.Context, s store.Store, x *v1alpha1.Addon, enabled bool) error {
	phase := v1alpha1.AddonDisabled
	if enabled {
		phase = v1alpha1.AddonEnabled
	}
	if x.Status.Phase == phase && x.Status.ObservedGeneration == x.Generation {
		return nil
	}
	_, err := store.MutateStatus(ctx, s, "", x.Name, func(x *v1alpha1.Addon) error {
		x.Status.Phase, x.Status.ObservedGeneration = phase, x.Generation
		return nil
	})
	return err
}

// addonTurned waits until the operator has turned an addon on or off.
func (a *app) addonTurned(ctx context.Context, x *v1alpha1.Addon, timeout time.Duration) error {
	if timeout == 0 {
		return nil
	}
	_, err := follow(ctx, a, "", x.Name, timeout, func(now *v1alpha1.Addon, exists bool) step {
		switch {
		case !exists:
			return step{err: store.NotFound(v1alpha1.KindFor[*v1alpha1.Addon](), x.Name)}
		case now.Status.ObservedGeneration < x.Generation:
			return step{line: "waiting for the operator"}
		case now.Status.Phase == v1alpha1.AddonFailed:
			return step{err: failed("addon %s: %s", x.Name, now.Status.Message)}
		case now.Status.Phase == v1alpha1.AddonEnabled, now.Status.Phase == v1alpha1.AddonDisabled:
			return step{done: true}
		}
		return step{line: string(now.Status.Phase)}
	})
	return err
}

func (a *app) addonSaid(x *v1alpha1.Addon, enabled, changed bool) {
	words := typedName(x) + " disabled"
	if enabled {
		words = typedName(x) + " enabled"
	}
	if !changed {
		words += " (no change)"
	}
	a.say("%s", words)
}
