// SPDX-License-Identifier: Apache-2.0

package catalog

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kbcli/kbcli/engine/pg"
	"github.com/kbcli/kbcli/engine/pg/walscan"
	"github.com/kbcli/kbcli/engine/repository"
	"github.com/kbcli/kbcli/engine/repository/walindex"
)

func as(k walscan.XactKind, tx walindex.Transaction) walindex.Transaction {
	tx.Kind = k
	return tx
}

// ended gives the end of a prepared transaction the number of that which was prepared
// at lsn.
func ended(tx walindex.Transaction, lsn pg.LSN) walindex.Transaction {
	tx.XID = pg.XID(lsn)
	return tx
}

// story is what most tests tell: a backup that ends at 1/200 at second 10, and commits
// whose times are not in their order. What was rolled back counts as PostgreSQL counts it;
// to be prepared says nothing.
func story(t *testing.T) *world {
	w := newWorld(t, repository.LineageInfo{})
	w.segment(1, 1, commits(
		commit(at(1, 50), 1), // before the backup began
		commit(at(1, 150), 9),
		commit(at(1, 300), 11),
		as(walscan.Abort, commit(at(1, 350), 12.5)),
		as(walscan.Prepare, commit(at(1, 360), 99)),
		ended(as(walscan.AbortPrepared, commit(at(1, 370), 12.6)), at(1, 360)),
		commit(at(1, 400), 13),
		commit(at(1, 500), 12),
	))
	w.segment(1, 2, commits(
		commit(at(2, 100), 15),
		as(walscan.CommitPrepared, commit(at(2, 200), 15)), // prepared before the backup
		commit(at(2, 300), 15),
	))
	w.segment(1, 3, walindex.Index{})
	w.segment(1, 4, commits(commit(at(4, 100), 20), commit(at(4, 200), 19)))
	w.backup("a", 1, at(1, 100), at(1, 200), 10)
	return w
}

// brief is what a resolution comes to.
func brief(r *Resolution, err error) string {
	if err != nil {
		return err.Error()
	}
	name := func(tx *walindex.Transaction) string {
		if tx == nil {
			return "-"
		}
		return tx.Start.String()
	}
	how := "before"
	switch {
	case r.Stop.Immediate:
		how = "at"
	case r.Stop.Inclusive:
		how = "after"
	}
	return fmt.Sprintf("%s: %s %s, next %s, kept %s, lost %s", r.Backup.Name, how, r.Stop.LSN, r.Stop.Next, name(r.LastKept), name(r.FirstLost))
}

func before(backup string, stop, kept pg.LSN) string {
	return fmt.Sprintf("%s: before %s, next %s, kept %s, lost %s", backup, stop, stop, kept, stop)
}

// aborted is a stop before an end by rollback.
func aborted(backup string, stop, kept, lost pg.LSN) string {
	return fmt.Sprintf("%s: before %s, next %s, kept %s, lost %s", backup, stop, stop, kept, lost)
}

func TestResolve(t *testing.T) {
	w := story(t)
	w.backup("b", 1, at(2, 110), at(2, 250), 16)
	c := w.load()
	end := fmt.Sprintf("after %s, next %s", at(4, 200), at(5, 40))
	for _, test := range []struct {
		name   string
		target Target
		want   string
	}{
		{"the window's first moment", Target{Time: clock(10)}, before("a", at(1, 300), at(1, 150))},
		{"between", Target{Time: clock(10.5)}, before("a", at(1, 300), at(1, 150))},
		{"a commit's own time", Target{Time: clock(11)}, aborted("a", at(1, 350), at(1, 300), at(1, 400))},
		{"exclusive", Target{Time: clock(11), Exclusive: true}, before("a", at(1, 300), at(1, 150))},
		{"stamped later but written before", Target{Time: clock(12)}, aborted("a", at(1, 350), at(1, 300), at(1, 400))},
		{"all of them", Target{Time: clock(13)}, before("a", at(2, 100), at(1, 500))},
		{"a microsecond before", Target{Time: clock(13).Add(-time.Microsecond)}, before("a", at(1, 400), at(1, 300))},
		{"a nanosecond before", Target{Time: clock(13).Add(-time.Nanosecond)}, before("a", at(1, 400), at(1, 300))},
		{"a nanosecond after", Target{Time: clock(13).Add(time.Nanosecond)}, before("a", at(2, 100), at(1, 500))},
		{"exclusive, the later one", Target{Time: clock(13), Exclusive: true}, before("a", at(1, 400), at(1, 300))},
		{"equal times", Target{Time: clock(15)}, before("a", at(4, 100), at(2, 300))},
		{"equal times, exclusive", Target{Time: clock(15), Exclusive: true}, before("a", at(2, 100), at(1, 500))},
		{"the next backup", Target{Time: clock(16)}, before("b", at(4, 100), at(2, 300))},
		{"the last but one", Target{Time: clock(19)}, before("b", at(4, 100), at(2, 300))},
		{"the window's last moment", Target{Time: clock(20)}, "b: " + end + fmt.Sprintf(", kept %s, lost -", at(4, 200))},
		{"the last moment, exclusive", Target{Time: clock(20), Exclusive: true}, before("b", at(4, 100), at(2, 300))},
		{"latest", Target{Latest: true}, "b: " + end + fmt.Sprintf(", kept %s, lost -", at(4, 200))},
		{"a backup", Target{Backup: "a"}, fmt.Sprintf("a: at %s, next %[1]s, kept %s, lost %s", at(1, 200), at(1, 150), at(1, 300))},
		{"another", Target{Backup: "b"}, fmt.Sprintf("b: at %s, next %[1]s, kept %s, lost %s", at(2, 250), at(2, 200), at(2, 300))},
		{"no backup", Target{Backup: "x"}, `backup "x" does not exist`},
		{"too early", Target{Time: clock(9.9)}, "2026-11-22 12:00:09.9Z lies in no recoverable window"},
		{"too late", Target{Time: clock(20.1)}, "2026-11-22 12:00:20.1Z lies in no recoverable window"},
		{"no target", Target{}, "0001-01-01 00:00:00Z lies in no recoverable window"},
		{"no timeline", Target{Latest: true, Timeline: 7}, "there is no timeline 7"},
	} {
		t.Run(test.name, func(t *testing.T) {
			r, err := c.Resolve(t.Context(), test.target)
			if diff := cmp.Diff(test.want, brief(r, err)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if err != nil {
				return
			}
			// taken up again later, when more is known, it is the same
			later := w.load()
			later.Grow(1, at(4, 300), clock(50))
			again, err := later.Resolve(t.Context(), Target{At: &Found{Stop: r.Stop, Backup: r.Backup.Name}})
			if err != nil || again.Stop != r.Stop || again.Backup.Name != r.Backup.Name || !cmp.Equal(again.LastKept, r.LastKept) {
				t.Errorf("taken up again: %s", brief(again, err))
			}
		})
	}
}

// What a time means, said another way: the longest beginning of the ends of transactions
// after the backup of which none is stamped later, as PostgreSQL has it.
func TestResolveMeansWhatItSays(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for range 60 {
		w := newWorld(t, repository.LineageInfo{})
		var all []walindex.Transaction
		for n := uint64(1); n < 5; n++ {
			var txs []walindex.Transaction
			for i := range r.IntN(5) {
				tx := commit(at(n, 300+i*100), 10+float64(r.IntN(12)))
				if r.IntN(4) == 0 {
					tx.Kind = walscan.Abort
				}
				txs = append(txs, tx)
			}
			all = append(all, txs...)
			w.segment(1, n, commits(txs...))
		}
		w.backup("a", 1, at(1, 100), at(1, 200), 10)
		c := w.load()
		ws, err := c.Windows(t.Context(), 0)
		if err != nil || len(ws) != 1 {
			t.Fatal(err)
		}
		start := func(txs []walindex.Transaction) (lsn pg.LSN) { // of the first commit
			for _, tx := range txs {
				if tx.Kind.Committed() {
					return tx.Start
				}
			}
			return 0
		}
		for s := 10.0; !clock(s).After(ws[0].To); s += 0.5 {
			kept := 0
			for kept < len(all) && !all[kept].Time.Time().After(clock(s)) {
				kept++
			}
			got, err := c.Resolve(t.Context(), Target{Time: clock(s)})
			if err != nil {
				t.Fatal(err)
			}
			var stop pg.LSN
			if kept < len(all) {
				stop = all[kept].Start
			}
			back := slices.Clone(all[:kept])
			slices.Reverse(back)
			of := func(tx *walindex.Transaction) pg.LSN {
				if tx == nil {
					return 0
				}
				return tx.Start
			}
			if stop != 0 && got.Stop != (Stop{LSN: stop, Next: stop}) || of(got.LastKept) != start(back) || of(got.FirstLost) != start(all[kept:]) {
				t.Errorf("at %g of %v: %s, want %d kept", s, all, brief(got, nil), kept)
			}
		}
	}
}

func TestNothingAfterTheBackup(t *testing.T) {
	w := newWorld(t, repository.LineageInfo{})
	w.segment(1, 1, commits(commit(at(1, 150), 9)))
	w.backup("a", 1, at(1, 100), at(2, 0), 10)
	c := w.load()
	want := fmt.Sprintf("a: at %s, next %[1]s, kept %s, lost -", at(2, 0), at(1, 150))
	for _, target := range []Target{{Latest: true}, {Time: clock(10)}, {Backup: "a"}} {
		if diff := cmp.Diff(want, brief(c.Resolve(t.Context(), target))); diff != "" {
			t.Errorf("%s (-want +got):\n%s", target, diff)
		}
	}
	// an idle server's clock lengthens the window
	w.must(w.l.PutBeat(t.Context(), repository.Beat{Timeline: 1, LSN: at(2, 0), Time: clock(60)}))
	c = w.load()
	if diff := cmp.Diff(want, brief(c.Resolve(t.Context(), Target{Time: clock(60)}))); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for _, beat := range []repository.Beat{{Timeline: 1, LSN: at(2, 1), Time: clock(60)}, {Timeline: 2, LSN: at(2, 0), Time: clock(60)}, {Timeline: 1, LSN: at(1, 199), Time: clock(60)}} {
		w.must(w.l.PutBeat(t.Context(), beat))
		if ws, err := w.load().Windows(t.Context(), 0); err != nil || len(ws) != 1 || !ws[0].To.Equal(clock(10)) {
			t.Errorf("%+v: %+v, %v", beat, ws, err)
		}
	}
}

func TestGaps(t *testing.T) {
	w := newWorld(t, repository.LineageInfo{})
	ctx := t.Context()
	if _, err := w.load().Resolve(ctx, Target{Latest: true}); err == nil || !strings.Contains(err.Error(), "no window yet") {
		t.Errorf("empty: %v", err)
	}
	w.segment(1, 1, commits(commit(at(1, 300), 15)))
	w.segment(1, 4, commits(commit(at(4, 300), 35)))
	w.segment(1, 6, commits(commit(at(6, 300), 55)))
	w.backup("a", 1, at(1, 100), at(1, 200), 10)
	w.backup("long", 1, at(1, 120), at(4, 400), 40) // over the gap: it can never be restored
	w.backup("b", 1, at(4, 100), at(4, 200), 30)
	w.backup("c", 1, at(6, 100), at(6, 200), 50)
	declared := repository.Gap{Timeline: 1, From: at(2, 0), ToTimeline: 1, To: at(4, 0), Reason: "the spool was full"}
	w.must(w.l.PutGap(ctx, declared))
	c := w.load()
	ws, err := c.Windows(ctx, 0)
	want := []Window{
		{Timeline: 1, Backup: "a", From: clock(10), To: clock(15), FromLSN: at(1, 200), ToLSN: at(2, 0)},
		{Timeline: 1, Backup: "b", From: clock(30), To: clock(35), FromLSN: at(4, 200), ToLSN: at(5, 0)},
		{Timeline: 1, Backup: "c", From: clock(50), To: clock(55), FromLSN: at(6, 200), ToLSN: at(7, 0)},
	}
	if diff := cmp.Diff(want, ws); err != nil || diff != "" {
		t.Fatalf("%v (-want +got):\n%s", err, diff)
	}
	for _, test := range []struct {
		at     float64
		before int
		reason string
	}{{15.001, 0, "the spool was full"}, {29, 0, "the spool was full"}, {40, 1, "its WAL is missing"}} {
		_, err := c.Resolve(ctx, Target{Time: clock(test.at)})
		var gap *GapError
		if !errors.As(err, &gap) || gap.Before != ws[test.before] || gap.After != ws[test.before+1] || !strings.Contains(err.Error(), test.reason) || (gap.Gap != nil) != (test.before == 0) {
			t.Errorf("%g: %v", test.at, err)
		}
	}
	for _, s := range []float64{9, 56} {
		_, err := c.Resolve(ctx, Target{Time: clock(s)})
		var outside *OutsideWindowError
		if !errors.As(err, &outside) || len(outside.Windows) != 3 {
			t.Errorf("%g: %v", s, err)
		}
	}
	if r, err := c.Resolve(ctx, Target{Time: clock(35)}); err != nil || r.Backup.Name != "b" {
		t.Errorf("the second window: %s", brief(r, err))
	}
	var missing *repository.MissingWALError
	if _, err := c.Resolve(ctx, Target{Backup: "long"}); !errors.As(err, &missing) || missing.From != at(2, 0) {
		t.Errorf("a backup over the gap: %v", err)
	}
	if _, err := c.Resolve(ctx, Target{At: &Found{Backup: "long", Stop: Stop{LSN: at(4, 500)}}}); err == nil {
		t.Error("a backup over the gap was taken up")
	}
}

// A backup that ended in a window and began before it, where WAL is missing, is not
// what a restore starts from, although it is the newest.
func TestTheNewestBackupMayBeOfNoUse(t *testing.T) {
	w := newWorld(t, repository.LineageInfo{})
	w.segment(1, 1, commits(commit(at(1, 300), 5)))
	w.segment(1, 3, commits(commit(at(3, 300), 25)))
	w.backup("long", 1, at(1, 100), at(3, 250), 22)
	w.backup("short", 1, at(3, 100), at(3, 200), 21)
	c := w.load()
	for _, target := range []Target{{Latest: true}, {Time: clock(24)}} {
		r, err := c.Resolve(t.Context(), target)
		if err != nil || r.Backup.Name != "short" {
			t.Errorf("%s: %s", target, brief(r, err))
		}
	}
}

// Where the clock was set back between two backups no window is lost.
func TestClockSetBack(t *testing.T) {
	w := newWorld(t, repository.LineageInfo{})
	w.segment(1, 1, commits(commit(at(1, 300), 100)))
	w.segment(1, 2, commits(commit(at(2, 300), 60)))
	w.backup("first", 1, at(1, 100), at(1, 200), 99)
	w.backup("second", 1, at(2, 100), at(2, 200), 50)
	ws, err := w.load().Windows(t.Context(), 0)
	if err != nil || len(ws) != 1 || ws[0].Backup != "first" || ws[0].FromLSN != at(1, 200) || ws[0].ToLSN != at(3, 0) {
		t.Errorf("%+v, %v", ws, err)
	}
}

func TestTimelines(t *testing.T) {
	for _, test := range []struct {
		name  string
		where pg.LSN
	}{{"within a segment", at(2, 250)}, {"at a boundary", at(3, 0)}} {
		t.Run(test.name, func(t *testing.T) {
			w := newWorld(t, repository.LineageInfo{})
			ctx := t.Context()
			w.segment(1, 1, commits(commit(at(1, 300), 11)))
			old := []walindex.Transaction{commit(at(2, 100), 12), commit(at(2, 300), 14)} // the second is after the switch, if it is within
			w.segment(1, 2, commits(old...))
			w.segment(1, 3, commits(commit(at(3, 100), 16)))
			kept := old
			if test.where == at(2, 250) {
				kept = old[:1]
				w.segment(2, 2, commits(old[0], commit(at(2, 350), 13)))
			}
			w.segment(2, 3, commits(commit(at(3, 200), 20)))
			w.must(w.l.PutHistory(ctx, 2, []byte(fmt.Sprintf("1\t%s\tno recovery target specified\n", test.where))))
			w.backup("a", 1, at(1, 100), at(1, 200), 10)
			w.backup("stray", 1, at(3, 20), at(3, 50), 15)
			w.backup("b", 2, at(3, 20), at(3, 60), 18)
			c := w.load()

			ws, err := c.Windows(ctx, 0)
			if err != nil || len(ws) != 1 || ws[0].Timeline != 2 || !ws[0].To.Equal(clock(20)) || ws[0].ToLSN != at(4, 0) {
				t.Fatalf("%+v, %v", ws, err)
			}
			r, err := c.Resolve(ctx, Target{Time: clock(15)}) // the stray backup would begin later
			if err != nil || r.Backup.Name != "a" || r.FirstLost.Start != at(3, 200) {
				t.Errorf("%s", brief(r, err))
			}
			if last := kept[len(kept)-1].Start; len(kept) == 2 && r.LastKept.Start != last || len(kept) == 1 && r.LastKept.Start != at(2, 350) {
				t.Errorf("kept %s", r.LastKept.Start)
			}
			if r, err = c.Resolve(ctx, Target{Latest: true}); err != nil || r.Backup.Name != "b" || r.LastKept.Start != at(3, 200) {
				t.Errorf("latest: %s", brief(r, err))
			}
			// the branch that was left can be asked for
			if r, err = c.Resolve(ctx, Target{Latest: true, Timeline: 1}); err != nil || r.Backup.Name != "stray" || r.LastKept.Start != at(3, 100) || r.Path.Timeline != 1 {
				t.Errorf("the old branch: %s", brief(r, err))
			}
			if r, err = c.Resolve(ctx, Target{Backup: "stray"}); err != nil || r.Path.Timeline != 1 {
				t.Errorf("the stray backup: %s", brief(r, err))
			}
		})
	}
}

func TestDemands(t *testing.T) {
	w := newWorld(t, repository.LineageInfo{})
	x := commits(commit(at(1, 300), 12), commit(at(1, 500), 14))
	x.Parameters = []walindex.Parameters{
		{Start: at(1, 150), ParameterChange: walscan.ParameterChange{MaxConnections: 200, MaxWalSenders: 5}},
		{Start: at(1, 350), ParameterChange: walscan.ParameterChange{MaxConnections: 50, MaxPreparedXacts: 7, MaxWorkerProcesses: 9, MaxLocksPerXact: 64}},
		{Start: at(1, 600), ParameterChange: walscan.ParameterChange{MaxConnections: 999}},
	}
	x.Tablespaces = []walindex.Tablespace{{Start: at(1, 50), Oid: 1, Path: "/before"}, {Start: at(1, 160), Oid: 2, Path: "/within"}, {Start: at(1, 450), Oid: 3, Path: "/after"}}
	w.segment(1, 1, x)
	w.backup("a", 1, at(1, 100), at(1, 200), 10)
	c := w.load()
	for _, test := range []struct {
		target Target
		want   repository.Settings
		spaces int
	}{
		{Target{Backup: "a"}, repository.Settings{MaxConnections: 200, MaxWalSenders: 10}, 1},
		{Target{Time: clock(11)}, repository.Settings{MaxConnections: 200, MaxWalSenders: 10}, 1},
		{Target{Time: clock(13)}, repository.Settings{MaxConnections: 200, MaxWalSenders: 10, MaxPreparedXacts: 7, MaxWorkerProcesses: 9, MaxLocksPerXact: 64}, 2},
		{Target{Latest: true}, repository.Settings{MaxConnections: 999, MaxWalSenders: 10, MaxPreparedXacts: 7, MaxWorkerProcesses: 9, MaxLocksPerXact: 64}, 2},
	} {
		r, err := c.Resolve(t.Context(), test.target)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(test.want, r.Settings); diff != "" || len(r.Tablespaces) != test.spaces {
			t.Errorf("%s: tablespaces %v (-want +got):\n%s", test.target, r.Tablespaces, diff)
		}
	}
}

// What was asked when the archive ended earlier is not answered with what came since,
// nor is what comes since answered with what was known then.
func TestGrowWhileResolving(t *testing.T) {
	w := story(t)
	c := w.load()
	p, err := c.Path(0)
	w.must(err)
	x, err := c.index(t.Context(), p, 4, at(5, 0))
	w.must(err)
	if len(x.Transactions) != 2 {
		t.Fatalf("%+v", x)
	}
	// the end that a window had before lies within: the index of the whole says too much
	if x, err := c.index(t.Context(), p, 4, at(4, 150)); err == nil {
		t.Errorf("what is no WAL was read as %+v", x)
	}
	if again, err := c.index(t.Context(), p, 4, at(5, 0)); err != nil || again != x {
		t.Errorf("%p, %v", again, err)
	}
}
