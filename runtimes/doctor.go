// SPDX-License-Identifier: Apache-2.0

package runtimes

import (
	"context"

	"github.com/kbcli/kbcli/engine/checkup"
)

// Examined is what was found about one thing.
type Examined struct {
	Subject  string            `json:"subject"` // "agent", "repository local", "cluster default/my-pg"
	Findings []checkup.Finding `json:"findings"`
}

// Doctor is a Runtime that can look at itself.
type Doctor interface {
	// Examine looks at the installation, every repository, and each cluster of the
	// namespace, or at those that names lists alone. It changes nothing and does
	// not need the agent.
	Examine(ctx context.Context, namespace string, names []string) ([]Examined, error)
}
