// SPDX-License-Identifier: Apache-2.0

package pg_test

import (
	"testing"

	"github.com/kbcli/kbcli/engine/pg"
)

func segmentSizes() []pg.SegmentSize {
	var sizes []pg.SegmentSize
	for s := pg.SegmentSize(1 << 20); s <= 1<<30; s *= 2 {
		sizes = append(sizes, s)
	}
	return sizes
}

func TestSegmentSizeValid(t *testing.T) {
	for _, s := range segmentSizes() {
		if !s.Valid() {
			t.Errorf("%d is refused", s)
		}
	}
	for _, s := range []pg.SegmentSize{0, 1, 1 << 19, 1<<20 + 1, 3 << 20, 1 << 31, 1<<32 - 1} {
		if s.Valid() {
			t.Errorf("%d is accepted", s)
		}
	}
}

func TestSegmentNames(t *testing.T) {
	for _, c := range []struct {
		size pg.SegmentSize
		lsn  pg.LSN
		tli  pg.TimelineID
		name string
	}{
		{16 << 20, 0x3000028, 1, "000000010000000000000003"},
		{16 << 20, 0xFFFFFFFF, 1, "0000000100000000000000FF"},
		{16 << 20, 0x1_00000000, 1, "000000010000000100000000"},
		{16 << 20, 0x16_B374D848, 0xAB, "000000AB00000016000000B3"},
		{1 << 20, 0x16_B374D848, 2, "000000020000001600000B37"},
		{1 << 20, 0xFFFFFFFF_FFFFFFFF, 1, "00000001FFFFFFFF00000FFF"},
		{64 << 20, 0x16_B374D848, 1, "00000001000000160000002C"},
		{1 << 30, 0x16_B374D848, 1, "000000010000001600000002"},
		{1 << 30, 0xFFFFFFFF, 1, "000000010000000000000003"},
	} {
		g := pg.Segment{Timeline: c.tli, Number: c.size.Number(c.lsn)}
		if got := c.size.Name(g); got != c.name {
			t.Errorf("segments of %d: name of %s is %s, want %s", c.size, c.lsn, got, c.name)
		}
		if got, err := c.size.ParseName(c.name); err != nil || got != g {
			t.Errorf("segments of %d: %s reads as %v, %v; want %v", c.size, c.name, got, err, g)
		}
	}
}

func TestParseSegmentNameRefuses(t *testing.T) {
	for _, c := range []struct {
		size pg.SegmentSize
		name string
	}{
		{16 << 20, ""},
		{16 << 20, "00000001000000000000000"},
		{16 << 20, "0000000100000000000000030"},
		{16 << 20, "000000010000000000000003.partial"},
		{16 << 20, "00000002.history"},
		{16 << 20, "000000000000000000000003"}, // timeline 0
		{16 << 20, "0000000100000000000000ff"}, // lower case
		{16 << 20, "000000010000000000000100"}, // 256 segments a log
		{1 << 30, "000000010000000000000004"},  // 4 segments a log
		{1 << 20, "000000010000000000001000"},
		{16 << 20, "00000001000000000000 003"},
		{0, "000000010000000000000003"},
		{3 << 20, "000000010000000000000003"},
	} {
		if got, err := c.size.ParseName(c.name); err == nil {
			t.Errorf("segments of %d: %q reads as %v, want an error", c.size, c.name, got)
		}
	}
}

func TestSegmentArithmetic(t *testing.T) {
	for _, s := range segmentSizes() {
		for _, l := range []pg.LSN{0, 1, 0x28, pg.LSN(s) - 1, pg.LSN(s), pg.LSN(s) + 1, 0xFFFFFFFF, 1 << 32, 0x16_B374D848, 1<<63 + 12345} {
			n := s.Number(l)
			switch {
			case s.Start(n) > l || s.End(n) <= l:
				t.Errorf("segments of %d: %s is not in segment %d, %s to %s", s, l, n, s.Start(n), s.End(n))
			case s.Floor(l) != s.Start(n):
				t.Errorf("segments of %d: floor of %s is %s, want %s", s, l, s.Floor(l), s.Start(n))
			case s.Floor(l)+pg.LSN(s.Offset(l)) != l:
				t.Errorf("segments of %d: offset of %s is %d", s, l, s.Offset(l))
			case s.End(n) != s.Start(n+1):
				t.Errorf("segments of %d: segment %d does not end where the next begins", s, n)
			}
		}
	}
}

func FuzzSegmentName(f *testing.F) {
	for i := range segmentSizes() {
		f.Add(uint8(i), "000000010000000000000003")
		f.Add(uint8(i), "00000001FFFFFFFF00000FFF")
	}
	f.Fuzz(func(t *testing.T, size uint8, name string) {
		s := segmentSizes()[int(size)%len(segmentSizes())]
		g, err := s.ParseName(name)
		if err != nil {
			return
		}
		if got := s.Name(g); got != name {
			t.Errorf("segments of %d: %q reads as %v, which is %q", s, name, g, got)
		}
		if s.Number(s.Start(g.Number)) != g.Number {
			t.Errorf("segments of %d: segment %d does not start in itself", s, g.Number)
		}
	})
}
