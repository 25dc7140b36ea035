// SPDX-License-Identifier: Apache-2.0

package restore

import (
	"testing"

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
