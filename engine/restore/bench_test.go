// SPDX-License-Identifier: Apache-2.0

package restore_test

import (
	"fmt"
	"os"
	"testing"

	"github.com/kbcli/kbcli/engine/catalog"
	"github.com/kbcli/kbcli/engine/restore"
	"github.com/kbcli/kbcli/internal/testpg"
)

// BenchmarkFull backs a server up and fetches it again: the whole way of the bytes, from
// the data directory through the repository in a directory to another. What a second and
// a core make of it is in -cpuprofile.
func BenchmarkFull(b *testing.B) {
	for _, data := range []struct {
		name string
		sql  []string
	}{
		{"pages", []string{
			"create table accounts (aid int, bid int, abalance int, filler char(84)) with (fillfactor = 90)",
			"insert into accounts select g, 1 + g / 100000, 0, '' from generate_series(1, 2500000) g",
			"create index on accounts (aid)",
		}},
		{"random", []string{
			"create extension pgcrypto",
			"create table random (id int primary key, b bytea)",
			"insert into random select g, gen_random_bytes(1000) from generate_series(1, 120000) g",
			"create table words as select g as i, md5(g::text) || ' ' || md5((g / 7)::text) as w from generate_series(1, 1000000) g",
		}},
		{"tables", []string{
			`do $$ begin for i in 1..1500 loop
			execute format('create table t%s (id int primary key, v text)', i);
			execute format('insert into t%s select g, md5(g::text) from generate_series(1, 20) g', i);
			end loop; end $$`,
		}},
	} {
		b.Run(data.name, func(b *testing.B) {
			s := testpg.Start(b, testpg.Options{Settings: map[string]string{"max_locks_per_transaction": "4096", "max_wal_size": "4GB"}})
			for _, q := range data.sql {
				s.Exec(b, q)
			}
			s.Exec(b, "vacuum freeze")
			s.Exec(b, "checkpoint")
			r := newRig(b, s, nil)
			r.startArchiving(b)
			n := 0
			b.Run("backup", func(b *testing.B) {
				var size int64
				for b.Loop() {
					n++
					size = r.backup(b, fmt.Sprintf("b%d", n)).DataBytes
				}
				b.SetBytes(size)
			})
			plan, err := restore.MakePlan(b.Context(), r.catalog(b), catalog.Target{Latest: true})
			if err != nil {
				b.Fatal(err)
			}
			b.Run("fetch", func(b *testing.B) {
				for b.Loop() {
					b.StopTimer()
					into, _ := r.place(b)
					b.StartTimer()
					if err := plan.Fetch(b.Context(), into); err != nil {
						b.Fatal(err)
					}
					b.StopTimer()
					if err := os.RemoveAll(into.DataDirectory); err != nil {
						b.Fatal(err)
					}
					b.StartTimer()
				}
				b.SetBytes(plan.BackupBytes)
			})
		})
	}
}
