// SPDX-License-Identifier: Apache-2.0

package local

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/kbcli/kbcli/engine/restore"
	"github.com/kbcli/kbcli/runtimes"
)

// maxDamage is how many findings are told; more say nothing new.
const maxDamage = 50

func (t *trial) connect(ctx context.Context, database string) (*pgx.Conn, error) {
	return pgx.Connect(ctx, conninfo(t.socket, 5432, t.superuser, database)+" application_name=kbcli-verify")
}

// read reads every database that takes connections, all tables of it and their indexes:
// with pg_amcheck where it is installed with its extension, else each table row by row.
// What does not read is a *restore.DamagedError.
func (t *trial) read(ctx context.Context, step func(string)) (*runtimes.RestoreReport, error) {
	report := &runtimes.RestoreReport{}
	conn, err := t.connect(ctx, "postgres")
	if err != nil {
		return nil, err
	}
	err = conn.QueryRow(ctx, "select current_setting('server_version')").Scan(&report.Version)
	if err == nil {
		report.Databases, err = column[string](ctx, conn, "select datname::text from pg_database where datallowconn order by 1")
	}
	var amcheck bool
	if err == nil {
		err = conn.QueryRow(ctx, "select exists (select from pg_available_extensions where name = 'amcheck')").Scan(&amcheck)
	}
	if err = errors.Join(err, conn.Close(ctx)); err != nil {
		return nil, damageOf(err, "the list of databases")
	}
	program := filepath.Join(t.bin, "pg_amcheck")
	_, err = os.Stat(program)
	amcheck = amcheck && err == nil
	var damage []error
	for i, name := range report.Databases {
		step(fmt.Sprintf("Reading database %s, %d of %d", name, i+1, len(report.Databases)))
		relations, found, err := t.readDatabase(ctx, name, program, amcheck)
		if err != nil {
			return nil, err
		}
		report.Relations += relations
		damage = append(damage, found...)
	}
	if n := len(damage); n > maxDamage {
		damage = append(damage[:maxDamage], fmt.Errorf("and %d more", n-maxDamage))
	}
	if len(damage) > 0 {
		return nil, &restore.DamagedError{Damage: damage}
	}
	return report, nil
}

// physical are the relations that have pages to read.
const physical = `from pg_class c where relkind in ('r', 'm', 't', 'i', 'S') and relpersistence = 'p'
	and (relkind <> 'm' or relispopulated)`

func (t *trial) readDatabase(ctx context.Context, name, program string, amcheck bool) (relations int64, damage []error, err error) {
	conn, err := t.connect(ctx, name)
	if err != nil {
		if err = damageOf(err, "database "+name); isDamaged(err) {
			return 0, []error{err}, nil
		}
		return 0, nil, err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	if err := conn.QueryRow(ctx, "select count(*) "+physical).Scan(&relations); err != nil {
		if err = damageOf(err, "the catalog of database "+name); isDamaged(err) {
			return 0, []error{err}, nil
		}
		return 0, nil, err
	}
	if amcheck {
		damage, err = t.amcheck(ctx, program, name)
	} else {
		damage, err = readTables(ctx, conn, name)
	}
	return relations, damage, err
}

// amcheck has PostgreSQL's own program look at a database: each table's tuples, and that
// each of them is in every btree index.
func (t *trial) amcheck(ctx context.Context, program, database string) ([]error, error) {
	cmd := exec.CommandContext(ctx, program, "--install-missing", "--heapallindexed", "--jobs", strconv.Itoa(runtime.NumCPU()),
		"--host", t.socket, "--port", "5432", "--username", t.superuser, conninfo(t.socket, 5432, t.superuser, database))
	cmd.Dir, cmd.Env = t.dir, []string{"LC_ALL=C", "PATH=/usr/bin:/bin", "TZ=UTC"}
	if t.uid >= 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(t.uid), Gid: uint32(t.gid)}}
	}
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	if err == nil {
		return nil, nil
	}
	var exit *exec.ExitError
	if ctx.Err() != nil || !errors.As(err, &exit) {
		return nil, errors.Join(ctx.Err(), err)
	}
	// 2 says that there is damage; what it is stands on stdout, a line for the place
	// and lines that begin with white space for what is wrong
	var found []error
	for line := range strings.Lines(out.String()) {
		text := strings.TrimSpace(line)
		switch {
		case text == "":
		case strings.TrimLeft(line, " \t") != line && len(found) > 0:
			found[len(found)-1] = fmt.Errorf("%w %s", found[len(found)-1], text)
		default:
			found = append(found, errors.New(text))
		}
	}
	if exit.ExitCode() == 2 && len(found) > 0 {
		return found, nil
	}
	return nil, fmt.Errorf("pg_amcheck in database %s: %w: %s", database, err, lastLines(errs.String()+out.String(), 3))
}

// readTables reads every row of every table, with all that is stored beside it.
func readTables(ctx context.Context, c *pgx.Conn, database string) ([]error, error) {
	names, err := column[string](ctx, c, `select c.oid::regclass::text `+physical+` and relkind in ('r', 'm', 't') order by 1`)
	if err != nil {
		return nil, err
	}
	var damage []error
	for _, name := range names {
		_, err := c.PgConn().CopyTo(ctx, io.Discard, "copy (select * from only "+name+") to stdout")
		if err == nil {
			continue
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if err = damageOf(err, "table "+name+" of database "+database); !isDamaged(err) {
			return nil, err
		}
		damage = append(damage, err)
		if c.IsClosed() {
			break // the server gave up this session over it
		}
	}
	return damage, nil
}

func column[T any](ctx context.Context, c *pgx.Conn, sql string) ([]T, error) {
	rows, err := c.Query(ctx, sql)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[T])
}

// damageOf says what of an error of the server is damage, and adds what was read.
func damageOf(err error, what string) error {
	var e *pgconn.PgError
	if !errors.As(err, &e) {
		return fmt.Errorf("read %s: %w", what, err)
	}
	switch e.Code {
	case "XX000", "XX001", "XX002", "58030": // internal, data and index corrupted, input and output
		return &unreadable{what, err}
	case "58P01", "3D000": // a file that is not there, unless it is a library's; a database's directory
		if !strings.Contains(e.Message, "could not access file") {
			return &unreadable{what, err}
		}
	}
	return fmt.Errorf("read %s: %w", what, err)
}

// unreadable is something that the server found to be damaged.
type unreadable struct {
	what string
	err  error
}

func (e *unreadable) Error() string { return e.what + ": " + e.err.Error() }
func (e *unreadable) Unwrap() error { return e.err }

func isDamaged(err error) bool {
	var u *unreadable
	return errors.As(err, &u)
}
