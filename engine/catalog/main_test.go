// SPDX-License-Identifier: Apache-2.0

package catalog

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/kbcli/kbcli/engine/blob"
	"github.com/kbcli/kbcli/engine/blob/mem"
	"github.com/kbcli/kbcli/engine/pg"
	"github.com/kbcli/kbcli/engine/pg/walscan"
	"github.com/kbcli/kbcli/engine/repository"
	"github.com/kbcli/kbcli/engine/repository/walindex"
)

// chapterLength is how many segments make a chapter in a new world, and load makes them
// first; 0 is no chapters.
var chapterLength uint64

// TestMain runs everything twice: answered from indexes, and from chapters.
func TestMain(m *testing.M) {
	code := m.Run()
	if f := flag.Lookup("test.bench"); f != nil && f.Value.String() != "" {
		os.Exit(code)
	}
	chapterLength = 1
	fmt.Println("again, with chapters")
	os.Exit(max(code, m.Run()))
}

const mib = pg.SegmentSize(1 << 20)

// at is a position in segment n.
func at(n uint64, offset int) pg.LSN { return mib.Start(n) + pg.LSN(offset) }

var noon = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

// clock is noon and so many seconds.
func clock(seconds float64) time.Time { return noon.Add(time.Duration(seconds * 1e9)) }

// world is a lineage whose segments hold no WAL: everything is said by their indexes.
type world struct {
	*testing.T
	store *mem.Store
	l     *repository.Lineage
}

func newWorld(t *testing.T, info repository.LineageInfo) *world {
	t.Helper()
	s := mem.New(nil)
	r, err := repository.Create(t.Context(), s, repository.Options{Clock: func() time.Time { return noon }})
	if err != nil {
		t.Fatal(err)
	}
	if info.SegmentSize == 0 {
		info = repository.LineageInfo{SystemID: 1, Major: 15, SegmentSize: mib}
	}
	info.Cluster = "c"
	if info.ChapterSegments == 0 {
		info.ChapterSegments = chapterLength
	}
	l, err := r.CreateLineage(t.Context(), info)
	if err != nil {
		t.Fatal(err)
	}
	return &world{t, s, l}
}

func (w *world) must(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

func (w *world) put(g pg.Segment, raw []byte) {
	w.Helper()
	w.must(w.l.PutSegment(w.Context(), g, [][]byte{repository.Compress(nil, raw)}, xxhash.Sum64(raw)))
}

func (w *world) tail(tli pg.TimelineID, n uint64, from, to int, raw []byte) {
	w.Helper()
	t := repository.Tail{Segment: pg.Segment{Timeline: tli, Number: n}, From: w.l.Info().SegmentSize.Start(n) + pg.LSN(from)}
	t.To = t.From + pg.LSN(to-from)
	if raw == nil {
		raw = nothing
	}
	raw = raw[from:to]
	w.must(w.l.PutTail(w.Context(), t, [][]byte{repository.Compress(nil, raw)}, xxhash.Sum64(raw)))
}

var nothing = bytes.Repeat([]byte{0xEE}, int(mib))

// segment puts a segment and what its records are said to be.
func (w *world) segment(tli pg.TimelineID, n uint64, x walindex.Index) {
	w.Helper()
	x.Segment = pg.Segment{Timeline: tli, Number: n}
	for _, tx := range x.Transactions {
		x.Last = max(x.Last, tx.Start)
	}
	x.Next, x.Detailed = mib.End(n)+40, x.Detailed || chapterLength > 0
	w.put(x.Segment, nothing)
	w.must(w.l.PutIndex(w.Context(), x.Segment, x.Encode()))
}

func commit(start pg.LSN, seconds float64) walindex.Transaction {
	return walindex.Transaction{Kind: walscan.Commit, Start: start, End: start + 40, XID: pg.XID(start), Time: pg.TimestampOf(clock(seconds))}
}

func commits(txs ...walindex.Transaction) walindex.Index { return walindex.Index{Transactions: txs} }

func (w *world) backup(name string, tli pg.TimelineID, start, stop pg.LSN, seconds float64) {
	w.Helper()
	m := &repository.Manifest{
		Name: name, Type: "full", Timeline: tli, StartLSN: start, StopLSN: stop, StartTime: clock(seconds - 1), StopTime: clock(seconds),
		Settings: repository.Settings{MaxConnections: 100, MaxWalSenders: 10},
	}
	w.must(w.l.PutBackup(w.Context(), m, &repository.Files{}))
}

func (w *world) load() *Catalog {
	w.Helper()
	if chapterLength > 0 {
		w.roll()
	}
	c, err := Load(w.Context(), w.l)
	w.must(err)
	return c
}

// roll makes the chapters that can be made.
func (w *world) roll() (made int) {
	w.Helper()
	made, err := NewRoller(w.l, func() error { return nil }).Roll(w.Context())
	w.must(err)
	return made
}

// find gives the key of the only object whose key contains part.
func (w *world) find(part string) string {
	w.Helper()
	var found []string
	for info, err := range w.store.List(w.Context(), "") {
		w.must(err)
		if bytes.Contains([]byte(info.Key), []byte(part)) {
			found = append(found, info.Key)
		}
	}
	if len(found) != 1 {
		w.Fatalf("%q is in %q", part, found)
	}
	return found[0]
}

// damage turns over a byte at the end of an object.
func (w *world) damage(part string) {
	w.Helper()
	key := w.find(part)
	b, err := blob.ReadAll(w.Context(), w.store, key, 1<<30)
	w.must(err)
	b[len(b)-1] ^= 1
	w.must(w.store.Replace(w.Context(), key, bytes.NewReader(b)))
}
