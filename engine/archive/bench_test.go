// SPDX-License-Identifier: Apache-2.0

package archive

import (
	"context"
	"fmt"
	"log/slog"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/kbcli/kbcli/engine/blob/fs"
	"github.com/kbcli/kbcli/engine/pg"
	"github.com/kbcli/kbcli/engine/pg/walscan"
	"github.com/kbcli/kbcli/engine/repository"
	"github.com/kbcli/kbcli/internal/testpg"
	"github.com/kbcli/kbcli/internal/testrepo"
)

// BenchmarkIndex measures what the index costs an archiver: the same WAL of a real
// server is archived into a directory, in turn with the index, and with its records read
// for the times of commits alone. The CPU is that of this process, in which nothing else
// works. %more is the median of the ratios of neighbours, less one.
func BenchmarkIndex(b *testing.B) {
	for _, c := range []struct {
		name string
		set  map[string]string
		work func(b *testing.B, s *testpg.Server)
	}{
		{"pgbench", nil, func(b *testing.B, s *testpg.Server) { transactions(b, s, 30000) }},
		{"pgbench without images", map[string]string{"full_page_writes": "off"}, func(b *testing.B, s *testpg.Server) { transactions(b, s, 100000) }},
		{"bulk", nil, func(b *testing.B, s *testpg.Server) {
			s.Exec(b, "create table bulk (i int primary key, v text)")
			s.Exec(b, "insert into bulk select i, md5(i::text) from generate_series(1, 1000000) i")
			s.Exec(b, "create index on bulk (v)")
			s.Exec(b, "update bulk set i = -i where i % 5 = 0")
		}},
	} {
		b.Run(c.name, func(b *testing.B) {
			settings := map[string]string{
				"synchronous_commit": "off", "shared_buffers": "256MB", "wal_keep_size": "8GB", "max_wal_size": "8GB",
				"checkpoint_timeout": "1h", "autovacuum": "off", "max_replication_slots": "1000",
			}
			for k, v := range c.set {
				settings[k] = v
			}
			s := testpg.Start(b, testpg.Options{Major: 15, Settings: settings})
			pgbench(b, s, "-i", "-q", "-s", "20")
			s.Exec(b, "vacuum")
			s.Exec(b, "checkpoint")
			from := switched(b, s)
			c.work(b, s)
			to := switched(b, s)
			var with, without time.Duration
			var ratios []float64
			for n := 0; b.Loop(); n++ {
				var got [2]time.Duration
				for k := range got {
					k = (k + n) % 2 // so that neither is always first
					got[k] = archived(b, s, from, to, k == 1)
				}
				without += got[0]
				with += got[1]
				ratios = append(ratios, float64(got[1])/float64(got[0]))
			}
			slices.Sort(ratios)
			segments := float64(pg.DefaultSegmentSize.Number(to) - pg.DefaultSegmentSize.Number(from))
			b.ReportMetric(with.Seconds()*1000/segments/float64(b.N), "ms-with")
			b.ReportMetric(without.Seconds()*1000/segments/float64(b.N), "ms-without")
			b.ReportMetric(100*(ratios[len(ratios)/2]-1), "%more")
			b.ReportMetric(segments, "segments")
			b.ReportMetric(0, "ns/op")
		})
	}
}

func transactions(b *testing.B, s *testpg.Server, each int) {
	pgbench(b, s, "-n", "-c", "4", "-j", "2", "-t", fmt.Sprint(each))
}

func pgbench(b *testing.B, s *testpg.Server, args ...string) {
	b.Helper()
	args = append([]string{"-h", s.SocketDir, "-p", fmt.Sprint(s.Port), "-U", "postgres"}, append(args, "postgres")...)
	if out, err := exec.Command(s.Program("pgbench"), args...).CombinedOutput(); err != nil {
		b.Fatalf("pgbench: %v\n%s", err, out)
	}
}

// switched ends the segment that the server writes, and gives where the next begins.
func switched(b *testing.B, s *testpg.Server) pg.LSN {
	b.Helper()
	s.Exec(b, "select pg_switch_wal()")
	var text string
	s.QueryRow(b, "select pg_current_wal_lsn()::text", &text)
	at, err := pg.ParseLSN(text)
	if err != nil {
		b.Fatal(err)
	}
	return at
}

// archived archives the segments from one position to another, and gives the CPU it took.
func archived(b *testing.B, s *testpg.Server, from, to pg.LSN, index bool) time.Duration {
	b.Helper()
	ctx, cancel := context.WithTimeout(b.Context(), 10*time.Minute)
	defer cancel()
	dir := b.TempDir()
	store, err := fs.Create(filepath.Join(dir, "repo"))
	if err != nil {
		b.Fatal(err)
	}
	_, l := testrepo.New(b, store, repository.Options{}, testrepo.Info(b, s))
	a, err := New(Config{
		Lineage: l, Conninfo: s.ConnString("postgres"), Slot: "kbcli_t", Spool: filepath.Join(dir, "spool"),
		SpoolLimit: 1 << 30, WhenFull: WaitWhenFull, TailInterval: time.Second, BeatInterval: time.Minute,
		Clock: time.Now, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		b.Fatal(err)
	}
	if !index {
		var latest pg.Timestamp
		a.instead = func(r *walscan.Record) error {
			if r.Rmgr != walscan.RmgrTransaction {
				return nil
			}
			x, _, err := r.Xact()
			latest = max(latest, x.Time)
			return err
		}
	}
	// the archive begins where the WAL of interest does
	s.Exec(b, "select pg_create_physical_replication_slot('kbcli_t', true)")
	start := place{1, pg.DefaultSegmentSize.Floor(from)}
	if err := a.savePosition(start, true); err != nil {
		b.Fatal(err)
	}
	before := ownCPU(b)
	run, stop := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- a.Run(run) }()
	if err := a.Wait(ctx, 1, pg.DefaultSegmentSize.Floor(to)); err != nil {
		b.Fatalf("%v: %+v", err, a.Status())
	}
	used := ownCPU(b) - before
	stop()
	if err := <-done; err != nil {
		b.Fatal(err)
	}
	if _, err := l.Index(ctx, pg.Segment{Timeline: 1, Number: pg.DefaultSegmentSize.Number(from)}); (err == nil) != index {
		b.Fatalf("index wanted: %v, and: %v", index, err)
	}
	for range 100 { // the server notices a moment later that nobody streams any more
		var free bool
		if s.QueryRow(b, "select not active from pg_replication_slots where slot_name = 'kbcli_t'", &free); free {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	s.Exec(b, "select pg_drop_replication_slot('kbcli_t')")
	return used
}

// ownCPU is what this process has used so far, in all its threads.
func ownCPU(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
