// SPDX-License-Identifier: Apache-2.0

package disasters

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/kbcli/kbcli/engine/catalog"
	"github.com/kbcli/kbcli/engine/pg"
	"github.com/kbcli/kbcli/engine/repository"
	"github.com/kbcli/kbcli/internal/testpg"
)

// segmentMB is small, so that records lie across segments.
const segmentMB = 1

// walRecord is a record as pg_waldump tells it.
type walRecord struct {
	start pg.LSN
	kind  string // COMMIT, ABORT, COMMIT_PREPARED, ABORT_PREPARED, PREPARE, RESTORE_POINT, or another
	xid   pg.XID // that ends or is prepared
	at    time.Time
	name  string   // of a restore point, or a prepared transaction
	subs  []string // subtransactions that count with it
}

func (r walRecord) ends() bool {
	return r.kind == "COMMIT" || r.kind == "ABORT" || r.kind == "COMMIT_PREPARED" || r.kind == "ABORT_PREPARED"
}

func (r walRecord) commits() bool { return r.kind == "COMMIT" || r.kind == "COMMIT_PREPARED" }

var (
	dumpLine = regexp.MustCompile(`^rmgr: (\S+) .* tx: +(\d+), lsn: ([0-9A-F]+/[0-9A-F]+), prev \S+, desc: (\S+) ?(.*)$`)
	dumpTime = regexp.MustCompile(`(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(?:\.\d+)? UTC)`)
)

// dump reads what a server wrote on a timeline, by PostgreSQL's own program.
func dump(t *testing.T, s *testpg.Server, tli pg.TimelineID) []walRecord {
	t.Helper()
	dir := filepath.Join(s.DataDir, "pg_wal")
	names, err := filepath.Glob(filepath.Join(dir, fmt.Sprintf("%08X????????????????", uint32(tli))))
	if err != nil {
		t.Fatal(err)
	}
	var out []walRecord
	slices.Sort(names)
	for len(names) > 0 {
		// one run of segments that follow each other
		n := 1
		for n < len(names) && segmentNumber(t, names[n]) == segmentNumber(t, names[n-1])+1 {
			n++
		}
		out = append(out, dumpFiles(t, s, names[0], names[n-1])...)
		names = names[n:]
	}
	return out
}

func segmentNumber(t *testing.T, name string) uint64 {
	t.Helper()
	g, err := pg.SegmentSize(segmentMB << 20).ParseName(filepath.Base(name))
	if err != nil {
		t.Fatal(err)
	}
	return g.Number
}

func dumpFiles(t *testing.T, s *testpg.Server, first, last string) []walRecord {
	t.Helper()
	c := exec.Command(s.Program("pg_waldump"), first, last)
	c.Env = append(os.Environ(), "TZ=UTC")
	text, err := c.Output() // the log has no end that it takes for one
	if len(text) == 0 {
		t.Fatalf("%s: %v", c, err)
	}
	var out []walRecord
	for line := range strings.Lines(string(text)) {
		m := dumpLine.FindStringSubmatch(strings.TrimSuffix(line, "\n"))
		if m == nil {
			continue
		}
		lsn, err := pg.ParseLSN(m[3])
		if err != nil {
			t.Fatal(err)
		}
		r := walRecord{start: lsn, kind: m[4]}
		xid := m[2]
		rest := m[5]
		switch r.kind {
		case "COMMIT_PREPARED", "ABORT_PREPARED":
			xid, _, _ = strings.Cut(rest, ":")
		case "PREPARE":
			r.name, _, _ = strings.Cut(strings.TrimPrefix(rest, "gid "), ":")
		case "RESTORE_POINT":
			r.name = rest
		}
		if m[1] == "Transaction" {
			n, err := strconv.ParseUint(xid, 10, 32)
			if err != nil {
				t.Fatalf("%s: %v", line, err)
			}
			r.xid = pg.XID(n)
			if _, list, ok := strings.Cut(rest, "subxacts: "); ok {
				list, _, _ = strings.Cut(list, ";")
				r.subs = strings.Fields(list)
			}
			if stamp := dumpTime.FindString(rest); stamp != "" {
				if r.at, err = time.Parse("2006-01-02 15:04:05.999999 MST", stamp); err != nil {
					t.Fatal(err)
				}
			}
		} else if r.kind != "RESTORE_POINT" {
			r.kind = "" // other resource managers have operations of these names
		}
		out = append(out, r)
	}
	return out
}

// truth is one path as PostgreSQL has it: what stops where is computed anew, by the
// rules of its manual.
type truth struct {
	path    pg.History
	records []walRecord // in order, without those that another timeline replaced
	backups []*repository.Manifest
	end     pg.LSN // of the window
	proven  time.Time
	initial map[pg.XID]string // what was prepared before the log begins
	story   int               // the record that the story begins with: targets are taken from there on
}

// newTruth joins what servers wrote along a path.
func newTruth(t *testing.T, path pg.History, backups []*repository.Manifest, w catalog.Window, servers ...*testpg.Server) *truth {
	t.Helper()
	x := &truth{path: path, end: w.ToLSN, proven: w.To}
	by := map[pg.LSN]walRecord{}
	for _, e := range append(slices.Clone(path.Entries), pg.HistoryEntry{Timeline: path.Timeline}) {
		for _, s := range servers {
			for _, r := range dump(t, s, e.Timeline) {
				if path.Contains(e.Timeline, r.start) && r.start < w.ToLSN {
					by[r.start] = r
				}
			}
		}
	}
	for _, r := range by {
		x.records = append(x.records, r)
	}
	slices.SortFunc(x.records, func(a, b walRecord) int { return int(int64(a.start) - int64(b.start)) })
	for _, m := range backups {
		if path.Contains(m.Timeline, m.StartLSN) && path.Contains(m.Timeline, m.StopLSN-1) {
			x.backups = append(x.backups, m)
		}
	}
	slices.SortFunc(x.backups, func(a, b *repository.Manifest) int { return int(int64(a.StopLSN) - int64(b.StopLSN)) })
	// a little before the first backup too
	x.story = max(0, slices.IndexFunc(x.records, func(r walRecord) bool { return r.start >= x.backups[0].StartLSN })-50)
	return x
}

// across are the records that begin in one segment and end in another.
func (x *truth) across() (out []pg.LSN) {
	const size = pg.SegmentSize(segmentMB << 20)
	for i := x.story; i+1 < len(x.records); i++ {
		if size.Number(x.records[i].start) != size.Number(x.records[i+1].start) && size.Offset(x.records[i+1].start) > 40 {
			out = append(out, x.records[i].start)
		}
	}
	return out
}

// answer is where recovery ends: before record number stop, or after all of them; with
// immediate where the backup is consistent. No backup is no answer.
type answer struct {
	backup    *repository.Manifest
	stop      int
	immediate bool
}

func (x *truth) newest(upto pg.LSN) *repository.Manifest {
	var best *repository.Manifest
	for _, m := range x.backups {
		if m.StopLSN <= upto && (best == nil || m.StopLSN > best.StopLSN) {
			best = m
		}
	}
	return best
}

// endOf is where the record after number i would start, at most.
func (x *truth) endOf(i int) pg.LSN {
	if i+1 < len(x.records) {
		return x.records[i+1].start
	}
	return x.end
}

func (x *truth) at(i int, exclusive bool) answer {
	if exclusive {
		return answer{backup: x.newest(x.records[i].start), stop: i}
	}
	return answer{backup: x.newest(x.endOf(i)), stop: i + 1}
}

func (x *truth) resolve(target catalog.Target) answer {
	find := func(match func(r walRecord) bool) int { return slices.IndexFunc(x.records, match) }
	i := -1
	switch {
	case target.Latest:
		return answer{backup: x.newest(x.end), stop: len(x.records)}
	case target.Backup != "" || target.Earliest:
		for _, m := range x.backups {
			if m.Name == target.Backup || target.Earliest {
				return answer{backup: m, stop: find(func(r walRecord) bool { return r.start >= m.StopLSN }), immediate: true}
			}
		}
	case target.LSN != 0:
		i = find(func(r walRecord) bool { return r.start >= target.LSN })
	case target.XID != 0:
		i = find(func(r walRecord) bool { return r.ends() && r.xid == target.XID })
	case target.Name != "":
		for n, r := range x.records {
			if r.kind == "RESTORE_POINT" && r.name == target.Name {
				i = n
			}
		}
		target.Exclusive = false
	default:
		return x.atTime(target)
	}
	if i < 0 {
		return answer{}
	}
	return x.at(i, target.Exclusive)
}

// atTime is recovery_target_time from the newest backup that ended by then, and from an
// older one where the clock was set back since and never showed that time again; where it
// did and nothing was written later, the end.
func (x *truth) atTime(target catalog.Target) answer {
	for _, m := range slices.Backward(x.backups) {
		if m.StopTime.After(target.Time) {
			continue
		}
		for i, r := range x.records {
			if r.ends() && r.start >= m.StopLSN && (r.at.After(target.Time) || target.Exclusive && r.at.Equal(target.Time)) {
				return answer{backup: m, stop: i}
			}
		}
		if !target.Time.After(x.proven) {
			return answer{backup: m, stop: len(x.records)}
		}
	}
	return answer{}
}

// state is what is there after a: committed transactions, and names of prepared ones.
func (x *truth) state(a answer) (committed map[pg.XID]bool, prepared map[pg.XID]string, lastKept, firstLost pg.XID) {
	committed, prepared = map[pg.XID]bool{}, maps.Clone(x.initial)
	if prepared == nil {
		prepared = map[pg.XID]string{}
	}
	for i, r := range x.records {
		switch {
		case i >= a.stop:
			if r.commits() && firstLost == 0 {
				firstLost = r.xid
			}
		case r.kind == "PREPARE":
			prepared[r.xid] = r.name
		case r.commits():
			committed[r.xid] = true
			delete(prepared, r.xid)
			if r.start >= a.backup.StartLSN {
				lastKept = r.xid
			}
		case r.kind == "ABORT_PREPARED":
			delete(prepared, r.xid)
		}
	}
	return committed, prepared, lastKept, firstLost
}
