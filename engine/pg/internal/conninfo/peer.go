// SPDX-License-Identifier: Apache-2.0

package conninfo

import (
	"context"
	"net"
	"os"
	"os/user"
	"strconv"
	"strings"
	"syscall"

	"github.com/jackc/pgx/v5/pgconn"
)

// Owner is an account of the operating system.
type Owner struct {
	Name     string
	Home     string
	UID, GID int
}

// SocketOwner is who owns the socket of a connection, which is who runs the server.
// False for a connection that is not over a socket, and for a socket that is not there.
func SocketOwner(host string, port uint16) (Owner, bool) {
	network, address := pgconn.NetworkAddress(host, port)
	if network != "unix" {
		return Owner{}, false
	}
	return ownerOf(address)
}

func ownerOf(path string) (Owner, bool) {
	info, err := os.Stat(path)
	if err != nil {
		return Owner{}, false
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return Owner{}, false
	}
	u, err := user.LookupId(strconv.Itoa(int(st.Uid)))
	if err != nil {
		return Owner{}, false
	}
	gid, err := strconv.Atoi(u.Gid)
	if err != nil {
		return Owner{}, false
	}
	return Owner{Name: u.Username, Home: u.HomeDir, UID: int(st.Uid), GID: gid}, true
}

// Peer is the account that root presents over a socket: the owner's, if it has the
// name of the role that is asked for. A server that lets its owner in by peer then
// lets root in, who could become the owner at any time.
func Peer(host string, port uint16, role string) (Owner, bool) {
	if os.Geteuid() != 0 {
		return Owner{}, false
	}
	o, ok := SocketOwner(host, port)
	return o, ok && o.UID != 0 && o.Name == role
}

// AsPeer makes a configuration dial as Peer says.
func AsPeer(config *pgconn.Config) {
	dial, role := config.DialFunc, config.User
	config.DialFunc = func(ctx context.Context, network, address string) (net.Conn, error) {
		if network == "unix" && os.Geteuid() == 0 {
			// a cancel request has the address that the server gave itself
			if o, ok := ownerOf(strings.TrimSuffix(address, "\x00")); ok && o.UID != 0 && o.Name == role {
				return dialAs(ctx, o, dial, network, address)
			}
		}
		return dial(ctx, network, address)
	}
}
