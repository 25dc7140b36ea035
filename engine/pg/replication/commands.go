// SPDX-License-Identifier: Apache-2.0

package replication

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/kbcli/kbcli/engine/pg"
)

// Identity is who a server is and how far its WAL is.
type Identity struct {
	SystemID pg.SystemID
	Timeline pg.TimelineID // what it writes, or as a standby what it replays
	Flush    pg.LSN        // the end of what it has on disk
}

// IdentifySystem asks a server who it is.
func (c *Conn) IdentifySystem(ctx context.Context) (Identity, error) {
	row, err := c.row(ctx, "IDENTIFY_SYSTEM", 4)
	if err != nil {
		return Identity{}, fmt.Errorf("identify system: %w", err)
	}
	var i Identity
	var errs [3]error
	i.SystemID, errs[0] = pg.ParseSystemID(string(row[0]))
	i.Timeline, errs[1] = pg.ParseTimelineID(string(row[1]))
	i.Flush, errs[2] = pg.ParseLSN(string(row[2]))
	if err := errors.Join(errs[:]...); err != nil {
		return Identity{}, fmt.Errorf("identify system: %w", err)
	}
	return i, nil
}

// Show is the value of a server setting.
func (c *Conn) Show(ctx context.Context, setting string) (string, error) {
	if !plainName(setting, ".") {
		return "", fmt.Errorf("show %q: not the name of a setting", setting)
	}
	row, err := c.row(ctx, "SHOW "+setting, 1)
	if err != nil {
		return "", fmt.Errorf("show %s: %w", setting, err)
	}
	return string(row[0]), nil
}

// Slot is where a physical replication slot is.
type Slot struct {
	RestartLSN      pg.LSN        // the oldest WAL it keeps; 0 while it keeps none
	RestartTimeline pg.TimelineID // 0 while it keeps none
}

// slotQueryMajor is the first release that has READ_REPLICATION_SLOT.
const slotQueryMajor = 15

// ReadSlot tells where a slot is, and whether there is one. A server before 15
// does not know the command: the error wraps errors.ErrUnsupported, and SQL can
// tell.
func (c *Conn) ReadSlot(ctx context.Context, name string) (s Slot, found bool, err error) {
	if c.version.Major() < slotQueryMajor {
		return Slot{}, false, fmt.Errorf("read slot %s on PostgreSQL %s: %w", name, c.version, errors.ErrUnsupported)
	}
	quoted, err := slotName(name)
	if err != nil {
		return Slot{}, false, err
	}
	row, err := c.row(ctx, "READ_REPLICATION_SLOT "+quoted, 3)
	if err != nil {
		return Slot{}, false, fmt.Errorf("read slot %s: %w", name, err)
	}
	if row[0] == nil {
		return Slot{}, false, nil
	}
	var errs [2]error
	if row[1] != nil {
		s.RestartLSN, errs[0] = pg.ParseLSN(string(row[1]))
	}
	if row[2] != nil {
		s.RestartTimeline, errs[1] = pg.ParseTimelineID(string(row[2]))
	}
	if err := errors.Join(errs[:]...); err != nil {
		return Slot{}, false, fmt.Errorf("read slot %s: %w", name, err)
	}
	return s, true, nil
}

// CreateSlot makes a physical slot. With reserveWAL the server keeps WAL for it
// from its last checkpoint on; without, only once something has streamed. A
// temporary slot ends with the connection, and before that with the first error
// the server answers with on it. ErrSlotExists if there is one.
func (c *Conn) CreateSlot(ctx context.Context, name string, reserveWAL, temporary bool) error {
	quoted, err := slotName(name)
	if err != nil {
		return err
	}
	command := "CREATE_REPLICATION_SLOT " + quoted
	if temporary {
		command += " TEMPORARY"
	}
	command += " PHYSICAL"
	if reserveWAL {
		command += " RESERVE_WAL"
	}
	if _, err := c.query(ctx, command, StartOptions{}); err != nil {
		return fmt.Errorf("create slot %s: %w", name, err)
	}
	return nil
}

// DropSlot removes a slot: ErrSlotNotFound if there is none, ErrSlotActive while
// a connection has it.
func (c *Conn) DropSlot(ctx context.Context, name string) error {
	quoted, err := slotName(name)
	if err != nil {
		return err
	}
	if _, err := c.query(ctx, "DROP_REPLICATION_SLOT "+quoted, StartOptions{}); err != nil {
		return fmt.Errorf("drop slot %s: %w", name, err)
	}
	return nil
}

// TimelineHistory fetches the history file of a timeline, its name and its
// bytes. Timeline 1 has none. A timeline the server does not know is a
// *NotInHistoryError.
func (c *Conn) TimelineHistory(ctx context.Context, tli pg.TimelineID) (name string, content []byte, err error) {
	rows, err := c.query(ctx, fmt.Sprintf("TIMELINE_HISTORY %d", uint32(tli)), StartOptions{Timeline: tli})
	if err == nil && (len(rows) != 1 || len(rows[0]) != 2) {
		err = errMalformed
	}
	if err != nil {
		return "", nil, fmt.Errorf("fetch history of timeline %d: %w", tli, err)
	}
	// The name becomes a file's: it is taken from the server only if it is ours.
	if name = string(rows[0][0]); name != pg.HistoryFileName(tli) {
		return "", nil, fmt.Errorf("fetch history of timeline %d: server calls it %q", tli, name)
	}
	return name, rows[0][1], nil
}

// row runs a command that answers with one row of at least columns values.
func (c *Conn) row(ctx context.Context, command string, columns int) ([][]byte, error) {
	rows, err := c.query(ctx, command, StartOptions{})
	if err != nil {
		return nil, err
	}
	if len(rows) != 1 || len(rows[0]) < columns {
		return nil, errMalformed
	}
	return rows[0], nil
}

// slotName quotes a name that PostgreSQL would take for a slot.
func slotName(name string) (string, error) {
	if len(name) > 63 || !plainName(name, "") || strings.ToLower(name) != name {
		return "", fmt.Errorf("slot name %q: a name has 1 to 63 lower-case letters, digits and underscores", name)
	}
	return `"` + name + `"`, nil
}

func plainName(name, more string) bool {
	const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_"
	return name != "" && strings.Trim(name, letters+more) == ""
}
