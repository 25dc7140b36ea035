// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package conninfo

import (
	"context"
	"net"

	"github.com/jackc/pgx/v5/pgconn"
)

// dialAs connects as this process: identities of single threads are Linux's.
func dialAs(ctx context.Context, _ Owner, dial pgconn.DialFunc, network, address string) (net.Conn, error) {
	return dial(ctx, network, address)
}
