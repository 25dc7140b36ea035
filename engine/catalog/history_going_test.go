// SPDX-License-Identifier: Apache-2.0

package catalog

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kbcli/kbcli/engine/pg"
	"github.com/kbcli/kbcli/engine/repository"
	"github.com/kbcli/kbcli/engine/repository/walindex"
)

// A history that is read while it grows tells each event once, in the order of the log,
// however stamps and parts fall.
func TestHistoryGoing(t *testing.T) {
	w := newWorld(t, repository.LineageInfo{})
	tx := func(n uint64, offset int, seconds float64, rows uint64) walindex.Transaction {
		x := commit(at(n, offset), seconds)
		x.Changes = &walindex.Changes{Rows: []walindex.RelRows{{Rel: pg.RelFileLocator{Spc: 1663, DB: 5, Rel: 20000}, RowCounts: walindex.RowCounts{Deleted: rows}}}}
		return x
	}
	seg := func(n uint64, txs ...walindex.Transaction) {
		x := commits(txs...)
		x.Detailed = true
		w.segment(1, n, x)
	}
	g := &Going{}
	enough := fmt.Errorf("the pipe is broken")
	read := func(settled float64, stopAfter int) (out []int64) {
		t.Helper()
		g.Settled = clock(settled)
		err := w.load().History(t.Context(), HistoryQuery{Since: clock(0), Spikes: true, Going: g}, func(e Event) error {
			if out = append(out, e.Rows); len(out) == stopAfter {
				return enough
			}
			return nil
		})
		if stopAfter == 0 && err != nil || stopAfter > 0 && err != enough {
			t.Fatal(err)
		}
		return out
	}
	check := func(what string, got []int64, want ...int64) {
		t.Helper()
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", what, diff)
		}
	}
	seg(1, tx(1, 100, -5, 1)) // before it began
	seg(2, tx(2, 100, 1, 2), tx(2, 300, 9, 3), tx(2, 500, 8, 4), tx(2, 700, 10, 5))
	check("nothing is settled", read(0.5, 0))
	check("one is", read(2, 0), 2)
	check("what is stamped earlier waits for what is before it", read(8.5, 0))
	check("both", read(9.5, 0), 3, 4)
	seg(3, tx(3, 100, 11, 6))
	check("from two segments", read(12, 0), 5, 6)
	check("once", read(20, 0))
	seg(4, tx(4, 100, 13, 7), tx(4, 300, -3600, 8), tx(4, 500, 14, 9))
	check("archived late, and by a clock that was set back", read(7200, 0), 7, 8, 9)
	seg(5, tx(5, 100, 15, 9), tx(5, 300, 15, 10))
	seg(6, tx(6, 100, 16, 11))
	check("an error ends it", read(7200, 2), 9, 10)
	check("what was refused comes again", read(7200, 0), 10, 11)
}
