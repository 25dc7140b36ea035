// SPDX-License-Identifier: Apache-2.0

package walindex_test

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"flag"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"testing/quick"

	"github.com/google/go-cmp/cmp"

	"github.com/kbcli/kbcli/engine/pg"
	"github.com/kbcli/kbcli/engine/pg/walscan"
	"github.com/kbcli/kbcli/engine/repository/walindex"
)

// empty makes slices without entries nil, as they are decoded.
func empty(v reflect.Value) {
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			empty(v.Elem())
		}
	case reflect.Struct:
		for i := range v.NumField() {
			empty(v.Field(i))
		}
	case reflect.Slice:
		if v.Len() == 0 {
			v.SetZero()
		}
		for i := range v.Len() {
			empty(v.Index(i))
		}
	}
}

// Any index at all comes back as it was, however odd its numbers.
func TestRoundTrip(t *testing.T) {
	again := func(x walindex.Index) bool {
		empty(reflect.ValueOf(&x).Elem())
		got, err := walindex.Decode(x.Encode())
		if diff := cmp.Diff(&x, got); err != nil || diff != "" {
			t.Errorf("%v (-want +got):\n%s", err, diff)
			return false
		}
		return true
	}
	if !again(walindex.Index{}) || !again(extreme()) || !again(extremer()) {
		return
	}
	if err := quick.Check(again, &quick.Config{MaxCount: 300, Rand: nil}); err != nil {
		t.Error(err)
	}
}

// extreme has numbers whose differences overflow.
func extreme() walindex.Index {
	x := walindex.Index{Segment: pg.Segment{Timeline: math.MaxUint32, Number: math.MaxUint64}, First: 1, Next: math.MaxUint64, Last: 2, Partial: true}
	for i, lsn := range []pg.LSN{math.MaxUint64, 0, 1 << 63, math.MaxInt64} {
		x.Transactions = append(x.Transactions, walindex.Transaction{
			Kind: 255, Start: lsn, End: lsn + 100, XID: pg.XID(lsn), Time: pg.Timestamp(lsn), Subxacts: math.MaxUint32,
			Dropped: []pg.RelFileLocator{{Spc: math.MaxUint32, Rel: pg.Oid(i)}},
		})
		x.Parameters = append(x.Parameters, walindex.Parameters{Start: lsn, ParameterChange: walscan.ParameterChange{MaxConnections: math.MinInt, WalLevel: -1, WalLogHints: i%2 == 0, TrackCommitTimestamp: i%2 == 1}})
		x.Checkpoints = append(x.Checkpoints, walindex.Checkpoint{Start: lsn, Redo: ^lsn, Time: pg.Timestamp(lsn), Shutdown: i == 1})
		x.BackupEnds = append(x.BackupEnds, walindex.BackupEnd{Start: lsn, From: ^lsn})
	}
	x.RestorePoints = []walindex.RestorePoint{{Name: strings.Repeat("n", 1000)}, {Name: "", Time: math.MinInt64}, {Time: math.MaxInt64}}
	x.Tablespaces = []walindex.Tablespace{{Start: 5, Oid: 1, Path: "/é"}, {Start: 4}}
	x.Bytes = []walindex.RmgrBytes{{Rmgr: 255, Records: math.MaxUint64, Bytes: 1}}
	return x
}

// extremer has numbers of the later sections that overflow too.
func extremer() walindex.Index {
	x := extreme()
	x.Detailed, x.Cut = true, true
	const most = math.MaxUint32
	rel := pg.RelFileLocator{Spc: most, DB: 0, Rel: most}
	rows := []walindex.RelRows{{Rel: rel, RowCounts: walindex.RowCounts{Inserted: math.MaxUint64, Deleted: 1}}, {}, {Rel: pg.RelFileLocator{DB: most}, RowCounts: walindex.RowCounts{Updated: 1}}}
	changes := walindex.Changes{Rows: rows, More: walindex.RowCounts{Deleted: math.MaxUint64}, AtLeast: true, Catalogs: []pg.Oid{0, most}}
	x.Transactions[1].Changes, x.Transactions[3].Changes = &changes, &walindex.Changes{}
	x.Blocks = []walindex.ForkBlocks{
		{Rel: rel, Fork: 255, From: walindex.NoBlock, Runs: []walindex.BlockRun{{Block: most, Count: most}, {Block: 0, Count: 0}, {Block: 5, Count: 1}, {Block: 1, Count: 2}}},
		{From: 0},
		{From: most - 1, Runs: []walindex.BlockRun{{}}},
	}
	x.Whole = []walindex.Database{{Spc: most}, {DB: most}}
	x.Opaque = []walindex.Opaque{{Start: math.MaxUint64, Rmgr: 255}, {}}
	x.Overwritten = math.MaxUint64
	x.Creations = []walindex.Creation{{Start: math.MaxUint64, XID: most, Rel: rel, Fork: 255}, {}}
	x.Truncations = []walindex.Truncation{{Start: 1 << 63, XID: most, Rel: rel, Blocks: most, Flags: most}, {}}
	x.Maps = []walindex.MapChange{{Start: math.MaxUint64, XID: most, Spc: most, DB: most, Class: most}, {}}
	x.DatabasesMade = []walindex.DatabaseCreation{{Start: 7, XID: 1, DatabaseCreate: walscan.DatabaseCreate{DB: most, Spc: 1, FileCopy: true, SrcDB: most, SrcSpc: most}}, {}}
	x.DatabasesDropped = []walindex.DatabaseDrop{{Start: 7, XID: most, DatabaseDrop: walscan.DatabaseDrop{DB: most, Spc: []pg.Oid{most, 0}}}, {}}
	x.TablespacesDropped = []walindex.TablespaceDrop{{Start: math.MaxUint64, XID: most, Oid: most}, {}}
	x.Truncates = []walindex.Truncate{{Start: 1, XID: 2, HeapTruncate: walscan.HeapTruncate{DB: 3, Rels: []pg.Oid{most}}}, {}}
	x.Open = walindex.Open{
		Since: math.MaxUint64, Floor: most,
		Xacts:   []walindex.OpenXact{{XID: most, Top: most, Prepared: true, Changes: changes, Folded: rows, FoldedMore: changes.More, FoldedTo: most}, {}},
		Classes: []walindex.ClassFile{{DB: most, File: most}, {}},
	}
	return x
}

func TestSectionsOfLaterVersions(t *testing.T) {
	x := extremer()
	b := x.Encode()
	later := append(binary.AppendUvarint(nil, 99), 3, 'a', 'b', 'c')
	// after what is known, and before it
	_, head := binary.Uvarint(b[3:])
	at := 3 + head
	for range 4 {
		_, n := binary.Uvarint(b[at:])
		at += n
	}
	for _, b := range [][]byte{append(bytes.Clone(b), later...), bytes.Join([][]byte{b[:at], later, b[at:]}, nil)} {
		got, err := walindex.Decode(b)
		if diff := cmp.Diff(&x, got); err != nil || diff != "" {
			t.Errorf("%v (-want +got):\n%s", err, diff)
		}
	}
}

func TestDecodeRefuses(t *testing.T) {
	x := extremer()
	good := x.Encode()
	whole := map[int]bool{} // lengths at which a section ends are indexes too
	for n := range good {
		if _, err := walindex.Decode(good[:n]); err == nil {
			whole[n] = true
		}
	}
	if len(whole) != 22 {
		t.Errorf("%d prefixes of an index with 23 sections are indexes", len(whole))
	}
	head := []byte{'X', '1', 0, 1, 1, 1, 1, 1}
	huge := binary.AppendUvarint(nil, math.MaxUint64)
	for name, b := range map[string][]byte{
		"nothing":           nil,
		"another magic":     []byte("X2\x00\x01\x01\x01\x01\x01"),
		"a large timeline":  append([]byte{'X', '1', 0}, append(huge, 1, 1, 1, 1)...),
		"a long section":    append(bytes.Clone(head), 1, 5, 0),
		"a huge section":    append(append(bytes.Clone(head), 1), huge...),
		"a huge count":      append(append(bytes.Clone(head), 1, byte(len(huge))), huge...),
		"left over":         append(bytes.Clone(head), 1, 2, 0, 0),
		"no such relation":  append(bytes.Clone(head), 12, 5, 1, 0, 0, 0, 0),
		"no such change":    append(bytes.Clone(head), 1, 9, 1, 0, 0, 0, 0, 0, 0, 0, 0, 11, 1, 1),
		"a change missing":  append(bytes.Clone(head), 1, 9, 1, 0, 0, 0, 0, 0, 0, 0, 0, 11, 0),
		"a change too many": append(bytes.Clone(head), 11, 1, 0),
		"a huge block":      append(bytes.Clone(head), 9, 4, 1, 0, 0, 0, 12, 10, 1, 0, 0, 0, 1, 0xFF, 0xFF, 0xFF, 0xFF, 0x7F),
	} {
		if x, err := walindex.Decode(b); err == nil {
			t.Errorf("%s: %+v", name, x)
		}
	}
}

func FuzzDecode(f *testing.F) {
	x := extreme()
	f.Add(x.Encode())
	f.Add((&walindex.Index{}).Encode())
	y := extremer()
	f.Add(y.Encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		x, err := walindex.Decode(b)
		if err != nil {
			return
		}
		again, err := walindex.Decode(x.Encode())
		if err != nil {
			t.Fatal(err)
		}
		empty(reflect.ValueOf(x).Elem())
		if diff := cmp.Diff(x, again); diff != "" {
			t.Errorf("not the same again:\n%s", diff)
		}
	})
}

// wal is what package walscan keeps of a segment of 1 MiB that a real server wrote.
func wal(t testing.TB, major int) (b []byte, start pg.LSN) {
	t.Helper()
	f, err := os.Open(filepath.Join("..", "..", "pg", "walscan", "testdata", fmt.Sprintf("%d.wal.gz", major)))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	if b, err = io.ReadAll(z); err != nil {
		t.Fatal(err)
	}
	return b, pg.LSN(binary.LittleEndian.Uint64(b[8:]))
}

const segmentSize = pg.SegmentSize(1 << 20)

// A Builder says what walscan says, of real WAL of every release, however it is cut.
func TestBuilder(t *testing.T) {
	for major := pg.OldestMajor; major <= pg.NewestMajor; major++ {
		t.Run(fmt.Sprint(major), func(t *testing.T) {
			raw, start := wal(t, major)
			g := pg.Segment{Timeline: 1, Number: segmentSize.Number(start)}
			want := &walindex.Index{Segment: g, Next: segmentSize.End(g.Number) + 40}
			sums := map[walscan.RmgrID]walindex.RmgrBytes{}
			s := walscan.New(walscan.Options{SegmentSize: segmentSize, Start: start})
			err := s.Feed(raw, func(r *walscan.Record) error {
				if want.First == 0 {
					want.First = r.Start
				}
				want.Last = r.Start
				n := sums[r.Rmgr]
				sums[r.Rmgr] = walindex.RmgrBytes{Rmgr: r.Rmgr, Records: n.Records + 1, Bytes: n.Bytes + uint64(r.TotalLen)}
				if x, ok, err := r.Xact(); err != nil {
					return err
				} else if ok {
					want.Transactions = append(want.Transactions, walindex.Transaction{
						Kind: x.Kind, Start: r.Start, End: r.End, XID: x.XID, Time: x.Time, Subxacts: uint32(len(x.Subxacts)), Dropped: x.Dropped,
					})
				}
				if p, ok, err := r.RestorePoint(); err != nil {
					return err
				} else if ok {
					want.RestorePoints = append(want.RestorePoints, walindex.RestorePoint{Start: r.Start, Time: p.Time, Name: p.Name})
				}
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			for id := range 256 {
				if n := sums[walscan.RmgrID(id)]; n.Records > 0 {
					want.Bytes = append(want.Bytes, n)
				}
			}
			var kinds []walscan.XactKind
			dropped := 0
			for _, x := range want.Transactions {
				kinds = append(kinds, x.Kind)
				dropped += len(x.Dropped)
			}
			wantKinds := []walscan.XactKind{walscan.Commit, walscan.Abort, walscan.Commit, walscan.Abort, walscan.Prepare, walscan.CommitPrepared, walscan.Commit}
			if diff := cmp.Diff(wantKinds, kinds); diff != "" || dropped == 0 || len(want.RestorePoints) != 1 || want.RestorePoints[0].Name != "a point" {
				t.Fatalf("the fixture is not what it was: %d dropped, %v\n%s", dropped, want.RestorePoints, diff)
			}

			var b walindex.Builder
			r := rand.New(rand.NewPCG(uint64(major), 1))
			for range 3 { // one Builder, segment after segment
				b.Begin(g, false)
				s := walscan.New(walscan.Options{SegmentSize: segmentSize, Start: start})
				for rest := raw; len(rest) > 0; {
					n := min(len(rest), 1+r.IntN(9000))
					if err := s.Feed(rest[:n], b.Add); err != nil {
						t.Fatal(err)
					}
					rest = rest[n:]
				}
				x := b.Finish(s.NextRecord())
				enc := x.Encode()
				if got, err := walindex.Decode(enc); err != nil || !cmp.Equal(x, got) {
					t.Errorf("decoded: %v", err)
				}
				got, err := walindex.Brief(enc)
				if diff := cmp.Diff(want, got); err != nil || diff != "" {
					t.Errorf("%v (-want +got):\n%s", err, diff)
				}
			}
		})
	}
}

var update = flag.Bool("update", false, "write the indexes of this version to testdata")

// Indexes that earlier versions wrote are read, and known for what they do not say.
func TestFixtures(t *testing.T) {
	for _, major := range []int{13, 15, 18} {
		raw, start := wal(t, major)
		g := pg.Segment{Timeline: 1, Number: segmentSize.Number(start)}
		var b walindex.Builder
		b.Begin(g, false)
		s := walscan.New(walscan.Options{SegmentSize: segmentSize, Start: start})
		if err := s.Feed(raw, b.Add); err != nil {
			t.Fatal(err)
		}
		x := b.Finish(s.NextRecord())
		brief, err := walindex.Brief(x.Encode())
		if err != nil {
			t.Fatal(err)
		}
		name := filepath.Join("testdata", fmt.Sprintf("%d.index", major))
		if *update {
			if err := os.WriteFile(name, x.Encode(), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		for name, want := range map[string]*walindex.Index{name: x, filepath.Join("testdata", fmt.Sprintf("%d.first.index", major)): brief} {
			enc, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			got, err := walindex.Decode(enc)
			if diff := cmp.Diff(want, got); err != nil || diff != "" {
				t.Errorf("%s: %v (-want +got):\n%s", name, err, diff)
			}
			if !bytes.Equal(want.Encode(), enc) {
				t.Errorf("%s would be written in another way", name)
			}
		}
		if brief.Detailed || !x.Detailed || len(x.Blocks) < 10 || len(x.Creations) == 0 || x.Transactions[0].Changes == nil {
			t.Errorf("%d: detailed is %t and %t; %d files with blocks, %d made", major, brief.Detailed, x.Detailed, len(x.Blocks), len(x.Creations))
		}
	}
}

func BenchmarkDecode(b *testing.B) {
	x := walindex.Index{Segment: pg.Segment{Timeline: 1, Number: 5}}
	for i := range 1000 {
		x.Transactions = append(x.Transactions, walindex.Transaction{Start: pg.LSN(i * 16000), End: pg.LSN(i*16000 + 50), XID: pg.XID(i), Time: pg.Timestamp(i * 1000)})
	}
	enc := x.Encode()
	b.SetBytes(int64(len(enc)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := walindex.Decode(enc); err != nil {
			b.Fatal(err)
		}
	}
}
