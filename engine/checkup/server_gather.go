// SPDX-License-Identifier: Apache-2.0

package checkup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sys/unix"

	"github.com/kbcli/kbcli/engine/pg"
	"github.com/kbcli/kbcli/engine/pg/client"
	"github.com/kbcli/kbcli/engine/pg/replication"
)

// GatherServer asks a server, and looks at its data directory. The error is that the
// server does not answer: ServerUnreachable says what to do about it. What else could
// not be looked at is among the facts. Nothing is changed.
func GatherServer(ctx context.Context, t ServerTarget) (*ServerFacts, error) {
	config, err := client.Config(t.Conninfo)
	if err != nil {
		return nil, err
	}
	f := &ServerFacts{Target: t, User: config.User, Agent: agentName(), Local: filepath.IsAbs(config.Host)}
	if peer, ok := client.Peer(config); ok {
		f.Agent = peer.Name
	}
	c, err := client.Connect(ctx, t.Conninfo)
	if err != nil {
		return f, err
	}
	defer c.Close()
	if f.Server, err = c.Identify(ctx); err != nil {
		return f, err
	}
	if err := f.ask(ctx, c); err != nil {
		return f, err
	}
	f.tryStream(ctx)
	f.lookAtData()
	spaces, err := c.Tablespaces(ctx)
	if err != nil {
		return f, err
	}
	for _, s := range spaces {
		f.Tablespaces = append(f.Tablespaces, TablespaceFacts{s.Name, s.Location, f.readable(s.Location)})
	}
	f.Restart = restartCommand(postmasterOf(f.Data.Directory), f.Data.Directory)
	return f, nil
}

func agentName() string {
	if u, err := user.Current(); err == nil {
		return u.Username
	}
	return strconv.Itoa(os.Geteuid())
}

func (f *ServerFacts) database() string {
	if config, err := client.Config(f.Target.Conninfo); err == nil && config.Database != "" {
		return config.Database
	}
	return f.User
}

func (f *ServerFacts) ask(ctx context.Context, c *client.Conn) error {
	sql := c.SQL()
	functions := []string{"pg_backup_start(text, boolean)", "pg_backup_stop(boolean)"}
	if c.ServerVersion().Major() < 15 {
		functions = []string{"pg_start_backup(text, boolean, boolean)", "pg_stop_backup(boolean, boolean)"}
	}
	alter := "false"
	if c.ServerVersion().Major() >= 15 {
		alter = "has_parameter_privilege('synchronous_standby_names', 'ALTER SYSTEM') AND has_function_privilege('pg_reload_conf()', 'EXECUTE')"
	}
	var keep string
	var client *string
	err := sql.QueryRow(ctx, `SELECT current_setting('fsync')::bool,
		(SELECT count(*) FROM pg_stat_replication WHERE application_name <> $1),
		(SELECT count(*) FROM pg_replication_slots WHERE slot_name <> $1),
		(SELECT setting FROM pg_settings WHERE name = 'max_slot_wal_keep_size'),
		coalesce(current_setting('synchronous_standby_names', true), ''), current_setting('synchronous_commit'),
		(SELECT full_page_writes FROM pg_control_checkpoint()),
		has_function_privilege($2, 'EXECUTE') AND has_function_privilege($3, 'EXECUTE'),
		pg_has_role('pg_read_all_settings', 'USAGE'), `+alter+`,
		(SELECT rolsuper FROM pg_roles WHERE rolname = current_user),
		coalesce((SELECT rolname::text FROM pg_roles WHERE rolsuper AND rolcanlogin ORDER BY oid LIMIT 1), ''), pg_get_userbyid(10)::text,
		host(inet_client_addr())`, f.Target.Slot, functions[0], functions[1]).Scan(
		&f.Fsync, &f.Senders, &f.Slots, &keep, &f.SyncNames, &f.SyncCommit, &f.PrimaryWrites,
		&f.MayBackup, &f.MaySeeSettings, &f.MayAlter, &f.Server.Superuser, &f.RestoreRole, &f.InitRole, &client)
	if err != nil {
		return fmt.Errorf("ask the server: %w", err)
	}
	if client != nil {
		f.Client = *client
	}
	megabytes, err := strconv.ParseInt(keep, 10, 64)
	if err != nil {
		return fmt.Errorf("ask the server: max_slot_wal_keep_size is %q", keep)
	}
	if f.SlotKeep = megabytes << 20; megabytes < 0 {
		f.SlotKeep = unbounded
	}
	f.MayAlter = f.MayAlter || f.Server.Superuser
	f.Data.Directory = f.Target.DataDirectory
	if f.Data.Directory == "" {
		f.Data.Directory = f.Server.DataDirectory
	}
	if f.MaySeeSettings {
		if f.HBAFile, err = c.Setting(ctx, "hba_file"); err != nil {
			return err
		}
	}
	if f.Server.Superuser {
		return f.askRules(ctx, sql)
	}
	return nil
}

func (f *ServerFacts) askRules(ctx context.Context, sql *pgx.Conn) error {
	rows, err := sql.Query(ctx, `SELECT line_number, coalesce(type, ''), coalesce(database, '{}'), coalesce(user_name, '{}'),
		coalesce(address, ''), coalesce(netmask, ''), coalesce(auth_method, ''), coalesce(options, '{}')
		FROM pg_hba_file_rules WHERE error IS NULL`)
	if err == nil {
		f.Rules, err = pgx.CollectRows(rows, func(r pgx.CollectableRow) (h HBARule, err error) {
			err = r.Scan(&h.Line, &h.Type, &h.Databases, &h.Users, &h.Address, &h.Netmask, &h.Method, &h.Options)
			return h, err
		})
	}
	if err != nil {
		return fmt.Errorf("read pg_hba_file_rules: %w", err)
	}
	if f.Rules == nil {
		f.Rules = []HBARule{}
	}
	return nil
}

func (f *ServerFacts) tryStream(ctx context.Context) {
	c, err := replication.Connect(ctx, f.Target.Conninfo)
	if err != nil {
		f.Stream.Err = err
		return
	}
	defer c.Close()
	id, err := c.IdentifySystem(ctx)
	f.Stream = Stream{err, id.SystemID}
}

// most of what may not be read that is named.
const mostNamed = 3

func (f *ServerFacts) lookAtData() {
	d := &f.Data
	d.Free = -1
	if d.Directory == "" {
		return
	}
	info, err := os.Stat(d.Directory)
	if errors.Is(err, fs.ErrNotExist) {
		err = errors.New("it is not on this machine, or this process does not see it")
	}
	if err != nil {
		d.Err = err
		return
	}
	d.Owner = ownerOf(info)
	if d.Control, d.Err = readControl(d.Directory); d.Err != nil {
		return
	}
	d.Unreadable = unreadable(d.Directory)
	var st unix.Statfs_t
	if unix.Statfs(filepath.Join(d.Directory, "pg_wal"), &st) == nil {
		d.Free = int64(st.Bavail) * st.Bsize
	}
}

// readControl reads pg_control, which the server may be writing.
func readControl(dir string) (control pg.ControlFile, err error) {
	for range 5 {
		var raw []byte
		if raw, err = os.ReadFile(filepath.Join(dir, "global", "pg_control")); err != nil {
			return control, err
		}
		if control, err = pg.ParseControlFile(raw); !errors.Is(err, pg.ErrControlFileCRC) {
			return control, err
		}
		time.Sleep(20 * time.Millisecond)
	}
	return control, err
}

// unreadable names what of a data directory a backup would read and this process may
// not, at most a few.
func unreadable(dir string) []string {
	var out []string
	_ = filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // files come and go
		}
		rel, rerr := filepath.Rel(dir, path)
		if rerr == nil && (rel == "pg_wal" || rel == "pg_replslot" || rel == "postmaster.pid" || rel == "postmaster.opts") {
			return skip(e)
		}
		if err == nil && e.Type().IsRegular() {
			err = unix.Faccessat(unix.AT_FDCWD, path, unix.R_OK, unix.AT_EACCESS)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			if out = append(out, path); len(out) == mostNamed {
				return filepath.SkipAll
			}
		}
		return nil
	})
	return out
}

func skip(e fs.DirEntry) error {
	if e != nil && e.IsDir() {
		return fs.SkipDir
	}
	return nil
}

// readable tells whether the directory of a tablespace can be.
func (f *ServerFacts) readable(location string) error {
	if !filepath.IsAbs(location) {
		location = filepath.Join(f.Data.Directory, location)
	}
	if _, err := os.ReadDir(location); err != nil {
		return err
	}
	if bad := unreadable(location); len(bad) > 0 {
		return fmt.Errorf("%s may not read %s", agentName(), bad[0])
	}
	return nil
}
