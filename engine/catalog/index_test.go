// SPDX-License-Identifier: Apache-2.0

package catalog

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kbcli/kbcli/engine/blob"
	"github.com/kbcli/kbcli/engine/blob/fault"
	"github.com/kbcli/kbcli/engine/pg"
	"github.com/kbcli/kbcli/engine/pg/walscan"
	"github.com/kbcli/kbcli/engine/repository"
	"github.com/kbcli/kbcli/engine/repository/walindex"
	"github.com/kbcli/kbcli/internal/testpg"
)

// done is a transaction that a server has committed, and a moment by its clock after
// it and before the next.
type done struct {
	xid   pg.XID
	after time.Time
}

// written is WAL that a real server wrote: segments first, first+1 and so on, the last
// not whole, and what is in it.
type written struct {
	system      pg.SystemID
	first       uint64
	segments    [][]byte
	end         pg.LSN
	start, stop pg.LSN // of what is taken for a backup
	stopTime    time.Time
	done        []done
}

// write runs a server. One of its transactions writes a record of three segments.
func write(t *testing.T) written {
	s := testpg.Start(t, testpg.Options{SegmentSizeMB: 1, Settings: map[string]string{"autovacuum": "off"}})
	lsn := func(sql string) pg.LSN {
		t.Helper()
		var text string
		s.QueryRow(t, sql, &text)
		l, err := pg.ParseLSN(text)
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	now := func() (at time.Time) {
		t.Helper()
		s.QueryRow(t, "select clock_timestamp()", &at)
		return at.UTC()
	}
	var w written
	conn := s.Conn(t, "postgres")
	s.Exec(t, "create table t (i int, v text); checkpoint")
	s.Exec(t, "select pg_switch_wal()")
	w.start = lsn("select pg_current_wal_insert_lsn()::text")
	s.Exec(t, "insert into t values (0, '')")
	w.stop = lsn("select pg_current_wal_insert_lsn()::text")
	w.stopTime = now()
	for _, sql := range []string{
		"insert into t values (1, 'a')",
		"insert into t select i, repeat('some', 100) from generate_series(1, 4000) i",
		"select pg_logical_emit_message(true, 'long', repeat('a long message ', 240000))",
		"insert into t values (2, 'b')",
		"select pg_logical_emit_message(true, 'rather', repeat('a long message ', 90000))",
		"truncate t",
		"insert into t select i, repeat('some', 100) from generate_series(1, 4000) i",
		"insert into t values (3, 'c')",
	} {
		var xid int64
		tx, err := conn.Begin(t.Context())
		if err == nil {
			_, err = tx.Exec(t.Context(), sql)
		}
		if err == nil {
			err = tx.QueryRow(t.Context(), "select pg_current_xact_id()::text::bigint").Scan(&xid)
		}
		if err == nil {
			err = tx.Commit(t.Context())
		}
		if err != nil {
			t.Fatal(err)
		}
		w.done = append(w.done, done{pg.XID(xid), now()})
	}
	w.end = lsn("select pg_current_wal_flush_lsn()::text")
	s.Stop(t, testpg.Immediate)
	w.first = mib.Number(w.start)
	for n := w.first; mib.Start(n) < w.end; n++ {
		b, err := os.ReadFile(filepath.Join(s.DataDir, "pg_wal", mib.Name(pg.Segment{Timeline: 1, Number: n})))
		if err != nil {
			t.Fatal(err)
		}
		w.segments = append(w.segments, b)
	}
	w.system = pg.SystemID(binary.LittleEndian.Uint64(w.segments[0][24:]))
	return w
}

// indexes are what the archive would have made of it.
func (w *written) indexes(t *testing.T) []*walindex.Index {
	t.Helper()
	var out []*walindex.Index
	var b walindex.Builder
	s := walscan.New(walscan.Options{SegmentSize: mib, Start: mib.Start(w.first)})
	for i, raw := range w.segments[:len(w.segments)-1] {
		b.Begin(pg.Segment{Timeline: 1, Number: w.first + uint64(i)}, false)
		if err := s.Feed(raw, b.Add); err != nil {
			t.Fatal(err)
		}
		out = append(out, b.Finish(s.NextRecord()))
	}
	return out
}

// archived is a lineage with it. How the index of segment i is stored is put's to say.
func (w *written) archived(t *testing.T, put func(l *world, i int, x *walindex.Index)) *world {
	t.Helper()
	l := newWorld(t, repository.LineageInfo{SystemID: w.system, Major: 15, SegmentSize: mib})
	for i, x := range w.indexes(t) {
		l.put(x.Segment, w.segments[i])
		put(l, i, x)
	}
	last := len(w.segments) - 1
	l.tail(1, w.first+uint64(last), 0, int(mib.Offset(w.end)), w.segments[last])
	l.backup("a", 1, w.start, w.stop, w.stopTime.Sub(noon).Seconds())
	return l
}

// answers resolves every target that there is a reason to.
func (w *written) answers(t *testing.T, c *Catalog) (out []string) {
	t.Helper()
	targets := []Target{{Latest: true}, {Backup: "a"}}
	ws, err := c.Windows(t.Context(), 0)
	if err != nil || len(ws) != 1 || ws[0].ToLSN != w.end {
		t.Fatalf("%+v, %v", ws, err)
	}
	targets = append(targets, Target{Time: ws[0].From}, Target{Time: ws[0].To})
	for _, d := range w.done[:len(w.done)-1] {
		targets = append(targets, Target{Time: d.after})
	}
	for _, target := range targets {
		out = append(out, brief(c.Resolve(t.Context(), target)))
	}
	return out
}

// However the indexes fare, the answers are those of the WAL.
func TestRealWAL(t *testing.T) {
	w := write(t)
	good := func(l *world, _ int, x *walindex.Index) { l.must(l.l.PutIndex(l.Context(), x.Segment, x.Encode())) }
	wd := w.archived(t, good)
	c := wd.load()
	for i, d := range w.done[:len(w.done)-1] {
		r, err := c.Resolve(t.Context(), Target{Time: d.after})
		if err != nil || r.LastKept == nil || r.LastKept.XID != d.xid || r.FirstLost == nil || r.FirstLost.XID != w.done[i+1].xid || r.Stop.LSN != r.FirstLost.Start {
			t.Errorf("after transaction %d: %s", d.xid, brief(r, err))
		}
	}
	r, err := c.Resolve(t.Context(), Target{Latest: true})
	if err != nil || r.LastKept.XID != w.done[len(w.done)-1].xid || r.FirstLost != nil || !r.Stop.Inclusive {
		t.Errorf("latest: %s", brief(r, err))
	}
	truncated := 0
	for _, x := range w.indexes(t) {
		for _, tx := range x.Transactions {
			truncated += len(tx.Dropped)
		}
	}
	if len(w.segments) < 8 || truncated == 0 {
		t.Errorf("%d segments, %d dropped: the server wrote too little", len(w.segments), truncated)
	}
	want := w.answers(t, c)

	for name, put := range map[string]func(l *world, i int, x *walindex.Index){
		"missing": func(*world, int, *walindex.Index) {},
		"some missing": func(l *world, i int, x *walindex.Index) {
			if i%2 == 0 {
				good(l, i, x)
			}
		},
		"partial": func(l *world, i int, x *walindex.Index) {
			x.Partial, x.Transactions = true, nil
			good(l, i, x)
		},
		"of another segment": func(l *world, i int, x *walindex.Index) {
			g := x.Segment
			x.Segment.Number++
			x.Transactions = nil
			l.must(l.l.PutIndex(l.Context(), g, x.Encode()))
		},
		"nonsense": func(l *world, i int, x *walindex.Index) {
			l.must(l.l.PutIndex(l.Context(), x.Segment, []byte("nonsense")))
		},
		"damaged": func(l *world, i int, x *walindex.Index) {
			good(l, i, x)
			l.damage("index/0000000100000000/" + mib.Name(x.Segment))
		},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(want, w.answers(t, w.archived(t, put).load())); diff != "" {
				t.Errorf("(-with indexes +without):\n%s", diff)
			}
		})
	}

	// where WAL is damaged too, what needs it is refused and the rest is not
	t.Run("WAL damaged", func(t *testing.T) {
		wd := w.archived(t, func(*world, int, *walindex.Index) {})
		// the segment after that of the first transaction that ends in a later one
		bad := mib.Number(mustResolve(t, c, Target{Time: w.done[1].after}).Stop.LSN) + 1
		wd.damage("wal/0000000100000000/" + mib.Name(pg.Segment{Timeline: 1, Number: bad}))
		c := wd.load()
		var corrupt *repository.CorruptError
		if r, err := c.Resolve(t.Context(), Target{Latest: true}); !errors.As(err, &corrupt) {
			t.Errorf("latest: %s", brief(r, err))
		}
		if r, err := c.Resolve(t.Context(), Target{Time: w.stopTime}); err != nil || r.FirstLost.XID != w.done[0].xid {
			t.Errorf("the first moment: %s", brief(r, err))
		}
		// a record that reaches out of the damaged segment is missed
		wd = w.archived(t, good)
		wd.damage("wal/0000000100000000/" + mib.Name(pg.Segment{Timeline: 1, Number: bad}))
		wd.must(wd.store.Delete(t.Context(), wd.find("index/0000000100000000/"+mib.Name(pg.Segment{Timeline: 1, Number: bad + 1}))))
		if r, err := wd.load().Resolve(t.Context(), Target{Latest: true}); err == nil {
			t.Errorf("latest, lacking a record: %s", brief(r, err))
		}
	})

	t.Run("as far as was known", func(t *testing.T) {
		p, err := c.Path(0)
		if err != nil {
			t.Fatal(err)
		}
		n := mib.Number(r.LastKept.Start) - 1
		whole, err := c.index(t.Context(), p, n, w.end)
		if err != nil {
			t.Fatal(err)
		}
		if x, err := c.index(t.Context(), p, n, mib.Start(n)+mib.Floor(0)+pg.LSN(mib)/2); err != nil || x.Next > mib.Start(n)+pg.LSN(mib)/2+40 || x.Last >= whole.Last {
			t.Errorf("%+v, %v", x, err)
		}
		if x, err := c.index(t.Context(), p, n, w.end); err != nil || x.Last != whole.Last {
			t.Errorf("%+v, %v", x, err)
		}
		var missing *repository.MissingWALError
		if _, err := c.index(t.Context(), p, mib.Number(w.end), w.end+8); !errors.As(err, &missing) || missing.From != w.end {
			t.Errorf("beyond the end: %v", err)
		}
	})

	t.Run("a store that does not answer", func(t *testing.T) {
		for _, part := range []string{"index/", "wal/", "tail/"} {
			wd := w.archived(t, func(l *world, i int, x *walindex.Index) {
				if part == "index/" {
					good(l, i, x)
				}
			})
			f := fault.New(wd.store, 1)
			repo, err := repository.Open(t.Context(), f, repository.Options{Clock: func() time.Time { return noon }})
			if err != nil {
				t.Fatal(err)
			}
			ls, err := repo.Lineages(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			c, err := Load(t.Context(), ls[0])
			if err != nil {
				t.Fatal(err)
			}
			f.Set(fault.Rule{Verb: blob.VerbGet, Key: part, Action: fault.Fail(nil)})
			if r, err := c.Resolve(t.Context(), Target{Latest: true}); !errors.Is(err, blob.ErrUnreachable) {
				t.Errorf("%s: %s", part, brief(r, err))
			}
		}
	})

	t.Run("many at once", func(t *testing.T) {
		c := w.archived(t, good).load()
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				if diff := cmp.Diff(want, w.answers(t, c)); diff != "" {
					t.Errorf("(-want +got):\n%s", diff)
				}
			})
			wg.Go(func() { c.Grow(1, w.end, time.Time{}) })
		}
		wg.Wait()
	})
}

func mustResolve(t *testing.T, c *Catalog, target Target) *Resolution {
	t.Helper()
	r, err := c.Resolve(t.Context(), target)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// completes puts a segment and deletes its tails once a Get of key part was made.
type completes struct {
	blob.Store
	part string
	then func()
}

func (c *completes) Get(ctx context.Context, key string, off, length int64) (io.ReadCloser, error) {
	if c.then != nil && bytes.Contains([]byte(key), []byte(c.part)) {
		then := c.then
		c.then = nil
		defer then()
	}
	return c.Store.Get(ctx, key, off, length)
}

// A segment that is completed while its tails are read is read whole.
func TestReadSegmentWhileItIsCompleted(t *testing.T) {
	for _, part := range []string{"/wal/", "-0000000000100064", "-00000000001000C8"} {
		w := newWorld(t, repository.LineageInfo{})
		w.tail(1, 1, 0, 100, nil)
		w.tail(1, 1, 100, 200, nil)
		s := &completes{Store: w.store, part: part, then: func() {
			w.put(pg.Segment{Timeline: 1, Number: 1}, nothing)
			w.must(w.l.DeleteTails(context.Background(), pg.Segment{Timeline: 1, Number: 1}))
		}}
		r, err := repository.Open(t.Context(), s, repository.Options{Clock: func() time.Time { return noon }})
		w.must(err)
		ls, err := r.Lineages(t.Context())
		w.must(err)
		b, err := ReadSegment(t.Context(), ls[0], pathTo(), 1, nil)
		if err != nil || !bytes.Equal(b, nothing) {
			t.Errorf("after a read of %s: %d bytes, %v", part, len(b), err)
		}
	}
}

func TestReadSegment(t *testing.T) {
	old, young := bytes.Repeat([]byte{1}, int(mib)), bytes.Repeat([]byte{2}, int(mib))
	for _, test := range []struct {
		name  string
		build func(w *world)
		want  []byte
	}{
		{"nothing", func(*world) {}, nil},
		{"the new one, whole", func(w *world) {
			w.put(pg.Segment{Timeline: 1, Number: 1}, old)
			w.put(pg.Segment{Timeline: 2, Number: 1}, young)
		}, young},
		{"the old one up to the switch", func(w *world) { w.put(pg.Segment{Timeline: 1, Number: 1}, old) }, old[:500]},
		{"the old one's tail", func(w *world) { w.tail(1, 1, 0, 300, old) }, old[:300]},
		{"the new one's tail is shorter", func(w *world) {
			w.tail(1, 1, 0, 300, old)
			w.tail(2, 1, 0, 200, young)
		}, old[:300]},
		{"the new one's tail is longer", func(w *world) {
			w.tail(1, 1, 0, 900, old)
			w.tail(2, 1, 0, 600, young)
		}, young[:600]},
		{"a stray branch", func(w *world) { w.put(pg.Segment{Timeline: 3, Number: 1}, young) }, nil},
	} {
		w := newWorld(t, repository.LineageInfo{})
		test.build(w)
		got, err := ReadSegment(t.Context(), w.l, pathTo(at(1, 500)), 1, nil)
		if err != nil || !bytes.Equal(got, test.want) {
			t.Errorf("%s: %d bytes, want %d, %v", test.name, len(got), len(test.want), err)
		}
	}
}
