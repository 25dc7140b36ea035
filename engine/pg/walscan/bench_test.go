// SPDX-License-Identifier: Apache-2.0

package walscan_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/kbcli/kbcli/engine/pg"
	"github.com/kbcli/kbcli/engine/pg/walscan"
	"github.com/kbcli/kbcli/internal/testpg"
)

// pgbenchWAL is WAL of one of two kinds: mostly page images, or mostly small
// records. It begins at a segment start and ends with a whole segment.
func pgbenchWAL(b *testing.B, images bool) ([]byte, pg.LSN) {
	b.Helper()
	s := startForWAL(b, 15, 16)
	s.Set(b, map[string]string{"synchronous_commit": "off", "shared_buffers": "256MB"})
	s.Restart(b)
	run := func(args ...string) {
		b.Helper()
		args = append([]string{"-h", s.SocketDir, "-p", fmt.Sprint(s.Port), "-U", "postgres"}, append(args, "postgres")...)
		if out, err := exec.Command(s.Program("pgbench"), args...).CombinedOutput(); err != nil {
			b.Fatalf("pgbench: %v\n%s", err, out)
		}
	}
	run("-i", "-q", "-s", "5")
	var from, to string
	each(b, s, "vacuum", "checkpoint", "select pg_switch_wal()")
	if images {
		s.QueryRow(b, "select pg_current_wal_insert_lsn()::text", &from)
		each(b, s, "update pgbench_accounts set abalance = 1 where aid % 60 = 0")
	} else {
		fullPageWrites(b, s, false)
		each(b, s, "select pg_switch_wal()")
		s.QueryRow(b, "select pg_current_wal_insert_lsn()::text", &from)
		run("-n", "-c", "4", "-j", "2", "-t", "12000")
	}
	each(b, s, "select pg_switch_wal()")
	s.QueryRow(b, "select pg_current_wal_insert_lsn()::text", &to)
	s.Stop(b, testpg.Immediate)

	start, err := pg.ParseLSN(from)
	if err != nil {
		b.Fatal(err)
	}
	end, err := pg.ParseLSN(to)
	if err != nil {
		b.Fatal(err)
	}
	size := pg.DefaultSegmentSize
	var wal []byte
	for n := size.Number(start); n < size.Number(end); n++ {
		seg, err := os.ReadFile(filepath.Join(s.DataDir, "pg_wal", size.Name(pg.Segment{Timeline: 1, Number: n})))
		if err != nil {
			b.Fatal(err)
		}
		wal = append(wal, seg...)
	}
	// What follows the last switch is nothing but zeros, quick to pass over.
	wal = bytes.TrimRight(wal, "\x00")
	return wal, size.Floor(start)
}

func BenchmarkFeed(b *testing.B) {
	for _, c := range []struct {
		name   string
		images bool
	}{{"images", true}, {"small", false}} {
		wal, start := pgbenchWAL(b, c.images)
		for _, piece := range []int{len(wal), 128 << 10} {
			b.Run(fmt.Sprintf("%s/pieces=%d", c.name, piece), func(b *testing.B) {
				b.SetBytes(int64(len(wal)))
				b.ReportAllocs()
				records, images, rows := 0, 0, 0
				for b.Loop() {
					records, images, rows = 0, 0, 0
					s := walscan.New(walscan.Options{SegmentSize: pg.DefaultSegmentSize, Start: start})
					for left := wal; len(left) > 0; {
						n := min(piece, len(left))
						if err := s.Feed(left[:n], func(r *walscan.Record) error {
							records++
							for i := range r.Blocks {
								images += r.Blocks[i].ImageLen
							}
							if h, ok, _ := r.HeapOp(); ok {
								rows += h.Inserted + h.Updated + h.Deleted
							}
							return nil
						}); err != nil {
							b.Fatal(err)
						}
						left = left[n:]
					}
				}
				b.ReportMetric(float64(records)*float64(b.N)/b.Elapsed().Seconds()/1e6, "Mrecords/s")
				b.ReportMetric(100*float64(images)/float64(len(wal)), "%images")
				b.ReportMetric(float64(len(wal))/(1<<20), "MiB")
			})
		}
	}
}
