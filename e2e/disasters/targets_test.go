// SPDX-License-Identifier: Apache-2.0

package disasters

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"github.com/kbcli/kbcli/engine/catalog"
	"github.com/kbcli/kbcli/engine/pg"
	"github.com/kbcli/kbcli/engine/restore"
	"github.com/kbcli/kbcli/internal/testpg"
)

// TestTargets plans random targets of all kinds, on all paths, and restores some of
// them. What PostgreSQL would do is computed from what pg_waldump says; what must be in
// the tables from what the sessions wrote.
func TestTargets(t *testing.T) {
	restores, plans := 52, 1500
	if long() {
		restores, plans = 1000, 20000
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	clock := newWallClock(t)
	var server *testpg.Server
	clock.while(t, func() {
		server = testpg.Start(t, testpg.Options{SegmentSizeMB: segmentMB, Settings: map[string]string{
			"max_prepared_transactions": "400", "track_commit_timestamp": "on", "wal_keep_size": "1GB", "hot_standby": "on",
		}})
	})
	server.Exec(t, ledgerTable)
	s := newStory(t, seed, server, clock)
	s.steps(30)
	r := protect(t, server)
	r.follow(t, server, false)
	r.backup(t, "b1")

	s.steps(120)
	s.turn(-time.Hour)
	s.steps(120)
	s.turn(90 * time.Minute)
	s.steps(60)
	r.backup(t, "b2")
	s.steps(60)
	s.newTimeline(map[string]string{"max_connections": "150", "max_worker_processes": "12"})
	s.steps(80)
	s.turn(-10 * time.Second)
	s.steps(60)
	s.newTimeline(nil) // two within a segment
	s.newTimeline(nil)
	s.steps(80)
	r.backup(t, "b3")
	time.Sleep(1500 * time.Millisecond) // idle
	s.steps(80)

	// The host fails over to one whose clock is behind; what it wrote meanwhile is a
	// branch that was left.
	var standby *testpg.Server
	far := clock.another(t, "far", clock.offset-3*time.Second)
	far.while(t, func() { standby = testpg.Standby(t, server) })
	standby.Stop(t, testpg.Fast)
	left, leftTimeline := s, r.timeline(t)
	s = s.fork()
	left.steps(80)
	r.archived(t)
	left.server.Stop(t, testpg.Immediate)
	s.clock, s.id = far, left.id
	far.while(t, func() { standby.Start(t) })
	standby.Promote(t)
	r.follow(t, standby, false)
	s.goOn(standby)
	s.steps(100)
	r.backup(t, "b4")
	s.steps(60)
	r.archived(t)

	o := newTargetOracle(t, r, s, left.server, standby)
	if o.chapters == 0 {
		t.Fatal("no chapter was made")
	}
	o.stories[leftTimeline] = left
	x := o.run(restores*3/4, plans)

	// a restored cluster has a past of its own
	x.Set(t, map[string]string{"wal_keep_size": "1GB", "max_prepared_transactions": "400", "max_wal_senders": "10", "hot_standby": "on", "track_commit_timestamp": "on"})
	clock.while(t, func() { x.Restart(t) })
	again := newStory(t, seed+1, x.Server, clock)
	again.id = s.id
	before, initial := ids(t, x.Server), preparedOn(t, x.Server)
	r2 := protect(t, x.Server)
	r2.follow(t, x.Server, false)
	again.steps(30)
	r2.backup(t, "c1")
	again.steps(80)
	time.Sleep(700 * time.Millisecond) // idle
	again.steps(70)
	again.newTimeline(nil)
	again.steps(60)
	r2.archived(t)
	o2 := newTargetOracle(t, r2, again, x.Server)
	o2.before, o2.paths[0].initial = before, initial
	o2.run(restores/4, plans/4)
}

// archived waits until all that the server wrote is in the repository.
func (r *rig) archived(t *testing.T) {
	t.Helper()
	var text string
	r.server.QueryRow(t, "select pg_current_wal_flush_lsn()::text", &text)
	lsn, err := pg.ParseLSN(text)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.archiver.Wait(t.Context(), r.timeline(t), lsn); err != nil {
		t.Fatal(err)
	}
}

// timeline is the one that the server writes.
func (r *rig) timeline(t *testing.T) pg.TimelineID {
	t.Helper()
	var name string
	r.server.QueryRow(t, "select pg_walfile_name(pg_current_wal_insert_lsn())", &name)
	g, err := r.lineage.Info().SegmentSize.ParseName(name)
	if err != nil {
		t.Fatal(err)
	}
	return g.Timeline
}

// targetOracle holds plans and restores against the truth.
type targetOracle struct {
	*testing.T
	rand    *rand.Rand
	rig     *rig
	stories map[pg.TimelineID]*story // by what --timeline says
	cat     *catalog.Catalog
	paths   map[pg.TimelineID]*truth // by what --timeline says; 0 is the default
	before  []int64                  // rows that are there from before the story

	chapters int // that were made before
}

func newTargetOracle(t *testing.T, r *rig, s *story, servers ...*testpg.Server) *targetOracle {
	t.Helper()
	made, err := catalog.NewRoller(r.lineage, func() error { return nil }).Roll(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d chapters", made)
	c, err := catalog.Load(t.Context(), r.lineage)
	if err != nil {
		t.Fatal(err)
	}
	st := r.archiver.Status()
	c.Grow(st.RepositoryTimeline, st.Repository, st.Proven)
	o := &targetOracle{T: t, rand: s.rand, rig: r, stories: map[pg.TimelineID]*story{0: s}, cat: c, paths: map[pg.TimelineID]*truth{}, chapters: made}
	branches, err := c.Branches(t.Context())
	if err != nil || len(branches) != len(servers) {
		t.Fatalf("%d branches of %d servers: %+v, %v", len(branches), len(servers), branches, err)
	}
	for _, b := range branches {
		if len(b.Windows) != 1 || len(b.Holes) != 0 {
			t.Fatalf("windows %+v", b)
		}
		p, err := c.Path(b.Timeline)
		if err != nil {
			t.Fatal(err)
		}
		tli := b.Timeline
		if b.Default {
			tli = 0
		}
		x := newTruth(t, p.History, c.Backups(), b.Windows[0], servers...)
		o.paths[tli] = x
		t.Logf("timeline %s: %d records, %d backups, %s to %s", b.Timeline, len(x.records), len(x.backups), b.Windows[0].FromLSN, b.Windows[0].ToLSN)
	}
	return o
}

// run plans many targets and restores some; the last that was restored runs on.
func (o *targetOracle) run(restores, plans int) *restored {
	o.Helper()
	var last *restored
	kinds := map[string]int{}
	began := time.Now()
	var planning, restoring time.Duration
	chosen, prepared := 0, 0 // restores on a timeline that was named, and with prepared transactions
	for i := range plans {
		tli := pg.TimelineID(0)
		if all := slices.Sorted(maps.Keys(o.paths)); len(all) > 1 && i%4 == 0 {
			tli = all[1+o.rand.IntN(len(all)-1)]
		}
		target, kind := o.target(o.paths[tli])
		target.Timeline = tli
		p := o.plan(target)
		planning = time.Since(began) - restoring
		if o.Failed() {
			o.Fatalf("plan %d", i)
		}
		// restores are spread over kinds: none is ahead of another
		ahead := slices.ContainsFunc(targetKinds, func(k string) bool { return kinds[k] < kinds[kind] })
		if p == nil || ahead || restores == sum(kinds) {
			continue
		}
		kinds[kind]++
		if tli != 0 {
			chosen++
		}
		if len(p.Prepared) > 0 {
			prepared++
		}
		at := time.Now()
		x := o.rig.execute(o.T, p)
		o.judge(target, x)
		if o.Failed() {
			o.Fatalf("restore of %s, plan %+v", target, p)
		}
		if last != nil {
			last.Stop(o.T, testpg.Immediate)
			if err := os.RemoveAll(filepath.Dir(last.DataDir)); err != nil { // a thousand of them would fill the disk
				o.Fatal(err)
			}
		}
		last = x
		restoring += time.Since(at)
		if n := sum(kinds); n%100 == 0 {
			o.Logf("%d restores, %s", n, time.Since(began).Truncate(time.Second))
		}
	}
	o.Logf("%d plans, %s each; restores %v, %s each", plans, planning/time.Duration(plans), kinds, restoring/time.Duration(max(sum(kinds), 1)))
	if sum(kinds) != restores || len(kinds) != len(targetKinds) {
		o.Fatalf("only %d restores", sum(kinds))
	}
	if o.Logf("%d of them on a named timeline, %d with prepared transactions", chosen, prepared); prepared == 0 || chosen == 0 && len(o.paths) > 1 {
		o.Error("the restores were not of all kinds")
	}
	return last
}

func sum(m map[string]int) (n int) {
	for _, v := range m {
		n += v
	}
	return n
}

var targetKinds = []string{"time", "time-x", "idle", "lsn", "lsn-x", "xid", "xid-x", "name", "latest", "earliest", "backup"}

// target is a random one.
func (o *targetOracle) target(x *truth) (catalog.Target, string) {
	kind := targetKinds[o.rand.IntN(len(targetKinds))]
	story := x.records[x.story:]
	r := story[o.rand.IntN(len(story))]
	some := func(match func(walRecord) bool) walRecord {
		for range 1000 {
			if r := story[o.rand.IntN(len(story))]; match(r) {
				return r
			}
		}
		return r
	}
	t := catalog.Target{Exclusive: len(kind) > 2 && kind[len(kind)-2:] == "-x"}
	switch kind {
	case "time", "time-x":
		t.Time = some(walRecord.ends).at
		switch o.rand.IntN(4) {
		case 0:
			t.Time = t.Time.Add(-time.Microsecond)
		case 1:
			t.Time = t.Time.Add(time.Duration(o.rand.IntN(20000)) * time.Microsecond)
		}
	case "idle": // when nothing happened for long
		t.Time = some(walRecord.ends).at
		if idle := x.idle(); len(idle) > 0 {
			r := idle[o.rand.IntN(len(idle))]
			t.Time = r.at.Add(time.Duration(1+o.rand.Int64N(int64(idleLeast/time.Microsecond)-1)) * time.Microsecond)
		}
	case "lsn", "lsn-x":
		t.LSN = r.start + pg.LSN(o.rand.IntN(3)*8*o.rand.IntN(8))
		if across := x.across(); len(across) > 0 && o.rand.IntN(3) == 0 {
			t.LSN = across[o.rand.IntN(len(across))]
		}
	case "xid", "xid-x":
		t.XID = some(walRecord.ends).xid
		if o.rand.IntN(3) == 0 { // any number
			t.XID = some(walRecord.ends).xid + pg.XID(o.rand.IntN(5))
		}
	case "name":
		t.Name = some(func(r walRecord) bool { return r.kind == "RESTORE_POINT" }).name
		if t.Name == "" {
			t.Name = "nothing"
		}
	case "latest":
		t.Latest = true
	case "earliest":
		t.Earliest = true
	case "backup":
		t.Backup = x.backups[o.rand.IntN(len(x.backups))].Name
	}
	return t, kind
}

// idleLeast is how long nothing was committed or rolled back in an idle stretch.
const idleLeast = 500 * time.Millisecond

// idle are the last ends of transactions before the idle stretches of the story.
func (x *truth) idle() []walRecord {
	var out []walRecord
	var before walRecord
	for _, r := range x.records[x.story:] {
		if !r.ends() {
			continue
		}
		if d := r.at.Sub(before.at); !before.at.IsZero() && d > idleLeast && d < time.Minute { // more is the clock
			out = append(out, before)
		}
		before = r
	}
	return out
}

// plan makes the plan of a target and holds it against the truth. It is nil where the
// truth has none either.
func (o *targetOracle) plan(target catalog.Target) *restore.Plan {
	o.Helper()
	x := o.paths[target.Timeline]
	if target.Backup != "" {
		target.Timeline = 0
	}
	want := x.resolve(target)
	p, err := restore.MakePlan(o.Context(), o.cat, target)
	fail := func(format string, args ...any) {
		o.Helper()
		o.Errorf("%s, exclusive %t, timeline %s: "+format, append([]any{target, target.Exclusive, target.Timeline}, args...)...)
	}
	if want.backup == nil {
		if err == nil {
			fail("a plan, where there is no answer: %+v", p)
			return nil
		}
		o.refused(target, x, err)
		return nil
	}
	if err != nil {
		fail("%v; the answer is before record %d from %s", err, want.stop, want.backup.Name)
		return nil
	}
	wantStop := x.end
	if want.stop < len(x.records) {
		wantStop = x.records[want.stop].start
	}
	_, prepared, kept, lost := x.state(want)
	if want.immediate {
		wantStop = want.backup.StopLSN
	}
	// where a record ends and where the next starts differ by a page's header
	if p.EndLSN != wantStop && (p.EndLSN > wantStop || p.EndLSN+40 < wantStop) && want.stop < len(x.records) {
		fail("ends at %s, PostgreSQL at %s; window to %s, proven %s, backups %v", p.EndLSN, wantStop, p.Window.To, x.proven, x.backups[len(x.backups)-1].StopTime)
	}
	if p.Backup != want.backup.Name {
		fail("starts from %s, not from %s", p.Backup, want.backup.Name)
	}
	xid := func(c *restore.Commit) pg.XID {
		if c == nil {
			return 0
		}
		return c.XID
	}
	if xid(p.LastKept) != kept || xid(p.FirstLost) != lost && !want.immediate {
		fail("keeps %d and loses %d, PostgreSQL %d and %d", xid(p.LastKept), xid(p.FirstLost), kept, lost)
	}
	got := map[pg.XID]string{}
	for _, one := range p.Prepared {
		got[one.XID] = one.GID
		if one.GID == "" && one.LSN == 0 {
			got[one.XID] = prepared[one.XID] // from before the backup: its name is in the backup
		}
	}
	if diff := cmp.Diff(prepared, got); diff != "" {
		fail("prepared (-PostgreSQL +plan):\n%s", diff)
	}
	return p
}

// refused judges why there is no plan.
func (o *targetOracle) refused(target catalog.Target, x *truth, err error) {
	o.Helper()
	var xact *catalog.TransactionError
	var position *catalog.PositionError
	var outside *catalog.OutsideWindowError
	var point *catalog.NoRestorePointError
	last := x.records[len(x.records)-1].start
	ok := false
	switch {
	case target.XID != 0 && errors.As(err, &xact):
		var parent pg.XID // the server alone knows all levels of savepoints
		for _, r := range x.records {
			if r.commits() && slices.Contains(r.subs, fmt.Sprint(target.XID)) {
				parent = r.xid
			}
		}
		ended := slices.ContainsFunc(x.records, func(r walRecord) bool { return r.ends() && r.xid == target.XID })
		prepared := slices.ContainsFunc(x.records, func(r walRecord) bool { return r.kind == "PREPARE" && r.xid == target.XID })
		switch xact.State {
		case catalog.XactSub:
			ok = parent != 0 && xact.Parent == parent
		case catalog.XactPrepared:
			ok = !ended && (prepared || xact.LSN == 0)
		case catalog.XactInBackup:
			ok = ended
		case catalog.XactEarlier:
			ok = !o.after(x, target.XID) && !o.after(x, parent)
		default:
			ok = !ended && !prepared && !(parent != 0 && o.after(x, parent))
		}
	case target.LSN != 0 && errors.As(err, &position):
		ok = target.LSN > last && position.Before != 0 && position.Backup == "" || target.LSN <= x.backups[0].StopLSN && position.Backup != ""
	case target.Name != "" && errors.As(err, &point):
		ok = true
	case !target.Time.IsZero() && errors.As(err, &outside):
		ok = true
	}
	if !ok {
		o.Errorf("%s: refused with %v", target, err)
	}
}

// after tells whether a transaction ended after the first backup began.
func (o *targetOracle) after(x *truth, xid pg.XID) bool {
	return slices.ContainsFunc(x.records, func(r walRecord) bool {
		return r.ends() && r.xid == xid && r.start >= x.backups[0].StartLSN
	})
}

// judge holds a restored database against the story.
func (o *targetOracle) judge(target catalog.Target, x *restored) {
	o.Helper()
	path := o.paths[target.Timeline]
	a := path.resolve(target)
	committed, prepared, _, _ := path.state(a)
	want := slices.Clone(o.before)
	for xid := range committed {
		want = append(want, o.stories[target.Timeline].rows[xid]...)
	}
	slices.Sort(want)
	if diff := cmp.Diff(want, ids(o.T, x.Server)); diff != "" {
		o.Errorf("%s, exclusive %t: rows (-written +restored):\n%s", target, target.Exclusive, diff)
	}
	if diff := cmp.Diff(prepared, preparedOn(o.T, x.Server)); diff != "" {
		o.Errorf("%s: prepared (-PostgreSQL +restored):\n%s", target, diff)
	}
}

func preparedOn(t *testing.T, s *testpg.Server) map[pg.XID]string {
	t.Helper()
	rows, err := s.Conn(t, "postgres").Query(t.Context(), "select transaction::text::bigint, gid from pg_prepared_xacts")
	if err != nil {
		t.Fatal(err)
	}
	out := map[pg.XID]string{}
	var xid int64
	var gid string
	if _, err := pgx.ForEachRow(rows, []any{&xid, &gid}, func() error { out[pg.XID(xid)] = gid; return nil }); err != nil {
		t.Fatal(err)
	}
	return out
}

func ids(t *testing.T, s *testpg.Server) []int64 {
	t.Helper()
	rows, err := s.Conn(t, "postgres").Query(t.Context(), "select id from ledger order by id")
	if err != nil {
		t.Fatal(err)
	}
	out, err := pgx.CollectRows(rows, pgx.RowTo[int64])
	if err != nil {
		t.Fatal(err)
	}
	return out
}
