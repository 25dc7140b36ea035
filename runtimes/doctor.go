// SPDX-License-Identifier: Apache-2.0

package runtimes

import (
	"context"
	"time"

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

// Attended is a Runtime that can tell whether somebody acts upon its objects.
type Attended interface {
	// Attended tells whether an agent runs; and if none does, when there was last a
	// sign of one, zero where that is not known. What the objects' status says was
	// true then.
	Attended(ctx context.Context) (running bool, seen time.Time, err error)
}
