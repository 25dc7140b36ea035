// SPDX-License-Identifier: Apache-2.0

package archive

import "time"

// lag knows how old the oldest WAL is that the server has written and the repository
// has not. It keeps what the server was seen to have written by when, for what is not
// in the repository yet; so it forgets all where the repository catches up, and does
// not grow while the server is idle.
type lag struct {
	marks []lagMark     // ascending
	step  time.Duration // between two of them, at least
}

// lagMark says that WAL before place was first seen at that time. What is seen within
// a step shares a mark, and the step grows with how many there are: an age may be told
// too great by a second, or by one part in a hundred.
type lagMark struct {
	place
	at time.Time
}

const (
	lagStep  = time.Second
	lagMarks = 256
)

func (p place) before(o place) bool { return p.tli < o.tli || p.tli == o.tli && p.lsn < o.lsn }

// follow takes note of a changed Status.
func (g *lag) follow(st *Status, clock func() time.Time) {
	if st.Repository == 0 {
		return // nothing is known of it
	}
	have := place{st.RepositoryTimeline, st.Repository}
	n := 0
	for n < len(g.marks) && !have.before(g.marks[n].place) {
		n++
	}
	g.marks = append(g.marks[:0], g.marks[n:]...)
	seen := place{st.Timeline, max(st.ServerLSN, st.Received)}
	last := have
	if n := len(g.marks); n > 0 {
		last = g.marks[n-1].place
	}
	if !last.before(seen) {
		return
	}
	now := clock()
	if len(g.marks) == 0 {
		g.step = lagStep
	}
	if n := len(g.marks); n > 0 && now.Sub(g.marks[n-1].at).Abs() < g.step {
		g.marks[n-1].place = seen
		return
	}
	if len(g.marks) == lagMarks {
		g.halve()
	}
	g.marks = append(g.marks, lagMark{seen, now})
}

// halve joins each two marks.
func (g *lag) halve() {
	g.step *= 2
	for i := range len(g.marks) / 2 {
		g.marks[i] = lagMark{g.marks[2*i+1].place, g.marks[2*i].at}
	}
	g.marks = g.marks[:len(g.marks)/2]
}

// since is the time of the oldest mark; zero without one.
func (g *lag) since() time.Time {
	if len(g.marks) == 0 {
		return time.Time{}
	}
	return g.marks[0].at
}

// older says that the oldest WAL of all was there at a time already.
func (g *lag) older(at time.Time) {
	if len(g.marks) > 0 && at.Before(g.marks[0].at) {
		g.marks[0].at = at
	}
}
