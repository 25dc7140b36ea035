// SPDX-License-Identifier: Apache-2.0

package walindex_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/kbcli/kbcli/internal/testpg"
)

// server runs one that keeps all the WAL it writes, and two tablespaces' directories.
func server(t testing.TB, major, segmentMB int, settings map[string]string) (s *testpg.Server, spaces [2]string) {
	set := map[string]string{
		"wal_keep_size": "8GB", "max_wal_size": "8GB", "checkpoint_timeout": "1h", "autovacuum": "off",
		"max_prepared_transactions": "10",
	}
	for k, v := range settings {
		set[k] = v
	}
	s = testpg.Start(t, testpg.Options{Major: major, SegmentSizeMB: segmentMB, Settings: set})
	st, err := os.Stat(s.SocketDir)
	if err != nil {
		t.Fatal(err)
	}
	for i := range len(spaces) + 1 { // one more, that goes again
		space := filepath.Join(s.SocketDir, fmt.Sprint("space", i))
		if i < len(spaces) {
			spaces[i] = space
		}
		if err := os.Mkdir(space, 0o700); err != nil {
			t.Fatal(err)
		}
		sys := st.Sys().(*syscall.Stat_t)
		if err := os.Chown(space, int(sys.Uid), int(sys.Gid)); err != nil {
			t.Fatal(err)
		}
	}
	return s, spaces
}

func each(t testing.TB, s *testpg.Server, statements ...string) {
	t.Helper()
	for _, q := range statements {
		s.Exec(t, q)
	}
}

const columns = "(id serial primary key, k int, v text, a int[], p point)"

// makeTable makes a table with an index of every kind, and rows.
func makeTable(t testing.TB, s *testpg.Server, name, kind, rest string) {
	each(t, s,
		fmt.Sprintf("create %s table %s %s %s", kind, name, columns, rest),
		fill(name, 1, 2000),
		fmt.Sprintf("create index on %s using gin (a)", name),
		fmt.Sprintf("create index on %s using brin (k)", name),
		fmt.Sprintf("create index on %s using hash (k)", name),
		fmt.Sprintf("create index on %s using spgist (v)", name),
		fmt.Sprintf("create index on %s using gist (p)", name),
	)
}

func fill(name string, from, to int) string {
	return fmt.Sprintf("insert into %s (k, v, a, p) select i %% 100, 'row ' || i, array[i, i %% 7], point(i, i %% 13) from generate_series(%d, %d) i", name, from, to)
}

// before is what there is at the first of two moments.
func before(t testing.TB, s *testpg.Server, spaces [2]string) {
	each(t, s,
		fmt.Sprintf("create tablespace one location '%s'", spaces[0]),
		"create database other", "create database moves",
		"create table u (id int primary key, n int)", "insert into u select i, 0 from generate_series(1, 500) i",
		"create table part (i int, v text) partition by range (i)",
		"create table part1 partition of part for values from (0) to (1000)",
		"create table part2 partition of part for values from (1000) to (100000)",
		"create table grows (i int, v text)",
		"create sequence q",
	)
	for i := range 6 {
		makeTable(t, s, fmt.Sprint("t", i), "", "")
	}
	makeTable(t, s, "un", "unlogged", "")
	makeTable(t, s, "spaced", "", "tablespace one")
	each(t, s, "vacuum", "vacuum freeze t1", "vacuum freeze t2", "checkpoint")
	s.Disconnect()
}

// after is all that may happen between the two, in some random order.
func after(t testing.TB, s *testpg.Server, spaces [2]string, seed uint64, rounds int) {
	r := rand.New(rand.NewPCG(seed, 7))
	each(t, s, fmt.Sprintf("create tablespace two location '%s'", spaces[1]))
	made := 0
	for range rounds {
		n := fmt.Sprint("t", r.IntN(6))
		from := r.IntN(100000)
		jobs := []func() string{
			func() string { return fill(n, from, from+r.IntN(800)) },
			func() string { return fmt.Sprintf("update %s set v = v || '!' where id %% %d = 0", n, 2+r.IntN(40)) },
			func() string { return fmt.Sprintf("update %s set k = k + 1 where id = %d", n, 1+r.IntN(2000)) },
			func() string { return fmt.Sprintf("delete from %s where id %% %d = 0", n, 3+r.IntN(40)) },
			func() string { return fmt.Sprintf("delete from %s where id > %d", n, 500+r.IntN(3000)) },
			func() string { return "vacuum " + n },
			func() string { return "vacuum freeze " + n },
			func() string { return "vacuum full " + n },
			func() string { return fmt.Sprintf("cluster %s using %s_pkey", n, n) },
			func() string { return "reindex table " + n },
			func() string { return "truncate " + n },
			func() string { return "begin; truncate " + n + "; " + fill(n, 1, 50) + "; rollback" },
			func() string { return "analyze " + n },
			func() string { return "select count(*) from " + n + " where v like '%7%'" },
			func() string { return fmt.Sprintf("begin; select * from %s where id < 20 for update; commit", n) },
			func() string {
				return fmt.Sprintf("alter table %s set tablespace %s", n, []string{"pg_default", "one", "two"}[r.IntN(3)])
			},
			func() string { return fmt.Sprintf("alter table %s alter column k type bigint using k + 1", n) },
			func() string { return fmt.Sprintf("insert into %s (v) values (repeat(md5('%d'), 900))", n, from) },
			func() string {
				return fmt.Sprintf("begin; insert into u values (%d, 0) on conflict (id) do update set n = u.n + 1; savepoint a; delete from u where id %% 9 = 0; rollback to a; savepoint b; update u set n = 5 where id %% 50 = 0; commit", r.IntN(1000))
			},
			func() string { return fmt.Sprintf("begin; delete from u where id > %d; rollback", r.IntN(500)) },
			func() string {
				return fmt.Sprintf("do $$ begin for i in 1..150 loop begin insert into u values (%d + i, i); if i %% 10 = 0 then raise exception 'x'; end if; exception when others then end; end loop; end $$", 100000+1000*r.IntN(1000))
			},
			func() string {
				return fmt.Sprintf("insert into part select i, md5(i::text) from generate_series(%d, %d) i", r.IntN(900), 1000+r.IntN(500))
			},
			func() string { return "update part set i = i + 1000 where i < 20" },
			func() string { return "select nextval('q') from generate_series(1, 50)" },
			func() string {
				return "begin; truncate grows; copy grows from program 'seq 1 3000 | sed s/$/,abc/' with (format csv, freeze); commit"
			},
			func() string { return "delete from grows where i > 200" },
			func() string { return "vacuum grows" },
			func() string { return fill("un", from, from+200) },
			func() string { return "update spaced set k = 1 where id % 10 = 0" },
			func() string { return "checkpoint" },
			func() string {
				return "create materialized view mv as select * from u; refresh materialized view mv; drop materialized view mv"
			},
			func() string { return "vacuum full pg_class" },
			func() string { return "vacuum pg_class; vacuum pg_attribute; vacuum pg_statistic" },
			func() string {
				made++
				return fmt.Sprintf("create table made%d as select * from u; create index concurrently on made%d (n)", made, made)
			},
			func() string { return fmt.Sprintf("drop table if exists made%d", r.IntN(made+1)) },
			func() string { return "begin; create table gone as select * from u; rollback" },
		}
		for _, q := range strings.Split(jobs[r.IntN(len(jobs))](), "; create index concurrently") {
			if strings.HasPrefix(q, " on ") {
				q = "create index concurrently" + q
			}
			if strings.HasPrefix(q, "vacuum pg_class;") {
				each(t, s, strings.Split(q, "; ")...)
				continue
			}
			s.Exec(t, q)
		}
	}
	certain(t, s)
}

// certain is what must not be left to chance.
func certain(t testing.TB, s *testpg.Server) {
	each(t, s,
		"begin; insert into u values (3000000, 0); prepare transaction 'kept'",
		"begin; insert into u values (3000001, 0); savepoint a; update u set n = 0 where id < 30; prepare transaction 'dropped'",
		"insert into grows select i, repeat('x', 100) from generate_series(1, 30000) i", // so that they span segments
		"commit prepared 'kept'", "rollback prepared 'dropped'",
		"create table later (i int, v text)",
		"insert into later select i, 'z' from generate_series(1, 5000) i", "vacuum later",
		"delete from later where i > 100", "vacuum later", // cut off, map and all
		"insert into later select i, 'z' from generate_series(1, 50) i",
		"alter table t0 set unlogged", "alter table un set logged",
		"create database bylog", "drop table t1", "truncate t2", "vacuum full pg_class",
		"create table classy (i int)", "drop table classy",
	)
	s.ExecIn(t, "other", "create table x as select i, md5(i::text) from generate_series(1, 3000) i; create index on x (i)")
	s.ExecIn(t, "moves", "create table x as select generate_series(1, 1000) i")
	s.Disconnect()
	each(t, s, "alter database moves set tablespace two")
	if s.Major >= 15 {
		each(t, s, "create database copied template other strategy file_copy")
	} else {
		each(t, s, "create database copied template other")
	}
	s.Disconnect()
	s.Exec(t, "select pg_create_restore_point('a point')")
	if s.Major >= 15 {
		each(t, s, "select pg_backup_start('b', true)", "select pg_backup_stop(false)")
	} else {
		each(t, s, "select pg_start_backup('b', true, false)", "select pg_stop_backup(false, false)")
	}
	each(t, s, "create database gone", "drop database gone", "create table g2 (i int) tablespace two")
	copyRows(t, s)
	// many subtransactions, some undone, over several segments
	each(t, s, "do $$ begin for i in 1..3000 loop begin insert into u values (5000000 + i, i); update u set n = n + 1 where id = 5000000 + i; if i % 7 = 0 then raise exception 'x'; end if; exception when others then end; end loop; end $$",
		"drop table g2", "create database short tablespace two", "drop database short",
		fmt.Sprintf("create tablespace three location '%s'", s.SocketDir+"/space2"), "drop tablespace three")
}

func copyRows(t testing.TB, s *testpg.Server) {
	rows := make([][]any, 5000)
	for i := range rows {
		rows[i] = []any{i, fmt.Sprint("copied ", i)}
	}
	if _, err := s.Conn(t, "postgres").CopyFrom(context.Background(), pgx.Identifier{"later"}, []string{"i", "v"}, pgx.CopyFromRows(rows)); err != nil {
		t.Fatal(err)
	}
}
