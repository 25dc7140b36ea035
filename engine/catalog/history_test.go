// SPDX-License-Identifier: Apache-2.0

package catalog

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kbcli/kbcli/engine/pg"
	"github.com/kbcli/kbcli/engine/pg/walscan"
	"github.com/kbcli/kbcli/engine/repository"
	"github.com/kbcli/kbcli/engine/repository/walindex"
	"github.com/kbcli/kbcli/internal/testpg"
)

var (
	file     = regexp.MustCompile(`\d+/\d+/\d+`)
	spaceOid = regexp.MustCompile(`TABLESPACE \d+`)
)

// what is an event in short.
func what(e Event) string {
	s := fmt.Sprintf("%s: %s", e.Kind, e.What)
	parts := slices.DeleteFunc([]string{e.Database, e.Schema, e.Table}, func(s string) bool { return s == "" })
	if name := strings.Join(parts, "."); name != "" {
		s += " " + file.ReplaceAllString(name, "FILE")
	}
	if e.Rows >= 0 {
		s += fmt.Sprintf(" %d", e.Rows)
	}
	for _, m := range []struct {
		is   bool
		word string
	}{{e.About, "about"}, {e.AtLeast, "at least"}, {e.RolledBack, "rolled back"}} {
		if m.is {
			s += " " + m.word
		}
	}
	return s
}

// Each kind of event is recognised, with its table and its rows.
func TestHistory(t *testing.T) {
	for _, level := range []string{"replica", "logical"} {
		for _, major := range []int{13, 15, 18} {
			t.Run(fmt.Sprint(major, "/", level), func(t *testing.T) { testHistory(t, major, level) })
		}
	}
}

func testHistory(t *testing.T, major int, level string) {
	s := testpg.Start(t, testpg.Options{Major: major, SegmentSizeMB: 1, Settings: map[string]string{"wal_level": level, "autovacuum": "off", "max_prepared_transactions": "5", "wal_keep_size": "4GB", "max_wal_size": "4GB"}})
	lsn := func() pg.LSN {
		t.Helper()
		var text string
		s.QueryRow(t, "select pg_current_wal_insert_lsn()::text", &text)
		l, err := pg.ParseLSN(text)
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	s.Exec(t, "checkpoint")
	s.Exec(t, "select pg_switch_wal()")
	var w written
	w.start = lsn()
	s.Exec(t, "checkpoint") // it tells that no older transaction is open
	var system int64
	s.QueryRow(t, "select system_identifier from pg_control_system()", &system)
	l := newWorld(t, repository.LineageInfo{SystemID: pg.SystemID(system), Major: major, SegmentSize: mib})
	var last *Names
	store := func(full bool) {
		t.Helper()
		s.Disconnect()
		now, at, err := AskNames(t.Context(), l.l, s.ConnString("postgres"), last, func(pg.Oid) bool { return true })
		l.must(err)
		put := now
		if at.Full = full; !full {
			if put = now.Since(last); put == nil {
				return
			}
		}
		l.must(l.l.PutNames(t.Context(), at, put.Encode()))
		now.Keep(last0(last))
		last = now
	}
	store(true)
	var want [][]string
	var ends []pg.LSN
	steps := slices.DeleteFunc(historySteps(), func(p step) bool { return p.from > major })
	space := filepath.Join(s.SocketDir, "space")
	l.must(os.Mkdir(space, 0o700))
	uid, gid := testpg.Owner(t)
	l.must(os.Chown(space, uid, gid))
	for _, p := range steps {
		conn := s.Conn(t, "postgres")
		for sql := range strings.SplitSeq(strings.ReplaceAll(p.sql, "SPACE", space), "; ") {
			if _, err := conn.Exec(t.Context(), sql); err != nil {
				t.Fatalf("%s: %v", sql, err)
			}
		}
		l.must(conn.Close(t.Context()))
		ends, want = append(ends, lsn()), append(want, p.want)
		store(false)
	}
	var flushed string
	s.QueryRow(t, "select pg_current_wal_flush_lsn()::text", &flushed)
	w.end, _ = pg.ParseLSN(flushed)
	s.Stop(t, testpg.Immediate)
	for n := mib.Number(w.start); mib.Start(n) < w.end; n++ {
		b, err := os.ReadFile(filepath.Join(s.DataDir, "pg_wal", mib.Name(pg.Segment{Timeline: 1, Number: n})))
		l.must(err)
		w.segments = append(w.segments, b)
	}
	w.first, w.system = mib.Number(w.start), pg.SystemID(binary.LittleEndian.Uint64(w.segments[0][24:]))
	for i, x := range w.indexes(t) {
		l.put(x.Segment, w.segments[i])
		if i%3 != 1 { // those that are missing are made again
			l.must(l.l.PutIndex(t.Context(), x.Segment, x.Encode()))
		}
	}
	k := len(w.segments) - 1
	l.tail(1, w.first+uint64(k), 0, int(mib.Offset(w.end)), w.segments[k])
	c := l.load()
	var got []Event
	l.must(c.History(t.Context(), HistoryQuery{MinRows: 1000, Undone: true}, func(e Event) error {
		got = append(got, e)
		return nil
	}))
	at := 0
	for i, p := range steps {
		var have []string
		for ; at < len(got) && got[at].LSN < ends[i]; at++ {
			have = append(have, spaceOid.ReplaceAllString(strings.ReplaceAll(what(got[at]), space, "SPACE"), "TABLESPACE OID"))
		}
		if diff := cmp.Diff(want[i], have); diff != "" {
			t.Errorf("%s (-want +got):\n%s", p.sql, diff)
		}
	}
	checkNames(t, c, got)
}

func last0(n *Names) *Names {
	if n == nil {
		return &Names{}
	}
	return n
}

// checkNames reads parts of the history, and without names.
func checkNames(t *testing.T, c *Catalog, all []Event) {
	mid := all[len(all)/2]
	var got []Event
	note := func(e Event) error {
		got = append(got, e)
		return nil
	}
	if err := c.History(t.Context(), HistoryQuery{MinRows: 1000, From: mid.LSN, To: mid.LSN + 1}, note); err != nil || !slices.ContainsFunc(got, func(e Event) bool { return what(e) == what(mid) }) || got[0].LSN != mid.LSN {
		t.Errorf("%s alone is %v, %v", what(mid), got, err)
	}
	got = nil
	if err := c.History(t.Context(), HistoryQuery{MinRows: 1000, Since: mid.Time}, note); err != nil || len(got) == 0 || got[0].Time.Before(mid.Time) {
		t.Errorf("since %s: %v, %v", mid.Time, got, err)
	}
	objects, err := c.l.NamesObjects(t.Context())
	if err != nil || len(objects) < 10 || !objects[0].Full {
		t.Fatalf("%v, %v", objects, err)
	}
	for _, o := range objects {
		if err := c.l.DeleteNames(t.Context(), o); err != nil {
			t.Fatal(err)
		}
	}
	got = nil
	kinds := func(es []Event) map[EventKind]int {
		n := map[EventKind]int{}
		for _, e := range es {
			n[e.Kind]++
		}
		return n
	}
	if err := c.History(t.Context(), HistoryQuery{MinRows: 1000}, note); err != nil {
		t.Fatal(err)
	}
	with, without := kinds(all), kinds(got)
	if with[EventDelete] != without[EventDelete] || with[EventDropDatabase] != without[EventDropDatabase] || without[EventDrop]+without[EventTruncate] < with[EventDrop] {
		t.Errorf("without names %v, with %v", without, with)
	}
}

func TestNamesEncoding(t *testing.T) {
	old := &Names{Time: noon, Databases: []DatabaseNames{
		{Oid: 1, Spc: 1663, Name: "template1"},
		{Oid: 5, Spc: 1663, Name: "postgres", Told: true, Relations: []RelationName{
			{Oid: 16384, File: 16384, Spc: 1663, Kind: 'r', Rows: -1, Schema: "public", Name: "a"},
			{Oid: 16390, File: 16390, Spc: 1663, Kind: 'r', Rows: 650, Schema: "public", Name: "b"},
			{Oid: 4000000000, File: 4100000000, Spc: 1663, Owner: 16384, Kind: 'i', Rows: 1 << 40, Schema: "public", Name: "c"},
		}},
	}}
	got, err := DecodeNames(old.Encode())
	if diff := cmp.Diff(old, got); err != nil || diff != "" {
		t.Errorf("%v\n%s", err, diff)
	}
	now := &Names{Time: clock(1), Databases: []DatabaseNames{
		{Oid: 1, Spc: 1663, Name: "template1"},
		{Oid: 5, Spc: 1663, Name: "postgres", Told: true, Relations: []RelationName{
			{Oid: 16384, File: 16400, Spc: 1663, Kind: 'r', Rows: -1, Schema: "public", Name: "a"},
			{Oid: 16390, File: 16390, Spc: 1663, Kind: 'r', Rows: 700, Schema: "public", Name: "b"},
		}},
	}}
	part := now.Since(old)
	want := &Names{Time: clock(1), Databases: []DatabaseNames{
		{Oid: 1, Spc: 1663, Name: "template1"},
		{Oid: 5, Spc: 1663, Name: "postgres", Part: true, Relations: now.Databases[1].Relations[:1], Gone: []pg.Oid{4000000000}},
	}}
	if diff := cmp.Diff(want, part); diff != "" {
		t.Errorf("since:\n%s", diff)
	}
	if got, err = DecodeNames(part.Encode()); err != nil || !cmp.Equal(got, part) {
		t.Errorf("%v, %v", got, err)
	}
	if again := now.Since(now); again != nil {
		t.Errorf("nothing changed: %v", again)
	}
	for i := range old.Encode() {
		if _, err := DecodeNames(old.Encode()[:i]); err == nil {
			t.Errorf("cut at %d it reads", i)
		}
	}
}

func FuzzDecodeNames(f *testing.F) {
	f.Add((&Names{Time: time.UnixMicro(1), Databases: []DatabaseNames{{Oid: 5, Name: "p", Told: true, Relations: []RelationName{{Oid: 9, Name: "x"}}}}}).Encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		n, err := DecodeNames(b)
		if err == nil {
			if _, err = DecodeNames(n.Encode()); err != nil {
				t.Error(err)
			}
		}
	})
}

// What is missing of the log is told, and what lies behind it all the same.
func TestHistoryGap(t *testing.T) {
	w := newWorld(t, repository.LineageInfo{})
	rel := pg.RelFileLocator{Spc: 1663, DB: 5, Rel: 20000}
	seg := func(n uint64, seconds float64, rows uint64, kind walscan.XactKind) {
		tx := commit(at(n, 100), seconds)
		tx.Kind = kind
		tx.Changes = &walindex.Changes{Rows: []walindex.RelRows{{Rel: rel, RowCounts: walindex.RowCounts{Deleted: rows}}}}
		x := commits(tx)
		x.Detailed = true
		w.segment(1, n, x)
	}
	for n := uint64(1); n < 40; n++ {
		seg(n, float64(n), 10*n, walscan.Commit)
	}
	seg(42, 42, 420, walscan.Commit)
	seg(43, 43, 430, walscan.Abort)
	w.must(w.l.PutGap(t.Context(), repository.Gap{Timeline: 1, From: at(40, 0), ToTimeline: 1, To: at(42, 0), Reason: "the spool was full"}))
	c := w.load()
	read := func(q HistoryQuery) (out []string) {
		t.Helper()
		w.must(c.History(t.Context(), q, func(e Event) error {
			out = append(out, fmt.Sprint(e.LSN, " ", what(e)))
			return nil
		}))
		return out
	}
	want := []string{
		at(39, 100).String() + " delete: DELETE 5.FILE 390",
		at(40, 0).String() + " gap: WAL is missing: the spool was full",
		at(42, 100).String() + " delete: DELETE 5.FILE 420",
		at(43, 100).String() + " delete: DELETE 5.FILE 430 rolled back",
	}
	if diff := cmp.Diff(want, read(HistoryQuery{Since: clock(39)})); diff != "" {
		t.Errorf("since (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(want[:1], read(HistoryQuery{MinRows: 390, Until: clock(38), From: at(1, 0)})); diff == "" {
		t.Error("until is not looked at")
	}
	if diff := cmp.Diff(want[:1], read(HistoryQuery{MinRows: 390, From: at(2, 0), To: at(40, 0)})); diff != "" {
		t.Errorf("by LSN (-want +got):\n%s", diff)
	}
	if got := read(HistoryQuery{}); len(got) != 39+3 {
		t.Errorf("%d events", len(got))
	}
}
