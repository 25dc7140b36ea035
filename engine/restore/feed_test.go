// SPDX-License-Identifier: Apache-2.0

package restore

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kbcli/kbcli/engine/archive"
	"github.com/kbcli/kbcli/engine/pg"
)

func TestLastSegment(t *testing.T) {
	const size = pg.SegmentSize(16 << 20)
	for _, test := range []struct {
		end  pg.LSN
		want uint64
	}{
		{0x3000100, 3},
		{0x3000000, 2},
		{0x3000028, 2}, // behind the header of a segment that nothing is in yet
		{0x3000030, 3},
		{0x3002018, 3}, // behind the header of a page
		{0x3ffffff, 3},
		{0, 0},
	} {
		if got := lastSegment(size, test.end); got != test.want {
			t.Errorf("%s: got %d, want %d", test.end, got, test.want)
		}
	}
}

// TestCleanUp removes WAL that was fed beyond the stop, which a server that archives would
// take for its own, and nothing else.
func TestCleanUp(t *testing.T) {
	const size = pg.SegmentSize(16 << 20)
	segment := func(n uint64) pg.Segment { return pg.Segment{Timeline: 1, Number: n} }
	data := t.TempDir()
	wal := filepath.Join(data, "pg_wal")
	if err := os.Mkdir(wal, 0o700); err != nil {
		t.Fatal(err)
	}
	ours := size.Name(pg.Segment{Timeline: 2, Number: 6})
	for _, name := range []string{size.Name(segment(5)), size.Name(segment(6)), size.Name(segment(7)), size.Name(segment(9)), ours, "00000002.history"} {
		if err := os.WriteFile(filepath.Join(wal, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s := &recoverer{r: Recovery{Into: Into{DataDirectory: data}}, feed: &archive.Feed{Size: size, First: 3, Last: 9, Segment: segment}}
	if err := s.cleanUp(&Reached{LSN: size.Start(6) + 0x100, Timeline: 2}); err != nil {
		t.Fatal(err)
	}
	var left []string
	entries, err := os.ReadDir(wal)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		left = append(left, e.Name())
	}
	if diff := cmp.Diff([]string{size.Name(segment(5)), size.Name(segment(6)), "00000002.history", ours}, left); diff != "" {
		t.Errorf("(-want +left):\n%s", diff)
	}
}
