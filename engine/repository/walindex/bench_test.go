// SPDX-License-Identifier: Apache-2.0

package walindex_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/cespare/xxhash/v2"

	blobfs "github.com/kbcli/kbcli/engine/blob/fs"
	"github.com/kbcli/kbcli/engine/pg"
	"github.com/kbcli/kbcli/engine/pg/walscan"
	"github.com/kbcli/kbcli/engine/repository"
	"github.com/kbcli/kbcli/engine/repository/walindex"
	"github.com/kbcli/kbcli/internal/testpg"
)

// segmentsOf runs work on a server and gives the whole segments it wrote.
func segmentsOf(b *testing.B, work func(s *testpg.Server, pgbench func(args ...string)), set map[string]string) (first uint64, segments [][]byte) {
	b.Helper()
	settings := map[string]string{"synchronous_commit": "off", "shared_buffers": "256MB"}
	for k, v := range set {
		settings[k] = v
	}
	s, _ := server(b, 15, 16, settings)
	pgbench := func(args ...string) {
		b.Helper()
		args = append([]string{"-h", s.SocketDir, "-p", fmt.Sprint(s.Port), "-U", "postgres"}, append(args, "postgres")...)
		if out, err := exec.Command(s.Program("pgbench"), args...).CombinedOutput(); err != nil {
			b.Fatalf("pgbench: %v\n%s", err, out)
		}
	}
	pgbench("-i", "-q", "-s", "20")
	at := func() uint64 {
		var l string
		each(b, s, "select pg_switch_wal()")
		s.QueryRow(b, "select pg_current_wal_insert_lsn()::text", &l)
		return pg.DefaultSegmentSize.Number(shortLSN(b, l))
	}
	each(b, s, "vacuum", "checkpoint")
	from := at()
	work(s, pgbench)
	to := at()
	s.Stop(b, testpg.Immediate)
	for n := from; n+1 < to; n++ { // the last is mostly empty
		raw, err := os.ReadFile(filepath.Join(s.DataDir, "pg_wal", pg.DefaultSegmentSize.Name(pg.Segment{Timeline: 1, Number: n})))
		if err != nil {
			b.Fatal(err)
		}
		segments = append(segments, raw)
	}
	return from, segments
}

// cpu is the time that this process has used so far, in all its threads.
func cpu(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkShare measures what the index costs of archiving a segment: to spool, to
// sync and read back, to scan, to compress and to put it into a directory. What
// sockets cost comes on top.
func BenchmarkShare(b *testing.B) {
	for _, c := range []struct {
		name string
		work func(s *testpg.Server, pgbench func(args ...string))
		set  map[string]string
	}{
		{"pgbench", func(_ *testpg.Server, pgbench func(...string)) {
			pgbench("-n", "-c", "4", "-j", "2", "-t", "12000")
		}, nil},
		{"pgbench without images", func(_ *testpg.Server, pgbench func(...string)) {
			pgbench("-n", "-c", "4", "-j", "2", "-t", "20000")
		}, map[string]string{"full_page_writes": "off"}},
		{"bulk", func(s *testpg.Server, _ func(...string)) {
			each(b, s, "create table bulk (i int primary key, v text)",
				"insert into bulk select i, md5(i::text) from generate_series(1, 500000) i", "create index on bulk (v)", "update bulk set i = -i where i % 5 = 0")
		}, nil},
	} {
		b.Run(c.name, func(b *testing.B) {
			first, segments := segmentsOf(b, c.work, c.set)
			share(b, first, segments)
		})
	}
}

func share(b *testing.B, first uint64, segments [][]byte) {
	size := pg.DefaultSegmentSize
	store, err := blobfs.Open(b.TempDir())
	if err != nil {
		b.Fatal(err)
	}
	repo, err := repository.Create(b.Context(), store, repository.Options{Clock: time.Now})
	if err != nil {
		b.Fatal(err)
	}
	l, err := repo.CreateLineage(b.Context(), repository.LineageInfo{Cluster: "c", SystemID: 1, Major: 15, SegmentSize: size})
	if err != nil {
		b.Fatal(err)
	}
	spool, err := os.Create(filepath.Join(b.TempDir(), "spool"))
	if err != nil {
		b.Fatal(err)
	}
	defer spool.Close()
	feed := func(fn func(*walscan.Record) error, next func(i int, at pg.LSN)) time.Duration {
		from := cpu(b)
		s := walscan.New(walscan.Options{SegmentSize: size, Start: size.Start(first)})
		for i, raw := range segments {
			next(i, s.NextRecord())
			for len(raw) > 0 {
				if err := s.Feed(raw[:1<<20], fn); err != nil {
					b.Fatal(err)
				}
				raw = raw[1<<20:]
			}
		}
		next(len(segments), s.NextRecord())
		return cpu(b) - from
	}
	var scan, index, rest time.Duration
	var encoded [][]byte
	records, stored, raw, txs, blocks := 0, 0, 0, 0, 0
	for b.Loop() {
		var latest pg.Timestamp // an archiver has to know it, index or not
		scan += feed(func(r *walscan.Record) error {
			records++
			if r.Rmgr == walscan.RmgrTransaction {
				x, _, err := r.Xact()
				latest = max(latest, x.Time)
				return err
			}
			return nil
		}, func(int, pg.LSN) {})
		var x walindex.Builder
		index += feed(x.Add, func(i int, at pg.LSN) {
			if i > 0 {
				got := x.Finish(at)
				enc := got.Encode()
				raw += len(enc)
				if err := l.PutIndex(b.Context(), got.Segment, enc); err != nil {
					b.Fatal(err)
				}
				if len(encoded) < len(segments) {
					encoded = append(encoded, enc)
				}
				txs += len(got.Transactions)
				for _, f := range got.Blocks {
					blocks += len(f.Runs)
				}
			}
			x.Begin(pg.Segment{Timeline: 1, Number: first + uint64(i)}, i == 0)
		})
		rest += ship(b, l, spool, first, segments)
	}
	for _, enc := range encoded {
		stored += len(repository.Compress(nil, enc))
	}
	n := float64(b.N * len(segments))
	ms := func(d time.Duration, name string) { b.ReportMetric(d.Seconds()*1000/n, name) }
	ms(scan, "ms-scan")
	ms(index-scan, "ms-index")
	ms(rest, "ms-rest")
	b.ReportMetric(100*float64(index-scan)/float64(rest+scan), "%of-the-rest")
	b.ReportMetric(float64(records)/n, "records")
	b.ReportMetric(float64(txs)/n, "transactions")
	b.ReportMetric(float64(blocks)/n, "runs")
	b.ReportMetric(float64(raw)/n/1024, "KiB-raw")
	b.ReportMetric(float64(stored)/float64(len(segments))/1024, "KiB-stored")
	b.ReportMetric(float64(len(segments)), "segments")
	b.ReportMetric(0, "ns/op")
}

// ship does what an archiver does with segments, but scan them.
func ship(b *testing.B, l *repository.Lineage, spool *os.File, first uint64, segments [][]byte) time.Duration {
	from := cpu(b)
	buf := make([]byte, 1<<20)
	for i, raw := range segments {
		const piece = 128 << 10
		for off := 0; off < len(raw); off += piece {
			if _, err := spool.WriteAt(raw[off:off+piece], int64(off)); err != nil {
				b.Fatal(err)
			}
			if (off+piece)%(1<<20) == 0 {
				if err := syscall.Fdatasync(int(spool.Fd())); err != nil {
					b.Fatal(err)
				}
			}
		}
		var frames [][]byte
		sum := xxhash.New()
		for off := 0; off < len(raw); off += len(buf) {
			if _, err := spool.ReadAt(buf, int64(off)); err != nil {
				b.Fatal(err)
			}
			frames = append(frames, repository.Compress(nil, buf))
			_, _ = sum.Write(buf)
		}
		g := pg.Segment{Timeline: 1, Number: first + uint64(i)}
		if err := l.PutSegment(b.Context(), g, frames, sum.Sum64()); err != nil {
			b.Fatal(err)
		}
	}
	used := cpu(b) - from
	for i := range segments {
		if err := l.DeleteSegment(b.Context(), pg.Segment{Timeline: 1, Number: first + uint64(i)}); err != nil {
			b.Fatal(err)
		}
	}
	return used
}
