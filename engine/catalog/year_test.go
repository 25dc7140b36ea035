// SPDX-License-Identifier: Apache-2.0

package catalog

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"iter"
	"path"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kbcli/kbcli/engine/blob"
	"github.com/kbcli/kbcli/engine/blob/mem"
	"github.com/kbcli/kbcli/engine/pg"
	"github.com/kbcli/kbcli/engine/pg/walscan"
	"github.com/kbcli/kbcli/engine/repository"
	"github.com/kbcli/kbcli/engine/repository/chapter"
	"github.com/kbcli/kbcli/engine/repository/walindex"
)

const (
	yearSize     = pg.SegmentSize(16 << 20)
	yearSegments = 2_000_000
	yearCommits  = 40 // in a segment
)

var yearStep = (365 * 24 * time.Hour / yearSegments).Truncate(yearCommits * time.Microsecond)

// year is a place with a lineage of a year of WAL, all of whose segments, indexes and
// chapters are there without being kept: they are made when somebody asks.
type year struct {
	*mem.Store
	scratch *mem.Store // where they are given their envelopes
	l, make *repository.Lineage

	mu          sync.Mutex
	listed, got map[string]int // objects by folder
	bytes       int64
}

func newYear(t testing.TB) *year {
	y := &year{Store: mem.New(nil), scratch: mem.New(nil)}
	ctx := t.Context()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	o := repository.Options{Clock: func() time.Time { return noon }}
	r, err := repository.Create(ctx, y, o)
	must(err)
	y.l, err = r.CreateLineage(ctx, repository.LineageInfo{Cluster: "c", SystemID: 1, Major: 15, SegmentSize: yearSize})
	must(err)
	for info, err := range y.Store.List(ctx, "") {
		must(err)
		b, err := blob.ReadAll(ctx, y.Store, info.Key, 1<<20)
		must(err)
		must(y.scratch.Put(ctx, info.Key, bytes.NewReader(b)))
	}
	r, err = repository.Open(ctx, y.scratch, o)
	must(err)
	y.make, err = r.Lineage(ctx, y.l.Info().ID)
	must(err)
	for i := range 52 { // one a week
		n := uint64(i) * yearSegments / 52
		m := &repository.Manifest{Name: fmt.Sprint("week", i), Type: "full", Timeline: 1, StartLSN: yearSize.Start(n) + 40, StopLSN: yearSize.Start(n+9) + 40, StartTime: yearTime(n), StopTime: yearTime(n + 9)}
		must(y.l.PutBackup(ctx, m, &repository.Files{}))
	}
	y.forget()
	return y
}

func (y *year) forget() { y.listed, y.got, y.bytes = map[string]int{}, map[string]int{}, 0 }

// yearTime is when a segment begins.
func yearTime(n uint64) time.Time { return noon.Add(time.Duration(n) * yearStep) }

func yearIndex(n uint64) *walindex.Index {
	x := &walindex.Index{Segment: pg.Segment{Timeline: 1, Number: n}, Detailed: true, First: yearSize.Start(n) + 40, Next: yearSize.End(n) + 40}
	few := &walindex.Changes{Rows: []walindex.RelRows{{Rel: pg.RelFileLocator{Spc: 1663, DB: 5, Rel: 20000}, RowCounts: walindex.RowCounts{Updated: 3}}}}
	for i := range yearCommits {
		at := yearSize.Start(n) + pg.LSN(i)*100_000 + 100
		tx := walindex.Transaction{Kind: walscan.Commit, Start: at, End: at + 40, XID: pg.XID(n*yearCommits + uint64(i) + 1000), Time: pg.TimestampOf(yearTime(n).Add(time.Duration(i) * yearStep / yearCommits)), Changes: few}
		if i == 7 && n%50 == 0 {
			tx.Changes = &walindex.Changes{Rows: []walindex.RelRows{{Rel: pg.RelFileLocator{Spc: 1663, DB: 5, Rel: 20001}, RowCounts: walindex.RowCounts{Deleted: 50_000}}}}
		}
		x.Transactions = append(x.Transactions, tx)
		x.Last = at
	}
	if n%10_000 == 0 {
		x.RestorePoints = []walindex.RestorePoint{{Start: x.Last + 200, Time: pg.TimestampOf(yearTime(n)), Name: fmt.Sprint("point", n)}}
		x.Last += 200
	}
	return x
}

func yearChapter(first uint64) chapter.Name {
	n := chapter.Name{First: pg.Segment{Timeline: 1, Number: first}, Stamped: true}
	last := first + chapter.PerLog(yearSize) - 1
	n.Min = pg.TimestampOf(yearTime(first))
	n.Max = pg.TimestampOf(yearTime(last).Add((yearCommits - 1) * yearStep / yearCommits))
	return n
}

// room is the folder of a key and what comes after it.
func (y *year) room(key string) (room, rest string) {
	if key, ok := strings.CutPrefix(key, "lineages/"+y.l.Info().ID+"/"); ok && y.l != nil {
		room, rest, _ = strings.Cut(key, "/")
	}
	return room, rest
}

func (y *year) List(ctx context.Context, prefix string) iter.Seq2[blob.Info, error] {
	return y.ListAfter(ctx, prefix, "")
}

func (y *year) ListAfter(ctx context.Context, prefix, after string) iter.Seq2[blob.Info, error] {
	if y.l == nil {
		return y.Store.ListAfter(ctx, prefix, after)
	}
	room, _ := y.room(prefix)
	base := "lineages/" + y.l.Info().ID + "/" + room + "/"
	first, step := uint64(0), uint64(1)
	switch room {
	case "wal", "index":
		if g, err := yearSize.ParseName(path.Base(after)); err == nil {
			first = g.Number + 1
		}
	case "chapter":
		step = chapter.PerLog(yearSize)
	default:
		return func(yield func(blob.Info, error) bool) {
			for info, err := range y.Store.ListAfter(ctx, prefix, after) {
				y.listed[room]++
				if !yield(info, err) {
					return
				}
			}
		}
	}
	return func(yield func(blob.Info, error) bool) {
		for n := first; n+step <= yearSegments; n += step {
			name := yearSize.Name(pg.Segment{Timeline: 1, Number: n})
			key := base + name[:16] + "/" + name
			if room == "chapter" {
				key = base + yearChapter(n).Key(yearSize)
			}
			y.listed[room]++
			if !yield(blob.Info{Key: key, Size: 1}, nil) {
				return
			}
		}
	}
}

// lay makes an object that is asked for.
func (y *year) lay(ctx context.Context, key string) (blob.Store, error) {
	room, rest := "", ""
	if y.l != nil {
		room, rest = y.room(key)
	}
	if room != "index" && room != "chapter" {
		return y.Store, nil
	}
	if _, err := y.scratch.Stat(ctx, key); err == nil {
		return y.scratch, nil
	}
	if room == "index" {
		g, err := yearSize.ParseName(path.Base(rest))
		if err != nil || g.Number >= yearSegments {
			return y.Store, err
		}
		return y.scratch, y.make.PutIndex(ctx, g, yearIndex(g.Number).Encode())
	}
	name, err := chapter.ParseName(yearSize, chapter.PerLog(yearSize), rest)
	if err != nil {
		return nil, err
	}
	b := chapter.NewBuilder(name.First)
	for i := range chapter.PerLog(yearSize) {
		if err := b.Add(yearIndex(name.First.Number + i)); err != nil {
			return nil, err
		}
	}
	return y.scratch, y.make.PutChapter(ctx, name, b.Chapter().Encode())
}

func (y *year) Stat(ctx context.Context, key string) (blob.Info, error) {
	s, err := y.lay(ctx, key)
	if err != nil {
		return blob.Info{}, err
	}
	return s.Stat(ctx, key)
}

func (y *year) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	s, err := y.lay(ctx, key)
	if err != nil {
		return nil, err
	}
	if y.l != nil {
		room, _ := y.room(key)
		y.mu.Lock()
		y.got[room]++
		y.mu.Unlock()
	}
	return s.Get(ctx, key, offset, length)
}

// asked runs f twice, so that what the place makes is made, and gives what the second
// took: objects listed and read by folder, bytes allocated, and time.
func (y *year) asked(t testing.TB, what string, f func()) (listed, got map[string]int) {
	t.Helper()
	f()
	y.forget()
	runtime.GC()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	start := time.Now()
	f()
	took := time.Since(start)
	runtime.ReadMemStats(&after)
	total, held := after.TotalAlloc-before.TotalAlloc, int64(after.HeapAlloc)-int64(before.HeapAlloc)
	t.Logf("%s: %s, %d MB allocated in all, heap grown by %d MB; listed %v, read %v", what, took.Round(time.Millisecond), total>>20, held>>20, y.listed, y.got)
	if total > 200<<20 {
		t.Errorf("%s: %d bytes allocated", what, total)
	}
	return y.listed, y.got
}

// A year of WAL is answered of without reading, or listing, a year of objects.
func TestYear(t *testing.T) {
	if chapterLength > 0 {
		return // it has its own
	}
	y := newYear(t)
	ctx := t.Context()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	atMost := func(what string, got, most int) {
		t.Helper()
		if got > most {
			t.Errorf("%s: %d, more than %d", what, got, most)
		}
	}
	chapters := yearSegments / int(chapter.PerLog(yearSize))
	rest := yearSegments % int(chapter.PerLog(yearSize))

	var c *Catalog
	listed, got := y.asked(t, "describe", func() {
		var err error
		c, err = Load(ctx, y.l)
		must(err)
		branches, err := c.Branches(ctx)
		must(err)
		if len(branches) != 1 || len(branches[0].Windows) != 1 || branches[0].Windows[0].ToLSN != yearSize.Start(yearSegments) || branches[0].Windows[0].To.Before(yearTime(yearSegments-1)) {
			t.Fatalf("%+v", branches)
		}
	})
	atMost("chapters listed", listed["chapter"], chapters)
	atMost("segments listed", listed["wal"], rest+1)
	atMost("indexes read", got["index"], 1)
	atMost("chapters read", got["chapter"], 0)

	since := yearTime(yearSegments).Add(-time.Hour)
	hour := int(time.Hour / yearStep)
	listed, got = y.asked(t, "history --since 1h", func() {
		c, err := Load(ctx, y.l)
		must(err)
		events := 0
		must(c.History(ctx, HistoryQuery{Since: since, MinRows: 1000}, func(e Event) error {
			if e.Kind != EventDelete || e.Rows != 50_000 {
				t.Errorf("%+v", e)
			}
			events++
			return nil
		}))
		if want := hour / 50; events < want-1 || events > want+1 {
			t.Errorf("%d events", events)
		}
	})
	atMost("segments listed", listed["wal"], rest+1)
	atMost("indexes read", got["index"], 2*rest)
	atMost("chapters read", got["chapter"], 3)

	listed, got = y.asked(t, "history --since 1h, with all rows and spikes", func() {
		c, err := Load(ctx, y.l)
		must(err)
		events := 0
		must(c.History(ctx, HistoryQuery{Since: since, MinRows: 1, Spikes: true}, func(e Event) error {
			events++
			return nil
		}))
		if events < hour/50 {
			t.Errorf("%d events", events)
		}
	})
	atMost("segments listed", listed["wal"], rest+1)
	atMost("indexes read", got["index"], 4*rest)

	listed, got = y.asked(t, "the targets of a month ago", func() {
		c, err := Load(ctx, y.l)
		must(err)
		n := uint64(yearSegments - yearSegments/12)
		for _, target := range []Target{{Time: yearTime(n)}, {Time: yearTime(n + 5000), Exclusive: true}} {
			r, err := c.Resolve(ctx, target)
			must(err)
			if r.LastKept == nil || r.LastKept.Time.Time().After(target.Time) || r.FirstLost.Time.Time().Before(target.Time) || r.FirstLost.XID != r.LastKept.XID+1 || len(r.Warnings) > 1 {
				t.Errorf("%v: %+v", target, r)
			}
		}
	})
	atMost("segments listed", listed["wal"], 2*yearSegments/52+rest+1)
	atMost("indexes read", got["index"], 80)

	listed, got = y.asked(t, "a transaction of yesterday", func() {
		c, err := Load(ctx, y.l)
		must(err)
		r, err := c.Resolve(ctx, Target{XID: (yearSegments-5000)*yearCommits + 1005})
		must(err)
		if r.LastKept == nil || r.LastKept.XID != r.Target.XID {
			t.Errorf("%+v", r)
		}
	})
	atMost("indexes read", got["index"], rest+40)
	_ = listed

	listed, _ = y.asked(t, "what retention and a start of the archive list", func() {
		names, err := y.l.Chapters(ctx)
		must(err)
		for _, list := range []func(context.Context, []chapter.Name) (chapter.Runs, error){y.l.SegmentRuns, y.l.IndexedRuns} {
			runs, err := list(ctx, names)
			must(err)
			if len(runs) != 1 || runs[0] != (chapter.Run{Timeline: 1, From: 0, To: yearSegments}) {
				t.Errorf("%v", runs)
			}
		}
	})
	atMost("segments and indexes listed", listed["wal"]+listed["index"], 2*rest+2)
}

func BenchmarkYear(b *testing.B) {
	y := newYear(b)
	for name, f := range map[string]func(c *Catalog) error{
		"describe": func(c *Catalog) error {
			_, err := c.Branches(b.Context())
			return err
		},
		"history": func(c *Catalog) error {
			return c.History(b.Context(), HistoryQuery{Since: yearTime(yearSegments).Add(-time.Hour), MinRows: 1, Spikes: true}, func(Event) error { return nil })
		},
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				c, err := Load(b.Context(), y.l)
				if err == nil {
					err = f(c)
				}
				if err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
