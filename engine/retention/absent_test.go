// SPDX-License-Identifier: Apache-2.0

package retention

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kbcli/kbcli/engine/pg"
)

// TestAbsent: a snapshot that cannot be reached serves nothing, so that what is older
// stays; but it is not let go for that, and neither is its WAL.
func TestAbsent(t *testing.T) {
	in := Input{
		Now: tick(100), TTL: tick(30).Sub(epoch), SegmentSize: size, Tails: map[pg.Segment]pg.LSN{},
		Backups: []Backup{
			{Name: "manual", Manual: true, Timeline: 1, Start: pos(4), Stop: pos(6), StopTime: tick(5)},
			{Name: "old", Timeline: 1, Start: pos(40), Stop: pos(42), StopTime: tick(42)},
			{Name: "base", Timeline: 1, Start: pos(60), Stop: pos(62), StopTime: tick(62)},
			{Name: "new", Timeline: 1, Start: pos(80), Stop: pos(82), StopTime: tick(82)},
		},
		Paths: []Path{{History: pg.History{Timeline: 1}}},
		WAL:   []Run{{1, 0, 30}},
	}
	for _, c := range []struct {
		absent map[string]bool
		goes   []string
		wal    []Run
	}{
		{nil, []string{"old"}, []Run{{1, 0, 1}, {1, 2, 15}}},
		{map[string]bool{"manual": true}, []string{"old"}, []Run{{1, 0, 1}, {1, 2, 15}}},
		{map[string]bool{"base": true}, nil, []Run{{1, 0, 1}, {1, 2, 10}}},
		{map[string]bool{"old": true}, []string{"old"}, []Run{{1, 0, 1}, {1, 2, 15}}},
		{map[string]bool{"manual": true, "old": true, "base": true, "new": true}, nil, nil},
	} {
		in.Absent = c.absent
		got := Plan(in)
		if diff := cmp.Diff([]any{c.goes, c.wal}, []any{got.Backups, got.WAL}); diff != "" {
			t.Errorf("absent %v (-want +got):\n%s", c.absent, diff)
		}
	}
}
