// SPDX-License-Identifier: Apache-2.0

package checkup

import (
	"fmt"
	"strings"

	"github.com/kbcli/kbcli/engine/pg"
	"github.com/kbcli/kbcli/engine/pg/client"
)

// WAL is what a server keeps of its WAL, and for whom.
type WAL struct {
	Names
	Stopped bool  // as somebody asked for
	Err     error // the server could not be asked
	Version string
	Wanted  bool // its WAL is to be archived

	Slot     string // of our archiving
	Slots    []client.Slot
	Position pg.LSN // that the server has written to
	Bound    bool   // max_slot_wal_keep_size is set

	// Size is what pg_wal takes, Free and Total are bytes of its file system. FreeErr
	// is why they are not known.
	Size, Free, Total int64
	FreeErr           error
}

// Findings are server-reachable, slot-retention and wal-disk.
func (w *WAL) Findings() []Finding {
	if w.Stopped {
		return []Finding{pass("server-reachable", "the server is stopped, as was asked for")}
	}
	if w.Err != nil {
		_, next := Explain(w.Err, w.Names)
		return []Finding{fail("server-reachable", next, "%v", w.Err), w.disk()}
	}
	return []Finding{pass("server-reachable", "PostgreSQL %s", w.Version), w.retention(), w.disk()}
}

func (w *WAL) retention() Finding {
	const check = "slot-retention"
	var own *client.Slot
	var others []string
	for i := range w.Slots {
		s := &w.Slots[i]
		kept := w.kept(s)
		switch {
		case s.Name == w.Slot:
			own = s
		case !s.Active && kept > lagBytes:
			others = append(others, fmt.Sprintf("slot %s is not in use and keeps %s of WAL", s.Name, size(kept)))
		}
	}
	drop := func(name string) string {
		return "SELECT pg_drop_replication_slot('" + strings.ReplaceAll(name, "'", "''") + "');"
	}
	switch {
	case own == nil && w.Wanted:
		return fail(check, w.revive(), "the server has no slot %s: it does not keep WAL until that is archived", w.Slot)
	case own != nil && own.WALStatus == "lost":
		return fail(check, w.backup(), "slot %s is lost: the server has removed WAL that was not archived %s", w.Slot, own.Invalidation)
	case own != nil && own.WALStatus == "unreserved":
		return fail(check, w.Names.describe(), "slot %s is about to be lost: the server removes WAL at its next checkpoint", w.Slot)
	case own != nil && !w.Wanted:
		return warn(check, drop(w.Slot), "slot %s keeps %s of WAL, and nothing is archived", w.Slot, size(w.kept(own)))
	case own != nil && own.SafeWALSize != nil && *own.SafeWALSize < lagBytes && w.kept(own) > *own.SafeWALSize:
		return warn(check, w.Names.describe(), "slot %s keeps %s of WAL, and is lost when %s more are written", w.Slot, size(w.kept(own)), size(max(*own.SafeWALSize, 0)))
	case len(others) > 0:
		name := strings.Fields(others[0])[1]
		return warn(check, drop(name), "%s", strings.Join(others, "; "))
	case own == nil:
		return pass(check, "nothing is archived, and no slot keeps WAL for it")
	}
	seen := line("slot %s keeps %s of WAL", w.Slot, size(w.kept(own)))
	if !own.Active {
		return warn(check, w.revive(), "%s, and nobody reads from it", seen)
	}
	return pass(check, "%s", seen)
}

// kept is how much WAL a slot keeps.
func (w *WAL) kept(s *client.Slot) int64 {
	if s.RestartLSN == 0 || s.RestartLSN > w.Position {
		return 0
	}
	return int64(w.Position - s.RestartLSN)
}

func (w *WAL) disk() Finding {
	const check = "wal-disk"
	if w.FreeErr != nil {
		return warn(check, w.grow(), "how much is free on the disk of pg_wal is not known: %v", w.FreeErr)
	}
	seen := line("pg_wal takes %s, and %s on its disk", size(w.Size), share(w.Free, w.Total))
	switch {
	case w.Free < 256<<20 || w.Free < w.Total/100:
		return fail(check, w.grow(), "%s: the server stops when it is full", seen)
	case w.Free < 2<<30 || w.Free < w.Total/20:
		return warn(check, w.grow(), "%s", seen)
	}
	return pass(check, "%s", seen)
}
