// SPDX-License-Identifier: Apache-2.0

package walscan_test

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kbcli/kbcli/engine/pg"
	"github.com/kbcli/kbcli/engine/pg/walscan"
	"github.com/kbcli/kbcli/internal/testpg"
)

// dumped is a record as pg_waldump shows it.
type dumped struct {
	line string // rmgr, lengths, tx, lsn, prev and blocks; the same from a Record by line
	desc string
	rmgr string
}

var (
	dumpLine   = regexp.MustCompile(`^rmgr: (\S+) +len \(rec/tot\): +(\d+)/ *(\d+), tx: +(\d+), lsn: ([0-9A-F/]+), prev ([0-9A-F/]+), desc: (?s:(.*))$`)
	spaceFiles = regexp.MustCompile(`pg_tblspc/(\d+)/PG_\d+_\d+/`)
)

func parseDump(line string) (dumped, error) {
	m := dumpLine.FindStringSubmatch(line)
	if m == nil {
		return dumped{}, fmt.Errorf("pg_waldump wrote %.200q", line)
	}
	lsn, err1 := pg.ParseLSN(m[5])
	prev, err2 := pg.ParseLSN(m[6])
	if err := errors.Join(err1, err2); err != nil {
		return dumped{}, err
	}
	desc, blocks, _ := strings.Cut(m[7], ", blkref #")
	if blocks != "" {
		blocks = ", blkref #" + strings.TrimRight(blocks, " ")
	}
	return dumped{
		line: fmt.Sprintf("%s %s/%s tx %s lsn %s prev %s%s", m[1], m[2], m[3], m[4], lsn, prev, blocks),
		desc: spaceFiles.ReplaceAllString(desc, "pg_tblspc/$1/"),
		rmgr: m[1],
	}, nil
}

// line is what parseDump makes of the same record's line.
func line(r *walscan.Record) string {
	var blocks strings.Builder
	images := 0
	for _, b := range r.Blocks {
		fmt.Fprintf(&blocks, ", blkref #%d: rel %s", b.ID, b.Rel)
		if b.Fork != pg.MainFork {
			fmt.Fprintf(&blocks, " fork %s", b.Fork)
		}
		fmt.Fprintf(&blocks, " blk %d", b.Block)
		switch {
		case b.HasImage && b.ApplyImage:
			blocks.WriteString(" FPW")
		case b.HasImage:
			blocks.WriteString(" FPW for WAL verification")
		}
		images += b.ImageLen
	}
	return fmt.Sprintf("%s %d/%d tx %d lsn %s prev %s%s", r.Rmgr, int(r.TotalLen)-images, r.TotalLen, r.XID, r.Start, r.Prev, &blocks)
}

// waldump starts pg_waldump on the WAL in dir from a segment on. done waits for
// its end and gives what it said on standard error: it always ends by telling
// why it could not read on.
func waldump(t *testing.T, i testpg.Install, dir string, tli pg.TimelineID, start pg.LSN, args ...string) (out *bufio.Reader, done func() string) {
	t.Helper()
	argv := append(i.Waldump(t), append([]string{"-p", dir, "-t", tli.String(), "-s", start.String()}, args...)...)
	c := exec.Command(argv[0], argv[1:]...)
	c.Env = append(os.Environ(), "TZ=UTC", "LC_ALL=C")
	var stderr bytes.Buffer
	c.Stderr = &stderr
	pipe, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	return bufio.NewReaderSize(pipe, 1<<20), func() string {
		_, _ = io.Copy(io.Discard, pipe)
		_ = c.Wait()
		return stderr.String()
	}
}

// compare scans WAL and holds each record against pg_waldump's account of it. It
// returns how many records there were of each kind that describe knows.
func compare(t *testing.T, i testpg.Install, dir string, tli pg.TimelineID, size pg.SegmentSize, first uint64) map[string]int {
	t.Helper()
	out, done := waldump(t, i, dir, tli, size.Start(first))
	records, kinds, counts := 0, map[string]int{}, map[string]int{}
	wrong := 0
	errorf := func(format string, args ...any) {
		t.Helper()
		if wrong++; wrong > 10 {
			t.Fatalf("and so on")
		}
		t.Errorf(format, args...)
	}
	s := scanDir(t, dir, tli, size, first, ragged(), func(r *walscan.Record) error {
		text, err := nextDump(out)
		if err != nil {
			t.Fatalf("pg_waldump has nothing for %s: %v", line(r), err)
		}
		d, err := parseDump(text)
		if err != nil {
			t.Fatal(err)
		}
		records++
		counts[d.rmgr]++
		if got := line(r); got != d.line {
			errorf("%d:\n got %s\nwant %s", records, got, d.line)
		}
		kind, says, err := describe(r)
		if err != nil {
			errorf("%s: %v", d.line, err)
		}
		if kind != "" {
			kinds[kind]++
			checkDesc(errorf, r, d, says)
		} else if d.rmgr == "Transaction" && !strings.HasPrefix(d.desc, "INVALIDATION") && !strings.HasPrefix(d.desc, "ASSIGNMENT") {
			errorf("nothing decoded of %s %s", d.line, d.desc)
		}
		return nil
	})
	if text, err := nextDump(out); err == nil {
		t.Errorf("pg_waldump goes on: %.300s", text)
	}
	said := done()
	if m := regexp.MustCompile(`invalid record length at ([0-9A-F/]+)`).FindStringSubmatch(said); m != nil {
		if at, err := pg.ParseLSN(m[1]); err != nil || at != s.NextRecord() {
			t.Errorf("the scanner's next record would be at %s; pg_waldump: %s", s.NextRecord(), said)
		}
	} else if !strings.Contains(said, "error in WAL record") {
		t.Errorf("pg_waldump: %s", said)
	}
	if s.Major() != i.Major {
		t.Errorf("WAL of release %d taken for %d", i.Major, s.Major())
	}
	if diff := cmp.Diff(statsByRmgr(t, i, dir, tli, size.Start(first)), counts); diff != "" {
		t.Errorf("records by resource manager (-pg_waldump +walscan):\n%s", diff)
	}
	t.Logf("%d records compared, %d of kinds %v", records, len(kinds), kinds)
	return kinds
}

// nextDump is the next line about a record.
func nextDump(out *bufio.Reader) (string, error) {
	for {
		l, err := out.ReadString('\n')
		if err != nil {
			return "", err
		}
		if strings.HasPrefix(l, "rmgr: ") {
			return strings.TrimSuffix(l, "\n"), nil
		}
	}
}

func statsByRmgr(t *testing.T, i testpg.Install, dir string, tli pg.TimelineID, start pg.LSN) map[string]int {
	t.Helper()
	out, done := waldump(t, i, dir, tli, start, "--stats=rmgr")
	defer done()
	counts := map[string]int{}
	for {
		l, err := out.ReadString('\n')
		if err != nil {
			return counts
		}
		f := strings.Fields(l)
		if len(f) < 5 || f[0] == "Type" || f[0] == "Total" {
			continue
		}
		if n, err := strconv.Atoi(f[1]); err == nil && n > 0 {
			counts[f[0]] = n
		}
	}
}

func TestAgainstWaldump(t *testing.T) {
	for _, c := range []struct{ major, segmentMB int }{{13, 16}, {15, 16}, {17, 16}, {18, 16}, {15, 1}, {15, 64}, {18, 1}} {
		t.Run(fmt.Sprintf("%d/%dMB", c.major, c.segmentMB), func(t *testing.T) {
			s := startForWAL(t, c.major, c.segmentMB)
			everyKind(t, s)
			dir, size := filepath.Join(s.DataDir, "pg_wal"), pg.SegmentSize(c.segmentMB<<20)
			kinds := compare(t, s.Install, dir, 1, size, firstSegment(t, dir, size))
			want := []string{
				"COMMIT", "ABORT", "PREPARE", "COMMIT_PREPARED", "ABORT_PREPARED",
				"RESTORE_POINT", "PARAMETER_CHANGE", "CHECKPOINT_ONLINE", "CHECKPOINT_SHUTDOWN", "BACKUP_END",
				"OVERWRITE_CONTRECORD", "FPW_CHANGE", "SWITCH", "smgr create", "smgr truncate", "database copy", "database drop",
				"tablespace create", "tablespace drop", "relmap", "ASSIGNMENT", "RUNNING_XACTS", "visibility", "heap truncate", "multi insert", "insert", "update", "delete",
			}
			if c.major >= 15 {
				want = append(want, "database log")
			}
			for _, k := range want {
				if kinds[k] == 0 {
					t.Errorf("the workload made no %s", k)
				}
			}
		})
	}
}

// TestPromotion reads the first segment of a new timeline, which begins with
// pages of the old one.
func TestPromotion(t *testing.T) {
	for _, major := range []int{13, 15, 18} {
		t.Run(fmt.Sprint(major), func(t *testing.T) {
			primary := startForWAL(t, major, 1)
			each(t, primary, "create table t (i int)", "insert into t select generate_series(1, 30000)")
			s := testpg.Standby(t, primary)
			var end string
			s.QueryRow(t, "select pg_last_wal_replay_lsn()::text", &end)
			s.Promote(t)
			each(t, s, "insert into t select generate_series(1, 30000)")
			s.Stop(t, testpg.Fast)
			fork, err := pg.ParseLSN(end)
			if err != nil {
				t.Fatal(err)
			}
			size := pg.SegmentSize(1 << 20)
			kinds := compare(t, s.Install, filepath.Join(s.DataDir, "pg_wal"), 2, size, size.Number(fork))
			if kinds["END_OF_RECOVERY"] != 1 {
				t.Errorf("%d ends of recovery", kinds["END_OF_RECOVERY"])
			}
		})
	}
}
