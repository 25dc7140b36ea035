// SPDX-License-Identifier: Apache-2.0

package runtimes

import (
	"context"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/engine/restore"
)

// Verifier is a Runtime whose repositories can be read from where it is called.
type Verifier interface {
	// Verify reads a completed backup back, as restore.Verify does, and changes
	// nothing.
	Verify(ctx context.Context, b *v1alpha1.Backup, progress func(done, total int64)) (*restore.Report, error)
}
