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

// RestoreVerifier is a Runtime that can try a backup out.
type RestoreVerifier interface {
	// VerifyRestore restores a completed backup into a place of its own, starts it,
	// reads it through with PostgreSQL's own tools, and takes it away again. step
	// is told what is being done.
	VerifyRestore(ctx context.Context, b *v1alpha1.Backup, step func(string)) (*RestoreReport, error)
}

// RestoreReport is what a restored backup was found to be.
type RestoreReport struct {
	Backup    string   `json:"backup"`
	Version   string   `json:"version"` // of the server that ran it
	Reached   string   `json:"reached"` // the LSN
	Databases []string `json:"databases"`
	Relations int64    `json:"relations"` // tables and indexes that were read
	Seconds   float64  `json:"seconds"`
}
