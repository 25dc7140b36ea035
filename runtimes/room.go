// SPDX-License-Identifier: Apache-2.0

package runtimes

import (
	"context"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/engine/restore"
)

// Roomer is a Runtime that knows where a restored cluster will be.
type Roomer interface {
	// CheckRoom says why a plan cannot be carried out into a new cluster, c as it is to be:
	// a *restore.NoRoomError or a *restore.NotEmptyError on one machine, another error where
	// the cluster has volumes of its own. Nothing is written.
	CheckRoom(p *restore.Plan, c *v1alpha1.Cluster) error
}

// Hinter is an error that says what can be done about it.
type Hinter interface {
	error
	Hint() string
}

// Overwriter is a runtime that can restore over a directory that holds most of the data
// already.
type Overwriter interface {
	// CheckDelta says why the plan's new cluster cannot have a directory: a
	// *restore.NotReusableError, a *restore.NoRoomError or a *restore.NotEmptyError.
	// Nothing is written.
	CheckDelta(ctx context.Context, p *restore.Plan, namespace, name, dir string) error
}
