// SPDX-License-Identifier: Apache-2.0

package retention

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kbcli/kbcli/engine/pg"
)

// The model writes a piece of WAL a tick, a quarter of a segment, and each piece
// holds one commit.
const (
	size    = pg.SegmentSize(1 << 20)
	perFile = 4
	piece   = int(size) / perFile
)

var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func tick(n int) time.Time { return epoch.Add(time.Duration(n) * time.Minute) }

func pos(n int) pg.LSN { return pg.LSN(n * piece) }

// line is a timeline of the model.
type line struct {
	parent int // 0: none
	fork   int // the first piece that is its own
	times  []int
}

func (l *line) end() int { return l.fork + len(l.times) }

// model is a lineage and the server it comes from.
type model struct {
	r       *rand.Rand
	now     int
	lines   map[int]*line
	current int
	files   map[pg.Segment]int // how many pieces of the segment are in the repository
	indexed map[pg.Segment]bool
	backups map[string]modelBackup
	taking  *modelBackup
	count   int
}

type modelBackup struct {
	manual             bool
	tli, start, stop   int
	stopTime, finishAt int
}

func newModel(seed uint64) *model {
	return &model{
		r: rand.New(rand.NewPCG(seed, 1)), lines: map[int]*line{1: {}}, current: 1,
		files: map[pg.Segment]int{}, indexed: map[pg.Segment]bool{}, backups: map[string]modelBackup{},
	}
}

// owner is the timeline that wrote piece n as seen from leaf.
func (m *model) owner(leaf, n int) int {
	for m.lines[leaf].parent != 0 && n < m.lines[leaf].fork {
		leaf = m.lines[leaf].parent
	}
	return leaf
}

// ancestors are leaf and those it came from.
func (m *model) ancestors(leaf int) []int {
	var out []int
	for ; leaf != 0; leaf = m.lines[leaf].parent {
		out = append(out, leaf)
	}
	return out
}

// have tells whether any file of the path to leaf holds piece n as leaf sees it.
func (m *model) have(leaf, n int) bool {
	for _, t := range m.ancestors(leaf) {
		if m.owner(t, n) == m.owner(leaf, n) && m.files[pg.Segment{Timeline: pg.TimelineID(t), Number: uint64(n / perFile)}] > n%perFile {
			return true
		}
	}
	return false
}

// moment is a time on a path.
type moment struct{ leaf, at int }

// reachable says, without haste, which moments can be gone back to.
func (m *model) reachable() map[moment]bool {
	out := map[moment]bool{}
	for leaf := range m.lines {
		for _, b := range m.backups {
			if m.owner(leaf, b.start) != b.tli || m.owner(leaf, b.stop-1) != b.tli {
				continue
			}
			n := b.start
			for n < b.stop && m.have(leaf, n) {
				n++
			}
			if n < b.stop {
				continue
			}
			// from its end to the last commit that the WAL reaches
			last := b.stopTime
			for ; m.have(leaf, n); n++ {
				o := m.lines[m.owner(leaf, n)]
				last = max(last, o.times[n-o.fork])
			}
			for at := b.stopTime; at <= last; at++ {
				out[moment{leaf, at}] = true
			}
		}
	}
	return out
}

func (m *model) manuals() []string {
	var out []string
	for name, b := range m.backups {
		whole := b.manual
		for n := b.start; n < b.stop; n++ {
			whole = whole && m.have(b.tli, n)
		}
		if whole {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}

func (m *model) newestTimeline() int {
	newest := 0
	for g := range m.files {
		newest = max(newest, int(g.Timeline))
	}
	return newest
}

// promise is a policy.
type promise struct{ ttl, least, most int }

func (m *model) input(p promise) Input {
	in := Input{
		Now: tick(m.now), TTL: tick(p.ttl).Sub(epoch), MinBackups: p.least, MaxBackups: p.most,
		SegmentSize: size, Tails: map[pg.Segment]pg.LSN{},
	}
	for name, b := range m.backups {
		in.Backups = append(in.Backups, Backup{name, b.manual, pg.TimelineID(b.tli), pos(b.start), pos(b.stop), tick(b.stopTime)})
	}
	for g, n := range m.files {
		if n == perFile {
			in.WAL = append(in.WAL, Run{g.Timeline, g.Number, g.Number + 1})
		} else {
			in.Tails[g] = size.Start(g.Number) + pos(n)
		}
	}
	for g := range m.indexed {
		in.Indexed = append(in.Indexed, Run{g.Timeline, g.Number, g.Number + 1})
	}
	reach, newest := m.reachable(), m.newestTimeline()
	for leaf := range m.lines {
		p := Path{History: pg.History{Timeline: pg.TimelineID(leaf)}}
		all := m.ancestors(leaf)
		slices.Reverse(all)
		for i, t := range all[:len(all)-1] {
			p.Entries = append(p.Entries, pg.HistoryEntry{Timeline: pg.TimelineID(t), End: pos(m.lines[all[i+1]].fork)})
		}
		if leaf < newest {
			p.Ended = true
			for k := range reach {
				if k.leaf == leaf && tick(k.at).After(p.End) {
					p.End = tick(k.at)
				}
			}
		}
		in.Paths = append(in.Paths, p)
	}
	return in
}

// write lets the server write a piece, and the repository have it.
func (m *model) write(lost bool) {
	l := m.lines[m.current]
	n := l.end()
	l.times = append(l.times, m.now)
	g := pg.Segment{Timeline: pg.TimelineID(m.current), Number: uint64(n / perFile)}
	if n == l.fork && !lost {
		m.files[g] = n % perFile // a copy of what the ancestor wrote there
	}
	if !lost && m.files[g] == n%perFile {
		if m.files[g]++; m.files[g] == perFile {
			m.indexed[g] = true
		}
	}
}

func (m *model) step() {
	m.now++
	switch x := m.r.IntN(100); {
	case x < 70:
		m.write(false)
	case x < 72:
		m.write(true)
	}
	if b := m.taking; b != nil && m.now >= b.finishAt {
		if b.stop = m.lines[b.tli].end(); b.tli == m.current && b.stop > b.start {
			b.stopTime = m.now
			m.count++
			m.backups[fmt.Sprintf("b%03d", m.count)] = *b
		}
		m.taking = nil
	}
	if m.taking == nil && m.r.IntN(8) == 0 {
		m.taking = &modelBackup{manual: m.r.IntN(5) == 0, tli: m.current, start: m.lines[m.current].end(), finishAt: m.now + 1 + m.r.IntN(8)}
	}
	switch x := m.r.IntN(400); {
	case x < 8: // a promotion, or somebody goes back in place
		parent := m.current
		if x < 2 {
			parent = 1 + m.r.IntN(len(m.lines))
		}
		p := m.lines[parent]
		if p.end() == p.fork {
			return
		}
		fork := p.end()
		if m.r.IntN(2) == 0 {
			fork = max(p.fork+1, fork-m.r.IntN(10))
		}
		m.current = len(m.lines) + 1
		m.lines[m.current] = &line{parent: parent, fork: fork}
	case x < 10: // a file is lost
		for g := range m.files {
			delete(m.files, g)
			break
		}
	}
}

// deed is one deletion.
type deed func()

func (m *model) deeds(l List) []deed {
	var out []deed
	for _, name := range l.Backups {
		out = append(out, func() { delete(m.backups, name) })
	}
	for _, r := range l.WAL {
		for n := r.From; n < r.To; n++ {
			g := pg.Segment{Timeline: r.Timeline, Number: n}
			out = append(out, func() { delete(m.files, g) }, func() { delete(m.indexed, g) })
		}
	}
	return out
}

// counted are the ends of the scheduled backups that can be restored, newest first.
func (m *model) counted() []int {
	var out []int
	for _, b := range m.backups {
		whole := !b.manual
		for n := b.start; n < b.stop; n++ {
			whole = whole && m.have(b.tli, n)
		}
		if whole {
			out = append(out, b.stopTime)
		}
	}
	slices.Sort(out)
	slices.Reverse(out)
	return out
}

// begins is from when on every moment is promised.
func (m *model) begins(p promise) int {
	from, ends := m.now-p.ttl, m.counted()
	for i, end := range ends {
		if i < p.least {
			from = min(from, end)
		}
	}
	if p.most > 0 && len(ends) >= p.most {
		from = max(from, ends[p.most-1])
	}
	return from
}

// within is the part of what can be reached that is promised.
func within(all map[moment]bool, from int) []moment {
	var out []moment
	for k := range all {
		if k.at >= from {
			out = append(out, k)
		}
	}
	return out
}

// retain makes a plan, holds it against what it must be, and applies a part of it.
func (m *model) retain(t *testing.T, seed uint64) (deleted int) {
	ttl := promise{ttl: 1 + m.r.IntN(120)}
	if m.r.IntN(2) == 0 {
		ttl.least = m.r.IntN(6)
	}
	if m.r.IntN(3) == 0 {
		ttl.most = max(ttl.least, 1+m.r.IntN(6))
	}
	list := Plan(m.input(ttl))
	say := func(format string, args ...any) {
		t.Helper()
		t.Fatalf("seed %d, tick %d, promise %+v: %s\n%+v\n%+v", seed, m.now, ttl, fmt.Sprintf(format, args...), list, m.backups)
	}
	if again := Plan(m.input(ttl)); !cmp.Equal(list, again) {
		say("the same again gives another list: %s", cmp.Diff(list, again))
	}
	more := ttl
	more.ttl += 1 + m.r.IntN(60)
	if more.most > 0 {
		more.most += m.r.IntN(3)
	}
	more.least += m.r.IntN(2)
	if more.most > 0 {
		more.least = min(more.least, more.most)
	}
	longer := Plan(m.input(more))
	for _, name := range longer.Backups {
		if !slices.Contains(list.Backups, name) {
			say("with a larger promise %+v backup %s goes, which stays with a smaller one", more, name)
		}
	}
	if wal := join(longer.WAL).without(join(list.WAL)); len(wal) > 0 {
		say("with a larger promise %+v WAL goes that stays with a smaller one: %v", more, wal)
	}
	promised, manuals, had := within(m.reachable(), m.begins(ttl)), m.manuals(), len(m.backups)
	stay := m.counted()
	stay = stay[:min(ttl.least, len(stay))]
	deeds := m.deeds(list)
	some := deeds
	if len(deeds) > 0 && m.r.IntN(2) == 0 {
		some = deeds[:m.r.IntN(len(deeds))]
	}
	for i, do := range some {
		do()
		if i%5 != 0 && i < len(some)-1 && i > 10 {
			continue // looking is dear
		}
		now := m.reachable()
		for _, k := range promised {
			if !now[k] {
				say("after %d of %d deletions %v on the path to %d is lost", i+1, len(deeds), k.at, k.leaf)
			}
		}
		if diff := cmp.Diff(manuals, m.manuals()); diff != "" {
			say("after %d of %d deletions: manual backups (-before +after):\n%s", i+1, len(deeds), diff)
		}
	}
	if had > 0 && len(m.backups) == 0 {
		say("no backup is left")
	}
	if left := m.counted(); !slices.Equal(stay, left[:min(len(stay), len(left))]) {
		say("of the scheduled backups %v must stay, and there are %v", stay, left)
	}
	// what an interruption left, the next plan takes, and nothing else
	next := Plan(m.input(ttl))
	if len(some) == len(deeds) && !next.Empty() {
		// a path that is found to be over when its WAL has gone may let more go once
		for _, do := range m.deeds(next) {
			do()
		}
		now := m.reachable()
		for _, k := range promised {
			if !now[k] {
				say("the second plan %v loses %v on the path to %d", next, k.at, k.leaf)
			}
		}
		if third := Plan(m.input(ttl)); !third.Empty() {
			say("there is no end to it: %v then %v", next, third)
		}
	}
	return len(some)
}

func TestNoPromisedMomentIsLost(t *testing.T) {
	seeds, steps := 300, 300
	if testing.Short() {
		seeds = 60
	}
	deleted, plans := 0, 0
	for seed := range uint64(seeds) {
		m := newModel(seed)
		for range steps {
			m.step()
			if m.r.IntN(25) == 0 {
				plans++
				deleted += m.retain(t, seed)
			}
		}
	}
	t.Logf("%d plans, %d deletions", plans, deleted)
	if deleted < seeds*10 {
		t.Errorf("only %d deletions: the test has no teeth", deleted)
	}
}
