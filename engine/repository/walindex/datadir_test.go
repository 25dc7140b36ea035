// SPDX-License-Identifier: Apache-2.0

package walindex_test

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kbcli/kbcli/engine/pg"
	"github.com/kbcli/kbcli/engine/repository/walindex"
	"github.com/kbcli/kbcli/internal/testpg"
)

type forkFile struct {
	rel  pg.RelFileLocator
	fork string
}

var (
	relationFile = regexp.MustCompile(`^([0-9]+)(?:_(vm|init|fsm))?(?:\.([0-9]+))?$`)
	relationDir  = regexp.MustCompile(`^(?:global|base/([0-9]+)|pg_tblspc/([0-9]+)/PG_[0-9_]+/([0-9]+))$`)
)

// relations reads every relation of a data directory.
func relations(t testing.TB, dir string) map[forkFile][]byte {
	t.Helper()
	out := map[forkFile][]byte{}
	oid := func(s string) pg.Oid {
		n, err := strconv.ParseUint(s, 10, 32)
		if err != nil {
			t.Fatal(err)
		}
		return pg.Oid(n)
	}
	var read func(path, name string)
	read = func(path, name string) {
		entries, err := os.ReadDir(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries { // "1" before "1.1"
			sub, subname := filepath.Join(path, e.Name()), name+"/"+e.Name()
			if e.IsDir() || e.Type() == fs.ModeSymlink {
				read(sub, subname)
				continue
			}
			d, m := relationDir.FindStringSubmatch(name), relationFile.FindStringSubmatch(e.Name())
			if d == nil || m == nil {
				continue
			}
			f := forkFile{pg.RelFileLocator{Spc: 1664, Rel: oid(m[1])}, m[2]}
			if d[1] != "" {
				f.rel.Spc, f.rel.DB = 1663, oid(d[1])
			} else if d[2] != "" {
				f.rel.Spc, f.rel.DB = oid(d[2]), oid(d[3])
			}
			if f.fork == "" {
				f.fork = "main"
			}
			b, err := os.ReadFile(sub)
			if err != nil {
				t.Fatal(err)
			}
			out[f] = append(out[f], b...)
		}
	}
	for _, top := range []string{"base", "global", "pg_tblspc"} {
		read(filepath.Join(dir, top), top)
	}
	return out
}

// spgist gives the files of SP-GiST indexes, whose first block changes without a word.
func spgist(t testing.TB, s *testpg.Server) map[pg.Oid]bool {
	rows, err := s.Conn(t, "postgres").Query(t.Context(), "select pg_relation_filenode(c.oid)::bigint from pg_class c join pg_am a on a.oid = c.relam where amname = 'spgist'")
	if err != nil {
		t.Fatal(err)
	}
	out := map[pg.Oid]bool{}
	for rows.Next() {
		var n int64
		if err := rows.Scan(&n); err != nil {
			t.Fatal(err)
		}
		out[pg.Oid(n)] = true
	}
	return out
}

// What differs between two moments of a server is told by the indexes of the WAL
// between them, and these say what pg_waldump says.
func TestAgainstServer(t *testing.T) {
	for _, c := range []struct {
		major int
		level string
	}{{13, "logical"}, {15, "replica"}, {18, "replica"}, {18, "logical"}} {
		t.Run(fmt.Sprint(c.major, "/", c.level), func(t *testing.T) {
			s, spaces := server(t, c.major, 1, map[string]string{"wal_level": c.level})
			before(t, s, spaces)
			s.Stop(t, testpg.Fast)
			old := relations(t, s.DataDir)
			s.Start(t)
			var from string
			s.QueryRow(t, "select redo_lsn::text from pg_control_checkpoint()", &from)
			after(t, s, spaces, uint64(c.major), 100)
			crash(t, s)
			var class, db int64
			s.QueryRow(t, "select pg_relation_filenode('pg_class')::bigint", &class)
			s.QueryRow(t, "select oid::bigint from pg_database where datname = 'postgres'", &db)
			hints := spgist(t, s)
			s.Stop(t, testpg.Fast)

			dir, size := filepath.Join(s.DataDir, "pg_wal"), pg.SegmentSize(1<<20)
			all := indexDir(t, dir, size, false)
			for i, x := range indexDir(t, dir, size, true) {
				if diff := cmp.Diff(all[i], x); diff != "" {
					t.Fatalf("index %d (-one Builder +a new one each time):\n%.2000s", i, diff)
				}
			}
			agree(t, s.Install, dir, size, all)
			everyKind(t, all, c.major, c.level)
			ends(t, all, pg.Oid(db), pg.Oid(class))
			n := size.Number(shortLSN(t, from))
			differs(t, old, relations(t, s.DataDir), all[n-all[0].Segment.Number:], hints)
		})
	}
}

// crash leaves transactions without an end.
func crash(t *testing.T, s *testpg.Server) {
	c := s.Conn(t, "postgres")
	for _, q := range []string{"begin", "insert into u values (9000000, 1)", "savepoint a", "insert into u values (9000001, 1)"} {
		if _, err := c.Exec(t.Context(), q); err != nil {
			t.Fatal(err)
		}
	}
	each(t, s, "insert into later select i, repeat('y', 100) from generate_series(1, 12000) i")
	s.Kill9(t)
	s.Set(t, map[string]string{"max_connections": "77", "wal_log_hints": "on"})
	s.Start(t)
	each(t, s, "insert into later values (1, 'after the crash')")
}

// ends looks at what is left open, and at the catalogues.
func ends(t *testing.T, all []*walindex.Index, db, class pg.Oid) {
	t.Helper()
	last := all[len(all)-1]
	if o := last.Open; len(o.Xacts) != 0 || o.Since != 0 {
		t.Errorf("when the server is down there is open: %+v since %s", o.Xacts, o.Since)
	}
	files := map[pg.Oid]pg.Oid{}
	for _, c := range last.Open.Classes {
		files[c.DB] = c.File
	}
	if files[db] != class || class == 1259 {
		t.Errorf("pg_class is file %d, said to be %d", class, files[db])
	}
	spanned, touched := 0, 0
	for _, x := range all {
		for _, tx := range x.Transactions {
			if tx.Changes == nil {
				continue
			}
			if tx.Changes.AtLeast && x.Segment.Number > all[0].Segment.Number+1 {
				t.Errorf("transaction %d changed at least %+v", tx.XID, tx.Changes)
			}
			inClass := false
			for _, r := range tx.Changes.Rows {
				inClass = inClass || r.Rel.DB == db && (r.Rel.Rel == 1259 || r.Rel.Rel == class)
			}
			has := false
			for _, d := range tx.Changes.Catalogs {
				has = has || d == db
			}
			if inClass && !has && tx.Kind.Committed() || has && !tx.Kind.Committed() {
				t.Errorf("%s of %d with catalogues %v, rows %v", tx.Kind, tx.XID, tx.Changes.Catalogs, tx.Changes.Rows)
			}
			if has {
				touched++
			}
		}
		spanned += len(x.Open.Xacts)
	}
	if spanned < 5 || touched < 20 {
		t.Errorf("%d transactions were open at a segment's end, %d changed pg_class", spanned, touched)
	}
}

// differs compares every file block by block.
func differs(t *testing.T, old, now map[forkFile][]byte, all []*walindex.Index, spgist map[pg.Oid]bool) {
	t.Helper()
	c := cover(all)
	dropped := map[pg.RelFileLocator]bool{}
	gone := map[walindex.Database]bool{}
	for _, x := range all {
		for _, tx := range x.Transactions {
			for _, r := range tx.Dropped {
				dropped[r] = true
			}
		}
		for _, d := range x.DatabasesDropped {
			for _, spc := range d.Spc {
				gone[walindex.Database{Spc: spc, DB: d.DB}] = true
			}
		}
	}
	changed, hinted := 0, 0
	for f, b := range now {
		if f.fork == "fsm" {
			continue
		}
		if _, unlogged := now[forkFile{f.rel, "init"}]; unlogged && f.fork != "init" {
			continue
		}
		was := old[f]
		for n := 0; n*pg.BlockSize < len(b); n++ {
			page := b[n*pg.BlockSize : (n+1)*pg.BlockSize]
			if (n+1)*pg.BlockSize <= len(was) {
				if bytes.Equal(page, was[n*pg.BlockSize:(n+1)*pg.BlockSize]) {
					continue
				}
			} else if pg.PageIsNew(page) && strings.Trim(string(page), "\x00") == "" {
				continue
			}
			changed++
			if c.has(f.rel, f.fork, uint32(n)) {
				continue
			}
			if spgist[f.rel.Rel] && n == 0 {
				hinted++
				continue
			}
			t.Errorf("block %d of %s %s differs, and is not told", n, f.rel, f.fork)
		}
		if len(was) > len(b) && !c.has(f.rel, f.fork, uint32(len(b)/pg.BlockSize)) {
			t.Errorf("%s %s shrank from %d to %d, and it is not told", f.rel, f.fork, len(was), len(b))
		}
	}
	removed := 0
	for f := range old {
		if _, ok := now[f]; ok || f.fork != "main" {
			continue
		}
		removed++
		if !dropped[f.rel] && !gone[walindex.Database{Spc: f.rel.Spc, DB: f.rel.DB}] {
			t.Errorf("%s is gone, and it is not told", f.rel)
		}
	}
	t.Logf("%d blocks differ, %d of them first blocks of SP-GiST indexes without a word; %d files are gone; %d blocks are told one by one", changed, hinted, removed, len(c.single))
	if changed < 500 || removed < 20 {
		t.Error("that is too little to mean much")
	}
}
