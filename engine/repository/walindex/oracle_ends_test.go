// SPDX-License-Identifier: Apache-2.0

package walindex_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kbcli/kbcli/engine/pg"
	"github.com/kbcli/kbcli/engine/pg/walscan"
	"github.com/kbcli/kbcli/engine/repository/walindex"
	"github.com/kbcli/kbcli/internal/testpg"
)

// counted is what one resource manager wrote.
type counted struct{ Records, Bytes uint64 }

var (
	dumpStamp  = regexp.MustCompile(`\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{6} UTC`)
	dumpRels   = regexp.MustCompile(`; rels: ([^;]*)`)
	dumpLSNs   = regexp.MustCompile(`[0-9A-F]+/[0-9A-F]+`)
	checkpoint = regexp.MustCompile(`^CHECKPOINT_(ONLINE|SHUTDOWN) redo ([0-9A-F/]+); tli (\d+); prev tli (\d+);`)
	recovered  = regexp.MustCompile(`^END_OF_RECOVERY tli (\d+); prev tli (\d+); time (.*UTC)`)
)

func stamped(t pg.Timestamp) string { return t.Time().Format("2006-01-02 15:04:05.000000 UTC") }

// end is what pg_waldump says of the end of a transaction, or of its being prepared. When
// it is prepared it is not yet told which files go.
func end(op, xid, desc string) string {
	subs := 0
	if m := subxacts.FindStringSubmatch(desc); m != nil {
		subs = len(strings.Fields(m[1]))
	}
	s := fmt.Sprintf("%s xid %s at %s subtransactions %d", op, xid, dumpStamp.FindString(desc), subs)
	if m := dumpRels.FindStringSubmatch(desc); m != nil && op != "PREPARE" {
		var rels []string
		for _, path := range strings.Fields(m[1]) {
			rels = append(rels, file(path))
		}
		slices.Sort(rels)
		s += " drops " + strings.Join(rels, " ")
	}
	return s
}

// xlog is what pg_waldump says of records of recovery, "" of others.
func xlog(t testing.TB, op, desc string) string {
	switch op {
	case "RESTORE_POINT":
		return "restore point " + strings.TrimPrefix(desc, "RESTORE_POINT ")
	case "BACKUP_END":
		return "backup end " + shortLSN(t, dumpLSNs.FindString(desc)).String()
	case "PARAMETER_CHANGE":
		return strings.TrimPrefix(desc, "PARAMETER_CHANGE ")
	}
	if m := checkpoint.FindStringSubmatch(desc); m != nil {
		return fmt.Sprintf("checkpoint redo %s shutdown %t", shortLSN(t, m[2]), m[1] == "SHUTDOWN")
	}
	if m := recovered.FindStringSubmatch(desc); m != nil {
		return fmt.Sprintf("timeline %s from %s at %s", m[1], m[2], m[3])
	}
	return ""
}

// ended is what an index says of all that, in the same words.
func ended(x *walindex.Index, fact func(lsn pg.LSN, format string, args ...any)) {
	for _, tx := range x.Transactions {
		s := fmt.Sprintf("%s xid %d at %s subtransactions %d", tx.Kind, tx.XID, stamped(tx.Time), tx.Subxacts)
		if len(tx.Dropped) > 0 && tx.Kind != walscan.Prepare {
			var rels []string
			for _, r := range tx.Dropped {
				rels = append(rels, r.String())
			}
			slices.Sort(rels)
			s += " drops " + strings.Join(rels, " ")
		}
		fact(tx.Start, "%s", s)
	}
	for _, r := range x.RestorePoints {
		fact(r.Start, "restore point %s", r.Name)
	}
	for _, b := range x.BackupEnds {
		fact(b.Start, "backup end %s", b.From)
	}
	onOff := map[bool]string{true: "on", false: "off"}
	for _, p := range x.Parameters {
		fact(p.Start, "max_connections=%d max_worker_processes=%d max_wal_senders=%d max_prepared_xacts=%d max_locks_per_xact=%d wal_level=%s wal_log_hints=%s track_commit_timestamp=%s",
			p.MaxConnections, p.MaxWorkerProcesses, p.MaxWalSenders, p.MaxPreparedXacts, p.MaxLocksPerXact, p.WalLevel, onOff[p.WalLogHints], onOff[p.TrackCommitTimestamp])
	}
	for _, c := range x.Checkpoints {
		fact(c.Start, "checkpoint redo %s shutdown %t", c.Redo, c.Shutdown)
	}
	for _, c := range x.Timelines {
		fact(c.Start, "timeline %s from %s at %s", c.Timeline, c.Previous, stamped(c.Time))
	}
}

// everyKind sees to it that something of each kind was compared.
func everyKind(t *testing.T, all []*walindex.Index, major int, level string) {
	t.Helper()
	want := []string{
		"COMMIT xid", "ABORT xid", "PREPARE xid", "COMMIT_PREPARED xid", "ABORT_PREPARED xid", " drops ", "restore point ", "backup end ", "max_connections=77 ",
		"shutdown true", "shutdown false", " create ", " cut ", " map database", "database copy ", "database drop ", "tablespace create ", "tablespace drop ",
	}
	if major >= 15 {
		want = append(want, "database create ")
	}
	if level == "logical" {
		want = append(want, " truncate ")
	}
	facts := strings.Join(tell(t, all).Facts, "\n")
	for _, w := range want {
		if !strings.Contains(facts, w) {
			t.Errorf("the workload made nothing of %q", w)
		}
	}
}

// The end of a timeline is told as pg_waldump tells it.
func TestPromotedAgainstWaldump(t *testing.T) {
	for _, major := range []int{13, 15, 18} {
		t.Run(fmt.Sprint(major), func(t *testing.T) {
			primary, _ := server(t, major, 1, nil)
			each(t, primary, "create table t (i int)", "insert into t select generate_series(1, 20000)")
			s := testpg.Standby(t, primary)
			s.CatchUp(t, primary)
			s.Promote(t)
			each(t, s, "insert into t select generate_series(1, 100)", "checkpoint")
			s.Stop(t, testpg.Fast)
			size, dir := pg.SegmentSize(1<<20), filepath.Join(s.DataDir, "pg_wal")
			var names []string
			files, err := os.ReadDir(dir)
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range files {
				if g, err := size.ParseName(f.Name()); err == nil && g.Timeline == 2 {
					names = append(names, f.Name())
				}
			}
			g, err := size.ParseName(names[0])
			if err != nil {
				t.Fatal(err)
			}
			var got, want []string
			scan := walscan.New(walscan.Options{SegmentSize: size, Start: size.Start(g.Number)})
			var b walindex.Builder
			raw, err := os.ReadFile(filepath.Join(dir, names[0]))
			if err != nil {
				t.Fatal(err)
			}
			b.Begin(g, true)
			_ = scan.Feed(raw, b.Add) // it ends somewhere in it
			x, err := walindex.Decode(b.Finish(scan.NextRecord()).Encode())
			if err != nil {
				t.Fatal(err)
			}
			ended(x, func(lsn pg.LSN, format string, args ...any) {
				got = append(got, fmt.Sprintf("%s ", lsn)+fmt.Sprintf(format, args...))
			})
			argv := append(s.Waldump(t), filepath.Join(dir, names[0]))
			c := exec.Command(argv[0], argv[1:]...)
			c.Env = append(os.Environ(), "TZ=UTC", "LC_ALL=C")
			out, _ := c.Output() // it ends with an error: there is no more WAL
			for line := range strings.Lines(string(out)) {
				m := dumpLine.FindStringSubmatch(strings.TrimSuffix(line, "\n"))
				switch {
				case m == nil:
				case m[1] == "XLOG":
					if s := xlog(t, strings.Fields(m[5])[0], m[5]); s != "" {
						want = append(want, m[4]+" "+s)
					}
				case m[1] == "Transaction":
					want = append(want, m[4]+" "+end(strings.Fields(m[5])[0], m[3], m[5]))
				}
			}
			for i := range want {
				lsn, rest, _ := strings.Cut(want[i], " ")
				want[i] = shortLSN(t, lsn).String() + " " + rest
			}
			slices.Sort(got)
			slices.Sort(want)
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("(-pg_waldump +index):\n%s", diff)
			}
			if !strings.Contains(strings.Join(got, "\n"), "timeline 2 from 1 at ") {
				t.Errorf("no end of a timeline: %q", got)
			}
		})
	}
}
