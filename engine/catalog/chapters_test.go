// SPDX-License-Identifier: Apache-2.0

package catalog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kbcli/kbcli/engine/blob"
	"github.com/kbcli/kbcli/engine/pg"
	"github.com/kbcli/kbcli/engine/pg/walscan"
	"github.com/kbcli/kbcli/engine/repository"
	"github.com/kbcli/kbcli/engine/repository/walindex"
)

// writer makes indexes of transactions that nobody ran, of all kinds.
type writer struct {
	*world
	r     *rand.Rand
	xid   pg.XID
	clock float64
	open  []pg.XID // made files, or emptied tables, or a database, and go on
	names []string
}

func (w *writer) one(n int) bool { return w.r.IntN(n) == 0 }

func (w *writer) rel() pg.RelFileLocator {
	return pg.RelFileLocator{Spc: 1663, DB: pg.Oid(5 + w.r.IntN(2)), Rel: pg.Oid(20000 + w.r.IntN(9))}
}

func (w *writer) next() pg.XID {
	w.xid++
	if w.xid < 3 {
		w.xid = 3
	}
	return w.xid
}

// index makes that of one segment.
func (w *writer) index(tli pg.TimelineID, n uint64) walindex.Index {
	x := walindex.Index{Detailed: true, First: at(n, 100)}
	for off := 100; off < int(mib)-500 && !w.one(30); off += 100 + w.r.IntN(60000) {
		lsn := at(n, off)
		w.clock += w.r.Float64() * 20
		if w.one(60) {
			w.clock -= 40 * w.r.Float64()
		}
		switch w.r.IntN(12) {
		case 0:
			xid := w.next()
			x.Creations = append(x.Creations, walindex.Creation{Start: lsn, XID: xid, Rel: w.rel(), Fork: pg.ForkNumber(w.r.IntN(2))})
			w.open = append(w.open, xid)
		case 1:
			xid := w.next()
			x.Truncates = append(x.Truncates, walindex.Truncate{Start: lsn, XID: xid, HeapTruncate: walscan.HeapTruncate{DB: 5, Rels: []pg.Oid{w.rel().Rel}}})
			w.open = append(w.open, xid)
		case 2:
			if w.one(2) {
				x.Creations = append(x.Creations, walindex.Creation{Start: lsn, Rel: w.rel()})
				break
			}
			name := fmt.Sprint("point", w.r.IntN(20))
			w.names = append(w.names, name)
			x.RestorePoints = append(x.RestorePoints, walindex.RestorePoint{Start: lsn, Time: pg.TimestampOf(clock(w.clock)), Name: name})
		case 3:
			if w.one(4) {
				p := walindex.Parameters{Start: lsn}
				p.MaxConnections, p.MaxPreparedXacts = w.r.IntN(1000), 5
				x.Parameters = append(x.Parameters, p)
				x.Tablespaces = append(x.Tablespaces, walindex.Tablespace{Start: lsn, Oid: 99, Path: "/t"})
				x.TablespacesDropped = append(x.TablespacesDropped, walindex.TablespaceDrop{Start: lsn, XID: w.xid, Oid: 98})
			} else {
				xid := w.next()
				x.DatabasesMade = append(x.DatabasesMade, walindex.DatabaseCreation{Start: lsn, XID: xid, DatabaseCreate: walscan.DatabaseCreate{Spc: 1663, DB: pg.Oid(20000 + w.r.IntN(9))}})
				w.open = append(w.open, xid)
			}
		default:
			tx := w.transaction(lsn)
			if tx.Kind != walscan.Commit && tx.Kind != walscan.Abort && w.one(2) {
				// right before it is committed: that it is prepared no WAL tells here
				x.Transactions = append(x.Transactions, walindex.Transaction{Kind: walscan.Prepare, Start: lsn - 50, End: lsn - 10, XID: tx.XID, Time: tx.Time - 1e6})
			}
			x.Transactions = append(x.Transactions, tx)
		}
	}
	if w.one(2) {
		x.Last = at(n, int(mib)-90)
	}
	return x
}

func (w *writer) transaction(lsn pg.LSN) walindex.Transaction {
	tx := walindex.Transaction{Kind: walscan.Commit, Start: lsn, End: lsn + 40, XID: w.next(), Time: pg.TimestampOf(clock(w.clock))}
	switch w.r.IntN(10) {
	case 0:
		tx.Kind = walscan.Abort
	case 1:
		tx.Kind = []walscan.XactKind{walscan.CommitPrepared, walscan.AbortPrepared}[w.r.IntN(2)]
	case 2, 3, 4:
		if len(w.open) > 0 { // of those that began long ago, too
			i := w.r.IntN(len(w.open))
			tx.XID = w.open[i]
			w.open = append(w.open[:i], w.open[i+1:]...)
		}
	}
	if w.one(6) {
		tx.Subxacts = 1 + uint32(w.r.IntN(3))
		if len(w.open) > 0 && w.one(2) {
			tx.XID = w.open[w.r.IntN(len(w.open))] - 1
		}
	}
	if w.one(8) {
		tx.Dropped = append(tx.Dropped, w.rel())
	}
	if w.one(3) {
		return tx
	}
	c := &walindex.Changes{AtLeast: w.one(5)}
	for range w.r.IntN(3) {
		counts := walindex.RowCounts{}
		for _, v := range []*uint64{&counts.Inserted, &counts.Updated, &counts.Deleted} {
			if w.one(3) {
				*v = uint64([]int{1, 999, 1000, 5000}[w.r.IntN(4)])
			}
		}
		c.Rows = append(c.Rows, walindex.RelRows{Rel: w.rel(), RowCounts: counts})
	}
	if w.one(6) {
		c.Rows = append(c.Rows, walindex.RelRows{Rel: pg.RelFileLocator{Spc: 1663, DB: 5, Rel: 1259}, RowCounts: walindex.RowCounts{Inserted: uint64(w.r.IntN(2)), Deleted: uint64(w.r.IntN(2))}})
		if tx.Kind.Committed() {
			c.Catalogs = []pg.Oid{5}
		}
	}
	if w.one(20) {
		c.More.Deleted = 2000
	}
	tx.Changes = c
	return tx
}

const segments = 60 // the last chapter ends with the last

// lineage makes one with two timelines, holes, backups and tails.
func (w *writer) lineage() {
	const fork = 37
	hole := uint64(8 + w.r.IntN(segments))
	for n := uint64(1); n < segments; n++ {
		tli := pg.TimelineID(1)
		if n >= fork {
			tli = 2
		}
		if n != hole {
			w.segment(tli, n, w.index(tli, n))
		}
		if n == fork {
			w.must(w.l.PutHistory(w.Context(), 2, fmt.Appendf(nil, "1\t%s\tno reason\n", at(fork, 4000))))
			for m := n; m < n+6; m++ {
				w.segment(1, m, w.index(1, m))
			}
		}
		if n%9 == 2 && n != hole && n+1 != hole && n+1 < fork || n == fork+1 && n+1 < hole {
			w.backup(fmt.Sprint("b", n), tli, at(n, 300), at(n+1, 200), w.clock+1)
		}
	}
}

// answers are what a Catalog says, in words.
func (w *writer) answers(c *Catalog) []string {
	w.Helper()
	var out []string
	ctx := w.Context()
	tell := func(what string, v any, err error) {
		text := fmt.Sprintf("%s: %+v", what, v)
		if r, ok := v.(*Resolution); ok && r != nil {
			text = fmt.Sprintf("%s: %s %+v %d %s\n\t%+v\n\t%+v\n\t%+v\n\t%+v %v %v %v", what, r.Backup.Name, r.Stop, r.ReadTo, r.Time, r.LastKept, r.FirstLost, r.LastEnded, r.Settings, r.Tablespaces, r.Prepared, r.Warnings)
		}
		if err != nil {
			text = fmt.Sprintf("%s: error %v", what, err)
		}
		out = append(out, text)
	}
	branches, err := c.Branches(ctx)
	tell("branches", branches, err)
	resolve := func(t Target) {
		r, err := c.Resolve(ctx, t)
		tell(fmt.Sprint(t, t.Exclusive, t.Timeline), r, err)
	}
	for _, tli := range []pg.TimelineID{0, 1} {
		resolve(Target{Latest: true, Timeline: tli})
		resolve(Target{Earliest: true, Timeline: tli})
		for i := 0.0; i < 40; i++ {
			resolve(Target{Time: clock(w.clock * i / 38), Timeline: tli, Exclusive: int(i)%2 == 0})
		}
		for i := pg.XID(0); i < 40; i++ {
			resolve(Target{XID: 3 + (w.xid-3)*i/39, Timeline: tli})
		}
		for _, name := range append(w.names[:min(5, len(w.names)):5], "none") {
			resolve(Target{Name: name, Timeline: tli})
		}
		for i := 0.0; i < 5; i++ {
			for _, q := range []HistoryQuery{
				{Timeline: tli, MinRows: 1000, Since: clock(w.clock * i / 5)},
				{Timeline: tli, MinRows: 3000, From: at(uint64(10*i)+1, 7), To: at(uint64(10*i)+22, 9)},
				{Timeline: tli, MinRows: 1, Since: clock(w.clock * i / 5), Until: clock(w.clock * (i + 1) / 5)},
			} {
				err := c.History(ctx, q, func(e Event) error {
					out = append(out, fmt.Sprintf("history %v: %+v", q, e))
					return nil
				})
				tell("history", q, err)
			}
		}
	}
	return out
}

// What chapters say is what the indexes say.
func TestChaptersSayTheSame(t *testing.T) {
	if chapterLength > 0 {
		return // they are there either way
	}
	used, told := 0, 0
	for seed := range uint64(8) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			w := &writer{world: newWorld(t, repository.LineageInfo{SystemID: 1, Major: 15, SegmentSize: mib, ChapterSegments: 4}), r: rand.New(rand.NewPCG(seed, 9)), xid: 100 + pg.XID(seed%2)*(1<<32-400)}
			w.lineage()
			want := w.answers(w.load())
			made := w.roll()
			before := w.chapters()
			if made < 8 || len(before) != made {
				t.Fatalf("%d chapters made, %d there", made, len(before))
			}
			c := w.load()
			if diff := cmp.Diff(want, w.answers(c)); diff != "" {
				t.Fatalf("with chapters (-want +got):\n%s", diff)
			}
			used += len(c.chapters.read)
			for _, x := range c.chapters.read {
				for _, s := range x.Segments {
					if s.Told {
						told++
					}
				}
			}
			for key := range before {
				w.must(w.store.Delete(t.Context(), key))
			}
			w.roll()
			if diff := cmp.Diff(before, w.chapters()); diff != "" {
				t.Errorf("made again (-before +after):\n%s", diff)
			}
			w.damaged(want)
		})
	}
	if used < 50 || told < 200 {
		t.Errorf("%d chapters were used, with %d segments", used, told)
	}
}

// damaged answers as before where chapters are damaged, and a Roller makes them again.
func (w *writer) damaged(want []string) {
	w.Helper()
	before := w.chapters()
	for key, body := range before {
		b := bytes.Clone(body)
		b[w.r.IntN(len(b))] ^= 1
		w.must(w.store.Replace(w.Context(), key, bytes.NewReader(b)))
	}
	w.must(w.store.Put(w.Context(), "lineages/"+w.l.Info().ID+"/chapter/what-is-this", strings.NewReader("?")))
	got := w.answers(w.load())
	for i := range got {
		if at := strings.Index(got[i], "chapters cannot be read"); at > 0 && !strings.Contains(want[i], "chapters cannot") {
			got[i], want[i] = "damaged", "damaged" // a warning more
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		w.Errorf("with damaged chapters (-want +got):\n%s", diff)
	}
	if made := w.roll(); made != len(before) {
		w.Errorf("%d of %d damaged chapters made again", made, len(before))
	}
	after := w.chapters()
	delete(after, "lineages/"+w.l.Info().ID+"/chapter/what-is-this")
	if diff := cmp.Diff(before, after); diff != "" {
		w.Errorf("made again (-before +after):\n%s", diff)
	}
}

func (w *world) chapters() map[string][]byte {
	w.Helper()
	out := map[string][]byte{}
	for info, err := range w.store.List(w.Context(), "lineages/"+w.l.Info().ID+"/chapter/") {
		w.must(err)
		b, err := blob.ReadAll(w.Context(), w.store, info.Key, 1<<30)
		w.must(err)
		out[info.Key] = b
	}
	return out
}

// A segment that was removed by hand is missed when a target is resolved, and not
// before.
func TestRemovedByHand(t *testing.T) {
	w := newWorld(t, repository.LineageInfo{SystemID: 1, Major: 15, SegmentSize: mib, ChapterSegments: 4})
	for n := uint64(1); n < 20; n++ {
		x := commits(commit(at(n, 100), float64(n)))
		x.Detailed = true
		w.segment(1, n, x)
	}
	w.backup("early", 1, at(2, 0), at(2, 50), 1.5)
	w.backup("late", 1, at(14, 0), at(14, 50), 13.5)
	w.roll()
	gone := pg.Segment{Timeline: 1, Number: 9}
	w.must(w.store.Delete(t.Context(), w.find("/wal/0000000100000000/000000010000000000000009")))
	c := w.load()
	if ws, err := c.Windows(t.Context(), 0); err != nil || len(ws) != 1 {
		t.Errorf("%v, %v", ws, err)
	}
	for _, test := range []struct {
		seconds float64
		outside bool
	}{{7, false}, {16, false}, {10.5, true}} {
		_, err := c.Resolve(t.Context(), Target{Time: clock(test.seconds)})
		var gap *GapError
		if errors.As(err, &gap) != test.outside || err != nil && !test.outside {
			t.Errorf("%v: %v", test.seconds, err)
		}
	}
	if ws, err := c.Windows(t.Context(), 0); err != nil || len(ws) != 2 || c.has(gone) {
		t.Errorf("%v, %v", ws, err)
	}
}

// Nothing is stored without the right to it, of segments that went, or while a Roller
// is suspended; and what it cannot read it leaves.
func TestRollerRefuses(t *testing.T) {
	w := newWorld(t, repository.LineageInfo{SystemID: 1, Major: 15, SegmentSize: mib, ChapterSegments: 4})
	for n := uint64(4); n < 12; n++ {
		x := commits(commit(at(n, 100), float64(n)))
		x.Detailed, x.Partial = true, n == 9
		w.segment(1, n, x)
	}
	no := errors.New("another has the lock")
	if made, err := NewRoller(w.l, func() error { return no }).Roll(t.Context()); made != 0 || !errors.Is(err, no) {
		t.Errorf("%d, %v", made, err)
	}
	r := NewRoller(w.l, func() error { return nil })
	resume := r.Suspend()
	done := make(chan int)
	go func() {
		made, _ := r.Roll(t.Context())
		done <- made
	}()
	select {
	case <-done:
		t.Error("stored while it was suspended")
	case <-time.After(50 * time.Millisecond):
	}
	w.must(w.l.DeleteSegment(t.Context(), pg.Segment{Timeline: 1, Number: 5}))
	resume()
	if made := <-done; made != 0 || len(w.chapters()) != 0 {
		t.Errorf("%d chapters of segments that are gone", made)
	}
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := r.Roll(canceled); !errors.Is(err, context.Canceled) {
		t.Errorf("canceled: %v", err)
	}
}

// Without chapters and indexes, both are made again of the WAL of a real server, and are
// the same to the byte.
func TestRebuilt(t *testing.T) {
	if chapterLength > 0 {
		return
	}
	chapterLength = 2
	defer func() { chapterLength = 0 }()
	real := write(t)
	w := real.archived(t, func(l *world, _ int, x *walindex.Index) { l.must(l.l.PutIndex(l.Context(), x.Segment, x.Encode())) })
	w.roll()
	objects := func() map[string][]byte {
		out := w.chapters()
		for g, err := range w.l.Indexed(t.Context(), pg.Segment{}) {
			w.must(err)
			b, err := w.l.Index(t.Context(), g.Segment)
			w.must(err)
			out["index "+mib.Name(g.Segment)] = b
		}
		return out
	}
	before := objects()
	chapters := len(w.chapters())
	if chapters < 2 {
		t.Fatalf("%d chapters of %d segments", chapters, len(real.segments))
	}
	for key := range w.chapters() {
		w.must(w.store.Delete(t.Context(), key))
	}
	var all []pg.Segment
	for g, err := range w.l.Indexed(t.Context(), pg.Segment{}) {
		w.must(err)
		all = append(all, g.Segment)
		w.must(w.store.Delete(t.Context(), "lineages/"+w.l.Info().ID+"/index/"+mib.Name(g.Segment)[:16]+"/"+mib.Name(g.Segment)))
	}
	c, err := Load(t.Context(), w.l)
	w.must(err)
	p, err := c.Path(0)
	w.must(err)
	for _, g := range all {
		x, err := c.Index(t.Context(), p, g.Number, mib.End(g.Number))
		w.must(err)
		w.must(w.l.PutIndex(t.Context(), g, x.Encode()))
	}
	w.roll()
	t.Logf("%d indexes and %d chapters", len(all), chapters)
	if diff := cmp.Diff(before, objects()); diff != "" {
		t.Errorf("made again (-before +after):\n%.2000s", diff)
	}
}
