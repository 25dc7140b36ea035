// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/kbcli/kbcli/engine/pg"
)

// What can be wrong with a slot.
var (
	ErrSlotExists   = errors.New("replication slot exists already")
	ErrSlotNotFound = errors.New("replication slot does not exist")
	ErrSlotActive   = errors.New("replication slot is in use by another connection")
)

// Slot is a replication slot.
type Slot struct {
	Name       string
	Physical   bool
	Temporary  bool
	Active     bool
	PID        int32  // of the server process that uses it; 0 when not active
	RestartLSN pg.LSN // the oldest WAL it keeps; 0 when it keeps none

	// WALStatus is "reserved", "extended", "unreserved" or "lost"; empty for a
	// slot that keeps no WAL. A lost slot's client has a hole to fill, even
	// where the server lets it stream again.
	WALStatus    string
	SafeWALSize  *int64 // bytes the server may write before the slot is in danger; nil when there is no bound
	Invalidation string // 17 and later: why the slot was invalidated; empty when it was not
}

// Slots lists the replication slots by name.
func (c *Conn) Slots(ctx context.Context) ([]Slot, error) {
	reason := "''"
	if c.version.Major() >= 17 {
		reason = "coalesce(invalidation_reason, '')"
	}
	rows, _ := c.sql.Query(ctx, `SELECT slot_name::text, slot_type = 'physical', temporary, active, coalesce(active_pid, 0),
		coalesce(restart_lsn, '0/0')::text, coalesce(wal_status, ''), safe_wal_size, `+reason+`
		FROM pg_replication_slots ORDER BY slot_name COLLATE "C"`)
	list, err := pgx.CollectRows(rows, func(r pgx.CollectableRow) (s Slot, err error) {
		var lsn string
		if err := r.Scan(&s.Name, &s.Physical, &s.Temporary, &s.Active, &s.PID, &lsn, &s.WALStatus, &s.SafeWALSize, &s.Invalidation); err != nil {
			return s, err
		}
		s.RestartLSN, err = pg.ParseLSN(lsn)
		return s, err
	})
	if err != nil {
		return nil, fmt.Errorf("list replication slots: %w", cause(ctx, err))
	}
	return list, nil
}

// CreatePhysicalSlot makes a slot. With reserveWAL the server keeps WAL for it
// from now on; without, only once something has streamed. A temporary slot ends
// with the session, and before that with the first error the server answers the
// session with. ErrSlotExists if there is one.
func (c *Conn) CreatePhysicalSlot(ctx context.Context, name string, reserveWAL, temporary bool) error {
	_, err := c.sql.Exec(ctx, "SELECT pg_create_physical_replication_slot($1, $2, $3)", name, reserveWAL, temporary)
	if err != nil {
		return fmt.Errorf("create slot %s: %w", name, slotError(cause(ctx, err)))
	}
	return nil
}

// DropSlot removes a slot of any kind: ErrSlotNotFound if there is none,
// ErrSlotActive while a connection has it.
func (c *Conn) DropSlot(ctx context.Context, name string) error {
	if _, err := c.sql.Exec(ctx, "SELECT pg_drop_replication_slot($1)", name); err != nil {
		return fmt.Errorf("drop slot %s: %w", name, slotError(cause(ctx, err)))
	}
	return nil
}

func slotError(err error) error {
	var refused *pgconn.PgError
	if !errors.As(err, &refused) {
		return err
	}
	switch refused.Code {
	case "42710":
		return fmt.Errorf("%w: %w", ErrSlotExists, err)
	case "42704":
		return fmt.Errorf("%w: %w", ErrSlotNotFound, err)
	case "55006":
		return fmt.Errorf("%w: %w", ErrSlotActive, err)
	}
	return err
}
