// SPDX-License-Identifier: Apache-2.0

package runtimes

import "github.com/kbcli/kbcli/engine/restore"

// Roomer is a Runtime that knows where a restored cluster will be.
type Roomer interface {
	// CheckRoom says why a plan cannot be carried out into a new cluster: a
	// *restore.NoRoomError, or a *restore.NotEmptyError. Nothing is written.
	CheckRoom(p *restore.Plan, namespace, name string) error
}

// Hinter is an error that says what can be done about it.
type Hinter interface {
	error
	Hint() string
}
