// SPDX-License-Identifier: Apache-2.0

package retention

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/cespare/xxhash/v2"
	"github.com/google/go-cmp/cmp"

	"github.com/kbcli/kbcli/engine/blob"
	"github.com/kbcli/kbcli/engine/blob/fault"
	"github.com/kbcli/kbcli/engine/blob/mem"
	"github.com/kbcli/kbcli/engine/pg"
	"github.com/kbcli/kbcli/engine/repository"
)

// keeper is who looks at a model again and again, with a clock that may leap, a policy
// that is edited, and deaths between any two operations.
type keeper struct {
	*testing.T
	*model
	seed    uint64
	promise promise
	grace   int // ticks
	skew    int // how far the clock is off
	marks   Marks
	// since when, by the true clock, each thing has been marked without a break, and
	// how often the clock leapt since
	since, leaps map[string]int
	leapt        int
	deleted      int
}

func newKeeper(t *testing.T, seed uint64) *keeper {
	return &keeper{T: t, model: newModel(seed), seed: seed, since: map[string]int{}, leaps: map[string]int{}}
}

func (k *keeper) say(format string, args ...any) {
	k.Helper()
	k.Fatalf("seed %d, tick %d, promise %+v, grace %d: %s\nmarks %+v", k.seed, k.now, k.promise, k.grace, fmt.Sprintf(format, args...), k.marks)
}

func (k *keeper) whole() (out []string) {
	for name, b := range k.backups {
		whole := true
		for n := b.start; n < b.stop; n++ {
			whole = whole && k.have(b.tli, n)
		}
		if whole {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}

// things are the names of all that is marked.
func things(m Marks) map[string]bool {
	out := map[string]bool{}
	for name := range m.Backups {
		out[name] = true
	}
	for _, w := range m.WAL {
		for n := w.From; n < w.To; n++ {
			out[fmt.Sprint(w.Timeline, "/", n)] = true
		}
	}
	return out
}

// look makes one look, of which only the first so many operations are done.
func (k *keeper) look(operations int) Step {
	k.Helper()
	now := k.now
	k.now += k.skew
	in := k.input(k.promise)
	promised := within(k.reachable(), k.begins(k.promise))
	k.now = now
	step := k.marks.Step(in, Plan(in), tick(k.grace).Sub(epoch))
	if again := k.marks.Step(in, Plan(in), tick(k.grace).Sub(epoch)); !cmp.Equal(step, again) {
		k.say("the same again is another step: %s", cmp.Diff(step, again))
	}
	before := k.whole()
	if step.Save {
		if operations--; operations < 0 {
			return step
		}
		k.marks = step.Marks
		is := things(k.marks)
		maps.DeleteFunc(k.since, func(name string, _ int) bool { return !is[name] })
		for name := range is {
			if _, ok := k.since[name]; !ok {
				k.since[name], k.leaps[name] = k.now, k.leapt
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(things(Marks{Backups: again(nil, step.Go.Backups, Mark{}), WAL: againWAL(nil, step.Go.WAL, Mark{})}))) {
		most := k.grace - (k.leapt-k.leaps[name])*int(mostCredit/time.Minute)
		if since, ok := k.since[name]; k.grace > 0 && (!ok || k.now-since < most) {
			k.say("%s goes, and is marked since %d", name, since)
		}
	}
	deeds := k.deeds(step.Go)
	deeds = deeds[:min(len(deeds), operations)]
	for i, do := range deeds {
		do()
		k.deleted++
		if i%7 != 0 && i < len(deeds)-1 {
			continue // looking is dear
		}
		is := k.reachable()
		for _, at := range promised {
			if !is[at] {
				k.say("after %d of %d deletions %v on the path to %d is lost", i+1, len(deeds), at.at, at.leaf)
			}
		}
		whole := k.whole()
		for _, name := range before {
			if _, listed := k.backups[name]; listed && !slices.Contains(whole, name) {
				k.say("after %d of %d deletions backup %s is listed, and can no longer be restored", i+1, len(deeds), name)
			}
		}
	}
	return step
}

func (k *keeper) edit() {
	k.promise = promise{ttl: 1 + k.r.IntN(120)}
	if k.r.IntN(2) == 0 {
		k.promise.least = k.r.IntN(6)
	}
	if k.r.IntN(3) == 0 {
		k.promise.most = max(k.promise.least, 1+k.r.IntN(6))
	}
	k.grace = []int{0, 10, 60, 200}[k.r.IntN(4)]
}

// TestTwoSteps lets a keeper look at a model while everything goes wrong that may: no
// promised moment is lost, nothing that is listed is broken, nothing goes that has not
// been marked for as long as the grace, and when all is quiet nothing stays marked.
func TestTwoSteps(t *testing.T) {
	seeds, steps := 100, 300
	if testing.Short() {
		seeds = 30
	}
	deleted := 0
	for seed := range uint64(seeds) {
		k := newKeeper(t, seed)
		k.edit()
		for range steps {
			k.step()
			switch x := k.r.IntN(300); {
			case x < 4:
				k.edit()
			case x < 6: // forth and back, a little and far
				k.skew = []int{0, -400, 30, 100000}[k.r.IntN(4)]
				k.leapt++
			case x < 7: // another comes after nobody looked for long
				k.now += k.r.IntN(200)
			case x < 30:
				operations := 1 << 30
				if k.r.IntN(2) == 0 {
					operations = k.r.IntN(8)
				}
				k.look(operations)
			}
		}
		deleted += k.deleted
		k.skew = 0
		k.leapt++
		for quiet := 0; ; quiet++ {
			k.now += 60
			step := k.look(1 << 30)
			in := k.input(k.promise)
			if quiet > 10 && k.marks.Empty() && step.Go.Empty() && Plan(in).Empty() {
				break
			}
			if quiet > 100 {
				k.say("it does not end: %+v", step.Go)
			}
		}
	}
	if deleted < seeds*10 {
		t.Errorf("only %d deletions: the test has no teeth", deleted)
	}
}

// TestMistakeIsUndone edits a policy so that almost everything goes, and back within the
// grace: whatever was promised before and still is can be gone back to.
func TestMistakeIsUndone(t *testing.T) {
	seeds := 25
	if testing.Short() {
		seeds = 8
	}
	marked := 0
	for seed := range uint64(seeds) {
		k := newKeeper(t, seed)
		k.grace = 200
		k.promise = promise{ttl: 150, least: 2}
		right := k.promise
		walk := func(n int) {
			for range n {
				files := maps.Clone(k.files)
				k.step()
				for g, have := range files { // nothing is lost by itself
					k.files[g] = max(k.files[g], have)
				}
				if k.r.IntN(10) == 0 {
					k.look(1 << 30)
				}
			}
		}
		walk(200)
		had := k.reachable()
		k.promise = promise{ttl: 1, most: 1}
		k.look(1 << 30)
		walk(150)
		marked += len(k.marks.Backups)
		k.promise = right
		is := k.reachable()
		for _, at := range within(had, k.begins(right)) {
			if !is[at] {
				k.say("%v on the path to %d is lost by a mistake that was undone", at.at, at.leaf)
			}
		}
		step := k.look(1 << 30)
		for name := range step.Marks.Backups {
			if slices.Contains(step.Kept, name) {
				k.say("backup %s is taken back, and marked", name)
			}
		}
		walk(50)
	}
	if marked < seeds {
		t.Errorf("only %d backups were marked: the test has no teeth", marked)
	}
}

// TestMarksAge: the age of a mark is what passed between looks, and at most two hours
// for each, whatever the clock says.
func TestMarksAge(t *testing.T) {
	in := Input{Now: epoch, SegmentSize: size, Backups: []Backup{{Name: "b", Timeline: 1, Start: 1, Stop: 2}}}
	list := List{Backups: []string{"b"}}
	var m Marks
	for i, c := range []struct {
		after time.Duration // the look before
		goes  bool
		until time.Duration // from this look on
	}{
		{0, false, 6 * time.Hour},
		{time.Hour, false, 5 * time.Hour},
		{1000 * time.Hour, false, 3 * time.Hour},  // it leapt, or the machine was off
		{-2000 * time.Hour, false, 3 * time.Hour}, // and back
		{90 * time.Minute, false, 90 * time.Minute},
		{0, false, 90 * time.Minute},
		{90 * time.Minute, true, 0},
	} {
		in.Now = in.Now.Add(c.after)
		step := m.Step(in, list, 6*time.Hour)
		m = step.Marks
		if until := m.Until(m.Backups["b"], 6*time.Hour).Sub(in.Now); until != c.until || step.Go.Empty() == c.goes || !m.Backups["b"].Since.Equal(epoch) {
			t.Errorf("look %d: it goes in %s, now %v", i, until, step.Go)
		}
		if at := m.Next(6 * time.Hour); !at.Equal(in.Now.Add(c.until)) {
			t.Errorf("look %d: the next goes at %s", i, at)
		}
	}
	step := m.Step(in, List{}, 6*time.Hour)
	if diff := cmp.Diff([]string{"b"}, step.Kept); diff != "" || !step.Save || !step.Marks.Empty() || !step.Go.Empty() {
		t.Errorf("kept again: %+v", step)
	}
	step = m.Step(in, list, 0)
	if !step.Save || !step.Marks.Empty() || len(step.Go.Backups) != 1 {
		t.Errorf("without a grace: %+v", step)
	}
	if step := (Marks{}).Step(in, List{}, time.Hour); step.Save {
		t.Error("that nothing is marked is written again and again")
	}
}

// TestRealLineage takes the two steps in a lineage, with a death at each operation of
// the store, done and not: what stays is whole, and in the end all of it is gone.
func TestRealLineage(t *testing.T) {
	kills := 0
	for nth := 1; ; nth++ {
		clean := true
		for _, action := range []fault.Action{fault.Fail(nil), fault.FailAfter(nil)} {
			f := fault.New(mem.New(nil), 1)
			now := epoch
			l := makeLineage(t, f, func() time.Time { return now })
			round := func() error {
				in, err := Load(t.Context(), l, now, 36*time.Hour)
				if err != nil {
					return err
				}
				if in.Leftovers, err = l.Leftovers(t.Context()); err != nil {
					return err
				}
				m, err := LoadMarks(t.Context(), l)
				if err != nil {
					return err
				}
				step := m.Step(in, Plan(in), 3*time.Hour)
				if step.Save {
					if err := SaveMarks(t.Context(), l, step.Marks); err != nil {
						return err
					}
				}
				return Apply(t.Context(), l, step.Go)
			}
			now = epoch.Add(86 * time.Hour)
			for hour := range 12 {
				f.Set(fault.Rule{Nth: nth, Action: action})
				err := round()
				f.Set()
				if err != nil && !errors.Is(err, blob.ErrUnreachable) {
					t.Fatal(err)
				}
				if err != nil {
					kills++
					clean = false
				}
				if _, err := l.Manifest(t.Context(), "b0"); hour < 3 && err != nil {
					t.Fatalf("operation %d, hour %d: it went early: %v", nth, hour, err)
				}
				checkWhole(t, l)
				now = now.Add(time.Hour)
			}
			for range 5 {
				if err := round(); err != nil {
					t.Fatal(err)
				}
				now = now.Add(time.Hour)
			}
			all, err := l.Manifests(t.Context())
			left, err2 := l.Leftovers(t.Context())
			if err := errors.Join(err, err2); err != nil || len(all) != 2 || len(left) != 0 {
				t.Errorf("operation %d: %d backups are left, and of others %v, %v", nth, len(all), left, err)
			}
			for g, err := range l.Segments(t.Context(), pg.Segment{}) {
				if err != nil || g.Number < 6 {
					t.Errorf("operation %d: segment %d is left, %v", nth, g.Number, err)
				}
			}
		}
		if clean {
			break
		}
	}
	if kills < 100 {
		t.Errorf("only %d kills", kills)
	}
}

// makeLineage has a backup a day of four days, two segments of WAL each, and one that
// was interrupted.
func makeLineage(t *testing.T, s blob.Store, clock func() time.Time) *repository.Lineage {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	repo, err := repository.Create(t.Context(), s, repository.Options{Clock: clock})
	must(err)
	l, err := repo.CreateLineage(t.Context(), repository.LineageInfo{Cluster: "c", SystemID: 1, Major: 15, SegmentSize: size})
	must(err)
	raw := make([]byte, size)
	for n := range uint64(12) {
		must(l.PutSegment(t.Context(), pg.Segment{Timeline: 1, Number: n + 1}, [][]byte{repository.Compress(nil, raw)}, xxhash.Sum64(raw)))
	}
	for day := range 4 {
		name, from, at := fmt.Sprint("b", day), size.Start(uint64(2*day+2)), epoch.AddDate(0, 0, day)
		must(l.PutBackup(t.Context(), &repository.Manifest{
			Name: name, Type: repository.TypeFull, Version: 150000, Timeline: 1,
			StartLSN: from, StopLSN: from + 100, StartTime: at, StopTime: at,
		}, &repository.Files{}))
	}
	var w repository.PackWriter
	w.Add([]byte("half a backup"), xxhash.Sum64([]byte("half a backup")))
	_, err = l.PutPack(t.Context(), repository.PackRef{Backup: "half", Number: 1}, &w)
	must(err)
	return l
}

// checkWhole fails where a backup that is listed cannot be restored.
func checkWhole(t *testing.T, l *repository.Lineage) {
	t.Helper()
	all, err := l.Manifests(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range all {
		has, err := l.HasSegment(t.Context(), pg.Segment{Timeline: 1, Number: size.Number(m.StartLSN)})
		if err != nil || !has {
			t.Errorf("backup %s is listed without its WAL: %v", m.Name, err)
		}
		if _, err := l.Files(t.Context(), m); err != nil {
			t.Error(err)
		}
	}
}

// TestTombstone: marks come back as they were saved, and what is damaged marks nothing.
func TestTombstone(t *testing.T) {
	l := makeLineage(t, mem.New(nil), func() time.Time { return epoch })
	if m, err := LoadMarks(t.Context(), l); err != nil || !m.Empty() {
		t.Errorf("where there is none: %+v, %v", m, err)
	}
	want := Marks{
		Seen: epoch, Elapsed: 5 * time.Hour,
		Backups:   map[string]Mark{"b0": {epoch, time.Hour}, "b1": {epoch.Add(time.Minute), 0}},
		Leftovers: map[string]Mark{"half": {epoch, 2 * time.Hour}},
		WAL:       []MarkedRun{{Run{1, 1, 4}, Mark{epoch, 0}}, {Run{1, 4, 9}, Mark{epoch, time.Hour}}, {Run{2, 3, 4}, Mark{epoch, 0}}},
	}
	if err := SaveMarks(t.Context(), l, want); err != nil {
		t.Fatal(err)
	}
	got, err := LoadMarks(t.Context(), l)
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
	for _, bad := range []string{
		`{`, `{"elapsed":1,"backups":[{"name":"b","at":2}]}`, `{"elapsed":1,"backups":[{"name":"b","at":-2}]}`,
		`{"backups":[{"name":"b"},{"name":"b"}]}`, `{"leftovers":[{"name":"b","at":1}]}`,
		`{"wal":[{"timeline":1,"from":"0/100000","to":"0/100000"}]}`, `{"wal":[{"timeline":1,"from":"0/100001","to":"0/200000"}]}`,
		`{"wal":[{"timeline":1,"from":"0/100000","to":"0/300000"},{"timeline":1,"from":"0/200000","to":"0/400000"}]}`,
	} {
		if err := l.PutTombstone(t.Context(), []byte(bad)); err != nil {
			t.Fatal(err)
		}
		m, err := LoadMarks(t.Context(), l)
		var corrupt *repository.CorruptError
		if !errors.As(err, &corrupt) || !m.Empty() {
			t.Errorf("%s: %+v, %v", bad, m, err)
		}
	}
}

// TestStepSparesWAL: where the WAL of a backup was marked before the backup was, as when the
// backup came up later, it goes with it and not before.
func TestStepSparesWAL(t *testing.T) {
	in := Input{Now: epoch, SegmentSize: size, Backups: []Backup{{Name: "b", Timeline: 1, Start: size.Start(3) + 1, Stop: size.Start(4) + 9}}}
	list := List{Backups: []string{"b"}, WAL: []Run{{1, 0, 8}}}
	m := Marks{Seen: epoch, Elapsed: 9 * time.Hour, WAL: []MarkedRun{{Run{1, 0, 8}, Mark{epoch, 0}}}}
	step := m.Step(in, list, 6*time.Hour)
	if diff := cmp.Diff(List{WAL: []Run{{1, 0, 3}, {1, 5, 8}}}, step.Go); diff != "" {
		t.Errorf("what goes (-want +got):\n%s", diff)
	}
	step = m.Step(in, List{WAL: list.WAL}, 6*time.Hour) // kept, its WAL is not needed
	if diff := cmp.Diff(List{WAL: list.WAL}, step.Go); diff != "" {
		t.Errorf("what goes (-want +got):\n%s", diff)
	}
}
