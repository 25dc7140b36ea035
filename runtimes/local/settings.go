// SPDX-License-Identifier: Apache-2.0

package local

import (
	"context"
	"fmt"
	"maps"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/runtimes"
	"github.com/kbcli/kbcli/runtimes/store"
)

// Settings are those of an installation where there is nothing to install: they are kept in
// an Addon of the name SettingsAddon, which is not listed.
type Settings struct {
	Objects store.Store
	Ready   func(context.Context) error // sees to it that somebody acts
	Version string
}

// SettingsAddon is the Addon that holds the settings.
const SettingsAddon = "kubeblocks"

var _ runtimes.Installer = (*Runtime)(nil)

func (r *Runtime) settings() Settings {
	return Settings{Objects: r.Store(), Ready: r.Ready, Version: r.version}
}

// SettingKeys are those of Settings.
func (r *Runtime) SettingKeys() []string { return Settings{}.SettingKeys() }

// Install keeps the settings: there is nothing else to install on one machine.
func (r *Runtime) Install(ctx context.Context, i runtimes.Installation) error {
	return r.settings().Install(ctx, i)
}

// Configure keeps the settings.
func (r *Runtime) Configure(ctx context.Context, i runtimes.Installation) error {
	return r.settings().Configure(ctx, i)
}

// Installed is what the settings are.
func (r *Runtime) Installed(ctx context.Context) (*runtimes.Installed, error) {
	return r.settings().Installed(ctx)
}

// Uninstall forgets the settings.
func (r *Runtime) Uninstall(ctx context.Context, u runtimes.Uninstallation) error {
	return r.settings().Uninstall(ctx, u)
}

// SettingKeys are the settings that the page knows. On one machine the first two do
// something; the others are kept, for the day that this becomes a cluster.
func (Settings) SettingKeys() []string {
	return []string{
		"snapshot-controller.enabled",
		"dataProtection.enableVolumeSnapshot",
		"dataProtection.backupPVCName",
		"dataProtection.backupPVCInitCapacity",
		"dataProtection.backupPVCStorageClassName",
		"dataProtection.backupPVCCreatePolicy",
	}
}

// Install is Configure.
func (s Settings) Install(ctx context.Context, i runtimes.Installation) error {
	return s.Configure(ctx, i)
}

// Configure keeps the settings.
func (s Settings) Configure(ctx context.Context, i runtimes.Installation) error {
	if err := s.Ready(ctx); err != nil {
		return err
	}
	i.Step("Check that the agent runs")
	set := func(x *v1alpha1.Addon) error {
		x.Spec.Description = "The settings of the installation."
		x.Spec.Install.Enabled = true
		if x.Spec.Install.Values == nil {
			x.Spec.Install.Values = map[string]string{}
		}
		flat(x.Spec.Install.Values, "", i.Values)
		return nil
	}
	_, err := store.Mutate(ctx, s.Objects, "", SettingsAddon, set)
	if apierrors.IsNotFound(err) {
		x := &v1alpha1.Addon{ObjectMeta: metav1.ObjectMeta{Name: SettingsAddon}}
		_ = set(x)
		err = s.Objects.Create(ctx, x)
	}
	if err != nil {
		return err
	}
	i.Step("Keep the settings")
	return nil
}

// flat puts the leaves of a tree into out, by their path.
func flat(out map[string]string, prefix string, tree map[string]any) {
	for k, v := range tree {
		switch v := v.(type) {
		case map[string]any:
			flat(out, prefix+k+".", v)
		case nil:
		default:
			out[prefix+k] = fmt.Sprint(v)
		}
	}
}

// Installed is what the settings are; nil before any were kept.
func (s Settings) Installed(ctx context.Context) (*runtimes.Installed, error) {
	x, err := store.Get[*v1alpha1.Addon](ctx, s.Objects, "", SettingsAddon)
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return &runtimes.Installed{Place: "on this machine", Version: s.Version, Settings: maps.Clone(x.Spec.Install.Values)}, nil
}

// Uninstall forgets the settings.
func (s Settings) Uninstall(ctx context.Context, _ runtimes.Uninstallation) error {
	err := s.Objects.Delete(ctx, v1alpha1.KindAddon, "", SettingsAddon, store.Preconditions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}
