// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"fmt"
	"time"

	"github.com/kbcli/kbcli/engine/pg"
)

// renamedMajor is the first release that calls the functions pg_backup_start
// and pg_backup_stop; it is also the first without exclusive backups.
const renamedMajor = 15

// BackupStart is where a base backup begins.
type BackupStart struct {
	LSN      pg.LSN // recovery begins here
	Timeline pg.TimelineID
	Time     time.Time // the server's clock before it began
}

// BackupStart begins a base backup. fast asks for a checkpoint at once; else the
// server spreads it over minutes, and BackupStart waits. Afterwards the data
// directory may be read until BackupStop, on this Conn. After an error there is
// no backup under way.
func (c *Conn) BackupStart(ctx context.Context, label string, fast bool) (BackupStart, error) {
	b, err := c.backupStart(ctx, label, fast)
	if err != nil {
		return BackupStart{}, fmt.Errorf("start backup: %w", err)
	}
	return b, nil
}

func (c *Conn) backupStart(ctx context.Context, label string, fast bool) (b BackupStart, err error) {
	if b.Time, err = c.Clock(ctx); err != nil {
		return b, err
	}
	call := "pg_backup_start($1, $2)"
	if c.version.Major() < renamedMajor {
		call = "pg_start_backup($1, $2, false)"
	}
	var lsn string
	if err := c.row(ctx, "SELECT "+call+"::text", []any{label, fast}, []any{&lsn}); err != nil {
		return b, err
	}
	if err := c.afterStart(ctx, lsn, &b); err != nil {
		// The server believes in a backup that the caller will never stop.
		c.Close()
		return b, err
	}
	return b, nil
}

func (c *Conn) afterStart(ctx context.Context, lsn string, b *BackupStart) (err error) {
	if b.LSN, err = pg.ParseLSN(lsn); err != nil {
		return err
	}
	var timeline int64
	if err := c.row(ctx, "SELECT "+timelineSQL, nil, []any{&timeline}); err != nil {
		return err
	}
	b.Timeline = pg.TimelineID(timeline)
	return nil
}

// BackupStop is where a base backup ends, and the files that belong to it.
type BackupStop struct {
	LSN           pg.LSN    // the backup is consistent once recovery has reached this
	Label         []byte    // backup_label, to be stored verbatim
	TablespaceMap []byte    // tablespace_map, likewise; empty when there is none
	Time          time.Time // the server's clock afterwards: every target from here on is past the backup
}

// BackupStop ends the backup that this Conn began. It does not wait for WAL to
// be archived: whether all up to LSN is there is the caller's to see. After an
// error of ctx it is not known whether the backup was stopped; either way its
// label is lost, and the Conn should be closed.
func (c *Conn) BackupStop(ctx context.Context) (BackupStop, error) {
	b, err := c.backupStop(ctx)
	if err != nil {
		return BackupStop{}, fmt.Errorf("stop backup: %w", err)
	}
	return b, nil
}

func (c *Conn) backupStop(ctx context.Context) (b BackupStop, err error) {
	call := "pg_backup_stop(false)"
	if c.version.Major() < renamedMajor {
		call = "pg_stop_backup(false, false)"
	}
	// To the encoding they are in: the bytes as the server wrote them, whatever
	// this connection's encoding would make of a path.
	var lsn string
	err = c.row(ctx, `SELECT lsn::text, convert_to(labelfile, getdatabaseencoding()), convert_to(spcmapfile, getdatabaseencoding()) FROM `+call,
		nil, []any{&lsn, &b.Label, &b.TablespaceMap})
	if err != nil {
		return b, err
	}
	if b.LSN, err = pg.ParseLSN(lsn); err != nil {
		return b, err
	}
	b.Time, err = c.Clock(ctx)
	return b, err
}
