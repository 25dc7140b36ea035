// SPDX-License-Identifier: Apache-2.0

package walscan_test

import (
	"bytes"
	"compress/gzip"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kbcli/kbcli/engine/pg"
	"github.com/kbcli/kbcli/engine/pg/walscan"
	"github.com/kbcli/kbcli/internal/testpg"
)

var update = flag.Bool("update", false, "make the WAL and the listings in testdata anew, from real servers")

// A fixture is the beginning of a segment of 1 MiB that a real server wrote:
// testdata/MAJOR.wal.gz, and what is in it, testdata/MAJOR.txt.
const fixtureSegment = pg.SegmentSize(1 << 20)

func fixtureName(major int) string {
	return filepath.Join("testdata", fmt.Sprintf("%d.wal.gz", major))
}

func fixture(t testing.TB, major int) []byte {
	t.Helper()
	f, err := os.Open(fixtureName(major))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// fixtureStart is the LSN of the first byte of a fixture, as its page tells it.
func fixtureStart(b []byte) pg.LSN {
	var l pg.LSN
	for i := 15; i >= 8; i-- {
		l = l<<8 | pg.LSN(b[i])
	}
	return l
}

// makeFixture runs a server and keeps a few pages of what it writes.
func makeFixture(t *testing.T, major int) {
	s := startForWAL(t, major, 1)
	each(t, s, "create table t (i int primary key, v text)", "insert into t values (0, '')", "select pg_switch_wal()")
	var start string
	s.QueryRow(t, "select pg_current_wal_insert_lsn()::text", &start)
	each(t, s,
		"insert into t select i, 'row ' || i from generate_series(1, 10) i",
		"begin; savepoint a; insert into t values (11, 'a'); savepoint b; insert into t values (12, 'b'); rollback to b; insert into t values (13, 'c'); commit",
		"begin; update t set v = 'never' where i = 1; rollback",
		"begin; delete from t where i = 2; prepare transaction 'two phases'",
		"commit prepared 'two phases'",
		"select pg_create_restore_point('a point')",
		"select pg_logical_emit_message(false, 'test', repeat('long ', 5000))",
		"truncate t",
		"select pg_switch_wal()",
	)
	s.Stop(t, testpg.Immediate)
	lsn, err := pg.ParseLSN(start)
	if err != nil {
		t.Fatal(err)
	}
	g := pg.Segment{Timeline: 1, Number: fixtureSegment.Number(lsn)}
	b, err := os.ReadFile(filepath.Join(s.DataDir, "pg_wal", fixtureSegment.Name(g)))
	if err != nil {
		t.Fatal(err)
	}
	used := len(bytes.TrimRight(b, "\x00"))
	b = b[:(used+pg.BlockSize-1)&^(pg.BlockSize-1)]
	var z bytes.Buffer
	w, err := gzip.NewWriterLevel(&z, gzip.BestCompression)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(fixtureName(major), z.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
}

// scanned is all that scanning gave.
type scanned struct {
	Records []string
	Err     string
	Next    pg.LSN
	Skipped bool
}

// text is everything that is in a record, decoded and raw.
func text(r *walscan.Record) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s end %s tli %s top %d origin %d", line(r), r.End, r.Timeline, r.TopXID, r.Origin)
	for _, blk := range r.Blocks {
		fmt.Fprintf(&b, " [%d %d %t %t]", blk.ImageLen, len(blk.Data), blk.ApplyImage, blk.WillInit)
	}
	if x, ok, err := r.Xact(); ok {
		fmt.Fprintf(&b, "; %+v", xactOf(x))
		if err != nil {
			fmt.Fprintf(&b, " %v", err)
		}
		return b.String()
	}
	kind, says, err := describe(r)
	if kind != "" {
		fmt.Fprintf(&b, "; %s %s", kind, strings.Join(says, ""))
	}
	if err != nil {
		fmt.Fprintf(&b, " %v", err)
	}
	return b.String()
}

// scan feeds b, which starts at start, in pieces of the sizes that cut gives;
// nil is all at once.
func scan(b []byte, start pg.LSN, cut func() int) scanned {
	var got scanned
	s := walscan.New(walscan.Options{SegmentSize: fixtureSegment, Start: start})
	for len(b) > 0 {
		n := len(b)
		if cut != nil {
			n = min(n, max(1, cut()))
		}
		err := s.Feed(b[:n], func(r *walscan.Record) error {
			got.Records = append(got.Records, text(r))
			return nil
		})
		if err != nil {
			got.Err = err.Error()
			break
		}
		b = b[n:]
	}
	got.Next, got.Skipped = s.NextRecord(), s.SkippedPartial()
	return got
}

func TestFixtures(t *testing.T) {
	for major := pg.OldestMajor; major <= pg.NewestMajor; major++ {
		t.Run(fmt.Sprint(major), func(t *testing.T) {
			if *update {
				makeFixture(t, major)
			}
			b := fixture(t, major)
			start := fixtureStart(b)
			got := scan(b, start, nil)
			if got.Err != "" || got.Skipped || got.Next != start+pg.LSN(fixtureSegment)+40 {
				t.Errorf("error %q, partial record %t, next record at %s", got.Err, got.Skipped, got.Next)
			}
			listing := strings.Join(got.Records, "\n") + "\n"
			name := filepath.Join("testdata", fmt.Sprintf("%d.txt", major))
			if *update {
				if err := os.WriteFile(name, []byte(listing), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), listing); diff != "" {
				t.Errorf("records (-%s +got):\n%s", name, diff)
			}
		})
	}
}
