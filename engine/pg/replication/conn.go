// SPDX-License-Identifier: Apache-2.0

package replication

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/kbcli/kbcli/engine/pg"
	"github.com/kbcli/kbcli/engine/pg/internal/conninfo"
)

// Conn is a connection to a server's walsender.
type Conn struct {
	wire    *wire
	version pg.Version
	closing sync.Once
	busy    bool // a Stream has the connection, or it is out of step
}

// Connect opens a physical replication connection. conninfo is libpq's, keywords
// or URI; what it leaves out comes from where libpq takes it, the password file
// included. No error holds the string or a password.
func Connect(ctx context.Context, info string) (*Conn, error) {
	config, err := pgconn.ParseConfig(info)
	if err != nil {
		return nil, conninfo.ParseError(err)
	}
	conninfo.AsPeer(config)
	if config.RuntimeParams == nil {
		config.RuntimeParams = map[string]string{}
	}
	config.RuntimeParams["replication"] = "true"
	if config.ValidateConnect != nil {
		config.ValidateConnect = validate(config.ValidateConnect)
	}
	c, err := open(ctx, config)
	if err != nil {
		return nil, err
	}
	language, err := c.Show(ctx, "lc_messages")
	if err != nil {
		c.Close()
		return nil, err
	}
	if english(language) {
		return c, nil
	}
	// Only a superuser may set it, and a refusal costs the connection: hence a
	// second one, and only where it can matter.
	config.RuntimeParams = maps.Clone(config.RuntimeParams)
	config.RuntimeParams["lc_messages"] = "C"
	clear, err := open(ctx, config)
	if refused := (*pgconn.PgError)(nil); errors.As(err, &refused) && refused.Code == stateNoPrivilege {
		return c, nil
	}
	c.Close()
	return clear, err
}

// english tells whether a server with this lc_messages speaks as its source.
func english(locale string) bool {
	return locale == "C" || locale == "POSIX" || strings.HasPrefix(locale, "C.") || strings.HasPrefix(locale, "en")
}

func open(ctx context.Context, config *pgconn.Config) (*Conn, error) {
	// pgconn reads ahead when a write takes its time: what it has read is in this
	// reader and not in the connection
	var reader io.Reader
	config.BuildFrontend = func(r io.Reader, w io.Writer) *pgproto3.Frontend {
		reader = r
		return pgproto3.NewFrontend(r, w)
	}
	started, err := pgconn.ConnectConfig(ctx, config)
	if err != nil {
		return nil, fmt.Errorf("connect for replication: %w", err)
	}
	taken, err := started.Hijack()
	if err != nil {
		return nil, fmt.Errorf("connect for replication: %w", err)
	}
	if n := taken.Frontend.ReadBufferLen(); n != 0 {
		taken.Conn.Close()
		return nil, fmt.Errorf("connect for replication: server sent %d bytes too many", n)
	}
	c := &Conn{wire: newWire(taken.Conn, reader)}
	number, err := c.Show(ctx, "server_version_num")
	if err == nil {
		var n int
		if n, err = strconv.Atoi(number); err != nil {
			err = fmt.Errorf("server version %q is not a number", number)
		}
		c.version = pg.Version(n)
	}
	if err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// validate puts checks of target_session_attrs that a walsender can answer in
// the place of pgconn's, which run SQL or write SHOW in small letters.
func validate(check pgconn.ValidateConnectFunc) pgconn.ValidateConnectFunc {
	is := func(f pgconn.ValidateConnectFunc) bool {
		return reflect.ValueOf(check).Pointer() == reflect.ValueOf(f).Pointer()
	}
	var ifReadOnly, ifNot error
	standby := false
	switch {
	case is(pgconn.ValidateConnectTargetSessionAttrsReadWrite):
		ifReadOnly = pgconn.ErrReadOnlyConnection
	case is(pgconn.ValidateConnectTargetSessionAttrsReadOnly):
		ifNot = pgconn.ErrReadWriteConnection
	case is(pgconn.ValidateConnectTargetSessionAttrsPrimary):
		ifReadOnly, standby = pgconn.ErrStandbyConnection, true
	case is(pgconn.ValidateConnectTargetSessionAttrsStandby):
		ifNot, standby = pgconn.ErrPrimaryConnection, true
	default:
		// prefer-standby: the round that takes any server after all needs an
		// error that only pgconn can make, so that the first one is taken.
		return nil
	}
	return func(ctx context.Context, c *pgconn.PgConn) error {
		is := ""
		if standby {
			is = c.ParameterStatus("in_hot_standby") // 14 and later
		}
		if is == "" {
			r, err := c.Exec(ctx, "SHOW transaction_read_only").ReadAll()
			if err != nil {
				return err
			}
			is = string(r[0].Rows[0][0])
		}
		if is == "on" {
			return ifReadOnly
		}
		return ifNot
	}
}

// Close ends the connection, and with it what another goroutine waits for.
func (c *Conn) Close() error {
	err := error(nil)
	c.closing.Do(func() {
		if c.wire.out.TryLock() { // else a write is stuck, and only closing frees it
			c.wire.sendLocked('X', make([]byte, 5)) // a courtesy: the server forgets us at once
			c.wire.out.Unlock()
		}
		err = c.wire.conn.Close()
	})
	return err
}

// ServerVersion is the release of the server.
func (c *Conn) ServerVersion() pg.Version { return c.version }

// query runs one replication command and returns its rows. asked is what a
// refusal is judged by.
func (c *Conn) query(ctx context.Context, command string, asked StartOptions) ([][][]byte, error) {
	if err := c.begin(command); err != nil {
		return nil, err
	}
	rows, refused, err := c.results(ctx)
	if err != nil {
		return nil, err
	}
	c.busy = false
	if refused != nil {
		return nil, classify(refused, asked)
	}
	return rows, nil
}

// begin sends a command. Until its results are read the connection is busy, and
// stays so for ever if reading them fails.
func (c *Conn) begin(command string) error {
	if c.busy {
		return errors.New("connection is streaming or broken")
	}
	c.busy = true
	return c.wire.send('Q', append(append(make([]byte, 5, 6+len(command)), command...), 0))
}

// results reads up to ReadyForQuery and returns the rows, copied, or the error
// the server answered with. err means that the connection is of no more use.
func (c *Conn) results(ctx context.Context) (rows [][][]byte, refused *pgconn.PgError, err error) {
	for {
		kind, body, err := c.wire.next(ctx)
		if err != nil && refused != nil {
			return nil, nil, refused // FATAL: the server spoke and hung up
		}
		if err != nil {
			return nil, nil, err
		}
		switch kind {
		case 'D':
			row, err := cutRow(body)
			if err != nil {
				return nil, nil, err
			}
			for i := range row {
				row[i] = slices.Clone(row[i])
			}
			rows = append(rows, row)
		case 'E':
			if refused, err = serverError(body); err != nil {
				return nil, nil, err
			}
		case 'Z':
			return rows, refused, nil
		case 'T', 'C', 'I', 'N', 'S':
		default:
			return nil, nil, fmt.Errorf("server sent message %q in answer to a command", kind)
		}
	}
}
