// SPDX-License-Identifier: Apache-2.0

package restore

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/kbcli/kbcli/engine/blob/mem"
	"github.com/kbcli/kbcli/engine/pg"
	"github.com/kbcli/kbcli/engine/repository"
	"github.com/kbcli/kbcli/engine/repository/walindex"
)

// What is not as planned is an error, whatever it is.
func TestJudge(t *testing.T) {
	repo, err := repository.Create(t.Context(), mem.New(nil), repository.Options{Clock: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	l, err := repo.CreateLineage(t.Context(), repository.LineageInfo{Cluster: "c", SystemID: 1, Major: 15, SegmentSize: 16 << 20})
	if err != nil {
		t.Fatal(err)
	}
	noon := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	const end = pg.LSN(0x3000100)
	for _, test := range []struct {
		name    string
		change  func(p *Plan)
		reached Reached
		want    string
	}{
		{"as planned", nil, Reached{LSN: end, LastCommit: noon, kept: "committed", lost: "aborted"}, ""},
		{"the lost was not begun", nil, Reached{LSN: end, LastCommit: noon, kept: "committed"}, ""},
		{"the lost is prepared", nil, Reached{LSN: end, LastCommit: noon, kept: "committed", lost: "in progress"}, ""},
		{"too old to ask", nil, Reached{LSN: end, LastCommit: noon}, ""},
		{"short of it", nil, Reached{LSN: end - 8, LastCommit: noon}, "recovery ended at 0/30000F8 and not at 0/3000100 as planned"},
		{"beyond it", nil, Reached{LSN: end + 8, LastCommit: noon}, "recovery ended at 0/3000108"},
		{"a page's header", func(p *Plan) { p.EndLSN = 0x3002018 }, Reached{LSN: 0x3002000, LastCommit: noon}, ""},
		{"a segment's header", func(p *Plan) { p.EndLSN = 0x4000028 }, Reached{LSN: 0x4000000, LastCommit: noon}, ""},
		{"another time", nil, Reached{LSN: end, LastCommit: noon.Add(time.Microsecond)}, "the last transaction that was replayed is of 2026-11-22 12:00:00.000001Z and not of 2026-11-22 12:00:00Z"},
		{"no transaction", nil, Reached{LSN: end}, "is of no time and not of"},
		{"one where none is", func(p *Plan) { p.lastEnded = nil }, Reached{LSN: end, LastCommit: noon}, "and not of no time"},
		{"at once", func(p *Plan) { p.Immediate = true }, Reached{LSN: end}, ""},
		{"the kept is not", nil, Reached{LSN: end, LastCommit: noon, kept: "aborted"}, "transaction 751 is aborted"},
		{"the lost is there", nil, Reached{LSN: end, LastCommit: noon, lost: "committed"}, "transaction 752 is committed"},
	} {
		p := &Plan{
			lineage: l, EndLSN: end, lastEnded: &walindex.Transaction{Time: pg.TimestampOf(noon)},
			LastKept: &Commit{XID: 751}, FirstLost: &Commit{XID: 752},
		}
		if test.change != nil {
			test.change(p)
		}
		err := p.judge(&test.reached)
		var missed *NotReachedError
		if test.want == "" && err != nil || test.want != "" && (!errors.As(err, &missed) || !strings.Contains(err.Error(), test.want)) {
			t.Errorf("%s: %v", test.name, err)
		}
	}
}
