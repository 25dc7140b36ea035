// SPDX-License-Identifier: Apache-2.0

package walscan_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/kbcli/kbcli/engine/pg"
	"github.com/kbcli/kbcli/engine/pg/walscan"
	"github.com/kbcli/kbcli/internal/testpg"
)

// startForWAL runs a server that keeps all the WAL it writes.
func startForWAL(t testing.TB, major, segmentMB int) *testpg.Server {
	return testpg.Start(t, testpg.Options{Major: major, SegmentSizeMB: segmentMB, Settings: map[string]string{
		"wal_keep_size":             "8GB",
		"max_wal_size":              "8GB",
		"checkpoint_timeout":        "1h",
		"autovacuum":                "off",
		"max_prepared_transactions": "10",
		"max_replication_slots":     "10",
	}})
}

// each runs statements one by one, each its own transaction.
func each(t testing.TB, s *testpg.Server, statements ...string) {
	t.Helper()
	for _, q := range statements {
		s.Exec(t, q)
	}
}

// everyKind makes WAL of every kind that this package decodes, and of every
// resource manager that a server without extensions has. The server is stopped
// when it returns.
func everyKind(t *testing.T, s *testpg.Server) {
	t.Helper()
	tables(t, s)
	transactions(t, s)
	rewrites(t, s)
	databases(t, s)
	compressed(t, s)
	backup(t, s)
	crash(t, s)
	unfinished(t, s)
	logical(t, s)
	s.Stop(t, testpg.Fast)
}

func tables(t *testing.T, s *testpg.Server) {
	each(t, s,
		"create table t (id serial primary key, k int, v text, a int[], p point)",
		"insert into t (k, v, a, p) select i % 100, 'row ' || i, array[i, i % 7], point(i, i % 13) from generate_series(1, 3000) i",
		"create index on t using gin (a)",
		"create index on t using brin (id)",
		"create index on t using hash (k)",
		"create index on t using spgist (v)",
		"create index on t using gist (p)",
		"insert into t (k, v, a, p) select i % 100, 'row ' || i, array[i, i % 7], point(i, i % 13) from generate_series(3001, 8000) i",
		"update t set v = v || '!' where id % 3 = 0",
		"delete from t where id % 5 = 0",
		"vacuum t",
		"insert into t (k, v) values (1, repeat(md5('toast'), 2000))",
		"create table u (id int primary key, n int)",
		"insert into u select i, 0 from generate_series(1, 50) i on conflict do nothing",
		"insert into u values (1, 1), (51, 1) on conflict (id) do update set n = 1",
		"create table copied (i int, v text)",
	)
	rows := make([][]any, 5000)
	for i := range rows {
		rows[i] = []any{i, fmt.Sprint("copied ", i)}
	}
	c := s.Conn(t, "postgres")
	if _, err := c.CopyFrom(context.Background(), pgx.Identifier{"copied"}, []string{"i", "v"}, pgx.CopyFromRows(rows)); err != nil {
		t.Fatal(err)
	}
	each(t, s,
		"delete from copied where i > 100",
		"vacuum copied", // cuts the empty pages off
		"select pg_create_restore_point('before the storm')",
		"select pg_switch_wal()",
	)
}

func transactions(t *testing.T, s *testpg.Server) {
	for i := range 200 {
		s.Exec(t, fmt.Sprintf("insert into u values (%d, 0)", 1000+i))
	}
	each(t, s,
		"begin; insert into u values (2000, 0); rollback",
		"begin; create table gone (i int); insert into gone values (1); rollback",
		"begin; insert into u values (2001, 0); savepoint a; insert into u values (2002, 0); savepoint b; insert into u values (2003, 0); rollback to a; insert into u values (2004, 0); commit",
		"begin; savepoint a; insert into u values (2005, 0); savepoint b; insert into u values (2006, 0); rollback",
		"begin; insert into u values (3000, 0); create table two (i int); prepare transaction 'kept'",
		"begin; savepoint a; insert into u values (3001, 0); create table three (i int); prepare transaction 'a thing; dropped'",
		"commit prepared 'kept'",
		"rollback prepared 'a thing; dropped'",
		"begin; drop table two; prepare transaction 'drops'",
		"commit prepared 'drops'",
	)
	each(t, s,
		"do $$ begin for i in 1..150 loop begin insert into u values (10000 + i, 0); exception when others then null; end; end loop; end $$",
		"vacuum freeze u",
		"begin; select * from u where id = 10001 for update; commit",
	)
	// Two who share a row's lock make a multixact.
	ctx := context.Background()
	a, b := s.Conn(t, "postgres"), s.Conn(t, "postgres")
	for _, c := range []*pgx.Conn{a, b} {
		if _, err := c.Exec(ctx, "begin"); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Exec(ctx, "select * from u where id = 1 for share"); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []*pgx.Conn{a, b} {
		if _, err := c.Exec(ctx, "commit"); err != nil {
			t.Fatal(err)
		}
	}
	s.Set(t, map[string]string{"max_connections": "77", "track_commit_timestamp": "on", "wal_log_hints": "on"})
	s.Restart(t)
	for i := range 50 {
		s.Exec(t, fmt.Sprintf("update u set n = n + 1 where id = %d", 1000+i))
	}
}

func rewrites(t *testing.T, s *testpg.Server) {
	each(t, s,
		"create table r (i int primary key, v text)",
		"insert into r select i, md5(i::text) from generate_series(1, 2000) i",
		"create materialized view mv as select i from r where i < 1000",
		"refresh materialized view mv",
		"vacuum full r",
		"cluster r using r_pkey",
		"alter table r alter column v type varchar(64) using v || v",
		"begin; truncate r; rollback",
		"truncate r cascade",
		"drop materialized view mv",
		"drop table r",
		"vacuum full pg_class", // updates pg_filenode.map
		"create sequence q; select nextval('q') from generate_series(1, 100)",
	)
}

func databases(t *testing.T, s *testpg.Server) {
	space := filepath.Join(s.SocketDir, "space")
	if err := os.Mkdir(space, 0o700); err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(s.SocketDir); err != nil {
		t.Fatal(err)
	} else if err := chownLike(space, st); err != nil {
		t.Fatal(err)
	}
	each(t, s,
		fmt.Sprintf("create tablespace space location '%s'", space),
		"create table spaced (i int) tablespace space",
		"insert into spaced select generate_series(1, 100)",
		"alter table spaced set tablespace pg_default",
		"create database d",
	)
	s.ExecIn(t, "d", "create table t as select generate_series(1, 10)")
	s.Disconnect()
	each(t, s, "alter database d set tablespace space", "drop database d", "drop table spaced")
	if s.Major >= 15 {
		each(t, s, "create database e strategy file_copy", "create database f strategy wal_log", "drop database e", "drop database f")
	}
	each(t, s, "drop tablespace space")
}

// compressed writes page images with each compression that the build has.
func compressed(t *testing.T, s *testpg.Server) {
	methods := []string{"on"}
	if s.Major >= 15 {
		var names string
		s.QueryRow(t, "select array_to_string(enumvals, ' ') from pg_settings where name = 'wal_compression'", &names)
		for _, m := range []string{"pglz", "lz4", "zstd"} {
			if strings.Contains(names, m) {
				methods = append(methods, m)
			}
		}
	}
	for _, m := range methods {
		each(t, s, "checkpoint", "set wal_compression = '"+m+"'; update t set k = k + 1 where id % 10 = 0", "reset wal_compression")
	}
}

func backup(t *testing.T, s *testpg.Server) {
	begin, end := "select pg_backup_start('x', true)", "select pg_backup_stop(false)"
	if s.Major < 15 {
		begin, end = "select pg_start_backup('x', true, false)", "select pg_stop_backup(false, false)"
	}
	c := s.Conn(t, "postgres")
	for _, q := range []string{begin, "insert into u values (4000, 0)", end} {
		if _, err := c.Exec(context.Background(), q); err != nil {
			t.Fatal(err)
		}
	}
	fullPageWrites(t, s, false)
	fullPageWrites(t, s, true)
}

// fullPageWrites switches the setting and waits until the checkpointer, which
// logs the change, has taken note.
func fullPageWrites(t testing.TB, s *testpg.Server, on bool) {
	s.Set(t, map[string]string{"full_page_writes": strconv.FormatBool(on)})
	s.Reload(t)
	for range 500 {
		var now bool
		s.Exec(t, "checkpoint")
		s.QueryRow(t, "select full_page_writes from pg_control_checkpoint()", &now)
		if now == on {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatal("the checkpointer does not take note of full_page_writes")
}

// crash kills the server while it is written to.
func crash(t *testing.T, s *testpg.Server) {
	c := s.Conn(t, "postgres")
	done := make(chan struct{})
	started := make(chan struct{})
	go func() {
		defer close(done)
		for i := 0; ; i++ {
			if _, err := c.Exec(context.Background(), "insert into copied select i, repeat('x', i) from generate_series(1, 300) i"); err != nil {
				return
			}
			if i == 5 {
				close(started)
			}
		}
	}()
	<-started
	s.Kill9(t)
	<-done
	s.Start(t)
	each(t, s, "insert into copied values (0, 'after the crash')")
}

// unfinished makes the server find, when it comes back from a crash, a record
// whose beginning alone was written.
func unfinished(t *testing.T, s *testpg.Server) {
	var size int
	s.QueryRow(t, "select setting::int from pg_settings where name = 'wal_segment_size'", &size)
	var before string
	each(t, s, "checkpoint")
	s.QueryRow(t, "select pg_current_wal_insert_lsn()::text", &before)
	// More than a segment of 1 MiB.
	each(t, s, "select pg_logical_emit_message(false, 'test', repeat('long ', 600000))", "select pg_switch_wal()")
	s.Kill9(t)

	from, err := pg.ParseLSN(before)
	if err != nil {
		t.Fatal(err)
	}
	seg := pg.SegmentSize(size)
	var message pg.LSN
	scanDir(t, filepath.Join(s.DataDir, "pg_wal"), 1, seg, seg.Number(from), nil, func(r *walscan.Record) error {
		if r.Rmgr == walscan.RmgrLogicalMessage && r.Start >= from {
			message = r.Start
		}
		return nil
	})
	if message == 0 {
		t.Fatalf("no logical message after %s", from)
	}
	// The third page of the record and all that follows were never written.
	cut := (message &^ (pg.BlockSize - 1)) + 2*pg.BlockSize
	for n := seg.Number(cut); ; n++ {
		name := filepath.Join(s.DataDir, "pg_wal", seg.Name(pg.Segment{Timeline: 1, Number: n}))
		f, err := os.OpenFile(name, os.O_WRONLY, 0)
		if os.IsNotExist(err) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		off := int64(0)
		if n == seg.Number(cut) {
			off = seg.Offset(cut)
		}
		if _, err := f.WriteAt(make([]byte, int64(size)-off), off); err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
	s.Start(t)
}

// logical writes what only wal_level logical has.
func logical(t *testing.T, s *testpg.Server) {
	s.Set(t, map[string]string{"wal_level": "logical"})
	s.Restart(t)
	each(t, s,
		"create table l (i int primary key, v text)",
		"begin; insert into l values (1, 'a'); savepoint x; insert into l values (2, 'b'); alter table l add column w int; commit",
		"begin; insert into l values (3, 'c'); prepare transaction 'with gid'",
		"commit prepared 'with gid'",
		"begin; insert into l values (4, 'd'); prepare transaction 'with another'",
		"rollback prepared 'with another'",
		"update l set v = 'z'",
		"truncate l",
		"select pg_replication_origin_create('elsewhere')",
		"select pg_replication_origin_session_setup('elsewhere')",
		"begin; select pg_replication_origin_xact_setup('A/BCDEF', '2020-02-03 04:05:06.789+00'); insert into l values (5, 'e'); commit",
		"select pg_replication_origin_session_reset()",
		"select pg_replication_origin_drop('elsewhere')",
	)
}
