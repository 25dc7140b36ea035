// SPDX-License-Identifier: Apache-2.0

package catalog

import (
	"fmt"
	"time"

	"github.com/kbcli/kbcli/engine/pg"
	"github.com/kbcli/kbcli/engine/repository"
)

// OutsideWindowError says that a target lies in no window.
type OutsideWindowError struct {
	Target  Target
	Windows []Window
	// Elsewhere are windows on other paths that hold a time.
	Elsewhere []Window
	// ClockSetBack tells that the moment is none in the log, although the window's
	// ends lie around it: the server's clock was set back.
	ClockSetBack bool
}

func (e *OutsideWindowError) Error() string {
	switch {
	case len(e.Windows) == 0:
		return fmt.Sprintf("%s cannot be reached: there is no window yet", e.Target)
	case e.ClockSetBack:
		return fmt.Sprintf("%s lies in no recoverable window: the server's clock was set back past it", e.Target)
	}
	return fmt.Sprintf("%s lies in no recoverable window", e.Target)
}

// GapError says that a target lies between two windows, where WAL is missing.
type GapError struct {
	Target        Target
	Before, After Window
	Gap           *repository.Gap // the declared reason, if there is one
}

func (e *GapError) Error() string {
	why := missingWAL
	if e.Gap != nil {
		why = e.Gap.Reason
	}
	return fmt.Sprintf("%s lies in a gap of the archive: %s", e.Target, why)
}

const missingWAL = "its WAL is missing"

// NoTimelineError says that nothing is archived of a timeline.
type NoTimelineError struct{ Timeline pg.TimelineID }

func (e *NoTimelineError) Error() string { return fmt.Sprintf("there is no timeline %s", e.Timeline) }

// NoBackupError says that a backup which was named is not there.
type NoBackupError struct{ Name string }

func (e *NoBackupError) Error() string { return fmt.Sprintf("backup %q does not exist", e.Name) }

// PositionError says that recovery cannot stop at an LSN.
type PositionError struct {
	LSN pg.LSN
	// Before and After are where the nearest records start that can be stopped at;
	// 0 is none. An LSN without After is beyond the end, one without Before is
	// before the first backup is consistent.
	Before, After pg.LSN
	Backup        string // the first that can be restored, if the LSN is before its end
	Consistent    pg.LSN // where it is consistent
	End           pg.LSN // of what is archived
}

func (e *PositionError) Error() string {
	if e.Backup != "" {
		return fmt.Sprintf("LSN %s is before the first consistent point, %s, the end of backup %q", e.LSN, e.Consistent, e.Backup)
	}
	return fmt.Sprintf("LSN %s is beyond the end of the archive: the last record starts at %s and the WAL ends at %s", e.LSN, e.Before, e.End)
}

// XactState is why a transaction is no target.
type XactState string

// What a transaction that cannot be stopped at is or was.
const (
	XactSub        XactState = "subtransaction" // a part of Parent, which committed
	XactPrepared   XactState = "prepared"       // and not yet committed or rolled back
	XactRunning    XactState = "in progress"    // at the end of the archive
	XactUnfinished XactState = "unfinished"     // the server ended before it did
	XactEarlier    XactState = "earlier"        // it began before the first window and has no end in one
	XactInBackup   XactState = "in backup"      // it ended before the first backup did
	XactUnknown    XactState = "unknown"        // no transaction had this number yet
)

// TransactionError says that recovery cannot stop at the end of a transaction.
type TransactionError struct {
	XID    pg.XID
	State  XactState
	Parent pg.XID // of a subtransaction
	GID    string // of a prepared one
	LSN    pg.LSN // of its end, its being prepared, or the end of the archive
	Next   pg.XID // with XactUnknown: the first number that had not been given out
}

func (e *TransactionError) Error() string {
	switch e.State {
	case XactSub:
		return fmt.Sprintf("transaction %d is a subtransaction of %d, which committed at %s", e.XID, e.Parent, e.LSN)
	case XactPrepared:
		if e.LSN == 0 {
			return fmt.Sprintf("transaction %d is prepared, since before the backup, and is neither committed nor rolled back", e.XID)
		}
		return fmt.Sprintf("transaction %d was prepared as %q at %s and is neither committed nor rolled back", e.XID, e.GID, e.LSN)
	case XactRunning:
		return fmt.Sprintf("transaction %d was still in progress at the end of the archive, %s", e.XID, e.LSN)
	case XactUnfinished:
		return fmt.Sprintf("transaction %d never ended: the server stopped while it was in progress, or it wrote nothing", e.XID)
	case XactEarlier:
		return fmt.Sprintf("transaction %d began before the first recoverable window and has no end in it", e.XID)
	case XactInBackup:
		return fmt.Sprintf("transaction %d ended at %s, before the first consistent point", e.XID, e.LSN)
	}
	return fmt.Sprintf("transaction %d does not exist: the first number that was not given out by the end of the archive is %d", e.XID, e.Next)
}

// NoRestorePointError says that no restore point of a name is in a window.
type NoRestorePointError struct {
	Name  string
	Known []string  // the names there are, newest first, ten at most
	At    time.Time // when one of that name was made where it cannot be reached; else zero
}

func (e *NoRestorePointError) Error() string {
	if !e.At.IsZero() {
		return fmt.Sprintf("restore point %q of %s lies before the first consistent point", e.Name, stamp(e.At))
	}
	return fmt.Sprintf("restore point %q does not exist in a recoverable window", e.Name)
}
