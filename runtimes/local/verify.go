// SPDX-License-Identifier: Apache-2.0

package local

import (
	"context"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/engine/restore"
	"github.com/kbcli/kbcli/runtimes"
)

var (
	_ runtimes.Verifier = (*Runtime)(nil)
	_ runtimes.Expirer  = (*Runtime)(nil)
)

// Verify reads a backup in the calling process.
func (r *Runtime) Verify(ctx context.Context, b *v1alpha1.Backup, progress func(done, total int64)) (*restore.Report, error) {
	return r.repos.Verify(ctx, b, progress)
}

// PlanExpiry plans what the agent would do, in the calling process.
func (r *Runtime) PlanExpiry(ctx context.Context, c *v1alpha1.Cluster, p *v1alpha1.BackupPolicy) (*runtimes.Expiry, error) {
	return r.repos.PlanExpiry(ctx, c, p)
}
