// SPDX-License-Identifier: Apache-2.0

package walscan_test

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kbcli/kbcli/engine/pg"
	"github.com/kbcli/kbcli/engine/pg/walscan"
)

// glimpse is what tells two scans of the same bytes apart.
type glimpse struct {
	Records   int
	LastStart pg.LSN
	Sum       uint64 // of what the records hold
	Err       string
	Next      pg.LSN
	Skipped   bool
}

func (g *glimpse) add(r *walscan.Record) error {
	mix := func(v uint64) { g.Sum = (g.Sum ^ v) * 0x100000001b3 }
	g.Records++
	g.LastStart = r.Start
	for _, v := range []uint64{uint64(r.Start), uint64(r.End), uint64(r.Prev), uint64(r.Timeline), uint64(r.XID), uint64(r.TopXID), uint64(r.Rmgr), uint64(r.Info), uint64(r.TotalLen)} {
		mix(v)
	}
	sum := func(b []byte) {
		mix(uint64(len(b)))
		for _, c := range b {
			mix(uint64(c))
		}
	}
	for _, b := range r.Blocks {
		mix(uint64(b.Rel.Rel)<<32 | uint64(b.Block))
		mix(uint64(b.ImageLen))
		sum(b.Data)
	}
	sum(r.Main)
	return nil
}

func look(b []byte, start pg.LSN, cuts []byte) (g glimpse) {
	s := walscan.New(walscan.Options{SegmentSize: fixtureSegment, Start: start})
	for i := 0; len(b) > 0; i++ {
		n := len(b)
		if len(cuts) > 0 {
			n = min(n, 1+int(cuts[i%len(cuts)]))
		}
		if err := s.Feed(b[:n], g.add); err != nil {
			g.Err = err.Error()
			break
		}
		b = b[n:]
	}
	g.Next, g.Skipped = s.NextRecord(), s.SkippedPartial()
	return g
}

// FuzzFeed scans anything, from any page on, whole and in pieces.
func FuzzFeed(f *testing.F) {
	for _, major := range []int{13, 15, 18} {
		b := fixture(f, major)
		start := uint64(fixtureStart(b))
		f.Add(b, start, []byte{1, 200, 30})
		f.Add(b[pg.BlockSize:], start+pg.BlockSize, []byte{7})
		f.Add(b[:1000], start, []byte{255, 1, 1, 1})
	}
	f.Fuzz(func(t *testing.T, b []byte, start uint64, cuts []byte) {
		lsn := pg.LSN(start) &^ (pg.BlockSize - 1)
		// The arguments may lie in one array: appending to one would change another.
		cuts = append(slices.Clone(cuts), 5)
		if diff := cmp.Diff(look(b, lsn, nil), look(b, lsn, cuts)); diff != "" {
			t.Errorf("cuts change what is read (-whole +pieces):\n%s", diff)
		}
	})
}
