// SPDX-License-Identifier: Apache-2.0

package basebackup

import (
	"context"
	"errors"
	"fmt"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"

	"github.com/kbcli/kbcli/engine/pg/client"
)

// superuser is a role of the server that a restored one can be opened as: the one that
// initdb made, whatever its name is by now, or another superuser if that one may not log
// in. It is empty where there is none, and where its name is not UTF-8: a restore then
// finds out by itself.
func superuser(ctx context.Context, c *client.Conn) (string, error) {
	var name string
	err := c.SQL().QueryRow(ctx, `SELECT rolname::text FROM pg_roles WHERE rolsuper AND rolcanlogin ORDER BY oid LIMIT 1`).Scan(&name)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return "", nil
	case err != nil:
		return "", fmt.Errorf("ask for a superuser: %w", err)
	case !utf8.ValidString(name):
		return "", nil
	}
	return name, nil
}
