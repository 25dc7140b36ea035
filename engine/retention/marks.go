// SPDX-License-Identifier: Apache-2.0

package retention

import (
	"cmp"
	"maps"
	"slices"
	"time"
)

// mostCredit is the most that the time between two looks counts for. Whoever looks
// does so more often; a clock that leapt makes no mark older than that.
const mostCredit = 2 * time.Hour

// Mark says since when a plan lets something go.
type Mark struct {
	Since time.Time     // by the clock of who marked it, for people
	At    time.Duration // by the clock of the marks
}

// MarkedRun is WAL that is marked.
type MarkedRun struct {
	Run
	Mark
}

// Marks are what plans let go and is still there. Elapsed is a clock that goes on only
// while somebody looks: a mark's age is Elapsed-At, whatever other clocks say.
type Marks struct {
	Seen               time.Time // the last look, by the clock of who looked
	Elapsed            time.Duration
	Backups, Leftovers map[string]Mark
	WAL                []MarkedRun // by timeline and number, none twice
}

// Empty tells whether nothing is marked.
func (m Marks) Empty() bool { return len(m.Backups) == 0 && len(m.Leftovers) == 0 && len(m.WAL) == 0 }

// Until is when a mark will be as old as grace, if somebody looks from the last look on.
func (m Marks) Until(k Mark, grace time.Duration) time.Time {
	return m.Seen.Add(max(0, grace-(m.Elapsed-k.At)))
}

// Next is when the next mark of a backup or of WAL will be as old as grace; zero if there
// is none. Leftovers go when they are looked for.
func (m Marks) Next(grace time.Duration) (at time.Time) {
	all := slices.Collect(maps.Values(m.Backups))
	for _, w := range m.WAL {
		all = append(all, w.Mark)
	}
	for _, k := range all {
		if t := m.Until(k, grace); at.IsZero() || t.Before(at) {
			at = t
		}
	}
	return at
}

// Step is what one look does of a plan: first Marks are made durable, then Go is deleted.
type Step struct {
	Marks Marks
	Go    List // the part of the plan whose marks are old enough
	// New are backups that are marked now, and Kept those whose mark is taken back
	// because the plan keeps them again.
	New, Kept []string
	// Save tells whether Marks say what is not in the repository yet.
	Save bool
}

// Step marks what a plan lets go, takes back the marks of what it keeps, and lists what
// has been marked for as long as grace. Without a grace nothing is marked, and all of the
// plan goes. It is a pure function; in is what the plan was made of.
func (m Marks) Step(in Input, list List, grace time.Duration) Step {
	next := Marks{Seen: in.Now, Elapsed: m.Elapsed}
	if !m.Seen.IsZero() {
		next.Elapsed += min(max(in.Now.Sub(m.Seen), 0), mostCredit)
	}
	out := Step{}
	for _, b := range in.Backups {
		_, had := m.Backups[b.Name]
		switch goes := slices.Contains(list.Backups, b.Name); {
		case goes && !had:
			out.New = append(out.New, b.Name)
		case had && !goes:
			out.Kept = append(out.Kept, b.Name)
		}
	}
	if grace <= 0 {
		out.Go, out.Marks, out.New = list, Marks{Seen: next.Seen, Elapsed: next.Elapsed}, nil
		out.Save = !m.Empty()
		return out
	}
	fresh := Mark{in.Now, next.Elapsed}
	old := func(k Mark) bool { return next.Elapsed-k.At >= grace }
	next.Backups = again(m.Backups, list.Backups, fresh)
	next.WAL = againWAL(m.WAL, list.WAL, fresh)
	next.Leftovers = m.Leftovers
	if in.Leftovers != nil {
		next.Leftovers = again(m.Leftovers, list.Leftovers, fresh)
	}
	var stays runs // for backups that are marked and do not go yet
	for _, b := range in.Backups {
		if k, ok := next.Backups[b.Name]; ok && !old(k) {
			stays = append(stays, Run{b.Timeline, in.SegmentSize.Number(b.Start), in.SegmentSize.Number(max(b.Stop, b.Start+1)-1) + 1})
		}
	}
	for _, name := range list.Backups {
		if old(next.Backups[name]) {
			out.Go.Backups = append(out.Go.Backups, name)
		}
	}
	for _, name := range list.Leftovers {
		if old(next.Leftovers[name]) {
			out.Go.Leftovers = append(out.Go.Leftovers, name)
		}
	}
	for _, w := range next.WAL {
		if old(w.Mark) {
			out.Go.WAL = append(out.Go.WAL, w.Run)
		}
	}
	out.Go.WAL = join(out.Go.WAL).without(join(stays))
	out.Marks = next
	out.Save = !next.Empty() && (next.Elapsed != m.Elapsed || !next.Seen.Equal(m.Seen)) || !next.same(m)
	return out
}

// same tells whether the same is marked.
func (m Marks) same(o Marks) bool {
	return maps.Equal(m.Backups, o.Backups) && maps.Equal(m.Leftovers, o.Leftovers) && slices.Equal(m.WAL, o.WAL)
}

// again are the marks of names: those that there are, and fresh ones.
func again(marks map[string]Mark, names []string, fresh Mark) map[string]Mark {
	out := map[string]Mark{}
	for _, name := range names {
		k, ok := marks[name]
		if !ok {
			k = fresh
		}
		out[name] = k
	}
	return out
}

func againWAL(marks []MarkedRun, list []Run, fresh Mark) []MarkedRun {
	goes, rest := join(list), join(list)
	var out []MarkedRun
	for _, w := range marks {
		one := runs{w.Run}
		for _, r := range one.without(one.without(goes)) {
			out = append(out, MarkedRun{r, w.Mark})
		}
		rest = rest.without(one)
	}
	for _, r := range rest {
		out = append(out, MarkedRun{r, fresh})
	}
	slices.SortFunc(out, func(a, b MarkedRun) int {
		return cmp.Or(cmp.Compare(a.Timeline, b.Timeline), cmp.Compare(a.From, b.From))
	})
	var together []MarkedRun
	for _, w := range out {
		if n := len(together); n > 0 && together[n-1].Timeline == w.Timeline && together[n-1].To == w.From && together[n-1].Mark == w.Mark {
			together[n-1].To = w.To
			continue
		}
		together = append(together, w)
	}
	return together
}
