// SPDX-License-Identifier: Apache-2.0

package operator

import (
	"context"
	"fmt"
	"time"

	core "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/runtimes"
	"github.com/kbcli/kbcli/runtimes/store"
)

// wishInterval is how often the settings are read.
const wishInterval = 10 * time.Second

// wishedFor makes the BackupRepo that the chart's values describe, unless there is one of
// that name: `helm install` alone then has somewhere to send backups.
func (l *claimLoop) wishedFor(ctx context.Context) error {
	if now := l.clock(); now.Sub(l.wished).Abs() >= wishInterval {
		l.wished = now
	} else {
		return nil
	}
	var settings core.ConfigMap
	err := l.live.Get(ctx, client.ObjectKey{Namespace: l.own, Name: settingsConfigMap}, &settings)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read the settings: %w", err)
	}
	r, err := runtimes.ClaimWished(settings.Data)
	if r == nil || err != nil {
		return err
	}
	all, err := store.List[*v1alpha1.BackupRepo](ctx, l.objects, "", nil)
	if err != nil {
		return err
	}
	r.Spec.Default = true
	for _, o := range all {
		if o.Name == r.Name {
			return nil
		}
		r.Spec.Default = r.Spec.Default && !o.Spec.Default
	}
	if err := store.Admit(r, nil); err != nil {
		return fmt.Errorf("settings dataProtection.backupPVC…: %w", err)
	}
	if err := l.objects.Create(ctx, r); !apierrors.IsAlreadyExists(err) {
		return err
	}
	return nil
}
