// SPDX-License-Identifier: Apache-2.0

package client

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgconn/ctxwatch"

	"github.com/kbcli/kbcli/engine/pg"
)

// cancelGrace is how long a server has to answer a cancel request before the
// connection is given up.
const cancelGrace = 5 * time.Second

// Conn is one session. It is for one goroutine at a time.
type Conn struct {
	sql     *pgx.Conn
	version pg.Version
}

// Connect opens a session. conninfo is libpq's, keywords or URI; what it leaves
// out comes from where libpq takes it, the password file included.
func Connect(ctx context.Context, info string) (*Conn, error) {
	config, err := Config(info)
	if err != nil {
		return nil, err
	}
	config.DefaultQueryExecMode = pgx.QueryExecModeExec // leaves no statements behind
	config.BuildContextWatcherHandler = func(c *pgconn.PgConn) ctxwatch.Handler {
		return &pgconn.CancelRequestContextWatcherHandler{Conn: c, DeadlineDelay: cancelGrace}
	}
	sql, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	c := &Conn{sql: sql}
	if err := c.pin(ctx); err != nil {
		c.Close()
		return nil, fmt.Errorf("prepare session: %w", err)
	}
	return c, nil
}

// pinned is what every session runs under, whatever its user's defaults. A
// release that does not know a setting has nothing to pin.
const pinned = `SELECT pg_catalog.set_config(s.name, v.value, false)
FROM (VALUES
	('timezone', 'UTC'), ('datestyle', 'ISO, YMD'), ('intervalstyle', 'postgres'),
	('search_path', 'pg_catalog, pg_temp'), ('bytea_output', 'hex'), ('extra_float_digits', '1'),
	('statement_timeout', '0'), ('lock_timeout', '0'), ('transaction_timeout', '0'),
	('idle_in_transaction_session_timeout', '0'), ('idle_session_timeout', '0'),
	('default_transaction_isolation', 'read committed')
) AS v (name, value)
JOIN pg_catalog.pg_settings AS s ON pg_catalog.lower(s.name) OPERATOR(pg_catalog.=) v.name`

func (c *Conn) pin(ctx context.Context) error {
	if _, err := c.sql.Exec(ctx, pinned); err != nil {
		return err
	}
	var number int
	if err := c.sql.QueryRow(ctx, "SELECT current_setting('server_version_num')::int").Scan(&number); err != nil {
		return err
	}
	c.version = pg.Version(number)
	// A refusal would stand in the server's log each time: only what it may grant is asked.
	var wishes []string
	if c.sql.PgConn().ParameterStatus("is_superuser") == "on" {
		wishes = append(wishes, "SET lc_messages = 'C'")
	}
	if c.version.Major() >= 14 { // not on every system: it watches for a client that died while it waits for a checkpoint
		wishes = append(wishes, "SET client_connection_check_interval = '1s'")
	}
	for _, wish := range wishes {
		var refused *pgconn.PgError
		if _, err := c.sql.Exec(ctx, wish); err != nil && !errors.As(err, &refused) {
			return err
		}
	}
	return nil
}

// Close ends the session, and aborts a backup it has under way.
func (c *Conn) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), cancelGrace)
	defer cancel()
	return c.sql.Close(ctx)
}

// Alive tells whether the session can still be used. It does not ask the server.
func (c *Conn) Alive() bool { return !c.sql.IsClosed() }

// SQL is the connection beneath, for statements that are nobody else's.
func (c *Conn) SQL() *pgx.Conn { return c.sql }

// ServerVersion is the release of the server.
func (c *Conn) ServerVersion() pg.Version { return c.version }

// row runs a statement that answers with one row. A cancelled context is what
// the error wraps, whichever way the statement ended.
func (c *Conn) row(ctx context.Context, sql string, args, dest []any) error {
	return cause(ctx, c.sql.QueryRow(ctx, sql, args...).Scan(dest...))
}

func cause(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil && !errors.Is(err, ctx.Err()) {
		return fmt.Errorf("%w: %w", ctx.Err(), err)
	}
	return err
}
