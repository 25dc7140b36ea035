// SPDX-License-Identifier: Apache-2.0

package runtimes

import (
	"context"
	"time"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/engine/retention"
)

// Expirer is a Runtime that can say what a retention would let go.
type Expirer interface {
	// PlanExpiry says what the policy's retention lets go now of what a cluster has
	// in its repository, and why the rest stays. It changes nothing.
	PlanExpiry(ctx context.Context, c *v1alpha1.Cluster, p *v1alpha1.BackupPolicy) (*Expiry, error)
}

// Expiry is a plan of a retention, and how far it has come.
type Expiry struct {
	Repository string
	Lineage    string
	Input      retention.Input
	List       retention.List
	// Step is what a look would do now: Marks are those that there are and those that
	// it would add, Marked those that there are.
	Step      retention.Step
	Marked    retention.Marks
	Grace     time.Duration
	Restoring bool // somebody restores from the cluster: nothing goes meanwhile
}
