// SPDX-License-Identifier: Apache-2.0

package catalog

import (
	"fmt"
	"time"

	"github.com/kbcli/kbcli/engine/pg"
)

// Target is what somebody wants back. Exactly one of Time, LSN, XID, Name, Latest,
// Earliest, Backup and At is set. Each means what PostgreSQL's recovery_target_*
// of that kind does, and is resolved to one record before recovery begins.
type Target struct {
	Time time.Time // the state before the first end of a transaction stamped later
	// LSN keeps the first record that starts there or later.
	LSN pg.LSN
	// XID keeps the transaction; one that was prepared is where it was committed.
	// Of two with the same number, four thousand million apart, the later is meant.
	XID      pg.XID
	Name     string // a restore point; of several with this name the newest
	Latest   bool   // all that the repository holds
	Earliest bool   // the end of the first backup that can be restored
	Backup   string // as soon as this backup is consistent
	// Exclusive stops before the record of LSN and XID, and before the first end
	// of a transaction stamped exactly Time.
	Exclusive bool
	// At is what a target was found to mean before, with the backup to start from:
	// it is taken as it is.
	At       *Found
	Timeline pg.TimelineID // the path that leads there; 0 is to the newest
}

// Found is a resolved target, as it is written down.
type Found struct {
	Stop   Stop
	Backup string
}

// String names the target for people.
func (t Target) String() string {
	switch {
	case t.Latest:
		return "latest"
	case t.Earliest:
		return "earliest"
	case t.Backup != "":
		return "backup " + t.Backup
	case t.At != nil:
		return "LSN " + t.At.Stop.LSN.String()
	case t.LSN != 0:
		return "LSN " + t.LSN.String()
	case t.XID != 0:
		return fmt.Sprintf("transaction %d", t.XID)
	case t.Name != "":
		return fmt.Sprintf("restore point %q", t.Name)
	}
	return stamp(t.Time)
}

func stamp(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05.999999Z07:00") }
