// SPDX-License-Identifier: Apache-2.0

package client

import (
	"github.com/jackc/pgx/v5"

	"github.com/kbcli/kbcli/engine/pg/internal/conninfo"
)

// Config reads a connection string as Connect does, for a connection that is not a
// Conn. What dials by it dials as Connect: over a Unix socket root presents the account
// that owns the socket, if it has the name of the role, so that peer authentication
// lets root in where it lets the owner in.
func Config(info string) (*pgx.ConnConfig, error) {
	config, err := pgx.ParseConfig(info)
	if err != nil {
		return nil, conninfo.ParseError(err)
	}
	conninfo.AsPeer(&config.Config)
	return config, nil
}

// Account is one of the operating system.
type Account = conninfo.Owner

// Peer is the account that Connect presents in place of root's, if it does.
func Peer(c *pgx.ConnConfig) (Account, bool) { return conninfo.Peer(c.Host, c.Port, c.User) }

// SocketOwner is the account that owns the socket of a connection, who is who runs the
// server; false for one over TCP, and where there is no socket.
func SocketOwner(c *pgx.ConnConfig) (Account, bool) { return conninfo.SocketOwner(c.Host, c.Port) }

// With sets keywords in a connection string. It takes keywords or a URI and gives
// keywords, to which more can be appended.
func With(info string, set ...[2]string) (string, error) { return conninfo.With(info, set...) }

// Keyword is what a connection string itself says, not what its surroundings add.
func Keyword(info, name string) (value string, ok bool) { return conninfo.Get(info, name) }
