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

// spikesOf gives the spikes of minutes of so many MB each; -1 is one without a transaction.
func spikesOf(minutes []int) (out []string) {
	var s spikes
	note := func(b *burst) {
		if b != nil {
			out = append(out, fmt.Sprintf("minute %d, %d minutes, %d MB, usually %d", int(b.From.Sub(noon).Minutes()), b.Minutes, b.Bytes>>20, b.Usual>>20))
		}
	}
	lsn := pg.LSN(1 << 30)
	for i, mb := range minutes {
		if mb < 0 {
			continue
		}
		for range 4 { // a quarter each
			lsn += pg.LSN(mb) << 18
			note(s.add(&walindex.Transaction{Start: lsn, End: lsn + 40, Time: pg.TimestampOf(clock(float64(i)*60 + 30))}))
		}
	}
	note(s.to(minuteOf(noon) + int64(len(minutes))))
	note(s.burst)
	return out
}

func TestSpikes(t *testing.T) {
	flat := func(n, mb int) (out []int) {
		for range n {
			out = append(out, mb)
		}
		return out
	}
	with := func(parts ...[]int) (out []int) {
		for _, p := range parts {
			out = append(out, p...)
		}
		return out
	}
	for name, c := range map[string]struct {
		minutes []int
		want    []string
	}{
		"nothing":                         {nil, nil},
		"a steady load":                   {flat(200, 100), nil},
		"one minute":                      {with(flat(30, 10), []int{500}, flat(5, 10)), []string{"minute 30, 1 minutes, 500 MB, usually 10"}},
		"three minutes":                   {with(flat(30, 10), flat(3, 200), flat(5, 10)), []string{"minute 30, 3 minutes, 600 MB, usually 10"}},
		"two, apart":                      {with(flat(30, 10), []int{100, 10, 100, 10}), []string{"minute 30, 1 minutes, 100 MB, usually 10", "minute 32, 1 minutes, 100 MB, usually 10"}},
		"at the end of the log":           {with(flat(30, 10), flat(2, 100)), []string{"minute 30, 2 minutes, 200 MB, usually 10"}},
		"too little to matter":            {with(flat(30, 0), []int{60}, flat(5, 0)), nil},
		"not so many times what is usual": {with(flat(30, 20), []int{150}, flat(5, 20)), nil},
		"what is usual is not known":      {with(flat(9, 1), []int{500}, flat(5, 1)), nil},
		"after idle hours":                {with(flat(2, 50), make([]int, 0), minus(600), []int{300, 1}), []string{"minute 602, 1 minutes, 300 MB, usually 0"}},
		"it goes on, and is usual":        {with(flat(60, 10), flat(100, 200)), []string{"minute 60, 30 minutes, 6000 MB, usually 10"}},
	} {
		if diff := cmp.Diff(c.want, spikesOf(c.minutes)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func minus(n int) (out []int) {
	for range n {
		out = append(out, -1)
	}
	return out
}

// A spike is told where it was over, with the table that had most of it; while it goes on
// only who does not come back is told.
func TestHistorySpikes(t *testing.T) {
	w := newWorld(t, repository.LineageInfo{})
	much := pg.RelFileLocator{Spc: 1663, DB: 5, Rel: 20000}
	rel := func(r pg.RelFileLocator, n uint64) walindex.RelRows {
		return walindex.RelRows{Rel: r, RowCounts: walindex.RowCounts{Inserted: n}}
	}
	n := uint64(1)
	seg := func(minute int, rows uint64) {
		tx := commit(at(n, 100), float64(minute)*60)
		tx.Changes = &walindex.Changes{Rows: []walindex.RelRows{rel(much, rows), rel(pg.RelFileLocator{Spc: 1663, DB: 5, Rel: 20001}, 5)}}
		x := commits(tx)
		x.Detailed = true
		w.segment(1, n, x)
		n++
	}
	for m := range 30 {
		seg(m, 1)
	}
	for range 80 {
		seg(30, 100)
	}
	grown := w.load()
	for m := 31; m < 35; m++ {
		seg(m, 1)
	}
	c := w.load()
	read := func(c *Catalog, q HistoryQuery) (out []string) {
		t.Helper()
		q.MinRows = 1000
		w.must(c.History(t.Context(), q, func(e Event) error {
			out = append(out, fmt.Sprintf("%s %s: %d minutes, %d MB; %s", e.LSN, e.Time.Format("15:04"), e.Spike.Minutes, e.Spike.Bytes>>20, what(e)))
			return nil
		}))
		return out
	}
	want := []string{at(112, 100).String() + " 12:30: 1 minutes, 80 MB; spike: spike 5.FILE 8000"}
	if diff := cmp.Diff(want, read(c, HistoryQuery{Spikes: true})); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	// what was usual is known from before what was asked for
	if diff := cmp.Diff(want, read(c, HistoryQuery{Since: clock(29 * 60), Spikes: true})); diff != "" {
		t.Errorf("since shortly before (-want +got):\n%s", diff)
	}
	if got := read(c, HistoryQuery{}); got != nil {
		t.Errorf("not asked for: %v", got)
	}
	if got := read(grown, HistoryQuery{Spikes: true}); len(got) != 1 {
		t.Errorf("at the end of the log: %v", got)
	}
	g := &Going{Settled: clock(30*60 + 30)}
	if got := read(grown, HistoryQuery{Spikes: true, Going: g}); got != nil {
		t.Errorf("while it goes on: %v", got)
	}
	g.Settled = clock(3600)
	if diff := cmp.Diff(want, read(c, HistoryQuery{Spikes: true, Going: g})); diff != "" {
		t.Errorf("when it was over (-want +got):\n%s", diff)
	}
	if got := read(c, HistoryQuery{Spikes: true, Going: g}); got != nil {
		t.Errorf("once more: %v", got)
	}
}
