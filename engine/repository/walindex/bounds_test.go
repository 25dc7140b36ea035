// SPDX-License-Identifier: Apache-2.0

package walindex_test

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"runtime"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kbcli/kbcli/engine/pg"
	"github.com/kbcli/kbcli/engine/pg/walscan"
	"github.com/kbcli/kbcli/engine/repository/walindex"
)

// feeder makes records as a server would, and hands them to a Builder.
type feeder struct {
	t    testing.TB
	b    walindex.Builder
	lsn  pg.LSN
	seg  uint64
	rec  walscan.Record
	blk  [1]walscan.BlockRef
	main []byte
}

func feed(t testing.TB) *feeder {
	f := &feeder{t: t, lsn: 16 << 20, seg: 1}
	f.b.Begin(pg.Segment{Timeline: 1, Number: 1}, false)
	return f
}

func (f *feeder) add(rmgr walscan.RmgrID, info uint8, xid pg.XID, blocks []walscan.BlockRef, main []byte) {
	f.lsn += 64
	f.rec = walscan.Record{Start: f.lsn, End: f.lsn + 64, Major: 15, Rmgr: rmgr, Info: info, XID: xid, Blocks: blocks, Main: main, TotalLen: 60}
	if err := f.b.Add(&f.rec); err != nil {
		f.t.Fatal(err)
	}
}

func (f *feeder) insert(xid pg.XID, rel pg.Oid, block uint32) {
	f.blk[0] = walscan.BlockRef{Rel: pg.RelFileLocator{Spc: 1663, DB: 5, Rel: rel}, Block: block}
	f.add(walscan.RmgrHeap, 0, xid, f.blk[:], []byte{1, 0, 0})
}

// numbers are xids or Oids as they stand in records, after how many there are.
func (f *feeder) numbers(head []byte, xs ...pg.XID) []byte {
	b := binary.LittleEndian.AppendUint32(append(f.main[:0], head...), uint32(len(xs)))
	for _, x := range xs {
		b = binary.LittleEndian.AppendUint32(b, uint32(x))
	}
	f.main = b
	return b
}

func (f *feeder) assign(top pg.XID, subs ...pg.XID) {
	f.add(walscan.RmgrTransaction, 0x50, top, nil, f.numbers(binary.LittleEndian.AppendUint32(nil, uint32(top)), subs...))
}

const (
	commitInfo = 0x80
	abortInfo  = 0xA0
)

func (f *feeder) end(info uint8, xid pg.XID, subs ...pg.XID) {
	head := make([]byte, 12)
	if len(subs) > 0 {
		head[8] = 2
		f.add(walscan.RmgrTransaction, info, xid, nil, f.numbers(head, subs...))
		return
	}
	f.add(walscan.RmgrTransaction, info, xid, nil, head)
}

func (f *feeder) running(next, oldest pg.XID) {
	b := make([]byte, 24)
	binary.LittleEndian.PutUint32(b[12:], uint32(next))
	binary.LittleEndian.PutUint32(b[16:], uint32(oldest))
	f.add(walscan.RmgrStandby, 0x10, 0, nil, b)
}

// next ends the segment. A new Builder goes on from what is stored, if handed.
func (f *feeder) next(handed bool) *walindex.Index {
	f.t.Helper()
	x := f.b.Finish(f.lsn + 64)
	got, err := walindex.Decode(x.Encode())
	if err != nil || !bytes.Equal(x.Encode(), got.Encode()) {
		f.t.Fatalf("what is decoded is not what was encoded: %v", err)
	}
	if handed {
		f.b = walindex.Builder{}
		f.b.Resume(got)
	}
	f.seg++
	f.b.Begin(pg.Segment{Timeline: 1, Number: f.seg}, false)
	return got
}

func last(t testing.TB, x *walindex.Index) *walindex.Changes {
	t.Helper()
	c := x.Transactions[len(x.Transactions)-1].Changes
	if c == nil {
		return &walindex.Changes{}
	}
	return c
}

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// A transaction of a million subtransactions is counted exactly, whatever becomes of
// them, in little memory, and whoever goes on from segment to segment.
func TestManySubtransactions(t *testing.T) {
	const n, top, rel = 1_000_000, 4_294_000_000, 20000 // xids wrap around on the way
	f := feed(t)
	f.running(top-5, top-5)
	was := heap()
	var most uint64
	var subs, batch []pg.XID
	f.insert(top, rel, 0)
	undone := 0
	for i := range n {
		sub := pg.XID(uint64(top)+1+uint64(i)) + 3*pg.XID(uint64(top)+1+uint64(i)>>32)
		if batch = append(batch, sub); len(batch) == 64 {
			f.assign(top, batch...)
			batch = batch[:0]
		}
		f.insert(sub, rel, uint32(i/100))
		if i%10 == 9 {
			undone++
			f.end(abortInfo, sub)
		} else {
			subs = append(subs, sub)
		}
		if i%90000 == 89999 {
			f.next(i%180000 > 90000)
			most = max(most, heap()-was)
		}
	}
	f.end(commitInfo, top, subs...)
	x := f.next(false)
	want := []walindex.RelRows{{Rel: pg.RelFileLocator{Spc: 1663, DB: 5, Rel: rel}, RowCounts: walindex.RowCounts{Inserted: uint64(1 + n - undone)}}}
	if c := last(t, x); c.AtLeast || !cmp.Equal(want, c.Rows) || len(x.Open.Xacts) != 0 {
		t.Errorf("%+v, and open %d", c, len(x.Open.Xacts))
	}
	if most > 48<<20 { // 4 MiB of it are subs
		t.Errorf("it took %d MiB", most>>20)
	}
	t.Logf("at most %d MiB", most>>20)
}

// When an early savepoint is rolled back after those behind it were added up, what is
// left is a least.
func TestFoldedIsRolledBack(t *testing.T) {
	f := feed(t)
	f.running(1000, 1000)
	f.insert(1000, 1, 0)
	var subs []pg.XID
	for i := range 40000 {
		subs = append(subs, pg.XID(1001+i))
		f.insert(subs[i], 2, 0)
		if len(subs)%64 == 0 {
			f.assign(1000, subs[len(subs)-64:]...)
		}
	}
	f.insert(900000, 3, 0) // somebody else's rollback changes nothing
	f.end(abortInfo, 900000)
	if x := f.next(true); len(x.Open.Xacts) > 1<<15 {
		t.Errorf("%d are open", len(x.Open.Xacts))
	}
	f.end(abortInfo, 1005, subs[5:]...)
	f.end(commitInfo, 1000, subs[:4]...)
	x := f.next(false)
	c := last(t, x)
	if !c.AtLeast || c.Rows[0].Rel.Rel != 1 || len(c.Rows) > 1 && c.Rows[1].Inserted > 4 {
		t.Errorf("%+v", c)
	}
	f.insert(1000000, 1, 0)
	f.end(commitInfo, 1000000)
	if c := last(t, f.next(false)); c.AtLeast || c.Rows[0].Inserted != 1 {
		t.Errorf("the next: %+v", c)
	}
}

// Subtransactions that nobody assigns are let go of when they are too many. Then counts
// are at least those, until the server has logged that who was open is over.
func TestTooManyOpen(t *testing.T) {
	f := feed(t)
	f.running(1000, 1000)
	for i := range 100000 {
		f.insert(pg.XID(1000+i), 7, 0)
	}
	x := f.next(true)
	if x.Open.Since == 0 || len(x.Open.Xacts) > 1<<15 {
		t.Errorf("%d are open, counted since %s", len(x.Open.Xacts), x.Open.Since)
	}
	f.end(commitInfo, 1001)
	if c := last(t, f.next(false)); !c.AtLeast {
		t.Errorf("%+v", c)
	}
	f.running(101000, 1002) // 1002 to 100999 are open
	f.insert(101000, 8, 0)
	f.end(commitInfo, 101000)
	if c := last(t, f.next(true)); c.AtLeast || c.Rows[0].Inserted != 1 {
		t.Errorf("one that began later: %+v", c)
	}
	f.end(commitInfo, 1002)
	if c := last(t, f.next(true)); !c.AtLeast {
		t.Errorf("one that is older: %+v", c)
	}
	f.running(102000, 101500)
	if x := f.next(false); x.Open.Since != 0 || len(x.Open.Xacts) != 0 {
		t.Errorf("all is known again, and there is %+v", x.Open)
	}
}

// Of a transaction with very many relations the largest are told, and the sum of the rest.
func TestManyRelations(t *testing.T) {
	const n = 100000
	f := feed(t)
	f.running(1000, 1000)
	for i := range n {
		f.insert(1000, pg.Oid(20000+i), 0)
		if i%1000 == 0 {
			f.insert(1000, 42, uint32(i))
		}
	}
	f.insert(1000, 1259, 0)
	f.end(commitInfo, 1000)
	x := f.next(false)
	c := last(t, x)
	sum := c.More.Inserted
	for _, r := range c.Rows {
		sum += r.Inserted
	}
	if len(c.Rows) != 64 || sum != n+101 || c.AtLeast || c.Rows[0].Rel.Rel != 42 || !cmp.Equal(c.Catalogs, []pg.Oid{5}) {
		t.Errorf("%d relations, %d rows, catalogues %v, the first is %+v", len(c.Rows), sum, c.Catalogs, c.Rows[0])
	}
	if len(x.Whole) != 1 || len(x.Blocks) != 1<<16 {
		t.Errorf("%d files with blocks, whole %v", len(x.Blocks), x.Whole)
	}
}

// More blocks than can be kept are told as more than changed, never as fewer.
func TestManyBlocks(t *testing.T) {
	f := feed(t)
	r := rand.New(rand.NewPCG(1, 2))
	blocks := map[pg.Oid][]uint32{}
	f.insert(3, 1, 77)
	for range 5_000_000 {
		rel, block := pg.Oid(2+r.IntN(3)*r.IntN(2)), r.Uint32()>>1
		blocks[rel] = append(blocks[rel], block)
		f.insert(3, rel, block)
	}
	x := f.next(false)
	c := map[pg.Oid]walindex.ForkBlocks{}
	kept := 0
	for _, k := range x.Blocks {
		c[k.Rel.Rel] = k
		kept += len(k.Runs)
	}
	for rel, bs := range blocks {
		k, i := c[rel], 0
		single := map[uint32]bool{}
		for ; i < len(k.Runs); i++ {
			for n := range k.Runs[i].Count {
				single[k.Runs[i].Block+n] = true
			}
		}
		for _, b := range bs {
			if b < k.From && !single[b] {
				t.Fatalf("block %d of %d is not told", b, rel)
			}
		}
	}
	if k := c[1]; k.From != walindex.NoBlock || !cmp.Equal(k.Runs, []walindex.BlockRun{{Block: 77, Count: 1}}) {
		t.Errorf("the small one: %+v", k)
	}
	if kept > 1<<21 {
		t.Errorf("%d runs are kept", kept)
	}
}

// Lists of files end, and the index says so.
func TestManyFiles(t *testing.T) {
	const n = 300000
	f := feed(t)
	head := make([]byte, 12)
	head[8] = 4
	b := binary.LittleEndian.AppendUint32(head, n)
	b = append(b, make([]byte, 12*n)...)
	f.add(walscan.RmgrTransaction, commitInfo, 9, nil, b)
	create := make([]byte, 16)
	for i := range uint32(10) {
		binary.LittleEndian.PutUint32(create[8:], i)
		f.add(walscan.RmgrStorage, 0x10, 9, nil, create)
	}
	x := f.next(false)
	if len(x.Transactions[0].Dropped) != 1<<18 || !x.Cut || len(x.Creations) != 0 || len(x.Blocks) != 10 || x.Blocks[0].From != 0 {
		t.Errorf("%d dropped, cut %t, %d made, blocks %v", len(x.Transactions[0].Dropped), x.Cut, len(x.Creations), x.Blocks)
	}
}

// What an extension does on its own is told as such.
func TestOpaque(t *testing.T) {
	f := feed(t)
	f.add(200, 0x01, 9, nil, nil)
	f.add(200, 0x10, 9, nil, nil)
	f.add(walscan.RmgrStorage, 0x70, 9, nil, nil)
	x := f.next(false)
	if len(x.Opaque) != 2 || x.Opaque[0].Rmgr != 200 || x.Opaque[1].Rmgr != walscan.RmgrStorage {
		t.Errorf("%+v", x.Opaque)
	}
}

// A Builder that begins elsewhere, or with a part of a segment behind it, counts anew.
func TestContinuity(t *testing.T) {
	begun := func(before func(f *feeder), g pg.Segment, partial bool) *walindex.Index {
		f := feed(t)
		f.running(1000, 1000)
		f.insert(1000, 7, 0)
		before(f)
		f.b.Begin(g, partial)
		f.insert(1000, 7, 0)
		f.end(commitInfo, 1000)
		return f.next(false)
	}
	finish := func(f *feeder) { f.b.Finish(f.lsn + 64) }
	for name, c := range map[string]struct {
		x       *walindex.Index
		rows    uint64
		atLeast bool
	}{
		"the next":                {begun(finish, pg.Segment{Timeline: 1, Number: 2}, false), 2, false},
		"on a later timeline":     {begun(finish, pg.Segment{Timeline: 3, Number: 2}, false), 2, false},
		"on an earlier timeline":  {begun(finish, pg.Segment{Timeline: 0, Number: 2}, false), 1, true},
		"the one after the next":  {begun(finish, pg.Segment{Timeline: 1, Number: 3}, false), 1, true},
		"the same again":          {begun(finish, pg.Segment{Timeline: 1, Number: 1}, false), 1, true},
		"a record lost":           {begun(finish, pg.Segment{Timeline: 1, Number: 2}, true), 1, true},
		"the one before unended":  {begun(func(*feeder) {}, pg.Segment{Timeline: 1, Number: 2}, false), 1, true},
		"after one without rows":  {begun(func(f *feeder) { f.next(true); f.b.Finish(0) }, pg.Segment{Timeline: 1, Number: 3}, false), 2, false},
		"an old index before it":  {begun(func(f *feeder) { f.b.Resume(&walindex.Index{Segment: pg.Segment{Timeline: 1, Number: 1}}) }, pg.Segment{Timeline: 1, Number: 2}, false), 1, true},
		"a server that went down": {begun(func(f *feeder) { f.add(walscan.RmgrXLOG, 0, 0, nil, make([]byte, 88)); finish(f) }, pg.Segment{Timeline: 1, Number: 2}, false), 1, false},
	} {
		if got := last(t, c.x); len(got.Rows) != 1 || got.Rows[0].Inserted != c.rows || got.AtLeast != c.atLeast {
			t.Errorf("%s: %+v", name, got)
		}
	}
}
