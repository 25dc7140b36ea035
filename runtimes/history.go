// SPDX-License-Identifier: Apache-2.0

package runtimes

import (
	"context"

	"github.com/kbcli/kbcli/engine/catalog"
	"github.com/kbcli/kbcli/engine/repository"
)

// HistoryReader is a Runtime that can read what the log of a cluster says happened.
type HistoryReader interface {
	// History hands the events of a cluster's archive, which may be deleted already, to
	// fn in the order of the log. restorable tells whether the moment before an event
	// can be gone back to. An error of fn ends it.
	History(ctx context.Context, src Source, q catalog.HistoryQuery, fn func(e catalog.Event, restorable bool) error) error

	// FollowHistory hands over events as they are archived, until ctx ends, told has an
	// error, or something cannot be read; q.Going, which must be there, says then how far
	// it came, and a call with it goes on. looked is called after each look that went well.
	FollowHistory(ctx context.Context, src Source, q catalog.HistoryQuery, told func([]HistoryEvent) error, looked func()) error
}

// HistoryEvent is an event of a history that is followed.
type HistoryEvent struct {
	catalog.Event
	Restorable bool // the state from just before it
}

// LineageLister is a Runtime that can tell which lineages there are under a name.
type LineageLister interface {
	// Lineages are those of all clusters that have or had a name, the newest last.
	// Repositories that do not answer are told in the error, beside the others.
	Lineages(ctx context.Context, namespace, cluster string) ([]repository.LineageInfo, error)
}
