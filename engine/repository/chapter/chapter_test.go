// SPDX-License-Identifier: Apache-2.0

package chapter

import (
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/kbcli/kbcli/engine/pg"
	"github.com/kbcli/kbcli/engine/pg/walscan"
	"github.com/kbcli/kbcli/engine/repository/walindex"
)

const size = pg.SegmentSize(16 << 20)

func TestNames(t *testing.T) {
	at := func(s string) pg.Timestamp {
		v, err := time.Parse(time.RFC3339Nano, s)
		if err != nil {
			t.Fatal(err)
		}
		return pg.TimestampOf(v)
	}
	for key, want := range map[string]Name{
		"0000000100000000000000C0-none-none":                         {First: pg.Segment{Timeline: 1, Number: 192}},
		"0000000A0000000300000000-0005F5D69F1D9F40-0005F5D69F1D9F41": {pg.Segment{Timeline: 10, Number: 768}, true, at("2023-03-01T12:00:00Z") - 3, at("2023-03-01T12:00:00Z") - 3},
	} {
		got, err := ParseName(size, 64, key)
		if err != nil {
			t.Errorf("%s: %v", key, err)
			continue
		}
		if want.Stamped { // the times are whatever the digits say
			want.Min, want.Max = got.Min, got.Max
		}
		if got != want || got.Key(size) != key {
			t.Errorf("%s: %+v, %s", key, got, got.Key(size))
		}
	}
	for _, n := range []Name{
		{pg.Segment{Timeline: 1}, true, at("1969-12-31T23:59:59Z"), at("2026-11-23T00:00:00.000001Z")},
		{pg.Segment{Timeline: math.MaxUint32, Number: 64}, true, 0, 0},
	} {
		if got, err := ParseName(size, 64, n.Key(size)); err != nil || got != n {
			t.Errorf("%+v: %+v, %v", n, got, err)
		}
	}
	for _, key := range []string{
		"", "0000000100000000000000C0", "0000000100000000000000C0-none", "0000000100000000000000C1-none-none", "0000000100000000000000C0-none-none-none",
		"0000000100000000000000C0-none-0005F5D69F1D9F40", "0000000100000000000000C0-0005F5D69F1D9F40-none", "0000000100000000000000C0-5F5D69F1D9F40-5F5D69F1D9F40",
		"0000000100000000000000C0-0005f5d69f1d9f40-0005f5d69f1d9f40", "0000000100000000000000C0-0005F5D69F1D9F41-0005F5D69F1D9F40", "000000000000000000000000-none-none",
	} {
		if n, err := ParseName(size, 64, key); err == nil {
			t.Errorf("%q: %+v", key, n)
		}
	}
}

func tx(kind walscan.XactKind, n int, seconds float64) walindex.Transaction {
	lsn := pg.LSN(1000 * n)
	return walindex.Transaction{Kind: kind, Start: lsn, End: lsn + 40, XID: pg.XID(100 + n), Time: pg.Timestamp(seconds * 1e6)}
}

func changed(t walindex.Transaction, rel pg.Oid, rows walindex.RowCounts) walindex.Transaction {
	t.Changes = &walindex.Changes{Rows: []walindex.RelRows{{Rel: pg.RelFileLocator{Spc: 1663, DB: 5, Rel: rel}, RowCounts: rows}}}
	return t
}

func dropping(t walindex.Transaction, files int) walindex.Transaction {
	for i := range files {
		t.Dropped = append(t.Dropped, pg.RelFileLocator{Spc: 1663, DB: 5, Rel: pg.Oid(1<<30 + 7919*i%1000003)})
	}
	return t
}

func build(t testing.TB, xs ...*walindex.Index) *Chapter {
	t.Helper()
	b := NewBuilder(pg.Segment{Timeline: 1, Number: 64})
	for i, x := range xs {
		x.Segment, x.Detailed = pg.Segment{Timeline: 1, Number: 64 + uint64(i)}, true
		x.Next = math.MaxInt64
		if err := b.Add(x); err != nil {
			t.Fatal(err)
		}
	}
	return b.Chapter()
}

func xids(x *walindex.Index) (out []pg.XID) {
	for _, t := range x.Transactions {
		out = append(out, t.XID-100)
	}
	return out
}

// Which transactions are listed, by what they did and what had been noted before.
func TestListed(t *testing.T) {
	with := func(t walindex.Transaction, f func(*walindex.Transaction)) walindex.Transaction { f(&t); return t }
	made := func(n, xid int) walindex.Creation {
		return walindex.Creation{Start: pg.LSN(1000*n - 1), XID: pg.XID(100 + xid)}
	}
	few, many := walindex.RowCounts{Deleted: Rows - 1}, walindex.RowCounts{Updated: Rows}
	c := build(t,
		&walindex.Index{Transactions: []walindex.Transaction{ // 1 latest, 3 and 4 last, 4 the last commit
			tx(walscan.Commit, 0, 1), tx(walscan.Abort, 1, 9), tx(walscan.Commit, 2, 3), tx(walscan.Abort, 3, 9), changed(tx(walscan.Commit, 4, 4), 20000, few),
		}},
		&walindex.Index{Transactions: []walindex.Transaction{ // 12 in two phases; the last commit is 15
			tx(walscan.Commit, 11, 20), tx(walscan.Prepare, 12, 11), tx(walscan.Commit, 13, 12), changed(tx(walscan.Commit, 14, 13), 20000, many), tx(walscan.Commit, 15, 13),
			tx(walscan.Abort, 16, 13), tx(walscan.Abort, 17, 13), tx(walscan.Abort, 18, 13),
		}},
		&walindex.Index{
			Creations: []walindex.Creation{made(20, 24), made(20, 35), {Start: 20_000, XID: 121, Fork: pg.InitFork}},
			Truncates: []walindex.Truncate{{Start: 20_000, XID: 130}},
			Transactions: []walindex.Transaction{
				tx(walscan.Commit, 20, 99), tx(walscan.Commit, 21, 21),
				tx(walscan.Commit, 22, 22), changed(tx(walscan.Commit, 23, 22), 1259, walindex.RowCounts{Inserted: 1}), tx(walscan.Abort, 24, 22),
				with(tx(walscan.Commit, 29, 22), func(t *walindex.Transaction) { t.Subxacts = 1 }), // takes 30 and 35
				tx(walscan.Commit, 30, 22), dropping(tx(walscan.Abort, 31, 22), 1),
				with(tx(walscan.Commit, 32, 22), func(t *walindex.Transaction) { t.Subxacts = 1 }), // there is nothing left
				tx(walscan.Commit, 35, 22), tx(walscan.Commit, 36, 22), tx(walscan.Commit, 37, 22),
			},
		},
		&walindex.Index{},
	)
	for i, want := range [][]pg.XID{{1, 3, 4}, {11, 12, 14, 15, 17, 18}, {20, 23, 24, 29, 31, 36, 37}, nil} {
		if diff := cmp.Diff(want, xids(c.Segments[i].Index)); diff != "" {
			t.Errorf("segment %d (-want +got):\n%s", i, diff)
		}
	}
	if c.Segments[0].Index.Transactions[2].Changes != nil || c.Segments[1].Index.Transactions[2].Changes == nil {
		t.Error("a mark has changes, or what is told has none")
	}
	want := Segment{Ended: true, Committed: true, Min: 1e6, Max: 9e6, Back: 6e6, MinXID: 100, MaxXID: 104, Brief: true, Told: true}
	if diff := cmp.Diff(want, c.Segments[0], cmpopts.IgnoreFields(Segment{}, "Index")); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if c.Segments[3].Ended || !c.Segments[2].Nested {
		t.Errorf("%+v", c.Segments)
	}
	if n := c.Name(); n.Min != 1e6 || n.Max != 99e6 || !n.Stamped {
		t.Errorf("%+v", n)
	}
	got, err := Decode(c.Encode())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(c, got, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("decoded (-want +got):\n%s", diff)
	}
}

// What is not complete, or not the next, is refused.
func TestAddRefuses(t *testing.T) {
	g := pg.Segment{Timeline: 1, Number: 64}
	for name, x := range map[string]walindex.Index{
		"partial":            {Segment: g, Detailed: true, Partial: true},
		"brief":              {Segment: g},
		"another's":          {Segment: pg.Segment{Timeline: 1, Number: 65}, Detailed: true},
		"another timeline's": {Segment: pg.Segment{Timeline: 2, Number: 64}, Detailed: true},
	} {
		if err := NewBuilder(g).Add(&x); err == nil {
			t.Error(name)
		}
	}
}

// Segments with very much are left out of, those with most first, and the others stay.
func TestLimit(t *testing.T) {
	point := []walindex.RestorePoint{{Start: 5, Name: "here"}}
	prepared := &walindex.Index{}
	for i := range 200_000 {
		prepared.Transactions = append(prepared.Transactions, tx(walscan.Prepare, i, float64(i)))
	}
	var xs []*walindex.Index
	for range 6 {
		xs = append(xs, &walindex.Index{RestorePoints: point, Transactions: []walindex.Transaction{dropping(tx(walscan.Commit, 1, 1), 25_000), tx(walscan.Commit, 2, 2), tx(walscan.Commit, 3, 3), tx(walscan.Commit, 4, 1)}})
	}
	c := build(t, append(xs, prepared, &walindex.Index{RestorePoints: point})...)
	if n := len(c.Encode()); n > Limit || n < Limit/2 {
		t.Errorf("%d bytes", n)
	}
	told, brief := 0, 0
	for _, s := range c.Segments {
		if s.Told {
			told++
		}
		if s.Brief {
			brief++
		}
		if s.Told && !s.Brief || s.Index.Detailed != s.Told || s.Brief && s.Index.Segment != (pg.Segment{Timeline: 1, Number: 70}) && len(s.Index.RestorePoints) != 1 {
			t.Errorf("%+v", s)
		}
	}
	if brief != 7 || told < 4 || told > 6 || c.Segments[6].Brief || !c.Segments[7].Told || c.Segments[6].MaxXID != 200_099 {
		t.Errorf("%d brief, %d told", brief, told)
	}
	if _, err := Decode(c.Encode()); err != nil {
		t.Error(err)
	}
}

func FuzzDecode(f *testing.F) {
	c := build(f, &walindex.Index{Transactions: []walindex.Transaction{changed(tx(walscan.Commit, 1, 1), 20000, walindex.RowCounts{Deleted: Rows})}, RestorePoints: []walindex.RestorePoint{{Start: 3, Name: "p"}}}, &walindex.Index{})
	f.Add(c.Encode())
	f.Add([]byte(magic))
	f.Add([]byte(strings.Repeat("\xff", 40)))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := Decode(b)
		if err != nil {
			return
		}
		again, err := Decode(c.Encode())
		if err != nil {
			t.Fatalf("what was decoded cannot be again: %v", err)
		}
		if diff := cmp.Diff(c, again, cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("(-first +again):\n%s", diff)
		}
	})
}
