// SPDX-License-Identifier: Apache-2.0

package archive

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/kbcli/kbcli/engine/pg"
	"github.com/kbcli/kbcli/internal/testpg"
)

// TestStandbyBegins: a backup of a standby begins with its last restartpoint, which may
// lie far behind. The archive begins there, where the slot keeps WAL from: 15 and later
// say it over replication, those before in SQL.
func TestStandbyBegins(t *testing.T) {
	t.Parallel()
	for _, major := range []int{13, 18} {
		t.Run(fmt.Sprint(major), func(t *testing.T) {
			p := testpg.Start(t, testpg.Options{Major: major, SegmentSizeMB: 1, Settings: keep})
			p.Exec(t, ledgerTable)
			s := testpg.Standby(t, p)
			bulk(t, p, 5)
			s.CatchUp(t, p)
			var text string
			s.QueryRow(t, "select redo_lsn::text from pg_control_checkpoint()", &text)
			redo, err := pg.ParseLSN(text)
			if err != nil {
				t.Fatal(err)
			}
			r := newRig(t, s)
			r.start(t)
			r.until(t, "streaming", 10*time.Second, func(st Status) bool { return st.State == Streaming && st.Repository > redo+4<<20 })
			first := mb.Number(redo)
			if !slices.ContainsFunc(r.segments(t), func(g pg.Segment) bool { return g.Number == first }) {
				t.Errorf("segment %d, where the restartpoint is, is not archived: %v", first, r.segments(t))
			}
			st := r.Status()
			r.sameAsServer(t, s, first, place{st.RepositoryTimeline, mb.Floor(st.Repository)})
			r.halt(t)
		})
	}
}
