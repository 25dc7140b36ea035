// SPDX-License-Identifier: Apache-2.0

package operator

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	core "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/runtimes/operator/specs"
	"github.com/kbcli/kbcli/runtimes/store"
)

// The addons that there are.
const (
	addonS3       = "csi-s3"
	addonSnapshot = "snapshot-controller"
)

// settingsConfigMap is what the chart's values say to the operator.
const settingsConfigMap = "kubeblocks-settings"

// addonInterval is how often addons are looked at when none changes: somebody may take away
// what belongs to one.
const addonInterval = 10 * time.Second

// addonLoop turns addons on and off.
type addonLoop struct {
	client  client.Client
	live    client.Reader // the API server itself: nothing of an addon is kept in memory
	objects store.Store
	images  specs.Images
	own     string // the namespace that the operator is in
	log     *slog.Logger
}

// NeedLeaderElection says that one operator of several does this.
func (l *addonLoop) NeedLeaderElection() bool { return true }

// Start turns addons on and off until ctx ends.
func (l *addonLoop) Start(ctx context.Context) error {
	changed, err := l.objects.Watch(ctx, v1alpha1.KindAddon, "")
	if err != nil {
		return err
	}
	tick := time.NewTicker(addonInterval)
	defer tick.Stop()
	for {
		busy, err := l.look(ctx)
		if err != nil && ctx.Err() == nil {
			l.log.Warn("addons", "error", err)
		}
		var soon <-chan time.Time
		if busy {
			soon = time.After(time.Second)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		case <-tick.C:
		case <-soon:
		}
	}
}

// look brings every addon into line; busy tells that one is not there yet.
func (l *addonLoop) look(ctx context.Context) (busy bool, err error) {
	all, err := store.List[*v1alpha1.Addon](ctx, l.objects, "", nil)
	var broken store.BrokenObjects
	if err != nil && !errors.As(err, &broken) {
		return false, err
	}
	errs := []error{err}
	snapshots := false
	for _, x := range all {
		snapshots = snapshots || x.Name == addonSnapshot
		st, err := l.turn(ctx, x)
		if err != nil {
			st = addonState{v1alpha1.AddonFailed, err.Error()}
			errs = append(errs, fmt.Errorf("addon %s: %w", x.Name, err))
		}
		busy = busy || st.phase == v1alpha1.AddonEnabling || st.phase == v1alpha1.AddonDisabling
		errs = append(errs, l.say(ctx, x, st))
	}
	if !snapshots {
		errs = append(errs, l.wishedFor(ctx))
	}
	return busy, errors.Join(errs...)
}

// addonState is how an addon stands.
type addonState struct {
	phase   v1alpha1.AddonPhase
	message string
}

// turn does what one addon asks for.
func (l *addonLoop) turn(ctx context.Context, x *v1alpha1.Addon) (addonState, error) {
	on := x.Spec.Install.Enabled && x.DeletionTimestamp == nil
	switch {
	case x.Name == addonS3 && on:
		return l.s3On(ctx, x)
	case x.Name == addonS3:
		return addonState{phase: v1alpha1.AddonDisabled}, l.s3Off(ctx)
	case x.Name == addonSnapshot && on:
		return l.snapshotsOn(ctx)
	case x.Name == addonSnapshot:
		return addonState{phase: v1alpha1.AddonDisabled}, l.snapshotsOff(ctx)
	case on:
		return addonState{v1alpha1.AddonFailed, "there is no such addon in this release"}, nil
	}
	return addonState{phase: v1alpha1.AddonDisabled}, nil
}

func (l *addonLoop) say(ctx context.Context, x *v1alpha1.Addon, st addonState) error {
	was := x.Status
	if was.Phase == st.phase && was.Message == st.message && was.ObservedGeneration == x.Generation {
		return nil
	}
	generation := x.Generation
	_, err := store.MutateStatus(ctx, l.objects, "", x.Name, func(x *v1alpha1.Addon) error {
		x.Status = v1alpha1.AddonStatus{Phase: st.phase, Message: st.message, ObservedGeneration: generation}
		return nil
	})
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

// wishedFor makes the Addon snapshot-controller when the chart's values ask for it and
// nobody has made it. One that is there was turned on or off by somebody, who is right.
func (l *addonLoop) wishedFor(ctx context.Context) error {
	var settings core.ConfigMap
	err := l.live.Get(ctx, client.ObjectKey{Namespace: l.own, Name: settingsConfigMap}, &settings)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read the settings: %w", err)
	}
	if settings.Data[addonSnapshot+".enabled"] != "true" && settings.Data["dataProtection.enableVolumeSnapshot"] != "true" {
		return nil
	}
	x := &v1alpha1.Addon{ObjectMeta: metav1.ObjectMeta{Name: addonSnapshot}}
	x.Spec.Description = "Takes backups as snapshots of the volume or the file system."
	x.Spec.Installable.AutoInstall, x.Spec.Install.Enabled = true, true
	if err := l.objects.Create(ctx, x); !apierrors.IsAlreadyExists(err) {
		return err
	}
	return nil
}

// create makes an object unless there is one of that name.
func (l *addonLoop) create(ctx context.Context, o client.Object) error {
	if err := l.client.Create(ctx, o); err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("make %s %s: %w", o.GetObjectKind().GroupVersionKind().Kind, o.GetName(), err)
	}
	return nil
}
