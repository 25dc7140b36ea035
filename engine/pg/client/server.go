// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/kbcli/kbcli/engine/pg"
)

// Server is what a server says about itself.
type Server struct {
	Version       pg.Version
	SystemID      pg.SystemID
	DataDirectory string // empty when the role may not read the setting: it takes pg_read_all_settings
	SegmentSize   pg.SegmentSize
	BlockSize     int
	DataChecksums bool
	InRecovery    bool          // it is a standby, or restoring
	Timeline      pg.TimelineID // what it writes, or in recovery the newest it has replayed or received
	WALLevel      string        // "minimal", "replica" or "logical"
	ArchiveMode   string        // "off", "on" or "always"

	FullPageWrites      bool
	MaxWALSenders       int
	MaxReplicationSlots int
	Started             time.Time // of the postmaster, by the server's clock
	Superuser           bool      // the session's role
	Replication         bool      // the session's role may stream WAL
}

// timelineSQL: pg_walfile_name knows only a server that writes. A standby's
// control file lags behind what it replays, its receiver does not.
const (
	timelineWriting  = `('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int8`
	timelineRecovery = `greatest((SELECT timeline_id FROM pg_control_checkpoint()),
		(SELECT min_recovery_end_timeline FROM pg_control_recovery()),
		(SELECT received_tli FROM pg_stat_wal_receiver))::int8`
	timelineSQL = `CASE WHEN pg_is_in_recovery() THEN ` + timelineRecovery + ` ELSE ` + timelineWriting + ` END`
)

// Identify asks a server who and how it is.
func (c *Conn) Identify(ctx context.Context) (Server, error) {
	s := Server{Version: c.version}
	var system string
	var timeline int64
	var segment int64
	err := c.row(ctx, `SELECT (SELECT system_identifier::text FROM pg_control_system()),
		coalesce((SELECT setting FROM pg_settings WHERE name = 'data_directory'), ''),
		i.bytes_per_wal_segment::int8, i.database_block_size, i.data_page_checksum_version <> 0,
		pg_is_in_recovery(), `+timelineSQL+`,
		current_setting('wal_level'), current_setting('archive_mode'), current_setting('full_page_writes')::bool,
		current_setting('max_wal_senders')::int, current_setting('max_replication_slots')::int,
		pg_postmaster_start_time(), r.rolsuper, r.rolsuper OR r.rolreplication
		FROM pg_control_init() i, pg_roles r WHERE r.rolname = current_user`,
		nil, []any{
			&system, &s.DataDirectory, &segment, &s.BlockSize, &s.DataChecksums, &s.InRecovery, &timeline,
			&s.WALLevel, &s.ArchiveMode, &s.FullPageWrites, &s.MaxWALSenders, &s.MaxReplicationSlots,
			&s.Started, &s.Superuser, &s.Replication,
		})
	if err == nil {
		s.SystemID, err = pg.ParseSystemID(system)
	}
	if err != nil {
		return Server{}, fmt.Errorf("identify server: %w", err)
	}
	s.SegmentSize, s.Timeline, s.Started = pg.SegmentSize(segment), pg.TimelineID(timeline), s.Started.UTC()
	return s, nil
}

// Clock is the server's time now, in UTC.
func (c *Conn) Clock(ctx context.Context) (time.Time, error) {
	var now time.Time
	if err := c.row(ctx, "SELECT clock_timestamp()", nil, []any{&now}); err != nil {
		return time.Time{}, fmt.Errorf("read the server's clock: %w", err)
	}
	return now.UTC(), nil
}

// Setting is the value of a setting as SHOW prints it, with its unit.
func (c *Conn) Setting(ctx context.Context, name string) (string, error) {
	var v *string
	err := c.row(ctx, "SELECT current_setting($1, true)", []any{name}, []any{&v})
	if err == nil && v == nil {
		err = errors.New("server has no such setting")
	}
	if err != nil {
		return "", fmt.Errorf("read setting %s: %w", name, err)
	}
	return *v, nil
}

// Tablespace is a tablespace that lies outside the data directory, or under
// pg_tblspc within it.
type Tablespace struct {
	OID      pg.Oid
	Name     string
	Location string // absolute, or "pg_tblspc/…" for one in place
}

// Tablespaces lists those besides pg_default and pg_global, by OID.
func (c *Conn) Tablespaces(ctx context.Context) ([]Tablespace, error) {
	rows, _ := c.sql.Query(ctx, `SELECT oid::int8, spcname::text, pg_tablespace_location(oid) FROM pg_tablespace
		WHERE spcname NOT IN ('pg_default', 'pg_global') ORDER BY oid`)
	list, err := pgx.CollectRows(rows, func(r pgx.CollectableRow) (t Tablespace, err error) {
		var oid int64
		err = r.Scan(&oid, &t.Name, &t.Location)
		t.OID = pg.Oid(oid)
		return t, err
	})
	if err != nil {
		return nil, fmt.Errorf("list tablespaces: %w", cause(ctx, err))
	}
	return list, nil
}
