// SPDX-License-Identifier: Apache-2.0

package humantime

import (
	"fmt"
	"time"
)

// Env is what a text may lean on. Every field may be zero.
type Env struct {
	Now              time.Time      // the source's clock, not this machine's; without it "ago" and "today" are ErrNoClock
	Local            *time.Location // where the reader's wall clock hangs; nil is UTC
	Earliest, Latest time.Time      // the ends of the window; zero when they are not known yet
}

// Moment is a text that was understood.
type Moment struct {
	// Time is in UTC, in whole microseconds. It is zero only for Earliest and
	// Latest when Env does not know them.
	Time time.Time

	// Keyword is set when the text was one word whose meaning outlives the
	// instant it has now.
	Keyword Keyword

	// Relative is set when another Env.Now would have given another Time. Store
	// Time, never the text.
	Relative bool

	// Zone is where to show Time: the zone that was written, else Env.Local.
	Zone *time.Location
}

// Keyword is a moment with a name.
type Keyword int

// The keywords. None is everything that is not one word.
const (
	None Keyword = iota
	Now
	Earliest
	Latest
)

// String is the word as Parse reads it; None is empty.
func (k Keyword) String() string {
	switch k {
	case None:
		return ""
	case Now:
		return "now"
	case Earliest:
		return "earliest"
	case Latest:
		return "latest"
	}
	return fmt.Sprintf("Keyword(%d)", int(k))
}

// The first instant that Parse accepts and the first that it no longer does.
var (
	first = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)
	limit = time.Date(2262, 1, 1, 0, 0, 0, 0, time.UTC)
)

// inRange tells whether t is an instant that Parse accepts.
func inRange(t time.Time) bool { return !t.Before(first) && t.Before(limit) }

// toMicroseconds cuts t to what PostgreSQL's timestamps hold.
func toMicroseconds(t time.Time) time.Time {
	if t.IsZero() {
		return time.Time{}
	}
	return t.UTC().Truncate(time.Microsecond)
}

// location is loc, or UTC for nil.
func location(loc *time.Location) *time.Location {
	if loc == nil {
		return time.UTC
	}
	return loc
}
