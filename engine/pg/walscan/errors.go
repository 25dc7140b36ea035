// SPDX-License-Identifier: Apache-2.0

package walscan

import (
	"fmt"

	"github.com/kbcli/kbcli/engine/pg"
)

// EndError says that valid WAL ends at LSN: zeros follow where a record or a
// page header should be. It is what a segment that is not full looks like.
//
// LSN is the end of the last whole record, PostgreSQL's own idea of the end of
// the log. A record that was cut short by the zeros lies after it.
type EndError struct {
	LSN pg.LSN
}

func (e *EndError) Error() string { return fmt.Sprintf("WAL ends at %s", e.LSN) }

// CorruptError says that what was fed is not the WAL that should be at LSN.
type CorruptError struct {
	LSN    pg.LSN // of the page or the record at fault
	Reason string
	// Stale is set when the page at LSN is a sound one with an earlier address:
	// what a recycled segment file held before. In the pg_wal of a server that
	// is how the log ends; in an archive it is damage.
	Stale bool
}

func (e *CorruptError) Error() string {
	return fmt.Sprintf("WAL is corrupt at %s: %s", e.LSN, e.Reason)
}
