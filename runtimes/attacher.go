// SPDX-License-Identifier: Apache-2.0

package runtimes

import (
	"context"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/engine/checkup"
)

// Attacher is a Runtime that can protect a server which somebody else runs.
type Attacher interface {
	// CheckAttach looks whether the server that c.Spec.Local names can be
	// protected, and changes nothing. It fills what the server itself says into c:
	// the data directory and the version. What stands in the way are findings that
	// fail; the error is for what could not be looked at.
	CheckAttach(ctx context.Context, c *v1alpha1.Cluster) ([]checkup.Finding, error)
}
