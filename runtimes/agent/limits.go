// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/internal/bounds"
	"github.com/kbcli/kbcli/runtimes/store"
)

// limitsOf are a backup's limits, and its policy's where it says nothing.
func (c Config) limitsOf(ctx context.Context, b *v1alpha1.Backup) (v1alpha1.LimitsSpec, error) {
	name := b.Spec.BackupPolicyName
	if name == "" {
		name = v1alpha1.DefaultBackupPolicyName(b.Spec.ClusterRef)
	}
	policy, err := store.Get[*v1alpha1.BackupPolicy](ctx, c.Objects, b.Namespace, name)
	if apierrors.IsNotFound(err) {
		return b.Spec.Limits.Or(nil), nil
	}
	if err != nil {
		return v1alpha1.LimitsSpec{}, err
	}
	return b.Spec.Limits.Or(policy.Spec.Limits), nil
}

// BoundsOf is what limits mean in this process. Where they do not say how much memory,
// and the process may not have more than so much, it is what that leaves.
func BoundsOf(l *v1alpha1.LimitsSpec) bounds.Bounds {
	s := l.Or(nil)
	b := bounds.Bounds{
		Memory: s.Memory.Value(), Workers: int(s.Workers), Upload: s.Upload.Value(), Download: s.Download.Value(),
		Nice: int(s.Nice), IdleIO: s.IdleIO,
	}
	if b.Memory == 0 {
		b.Memory = bounds.Left()
	}
	return b
}
