// SPDX-License-Identifier: Apache-2.0

package restore

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/kbcli/kbcli/engine/pg/client"
)

// quarantine makes the restored cluster harmless to the world its source lives in:
// subscriptions are disabled and cut off from their publisher's slots, which
// are the source's. It returns what it did.
func quarantine(ctx context.Context, c *client.Conn, connect func(db string) (*client.Conn, error)) ([]string, error) {
	type subscription struct{ db, name string }
	rows, err := c.SQL().Query(ctx, `select d.datname, s.subname from pg_subscription s join pg_database d on d.oid = s.subdbid where d.datallowconn order by 1, 2`)
	if err != nil {
		return nil, fmt.Errorf("look for subscriptions: %w", err)
	}
	subs, err := pgx.CollectRows(rows, func(r pgx.CollectableRow) (s subscription, err error) {
		return s, r.Scan(&s.db, &s.name)
	})
	if err != nil {
		return nil, fmt.Errorf("look for subscriptions: %w", err)
	}
	var notes []string
	for _, s := range subs {
		if err := disable(ctx, s.db, s.name, connect); err != nil {
			return nil, err
		}
		notes = append(notes, fmt.Sprintf("subscription %s in database %s is disabled and has no slot", s.name, s.db))
	}
	return notes, nil
}

func disable(ctx context.Context, db, name string, connect func(db string) (*client.Conn, error)) error {
	c, err := connect(db)
	if err != nil {
		return fmt.Errorf("disable subscription %s: %w", name, err)
	}
	defer c.Close()
	quoted := pgx.Identifier{name}.Sanitize()
	for _, sql := range []string{"alter subscription " + quoted + " disable", "alter subscription " + quoted + " set (slot_name = none)"} {
		if _, err := c.SQL().Exec(ctx, sql); err != nil {
			return fmt.Errorf("disable subscription %s: %w", name, err)
		}
	}
	return nil
}

// inherited are settings of the source that a restored cluster must not carry: they
// name the source's own addresses, files, standbys and archive.
var inherited = map[string]bool{
	"restore_command": true, "recovery_target": true, "recovery_target_time": true, "recovery_target_xid": true,
	"recovery_target_lsn": true, "recovery_target_name": true, "recovery_target_inclusive": true,
	"recovery_target_timeline": true, "recovery_target_action": true, "recovery_end_command": true,
	"archive_cleanup_command": true, "recovery_min_apply_delay": true,
	"primary_conninfo": true, "primary_slot_name": true, "promote_trigger_file": true,
	"synchronous_standby_names": true, "archive_mode": true, "archive_command": true, "archive_library": true,
	"listen_addresses": true, "port": true, "unix_socket_directories": true, "external_pid_file": true,
	"data_directory": true, "hba_file": true, "ident_file": true, "config_file": true, "cluster_name": true,
	"synchronized_standby_slots": true,
}

// Isolate takes out of the text of a postgresql.auto.conf every setting that ties a
// server to its surroundings, and returns the rest with the given settings added.
func Isolate(autoConf string, add [][2]string) string {
	var b strings.Builder
	added := map[string]bool{}
	for _, kv := range add {
		added[kv[0]] = true
	}
	for line := range strings.Lines(autoConf) {
		name, _, _ := strings.Cut(strings.TrimSpace(line), "=")
		name = strings.ToLower(strings.TrimSpace(name))
		if inherited[name] || added[name] {
			continue
		}
		b.WriteString(line)
		if !strings.HasSuffix(line, "\n") {
			b.WriteByte('\n')
		}
	}
	for _, kv := range add {
		fmt.Fprintf(&b, "%s = '%s'\n", kv[0], strings.ReplaceAll(kv[1], "'", "''"))
	}
	return b.String()
}
