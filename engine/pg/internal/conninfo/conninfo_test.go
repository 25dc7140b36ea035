// SPDX-License-Identifier: Apache-2.0

package conninfo_test

import (
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/kbcli/kbcli/engine/pg/internal/conninfo"
)

func TestParseErrorKeepsSecrets(t *testing.T) {
	for _, s := range []string{
		"postgres://u:hunter2@host:port/db",
		"postgres://u:hun%ter2@host/db",
		"postgres://u:hunter2@[::1/db",
		"postgres://u@host/db?password=hunter2&sslmode=hunter2",
		"host=x password=hunter2 port=hunter2",
		"host=x password='hunter2",
		`host=x password='hunter2\`,
		"host=x password = hunter2 sslmode=hunter2",
		"password=hunter2 hunter2",
		"host=x target_session_attrs='any password=hunter2'",
		"host=x min_protocol_version='password=hunter2'",
		"host=x connect_timeout=hunter2",
		"host=x sslrootcert=/nowhere/hunter2 sslmode=verify-full",
		"host=x port=1,2 password=hunter2",
		"host=x default_query_exec_mode=hunter2",
	} {
		_, err := pgconn.ParseConfig(s)
		if err == nil {
			_, err = pgx.ParseConfig(s)
		}
		if err == nil {
			t.Errorf("%s parses", s)
			continue
		}
		text := conninfo.ParseError(err).Error()
		if strings.Contains(text, "unter2") {
			t.Errorf("%s: %s", s, text)
		}
		t.Log(text)
	}
}
