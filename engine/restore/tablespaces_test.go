// SPDX-License-Identifier: Apache-2.0

package restore_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kbcli/kbcli/engine/catalog"
	"github.com/kbcli/kbcli/engine/pg"
	"github.com/kbcli/kbcli/engine/restore"
	"github.com/kbcli/kbcli/internal/testpg"
)

// TestTablespaceMade restores over CREATE TABLESPACE: the new ones lie beside the others,
// and the source's own are as they were.
func TestTablespaceMade(t *testing.T) {
	for _, major := range []int{13, 15, 18} {
		t.Run(fmt.Sprint(major), func(t *testing.T) {
			server := testpg.Start(t, testpg.Options{Major: major, SegmentSizeMB: 1})
			r := newRig(t, server, nil)
			spaces := serverDir(t)
			space := func(name string) string {
				dir := filepath.Join(spaces, name)
				if err := os.Mkdir(dir, 0o700); err != nil {
					t.Fatal(err)
				}
				if uid, gid := testpg.Owner(t); uid >= 0 {
					if err := os.Chown(dir, uid, gid); err != nil {
						t.Fatal(err)
					}
				}
				return dir
			}
			server.Exec(t, "create tablespace before location '"+space("before")+"'")
			server.Exec(t, "create table t0 tablespace before as select generate_series(1, 100) as id")
			r.startArchiving(t)
			r.backup(t, "b1")
			now := func() (at time.Time) {
				t.Helper()
				time.Sleep(20 * time.Millisecond)
				server.QueryRow(t, "select clock_timestamp()", &at)
				time.Sleep(20 * time.Millisecond)
				return at
			}
			early := now() // the next commit is that of a tablespace, behind the record that makes it
			server.Exec(t, "create tablespace one location '"+space("one")+"'")
			server.Exec(t, "create table t1 tablespace one as select generate_series(1, 100) as id")
			server.Exec(t, "create unlogged table u1 (id int) tablespace one")
			server.Exec(t, "create tablespace gone location '"+space("gone")+"'")
			server.Exec(t, "create table t2 tablespace gone as select 1 as id")
			server.Exec(t, "drop table t2")
			server.Exec(t, "drop tablespace gone")
			server.Exec(t, "create database d tablespace one")
			// records that lie on two pages
			made := 0
			long := strings.Repeat("x", 200)
			latest := func() *restore.Plan {
				t.Helper()
				var text string
				server.QueryRow(t, "select pg_current_wal_flush_lsn()::text", &text)
				lsn, err := pg.ParseLSN(text)
				if err != nil {
					t.Fatal(err)
				}
				if err := r.archiver.Wait(t.Context(), 1, lsn); err != nil {
					t.Fatal(err)
				}
				p, err := restore.MakePlan(t.Context(), r.catalog(t), catalog.Target{Latest: true})
				if err != nil {
					t.Fatal(err)
				}
				return p
			}
			for across := false; !across; {
				if made > 300 {
					t.Fatal("no record lies on two pages")
				}
				for range 20 {
					made++
					name := fmt.Sprint("many", made)
					server.Exec(t, "create tablespace "+name+" location '"+space(name+long)+"'")
				}
				for _, m := range latest().Made {
					across = across || int(m.LSN%pg.BlockSize)+24+len(m.Path) > pg.BlockSize
				}
			}
			server.Exec(t, fmt.Sprintf("create table t3 tablespace many%d as select generate_series(1, 100) as id", made))
			server.Disconnect()
			want := contents(t, server)
			p := latest()
			if len(p.Made) != made+2 {
				t.Errorf("%d tablespaces are made on the way, not %d", len(p.Made), made+2)
			}
			into, recovery := r.place(t)
			if err := p.Fetch(t.Context(), into); err != nil {
				t.Fatal(err)
			}
			if _, err := p.Recover(t.Context(), recovery); err != nil {
				log, _ := os.ReadFile(filepath.Join(recovery.Scratch, "recovery.log"))
				t.Fatalf("recover: %v\n%s", err, log)
			}
			x := testpg.StartAt(t, into.DataDirectory, testpg.Options{Major: major})
			x.Exec(t, "insert into u1 values (1)")
			x.Exec(t, "insert into t1 values (1000)")
			x.Exec(t, "delete from t1 where id = 1000")
			x.Exec(t, "checkpoint")
			same(t, want, contents(t, x))
			var places, files []string
			x.QueryRow(t, "select array_agg(pg_tablespace_location(oid)) from pg_tablespace where spcname not like 'pg_%'", &places)
			for _, p := range places {
				if filepath.Dir(p) != into.Tablespaces {
					t.Errorf("a tablespace lies in %s", p)
				}
			}
			for _, dir := range []string{into.DataDirectory, filepath.Dir(into.DataDirectory), filepath.Join(into.DataDirectory, "pg_tblspc"), into.Tablespaces} {
				entries, err := os.ReadDir(dir)
				if err != nil {
					t.Fatal(err)
				}
				for _, e := range entries {
					if strings.Trim(e.Name(), "abcdefghijklmnopqrstuvwxyz") == "" && len(e.Name()) < 3 && e.Type()&os.ModeSymlink != 0 {
						t.Errorf("%s is left in %s", e.Name(), dir)
					}
				}
				files = append(files, fmt.Sprint(len(entries)))
			}
			if n := fmt.Sprint(made + 2); files[2] != n || files[3] != n {
				t.Errorf("%s links and %s directories of tablespaces, not %s", files[2], files[3], n)
			}
			x.Stop(t, testpg.Fast)

			// the tablespace before which it stops is not there, and leaves nothing
			y := r.restore(t, catalog.Target{Time: early})
			if len(y.plan.Made) != 1 {
				t.Errorf("made on the way: %+v", y.plan.Made)
			}
			var names []string
			y.QueryRow(t, "select array_agg(spcname::text) from pg_tablespace where spcname not like 'pg_%'", &names)
			same(t, []string{"before"}, names)
			entries, err := os.ReadDir(filepath.Join(y.DataDir, "pg_tblspc"))
			if err != nil || len(entries) != 1 {
				t.Errorf("pg_tblspc has %v: %v", entries, err)
			}
			y.Stop(t, testpg.Fast)

			// nothing happened to the source
			same(t, want, contents(t, server))
			server.Restart(t)
			same(t, want, contents(t, server))
		})
	}
}

func same[T any](t *testing.T, want, got T) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
