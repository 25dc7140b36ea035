// SPDX-License-Identifier: Apache-2.0

package runtimes

import (
	"context"

	"github.com/kbcli/kbcli/engine/catalog"
)

// HistoryReader is a Runtime that can read what the log of a cluster says happened.
type HistoryReader interface {
	// History hands the events of a cluster's archive, which may be deleted already, to
	// fn in the order of the log. restorable tells whether the moment before an event
	// can be gone back to. An error of fn ends it.
	History(ctx context.Context, src Source, q catalog.HistoryQuery, fn func(e catalog.Event, restorable bool) error) error
}
