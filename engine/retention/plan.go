// SPDX-License-Identifier: Apache-2.0

package retention

import (
	"cmp"
	"slices"
	"time"

	"github.com/kbcli/kbcli/engine/pg"
)

// Input is what a lineage holds and what is promised of it.
type Input struct {
	Now time.Time
	TTL time.Duration // the promised time goes from Now-TTL to Now
	// MinBackups is how many scheduled backups stay at least, with the time since
	// the oldest of them; MaxBackups at most, where 0 is no limit. It is the
	// stronger of the two. A backup counts if it is whole, with its WAL.
	MinBackups, MaxBackups int

	SegmentSize pg.SegmentSize
	Backups     []Backup
	// Paths has one for each timeline of which there is WAL or a backup. WAL and
	// backups of other timelines are kept.
	Paths []Path
	// WAL are the whole segments, and Indexed those that have an index: an
	// interrupted deletion leaves an index alone.
	WAL, Indexed []Run
	Tails        map[pg.Segment]pg.LSN `json:"-"` // how far the tails of a segment reach from its start
	Keep         map[string]bool       // backups and leftovers that must not go for other reasons
	// Leftovers are the names of backups without a manifest of which something lies
	// about; nil: nobody looked.
	Leftovers []string
	// Absent are snapshots that cannot be reached. They serve nothing and count for
	// nothing, but may come back: they and their WAL go when others of their age do.
	Absent map[string]bool
}

// Backup is what retention must know of a backup.
type Backup struct {
	Name        string
	Manual      bool // it is never ended by the TTL
	Timeline    pg.TimelineID
	Start, Stop pg.LSN
	// StopTime is later than every commit before Stop.
	StopTime time.Time
}

// Path is a way through the timelines.
type Path struct {
	pg.History
	// Ended says that nothing more will be written on the path's own timeline, and
	// that End is the last moment on it that can be gone back to; zero if there is none.
	Ended bool
	End   time.Time
}

// Run is the segments [From, To) of a timeline, by number.
type Run struct {
	Timeline pg.TimelineID
	From, To uint64
}

// List is what goes and why the rest stays. Backups go before WAL, both in order.
type List struct {
	Backups []string // by position
	WAL     []Run    // segments with their tails and indexes, by timeline and number
	// Leftovers are what is left of backups that are none, by name.
	Leftovers []string

	KeptBackups []Kept
	KeptWAL     []KeptRun
	// Begins is when the promised time begins: what is older may go.
	Begins time.Time
	// Next is when a backup leaves the promised time: until then a new plan says
	// the same, if nothing else changes. Zero if none will.
	Next time.Time
}

// Empty tells whether nothing goes.
func (l List) Empty() bool {
	return len(l.Backups) == 0 && len(l.WAL) == 0 && len(l.Leftovers) == 0
}

// Reason says why something is kept.
type Reason string

// The reasons to keep a backup or WAL.
const (
	Recent  Reason = "it lies within the promised time"
	Number  Reason = "it is one of those that stay at least"
	Base    Reason = "the promised time begins with it"
	Manual  Reason = "it was taken by hand"
	Newest  Reason = "it is the newest backup"
	Asked   Reason = "it is in use"
	NoBase  Reason = "nothing older serves the promised time"
	Unknown Reason = "its timeline is not known"
)

// Kept is a backup that stays.
type Kept struct {
	Backup string
	Reason Reason
}

// KeptRun is WAL that stays, for a backup or, with an empty name, for want of one. To
// is the largest number where the WAL goes on.
type KeptRun struct {
	Run
	Backup string
	Reason Reason
}

// Plan says what may go. It is a pure function.
func Plan(in Input) List {
	p := newPlanner(in)
	out := List{Begins: p.cutoff}
	for i := range p.backups {
		b := &p.backups[i]
		if t := b.StopTime.Add(in.TTL); t.After(in.Now) && (out.Next.IsZero() || t.Before(out.Next)) {
			out.Next = t
		}
		why := p.reason(b)
		if why == "" {
			out.Backups = append(out.Backups, b.Name)
			continue
		}
		out.KeptBackups = append(out.KeptBackups, Kept{b.Name, why})
		to := max(b.Stop, b.Start+1)
		p.keep(b.Timeline, b.Start, to, b.Name, why)
	}
	for i := range p.ways {
		p.keepWay(&p.ways[i])
	}
	out.KeptWAL = p.kept
	out.WAL = p.unneeded()
	for _, name := range in.Leftovers {
		if !in.Keep[name] {
			out.Leftovers = append(out.Leftovers, name)
		}
	}
	return out
}

// way is a path with what serves it.
type way struct {
	Path
	base *Backup // nil: none
	dead bool    // all of it lies before the promised time
}

type planner struct {
	Input
	cutoff  time.Time
	backups []Backup // by position
	newest  string
	ways    []way
	whole   runs
	kept    []KeptRun
	needed  runs
}

func newPlanner(in Input) *planner {
	p := &planner{Input: in, whole: join(in.WAL)}
	p.backups = slices.Clone(in.Backups)
	slices.SortFunc(p.backups, func(a, b Backup) int {
		return cmp.Or(cmp.Compare(a.Stop, b.Stop), cmp.Compare(a.Timeline, b.Timeline), cmp.Compare(a.Name, b.Name))
	})
	var newest time.Time
	for _, b := range p.backups {
		if !p.Absent[b.Name] && (p.newest == "" || !b.StopTime.Before(newest)) {
			p.newest, newest = b.Name, b.StopTime
		}
	}
	p.cutoff = p.begins()
	var served pg.TimelineID // the newest timeline on which a base was taken
	for _, path := range in.Paths {
		w := way{Path: path, base: p.base(path.History)}
		if !path.Ended && w.base != nil {
			served = max(served, w.base.Timeline)
		}
		p.ways = append(p.ways, w)
	}
	slices.SortFunc(p.ways, func(a, b way) int { return cmp.Compare(a.Timeline, b.Timeline) })
	for i := range p.ways {
		w := &p.ways[i]
		if w.End.IsZero() {
			// nothing on it can be gone back to; that it is old is told by a
			// newer timeline that is served
			w.dead = w.Ended && served > w.Timeline
		} else {
			w.dead = w.Ended && w.End.Before(p.cutoff)
		}
	}
	return p
}

// begins is when the promised time begins: by the TTL, moved back as far as the number
// of backups that stay at least asks for, and forward where that at most does.
func (p *planner) begins() time.Time {
	at := p.Now.Add(-p.TTL)
	if p.MinBackups <= 0 && p.MaxBackups <= 0 {
		return at
	}
	var ends []time.Time // of those that count, newest first
	for i := range p.backups {
		b := &p.backups[i]
		own := slices.IndexFunc(p.Paths, func(w Path) bool { return w.Timeline == b.Timeline })
		if !b.Manual && !p.Absent[b.Name] && own >= 0 && owns(p.Paths[own].History, b) && p.reaches(p.Paths[own].History, b) {
			ends = append(ends, b.StopTime)
		}
	}
	slices.SortFunc(ends, func(a, b time.Time) int { return b.Compare(a) })
	if n := min(p.MinBackups, len(ends)); n > 0 && ends[n-1].Before(at) {
		at = ends[n-1]
	}
	if n := p.MaxBackups; n > 0 && n <= len(ends) && ends[n-1].After(at) {
		at = ends[n-1]
	}
	return at
}

// base is the newest whole backup on a path that ended when the promised time began.
func (p *planner) base(h pg.History) *Backup {
	var found *Backup
	for i := range p.backups {
		b := &p.backups[i]
		if !owns(h, b) {
			continue
		}
		if b.StopTime.After(p.cutoff) {
			break // a later one with an earlier time: the clock was set back
		}
		if p.reaches(h, b) && !p.Absent[b.Name] {
			found = b
		}
	}
	return found
}

func owns(h pg.History, b *Backup) bool {
	return h.TimelineAt(b.Start) == b.Timeline && h.TimelineAt(max(b.Stop, b.Start+1)-1) == b.Timeline
}

// reason says why a backup is kept; empty if it may go.
func (p *planner) reason(b *Backup) Reason {
	switch {
	case p.Keep[b.Name]:
		return Asked
	case b.Manual:
		return Manual
	case b.StopTime.After(p.cutoff) && !b.StopTime.After(p.Now.Add(-p.TTL)):
		return Number
	case b.StopTime.After(p.cutoff):
		return Recent
	case b.Name == p.newest:
		return Newest
	}
	known := false
	for i := range p.ways {
		w := &p.ways[i]
		if !owns(w.History, b) {
			continue
		}
		known = true
		switch {
		case w.dead:
		case w.base == nil:
			return NoBase
		case b.Name == w.base.Name:
			return Base
		case b.Stop > w.base.Stop:
			return Recent
		}
	}
	if !known {
		return Unknown
	}
	return ""
}

// reaches tells whether the WAL of a path goes on from the start of a backup to
// its stop, as engine/catalog reads it.
func (p *planner) reaches(h pg.History, b *Backup) bool {
	size := p.SegmentSize
	for at := b.Start; at < b.Stop; {
		n := size.Number(at)
		next := h.TimelineAt(size.End(n) - 1)
		if p.whole.has(pg.Segment{Timeline: next, Number: n}) {
			at = size.End(n)
			continue
		}
		end := p.Tails[pg.Segment{Timeline: next, Number: n}]
		if old := h.TimelineAt(size.Start(n)); old != next {
			own := pg.Segment{Timeline: old, Number: n}
			t := p.Tails[own]
			if p.whole.has(own) {
				t = size.End(n)
			}
			limit, _ := h.SwitchPoint(old)
			end = max(end, min(t, limit))
		}
		return end >= b.Stop
	}
	return true
}

// keepWay keeps the WAL of a path from its base on.
func (p *planner) keepWay(w *way) {
	if w.dead {
		return
	}
	var from pg.LSN
	name, why := "", NoBase
	if w.base != nil {
		from, name, why = w.base.Start, w.base.Name, Base
	}
	var begin pg.LSN
	for _, e := range w.Entries {
		if at := max(begin, from); at < e.End {
			p.keep(e.Timeline, at, e.End, name, why)
		}
		begin = e.End
	}
	p.keep(w.Timeline, max(begin, from), 0, name, why)
}

// keep keeps the segments that hold [from, to) of a timeline; to is 0 where it goes on.
func (p *planner) keep(tli pg.TimelineID, from, to pg.LSN, backup string, why Reason) {
	r := Run{tli, p.SegmentSize.Number(from), ^uint64(0)}
	if to > 0 {
		r.To = p.SegmentSize.Number(to-1) + 1
	}
	p.kept = append(p.kept, KeptRun{r, backup, why})
	p.needed = append(p.needed, r)
}

// unneeded is all WAL of known timelines that nothing keeps.
func (p *planner) unneeded() []Run {
	all := slices.Concat(p.WAL, p.Indexed)
	for g := range p.Tails {
		all = append(all, Run{g.Timeline, g.Number, g.Number + 1})
	}
	known := map[pg.TimelineID]bool{}
	for _, w := range p.ways {
		known[w.Timeline] = true
	}
	all = slices.DeleteFunc(all, func(r Run) bool { return !known[r.Timeline] })
	return join(all).without(join(p.needed))
}
