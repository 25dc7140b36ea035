// SPDX-License-Identifier: Apache-2.0

package walscan_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kbcli/kbcli/engine/pg"
	"github.com/kbcli/kbcli/engine/pg/walscan"
)

func TestCutsChangeNothing(t *testing.T) {
	for _, major := range []int{13, 18} {
		b := fixture(t, major)
		want := scan(b, fixtureStart(b), nil)
		for _, n := range []int{1, 2, 3, 7, 8, 23, 24, 25, 40, 100, 4096, 8191, 8192, 8193} {
			got := scan(b, fixtureStart(b), func() int { return n })
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%d: pieces of %d bytes (-whole +pieces):\n%s", major, n, diff)
			}
		}
		for at := range len(b) / 16 {
			first := 1 + at*16
			got := scan(b, fixtureStart(b), func() int { n := first; first = len(b); return n })
			if diff := cmp.Diff(want, got); diff != "" {
				t.Fatalf("%d: cut at %d (-whole +pieces):\n%s", major, 1+at*16, diff)
			}
		}
	}
}

func TestStartAtAnyPage(t *testing.T) {
	b := fixture(t, 15)
	start := fixtureStart(b)
	whole := scan(b, start, nil)
	for page := 1; page*pg.BlockSize < len(b); page++ {
		at := start + pg.LSN(page*pg.BlockSize)
		var want []string
		crosses := false
		s := walscan.New(walscan.Options{SegmentSize: fixtureSegment, Start: start})
		if err := s.Feed(b, func(r *walscan.Record) error {
			if r.Start >= at {
				want = append(want, text(r))
			}
			crosses = crosses || r.Start < at && r.End > at
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		got := scan(b[page*pg.BlockSize:], at, nil)
		if diff := cmp.Diff(scanned{Records: want, Next: whole.Next, Skipped: crosses}, got); diff != "" {
			t.Errorf("from page %d (-whole +part):\n%s", page, diff)
		}
	}
}

// TestStopAndGoOn stops at each record by an error of the caller's.
func TestStopAndGoOn(t *testing.T) {
	b := fixture(t, 17)
	start := fixtureStart(b)
	want := scan(b, start, nil).Records
	errStop := errors.New("stop")
	var got []string
	s := walscan.New(walscan.Options{SegmentSize: fixtureSegment, Start: start})
	for {
		err := s.Feed(b[s.Position()-start:], func(r *walscan.Record) error {
			if s.NextRecord() < r.End {
				t.Errorf("in the record that ends at %s the next is at %s", r.End, s.NextRecord())
			}
			got = append(got, text(r))
			return errStop
		})
		if err == nil {
			break
		}
		if !errors.Is(err, errStop) {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("records (-at once +one by one):\n%s", diff)
	}
}

func TestNextRecordWhileIncomplete(t *testing.T) {
	b := fixture(t, 15)
	start := fixtureStart(b)
	type span struct{ start, end pg.LSN }
	var spans []span
	s := walscan.New(walscan.Options{SegmentSize: fixtureSegment, Start: start})
	if err := s.Feed(b, func(r *walscan.Record) error {
		spans = append(spans, span{r.Start, r.End})
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	s = walscan.New(walscan.Options{SegmentSize: fixtureSegment, Start: start})
	whole := 0
	for i := range b[:spans[len(spans)-1].start-start] {
		if err := s.Feed(b[i:i+1], func(*walscan.Record) error { whole++; return nil }); err != nil {
			t.Fatal(err)
		}
		if got, want := s.NextRecord(), spans[whole].start; got != want {
			t.Fatalf("at %s the next record is at %s, want %s", s.Position(), got, want)
		}
		if got, want := s.Position(), start+pg.LSN(i+1); got != want {
			t.Fatalf("position is %s, want %s", got, want)
		}
	}
}

var order = binary.LittleEndian

// recompute puts the right CRC into the record at offset off, which lies on one page.
func recompute(b []byte, off int) {
	rec := b[off : off+int(order.Uint32(b[off:]))]
	table := crc32.MakeTable(crc32.Castagnoli)
	order.PutUint32(rec[20:], crc32.Update(crc32.Update(0, table, rec[24:]), table, rec[:20]))
}

func TestDamage(t *testing.T) {
	pristine := fixture(t, 15)
	start := fixtureStart(pristine)
	const page = pg.BlockSize
	// The first record with a block and one on the same page after it, and one
	// that crosses pages.
	var first, second, long int
	var firstEnd, longBefore pg.LSN
	s := walscan.New(walscan.Options{SegmentSize: fixtureSegment, Start: start})
	if err := s.Feed(pristine, func(r *walscan.Record) error {
		off := int(r.Start - start)
		switch {
		case first == 0 && len(r.Blocks) > 0 && off > 40 && !r.Blocks[0].HasImage && off+int(r.TotalLen) < page:
			first, firstEnd = off, r.End
		case first != 0 && second == 0:
			second = off
		}
		if long == 0 && r.TotalLen > 2*page {
			long, longBefore = off, r.Start
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if first == 0 || second == 0 || second > page || long == 0 {
		t.Fatalf("the fixture lacks what is to be damaged: %d %d %d", first, second, long)
	}
	longPage := long &^ (page - 1)
	crossed := longPage + page // the page that the long record is continued on

	for _, c := range []struct {
		name   string
		damage func(b []byte) []byte
		at     int // offset where the error should be
		want   string
		stale  bool
	}{
		{"magic of no release", func(b []byte) []byte { order.PutUint16(b, 0xD0FF); return b }, 0, "page magic D0FF is of no release", false},
		{"another release's page", func(b []byte) []byte { order.PutUint16(b[page:], 0xD118); return b }, page, "page magic is D118, not D110", false},
		{"unknown flag", func(b []byte) []byte { b[page+2] |= 0x10; return b }, page, "page flags", false},
		{"short header of a segment", func(b []byte) []byte { b[2] &^= 2; return b }, 0, "page flags", false},
		{"long header within a segment", func(b []byte) []byte { b[page+2] |= 2; return b }, page, "page flags", false},
		{"other segment size", func(b []byte) []byte { order.PutUint32(b[32:], 16<<20); return b }, 0, "segments of 16777216 bytes", false},
		{"other page size", func(b []byte) []byte { order.PutUint32(b[36:], 16384); return b }, 0, "WAL page size is 16384", false},
		{"recycled", func(b []byte) []byte { b[page+10]--; return b }, page, "page address is", true},
		{"later address", func(b []byte) []byte { b[page+10]++; return b }, page, "page address is", false},
		{"timeline 0", func(b []byte) []byte { order.PutUint32(b[page+4:], 0); return b }, page, "timeline 0 after timeline 1", false},
		{"timeline goes back", func(b []byte) []byte { order.PutUint32(b[4:], 2); return b }, page, "timeline 1 after timeline 2", false},
		{"bit in the data", func(b []byte) []byte { b[first+40] ^= 1; return b }, first, "CRC", false},
		{"bit in the header", func(b []byte) []byte { b[first+4] ^= 1; return b }, first, "CRC", false},
		{"short record", func(b []byte) []byte { order.PutUint32(b[first:], 23); return b }, first, "record of 23 bytes", false},
		{"huge record", func(b []byte) []byte { order.PutUint32(b[first:], 1<<30+1); return b }, first, "more than 1 GiB", false},
		{"large record", func(b []byte) []byte { order.PutUint32(b[first:], 1<<30); return b }, page, "does not continue", false},
		{"no such resource manager", func(b []byte) []byte { b[first+17] = 22; recompute(b, first); return b }, first, "resource manager 22", false},
		{"link", func(b []byte) []byte { b[second+8] ^= 8; recompute(b, second); return b }, second, "record's link", false},
		{"link to itself", func(b []byte) []byte { order.PutUint64(b[40+8:], uint64(start)+40); recompute(b, 40); return b }, 40, "record's link", false},
		{"unknown block ID", func(b []byte) []byte { b[first+24] = 33; recompute(b, first); return b }, first, "unknown block ID", false},
		{"lengths do not add up", func(b []byte) []byte { b[first+24+2]++; recompute(b, first); return b }, first, "do not add up", false},
		{"block without its data", func(b []byte) []byte { b[first+25] &^= 0x20; recompute(b, first); return b }, first, "block data flag", false},
		{"first block like the one before", func(b []byte) []byte { b[first+25] |= 0x80; recompute(b, first); return b }, first, "block before it", false},
		{"image without a header", func(b []byte) []byte { b[first+25] |= 0x10; recompute(b, first); return b }, first, "", false},
		{"continuation flag missing", func(b []byte) []byte { b[crossed+2] &^= 1; return b }, crossed, "does not continue on this page", false},
		{"continuation of another length", func(b []byte) []byte { b[crossed+16]++; return b }, crossed, "does not continue on this page", false},
		{"both continued and broken off", func(b []byte) []byte { b[crossed+2] |= 8; return b }, crossed, "never will", false},
		{"broken off, but no word of it", func(b []byte) []byte {
			b[crossed+2] = b[crossed+2]&^1 | 8
			copy(b[crossed+24:], b[first:int(firstEnd-start)])
			order.PutUint64(b[crossed+24+8:], order.Uint64(b[long+8:]))
			recompute(b, crossed+24)
			return b
		}, crossed + 24, "unfinished one at " + longBefore.String(), false},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := c.damage(append([]byte{}, pristine...))
			s := walscan.New(walscan.Options{SegmentSize: fixtureSegment, Start: start})
			err := s.Feed(b, func(*walscan.Record) error { return nil })
			var bad *walscan.CorruptError
			if !errors.As(err, &bad) {
				t.Fatalf("error is %v", err)
			}
			if bad.LSN != start+pg.LSN(c.at) || !strings.Contains(bad.Reason, c.want) || bad.Stale != c.stale {
				t.Errorf("got %+v, want %q at %s, stale %t", bad, c.want, start+pg.LSN(c.at), c.stale)
			}
			if again := s.Feed(b, nil); again != err {
				t.Errorf("fed again it says %v", again)
			}
		})
	}
}

func TestSystemID(t *testing.T) {
	b := fixture(t, 15)
	s := walscan.New(walscan.Options{SegmentSize: fixtureSegment, Start: fixtureStart(b), SystemID: 1})
	var bad *walscan.CorruptError
	if err := s.Feed(b, nil); !errors.As(err, &bad) || !strings.Contains(bad.Reason, "not 1") {
		t.Errorf("error is %v", err)
	}
	s = walscan.New(walscan.Options{SegmentSize: fixtureSegment, Start: fixtureStart(b)})
	if err := s.Feed(b[:40], nil); err != nil || s.SystemID() != pg.SystemID(order.Uint64(b[24:])) {
		t.Errorf("system is %s: %v", s.SystemID(), err)
	}
}

// TestEnd puts zeros from each place on that a segment which is not full may
// have them from.
func TestEnd(t *testing.T) {
	pristine := fixture(t, 16)
	start := fixtureStart(pristine)
	type span struct{ start, end pg.LSN }
	var spans []span
	s := walscan.New(walscan.Options{SegmentSize: fixtureSegment, Start: start})
	if err := s.Feed(pristine, func(r *walscan.Record) error {
		spans = append(spans, span{r.Start, r.End})
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	zeroFrom := func(off int) []byte {
		b := append([]byte{}, pristine...)
		clear(b[off:])
		return append(b, make([]byte, 3*pg.BlockSize)...)
	}
	check := func(name string, b []byte, end pg.LSN, next pg.LSN) {
		t.Helper()
		s := walscan.New(walscan.Options{SegmentSize: fixtureSegment, Start: start})
		err := s.Feed(b, func(*walscan.Record) error { return nil })
		var e *walscan.EndError
		if !errors.As(err, &e) || e.LSN != end || s.NextRecord() != next {
			t.Errorf("%s: %v, next record at %s; want the end at %s, the next at %s", name, err, s.NextRecord(), end, next)
		}
	}
	last := spans[len(spans)-1]
	for i, r := range spans {
		if i == len(spans)-1 {
			break
		}
		// After a whole record, or before the header of the page that follows it.
		check(fmt.Sprintf("after record %d", i), zeroFrom(int(r.end-start)), r.end, spans[i+1].start)
	}
	for p := pg.BlockSize; p < int(last.start-start); p += pg.BlockSize {
		at := start + pg.LSN(p)
		end, next := start, start+40
		for i, r := range spans {
			if r.end <= at {
				end, next = r.end, spans[i+1].start
			}
		}
		check(fmt.Sprintf("from page %d", p/pg.BlockSize), zeroFrom(p), end, next)
	}
	check("nothing at all", make([]byte, 2*pg.BlockSize), start, start+40)
}

func TestNewPanics(t *testing.T) {
	for _, o := range []walscan.Options{
		{SegmentSize: 12345},
		{SegmentSize: 1 << 20, Start: 8},
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("New(%+v) did not panic", o)
				}
			}()
			walscan.New(o)
		}()
	}
}
