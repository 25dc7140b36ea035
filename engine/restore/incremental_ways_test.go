// SPDX-License-Identifier: Apache-2.0

package restore_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cespare/xxhash/v2"
	"github.com/google/go-cmp/cmp"

	"github.com/kbcli/kbcli/engine/catalog"
	"github.com/kbcli/kbcli/engine/pg"
	"github.com/kbcli/kbcli/engine/repository"
	"github.com/kbcli/kbcli/engine/restore"
	"github.com/kbcli/kbcli/internal/testpg"
)

// fetched unpacks a backup, and has pg_verifybackup look at it.
func (r *rig) fetched(t *testing.T, name string) (dir string) {
	t.Helper()
	p, err := restore.MakePlan(t.Context(), r.catalog(t), catalog.Target{Backup: name})
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	into, _ := r.place(t)
	if err := p.Fetch(t.Context(), into); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	asServer(t, filepath.Join(r.server.BinDir, "pg_verifybackup"), "--no-parse-wal", "--quiet", into.DataDirectory)
	return into.DataDirectory
}

func sumsOf(files map[string][]byte) map[string]uint64 {
	out := map[string]uint64{}
	for p, b := range files {
		if len(b) > 0 {
			out[p] = xxhash.Sum64(b)
		}
	}
	return out
}

// TestIncrementalAnyDeleted deletes the backups of a chain in any order, and compares
// after each what is left, file by file, with what was on the server's disk.
func TestIncrementalAnyDeleted(t *testing.T) {
	server := testpg.Start(t, testpg.Options{SegmentSizeMB: 1, Settings: map[string]string{"autovacuum": "off", "wal_keep_size": "1GB"}})
	r := newRig(t, server, nil)
	server.Exec(t, "create table t (id serial primary key, k int, v text, a int[], p point)")
	seed := uint64(time.Now().UnixNano())
	t.Log("seed", seed)
	rnd := rand.New(rand.NewPCG(seed, 6))
	c := &change{Rand: rnd, s: server}
	server.Exec(t, c.fill("t", 40000))
	r.startArchiving(t)
	var m *repository.Manifest
	want := map[string]map[string]uint64{}
	for i := range 6 {
		name := fmt.Sprint("b", i)
		for range rnd.IntN(4) {
			from := rnd.IntN(35000)
			server.Exec(t, fmt.Sprintf("update t set k = k + 1 where id between %d and %d", from, from+rnd.IntN(4000)))
			server.Exec(t, fmt.Sprintf("delete from t where id %% 500 = %d", rnd.IntN(500)))
			server.Exec(t, fmt.Sprintf("create table made%d_%d as select * from t where id < %d", i, rnd.IntN(1e9), rnd.IntN(3000)))
		}
		if rnd.IntN(3) == 0 {
			server.Exec(t, "vacuum full t")
		}
		server.Exec(t, "checkpoint")
		if m == nil {
			m = r.backup(t, name)
		} else {
			m = r.incremental(t, name, m)
		}
		server.Disconnect()
		server.Exec(t, "checkpoint")
		want[name] = sumsOf(relationFiles(t, server.DataDir))
	}
	left := slices.Sorted(maps.Keys(want))
	rnd.Shuffle(len(left), func(i, j int) { left[i], left[j] = left[j], left[i] })
	t.Log("deleted in this order:", left)
	for len(left) > 1 {
		r.delete(t, left[0])
		left = left[1:]
		for _, name := range left {
			dir := r.fetched(t, name)
			if diff := cmp.Diff(want[name], sumsOf(relationFiles(t, dir))); diff != "" {
				t.Errorf("%s, with %v left (-server +restored):\n%s", name, left, diff)
			}
			os.RemoveAll(filepath.Dir(dir))
		}
	}
	r.delete(t, left[0])
	for name := range want {
		if numbers, _, err := r.lineage.Packs(t.Context(), name); err != nil || len(numbers) > 0 {
			t.Errorf("packs %v of %s lie there for nobody: %v", numbers, name, err)
		}
	}
}

// TestIncrementalSecondFile has a relation of more than a segment file: it is changed
// across the border, grows over it, shrinks to it and grows again.
func TestIncrementalSecondFile(t *testing.T) {
	server := testpg.Start(t, testpg.Options{Settings: map[string]string{"autovacuum": "off"}})
	r := newRig(t, server, nil)
	server.Exec(t, "create table big (i int, v text)")
	server.Exec(t, "alter table big alter v set storage plain")
	server.Exec(t, "insert into big values (0, 'first')")
	var rel string
	server.QueryRow(t, "select pg_relation_filepath('big')", &rel)
	path := filepath.Join(server.DataDir, rel)
	// pages of zeros, as a crash leaves them, and the next block is of the second file
	server.Stop(t, testpg.Fast)
	if err := os.Truncate(path, (pg.RelSegBlocks-2)*pg.BlockSize); err != nil {
		t.Fatal(err)
	}
	server.Start(t)
	r.startArchiving(t)
	fill := func(n int) {
		server.Exec(t, fmt.Sprintf("insert into big select i, repeat('x', 3000) from generate_series(1, %d) i", n))
	}
	fill(20)
	second := func() int64 {
		t.Helper()
		info, err := os.Stat(path + ".1")
		if err != nil {
			t.Fatal(err)
		}
		return info.Size()
	}
	server.Exec(t, "checkpoint")
	if second() == 0 {
		t.Fatal("there is no second file")
	}
	m := r.backup(t, "full")
	for i, step := range []func(){
		func() { server.Exec(t, "update big set i = i + 1 where i in (19, 20)") },
		func() { fill(2400) },
		func() { // to nothing of the second file, which stays
			server.Exec(t, "delete from big where ctid >= '(131070,0)'")
			server.Exec(t, "vacuum big")
			if n := second(); n != 0 {
				t.Fatalf("the second file has %d bytes", n)
			}
		},
		func() { fill(100) },
	} {
		step()
		server.Exec(t, "checkpoint")
		m = r.incremental(t, fmt.Sprint("i", i), m)
		if m.ReadAll != "" || m.NewBytes > 40<<20 {
			t.Errorf("%s: %d bytes are new: %q", m.Name, m.NewBytes, m.ReadAll)
		}
		server.Exec(t, "checkpoint")
		if i%2 == 1 && i < 3 {
			continue // a gigabyte is written for each
		}
		p, err := restore.MakePlan(t.Context(), r.catalog(t), catalog.Target{Backup: m.Name})
		if err != nil {
			t.Fatal(err)
		}
		into, _ := r.place(t)
		if err := p.Fetch(t.Context(), into); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{rel, rel + ".1"} {
			sameFile(t, filepath.Join(server.DataDir, name), filepath.Join(into.DataDirectory, name))
		}
		os.RemoveAll(filepath.Dir(into.DataDirectory))
	}
}

// sameFile compares two files without having them in memory.
func sameFile(t *testing.T, want, got string) {
	t.Helper()
	w, err := os.Open(want)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	g, err := os.Open(got)
	if err != nil {
		t.Error(err)
		return
	}
	defer g.Close()
	a, b := make([]byte, 1<<20), make([]byte, 1<<20)
	for at := int64(0); ; at += 1 << 20 {
		n, err := io.ReadFull(w, a)
		k, kerr := io.ReadFull(g, b)
		if n != k || !bytes.Equal(a[:n], b[:k]) {
			t.Errorf("%s differs from the server's behind %d", got, at)
			return
		}
		if err != nil || kerr != nil {
			return
		}
	}
}

// TestIncrementalMinimal: where the server ran with wal_level=minimal since the base,
// everything is read, and no recovery is planned that would pass it.
func TestIncrementalMinimal(t *testing.T) {
	server := testpg.Start(t, testpg.Options{SegmentSizeMB: 1, Settings: map[string]string{"autovacuum": "off", "wal_keep_size": "1GB"}})
	r := newRig(t, server, nil)
	server.Exec(t, "create table t as select i, md5(i::text) as v from generate_series(1, 20000) i")
	r.startArchiving(t)
	m := r.backup(t, "full")
	early := m.StopLSN
	r.stopArchiving(t)
	server.Exec(t, "select pg_drop_replication_slot('kbcli_t')")
	server.Set(t, map[string]string{"wal_level": "minimal", "max_wal_senders": "0"})
	server.Restart(t)
	server.Exec(t, "create table unseen as select i, md5(i::text) as v from generate_series(1, 20000) i") // no WAL tells of its rows
	server.Set(t, map[string]string{"wal_level": "replica", "max_wal_senders": "10"})
	server.Restart(t)
	r.startArchiving(t)
	server.Exec(t, "update t set v = 'x' where i % 1000 = 0")
	want := contents(t, server)
	server.Disconnect()
	server.Exec(t, "checkpoint")
	m = r.incremental(t, "inc", m)
	if !strings.Contains(m.ReadAll, "wal_level=minimal") || m.NewBytes > m.DataBytes*2/3 {
		t.Errorf("%d of %d bytes are new; it read everything because %q", m.NewBytes, m.DataBytes, m.ReadAll)
	}
	r.agrees(t, m)
	r.judge(t, "inc", want)
	r.delete(t, "inc")
	_, err := restore.MakePlan(t.Context(), r.catalog(t), catalog.Target{Latest: true})
	var minimal *restore.MinimalWALError
	if !errors.As(err, &minimal) || minimal.LSN < early {
		t.Errorf("a plan over it: %v", err)
	}
}

// TestIncrementalReset: where pg_resetwal made the log begin anew, everything is read.
func TestIncrementalReset(t *testing.T) {
	server := testpg.Start(t, testpg.Options{SegmentSizeMB: 1, Settings: map[string]string{"autovacuum": "off"}})
	r := newRig(t, server, nil)
	server.Exec(t, "create table t as select i, md5(i::text) as v from generate_series(1, 20000) i")
	r.startArchiving(t)
	m := r.backup(t, "full")
	server.Exec(t, "update t set v = 'x' where i % 100 = 0")
	server.Kill9(t)
	os.Remove(filepath.Join(server.DataDir, "postmaster.pid"))
	asServer(t, filepath.Join(server.BinDir, "pg_resetwal"), "-f", server.DataDir)
	server.Start(t)
	server.Exec(t, "truncate t")
	server.Exec(t, "insert into t select i, 'new' from generate_series(1, 1000) i")
	want := contents(t, server)
	server.Disconnect()
	server.Exec(t, "checkpoint")
	m = r.incremental(t, "inc", m)
	if m.ReadAll == "" {
		t.Error("it did not read everything")
	}
	t.Log(m.ReadAll)
	r.agrees(t, m)
	r.judge(t, "inc", want)
}
