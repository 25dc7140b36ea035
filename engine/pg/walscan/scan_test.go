// SPDX-License-Identifier: Apache-2.0

package walscan_test

import (
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/kbcli/kbcli/engine/pg"
	"github.com/kbcli/kbcli/engine/pg/walscan"
)

// chownLike gives name to the owner of what st describes.
func chownLike(name string, st fs.FileInfo) error {
	sys := st.Sys().(*syscall.Stat_t)
	return os.Chown(name, int(sys.Uid), int(sys.Gid))
}

// firstSegment is the number of the oldest segment in dir.
func firstSegment(t testing.TB, dir string, size pg.SegmentSize) uint64 {
	t.Helper()
	names, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range names { // in order
		if g, err := size.ParseName(n.Name()); err == nil {
			return g.Number
		}
	}
	t.Fatalf("no segment in %s", dir)
	return 0
}

// scanDir scans the segments in dir from number first to where WAL ends, and
// returns the scanner. cut gives the size of each piece; nil is a whole segment.
func scanDir(t testing.TB, dir string, tli pg.TimelineID, size pg.SegmentSize, first uint64, cut func() int, fn func(*walscan.Record) error) *walscan.Scanner {
	t.Helper()
	s := walscan.New(walscan.Options{SegmentSize: size, Start: size.Start(first)})
	err := feedDir(t, s, dir, tli, size, cut, fn)
	var end *walscan.EndError
	var bad *walscan.CorruptError
	if err != nil && !errors.As(err, &end) && !(errors.As(err, &bad) && bad.Stale) {
		t.Fatal(err)
	}
	return s
}

// feedDir feeds s the segments in dir up to the last, or to the first error.
func feedDir(t testing.TB, s *walscan.Scanner, dir string, tli pg.TimelineID, size pg.SegmentSize, cut func() int, fn func(*walscan.Record) error) error {
	t.Helper()
	for n := size.Number(s.Position()); ; n++ {
		b, err := os.ReadFile(filepath.Join(dir, size.Name(pg.Segment{Timeline: tli, Number: n})))
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			t.Fatal(err)
		}
		for len(b) > 0 {
			piece := b
			if cut != nil {
				piece = b[:min(cut(), len(b))]
			}
			if err := s.Feed(piece, fn); err != nil {
				return err
			}
			b = b[len(piece):]
		}
	}
}

// ragged cuts WAL into pieces of all sizes, most of them small.
func ragged() func() int {
	r := rand.New(rand.NewPCG(1, 2))
	return func() int { return 1 + r.IntN(1<<r.IntN(18)) }
}
