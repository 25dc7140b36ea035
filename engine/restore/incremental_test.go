// SPDX-License-Identifier: Apache-2.0

package restore_test

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kbcli/kbcli/engine/basebackup"
	"github.com/kbcli/kbcli/engine/catalog"
	"github.com/kbcli/kbcli/engine/pg"
	"github.com/kbcli/kbcli/engine/repository"
	"github.com/kbcli/kbcli/engine/repository/walindex"
	"github.com/kbcli/kbcli/engine/restore"
	"github.com/kbcli/kbcli/internal/testpg"
)

// says is what the repository's WAL says on the way to a position.
func (r *rig) says(ctx context.Context, tli pg.TimelineID, lsn pg.LSN) (basebackup.WAL, error) {
	c, err := catalog.Load(ctx, r.lineage.Known())
	if err != nil {
		return basebackup.WAL{}, err
	}
	p, err := c.Path(tli)
	return basebackup.WAL{History: p.History, Index: func(ctx context.Context, n uint64) (*walindex.Index, error) {
		return c.Index(ctx, p, n, lsn)
	}}, err
}

func (r *rig) incrementalConfig(t *testing.T, name string, base *repository.Manifest) basebackup.Config {
	return basebackup.Config{
		Lineage: r.lineage, Conninfo: r.server.ConnString("postgres"), Name: name, Fast: true, Workers: 2,
		WaitWAL: r.archiver.Wait, Clock: time.Now, Log: logger(t),
		Incremental: &basebackup.Incremental{Base: base, WAL: r.says},
	}
}

func (r *rig) incremental(t *testing.T, name string, base *repository.Manifest) *repository.Manifest {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	m, err := basebackup.Take(ctx, r.incrementalConfig(t, name, base))
	if err != nil {
		t.Fatalf("incremental backup: %v", err)
	}
	if m.Type != repository.TypeIncremental {
		t.Errorf("backup %s is of type %s", name, m.Type)
	}
	return m
}

var (
	relationName = regexp.MustCompile(`^(?:global|base/[0-9]+|pg_tblspc/[0-9]+/PG_[0-9_]+/[0-9]+)/([0-9]+)(_vm|_init|_fsm)?(?:\.[0-9]+)?$`)
	otherSpaces  = regexp.MustCompile(`^pg_tblspc/[0-9]+$`)
)

// relationFiles are the relations' files of a data directory, by their paths. Those of
// unlogged and temporary relations are left out, all but their init forks.
func relationFiles(t *testing.T, dir string) map[string][]byte {
	t.Helper()
	out := map[string][]byte{}
	var walk func(rel string)
	walk = func(rel string) {
		list, err := os.ReadDir(filepath.Join(dir, rel))
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range list {
			p := filepath.Join(rel, e.Name())
			if e.IsDir() || e.Type() == fs.ModeSymlink && otherSpaces.MatchString(p) {
				walk(p)
			} else if relationName.MatchString(p) {
				b, err := os.ReadFile(filepath.Join(dir, p))
				if err != nil {
					t.Fatal(err)
				}
				out[p] = b
			}
		}
	}
	for _, top := range []string{"base", "global", "pg_tblspc"} {
		walk(top)
	}
	for p := range out {
		m := relationName.FindStringSubmatch(p)
		if _, ok := out[filepath.Join(filepath.Dir(p), m[1]+"_init")]; ok && m[2] != "_init" {
			delete(out, p)
		}
	}
	return out
}

// agrees fetches a backup of a server on which nothing happened since, and compares
// every block of every relation with the server's own files.
func (r *rig) agrees(t *testing.T, m *repository.Manifest) {
	t.Helper()
	p, err := restore.MakePlan(t.Context(), r.catalog(t), catalog.Target{Backup: m.Name})
	if err != nil {
		t.Fatal(err)
	}
	into, _ := r.place(t)
	if err := p.Fetch(t.Context(), into); err != nil {
		t.Fatal(err)
	}
	spgist := map[string]bool{}
	rows, err := r.server.Conn(t, "postgres").Query(t.Context(), "select pg_relation_filepath(c.oid) from pg_class c join pg_am a on a.oid = c.relam where amname = 'spgist'")
	if err != nil {
		t.Fatal(err)
	}
	for rows.Next() {
		var p string
		if err := rows.Scan(&p); err != nil {
			t.Fatal(err)
		}
		spgist[p] = true
	}
	got, want := relationFiles(t, into.DataDirectory), relationFiles(t, r.server.DataDir)
	bad := 0
	for p, b := range want {
		have, ok := got[p]
		if !ok && len(b) > 0 || len(have) != len(b) {
			t.Errorf("%s: %s has %d bytes, the server's file has %d (listed: %v)", m.Name, p, len(have), len(b), ok)
			continue
		}
		for at := 0; at < len(b); at += pg.BlockSize {
			if bytes.Equal(b[at:at+pg.BlockSize], have[at:at+pg.BlockSize]) || spgist[p] && at == 0 {
				continue
			}
			if bad++; bad < 10 {
				t.Errorf("%s: block %d of %s is not the server's", m.Name, at/pg.BlockSize, p)
			}
		}
	}
	for p, b := range got {
		if _, ok := want[p]; !ok && len(b) > 0 {
			t.Errorf("%s: there is no %s", m.Name, p)
		}
	}
	os.RemoveAll(filepath.Dir(into.DataDirectory))
}

// contents is a checksum of every table of every database.
func contents(t *testing.T, s *testpg.Server) map[string]string {
	t.Helper()
	out := map[string]string{}
	var names []string
	s.QueryRow(t, "select array_agg(datname::text) from pg_database where datallowconn and datname not like 'template%'", &names)
	for _, db := range names {
		c := s.Conn(t, db)
		var tables []string
		if err := c.QueryRow(t.Context(), "select coalesce(array_agg(oid::regclass::text), '{}') from pg_class where relkind in ('r', 'm') and relpersistence = 'p' and relnamespace = 'public'::regnamespace").Scan(&tables); err != nil {
			t.Fatal(err)
		}
		for _, table := range tables {
			var sum string
			if err := c.QueryRow(t.Context(), "select count(*) || ' ' || coalesce(sum(hashtextextended(x::text, 0)), 0) from "+table+" x").Scan(&sum); err != nil {
				t.Fatalf("%s: %v", table, err)
			}
			out[db+"."+table] = sum
		}
		_ = c.Close(t.Context())
	}
	return out
}

// judge restores a backup alone, and has PostgreSQL's own tools and what was read on the
// server judge it.
func (r *rig) judge(t *testing.T, name string, want map[string]string) {
	t.Helper()
	x := r.restore(t, catalog.Target{Backup: name})
	if diff := cmp.Diff(want, contents(t, x.Server)); diff != "" {
		t.Errorf("%s (-server +restored):\n%s", name, diff)
	}
	if x.Major == testpg.DefaultMajor {
		asServer(t, x.Program("pg_amcheck"), "--heapallindexed", "--install-missing", "-h", x.SocketDir, "-p", fmt.Sprint(x.Port), "-U", "postgres", "--all")
	}
	x.Stop(t, testpg.Fast)
	if x.Major == testpg.DefaultMajor {
		asServer(t, x.Program("pg_checksums"), "--check", "-D", x.DataDir)
	}
	os.RemoveAll(filepath.Dir(x.DataDir))
}

// change is the life of a database: every way in which PostgreSQL changes its files.
type change struct {
	*rand.Rand
	s    *testpg.Server
	made int
}

const tables = 4

func (c *change) begin(t *testing.T, spaces [2]string) {
	s := c.s
	for i, dir := range spaces {
		s.Exec(t, fmt.Sprintf("create tablespace s%d location '%s'", i, dir))
	}
	s.Exec(t, "create database other")
	s.ExecIn(t, "other", "create table x as select i, md5(i::text) from generate_series(1, 3000) i; create index on x (i)")
	s.Exec(t, "create table grows (i int, v text)")
	s.Exec(t, "create table u (id int primary key, n int)")
	for i := range tables {
		n := fmt.Sprint("t", i)
		s.Exec(t, "create table "+n+" (id serial primary key, k int, v text, a int[], p point)")
		s.Exec(t, c.fill(n, 3000))
		for _, index := range []string{"gin (a)", "brin (k)", "hash (k)", "spgist (v)", "gist (p)"} {
			s.Exec(t, "create index on "+n+" using "+index)
		}
	}
	s.Exec(t, "create unlogged table un (i int, v text)")
	s.Exec(t, "insert into un select i, 'x' from generate_series(1, 3000) i")
	s.Exec(t, "vacuum")
	s.Disconnect()
}

func (c *change) fill(table string, n int) string {
	from := c.IntN(1000000)
	return fmt.Sprintf("insert into %s (k, v, a, p) select i %% 100, 'row ' || md5(i::text), array[i, i %% 7], point(i, i %% 13) from generate_series(%d, %d) i", table, from, from+n)
}

// some does a number of random things.
func (c *change) some(t *testing.T, rounds int) {
	s := c.s
	for range rounds {
		n := fmt.Sprint("t", c.IntN(tables))
		x := 2 + c.IntN(40)
		jobs := [][]string{
			{c.fill(n, c.IntN(1500))},
			{fmt.Sprintf("update %s set v = v || '!' where id %% %d = 0", n, x)},
			{fmt.Sprintf("update %s set k = k + 1 where id = %d", n, 1+c.IntN(3000))},
			{fmt.Sprintf("delete from %s where id %% %d = 0", n, x)},
			{fmt.Sprintf("delete from %s where id > (select max(id) * 2 / 3 from %s)", n, n), "vacuum " + n},
			{"vacuum freeze " + n},
			{"vacuum full " + n},
			{fmt.Sprintf("cluster %s using %s_pkey", n, n)},
			{"reindex table " + n},
			{"truncate " + n, c.fill(n, 500)},
			{"begin; truncate " + n + "; " + c.fill(n, 50) + "; rollback"},
			{fmt.Sprintf("alter table %s set tablespace %s", n, []string{"pg_default", "s0", "s1"}[c.IntN(3)])},
			{fmt.Sprintf("alter table %s alter column k type bigint using k + 1", n)},
			{fmt.Sprintf("insert into %s (v) select string_agg(md5(i::text), '') from generate_series(1, 900) i", n)},
			{fmt.Sprintf("insert into u select i, 0 from generate_series(%d, %d) i on conflict (id) do update set n = u.n + 1", 10*x, 10*x+200)},
			{"begin; delete from u; rollback"},
			{"insert into grows select i, repeat('x', 100) from generate_series(1, 20000) i"},
			{"delete from grows where i > 200", "vacuum grows", "insert into grows select i, 'again' from generate_series(1, 100) i"},
			{"insert into un select i, 'x' from generate_series(1, 500) i"},
			{"alter table un set logged", "alter table un set unlogged"},
			{"checkpoint"},
			{"select count(*) from " + n + " where v like '%7%'"},
			{"vacuum full pg_class", "vacuum pg_attribute"},
			{"create database made", "drop database made"},
			{"begin; create table gone as select * from u; rollback"},
		}
		c.made++
		name := fmt.Sprint("made", c.made)
		jobs = append(jobs,
			[]string{"create table " + name + " as select * from u", "create index concurrently on " + name + " (n)"},
			[]string{fmt.Sprintf("drop table if exists made%d", c.IntN(c.made))},
			[]string{"create database d" + name + c.strategy()},
			[]string{"create database e" + name + " template other" + c.strategy()},
			[]string{"alter database other set tablespace " + []string{"pg_default", "s0", "s1"}[c.IntN(3)]},
		)
		for _, q := range jobs[c.IntN(len(jobs))] {
			if strings.Contains(q, "database") {
				s.Disconnect()
			}
			if strings.Contains(q, "alter database other set tablespace") {
				var now string
				want := q[strings.LastIndexByte(q, ' ')+1:]
				if s.QueryRow(t, "select spcname from pg_tablespace t join pg_database d on d.dattablespace = t.oid where datname = 'other'", &now); now == want {
					continue
				}
			}
			s.Exec(t, q)
		}
	}
}

func (c *change) strategy() string {
	if c.s.Major < 15 {
		return ""
	}
	return []string{" strategy wal_log", " strategy file_copy"}[c.IntN(2)]
}

// promoteInPlace has a server go on on a timeline of its own.
func promoteInPlace(t *testing.T, s *testpg.Server) {
	t.Helper()
	s.Stop(t, testpg.Fast)
	name := filepath.Join(s.DataDir, "standby.signal")
	if err := os.WriteFile(name, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if uid, gid := testpg.Owner(t); uid >= 0 {
		if err := os.Chown(name, uid, gid); err != nil {
			t.Fatal(err)
		}
	}
	s.Start(t)
	s.Promote(t)
}

// TestIncrementalAgrees changes a server in every way there is, kills it now and then,
// promotes it, and compares each incremental backup with all that is on its disk.
func TestIncrementalAgrees(t *testing.T) {
	for _, major := range []int{13, 15, 18} {
		t.Run(fmt.Sprint(major), func(t *testing.T) {
			server := testpg.Start(t, testpg.Options{Major: major, SegmentSizeMB: 1, Settings: map[string]string{"autovacuum": "off", "wal_keep_size": "2GB"}})
			dir := serverDir(t)
			var spaces [2]string
			for i := range spaces {
				spaces[i] = filepath.Join(dir, fmt.Sprint(i))
				if err := os.Mkdir(spaces[i], 0o700); err != nil {
					t.Fatal(err)
				}
				if uid, gid := testpg.Owner(t); uid >= 0 {
					if err := os.Chown(spaces[i], uid, gid); err != nil {
						t.Fatal(err)
					}
				}
			}
			seed := uint64(time.Now().UnixNano())
			t.Log("seed", seed)
			c := &change{Rand: rand.New(rand.NewPCG(uint64(major), seed)), s: server}
			c.begin(t, spaces)
			r := newRig(t, server, nil)
			r.startArchiving(t)
			m := r.backup(t, "full")
			r.agrees(t, m)
			for i := 1; i <= 4; i++ {
				c.some(t, 25)
				if i == 2 || i == 4 {
					server.Kill9(t)
					server.Start(t)
				}
				if i >= 3 {
					promoteInPlace(t, server)
				}
				c.some(t, 5)
				want := contents(t, server)
				server.Disconnect()
				server.Exec(t, "checkpoint") // so that hint bits are on disk
				m = r.incremental(t, fmt.Sprint("i", i), m)
				t.Logf("%s: %d of %d bytes are new, %d stored; read everything: %q", m.Name, m.NewBytes, m.DataBytes, m.Stored, m.ReadAll)
				if m.ReadAll != "" || m.NewBytes >= m.DataBytes {
					t.Errorf("%s read everything: %s", m.Name, m.ReadAll)
				}
				r.agrees(t, m)
				if i == 4 {
					r.judge(t, m.Name, want)
				}
			}
		})
	}
}
