// SPDX-License-Identifier: Apache-2.0

package humantime

import (
	"errors"
	"fmt"
	"time"
)

// ErrNoClock is returned for a relative text when Env.Now is zero.
var ErrNoClock = errors.New("the source's clock is not known, so a relative time has no meaning")

// SyntaxError is a text outside the grammar, or a date that no calendar has.
type SyntaxError struct {
	Input  string
	Offset int    // in bytes, where reading stopped; len(Input) when more was wanted
	Want   string // what would have been read there
	Why    string // why what stands there is refused; empty when it is merely something else
}

func (e *SyntaxError) Error() string {
	switch {
	case e.Why != "":
		return fmt.Sprintf("time %q: %s: want %s", e.Input, e.Why, e.Want)
	case e.Offset >= len(e.Input):
		return fmt.Sprintf("time %q: ends too early: want %s", e.Input, e.Want)
	}
	return fmt.Sprintf("time %q: want %s at %q", e.Input, e.Want, e.Input[e.Offset:])
}

// NoZoneError is a date and a clock without a zone. Whoever has a person at
// hand may show Local and ask; everybody else shows Suggestions.
type NoZoneError struct {
	Input       string
	Local       time.Time // the instant this would be on Env.Local's clock
	Suggestions [2]string // two spellings of Local that Parse accepts
}

func (e *NoZoneError) Error() string {
	return fmt.Sprintf("time %q: no zone: want for example %q or %q", e.Input, e.Suggestions[0], e.Suggestions[1])
}

// SkippedError is a wall clock that never showed, because it was put forward
// past it.
type SkippedError struct {
	Input  string
	Zone   *time.Location
	Before time.Time // in Zone, the last whole second before the clock was put forward
	After  time.Time // in Zone, the instant at which it was
}

func (e *SkippedError) Error() string {
	return fmt.Sprintf("time %q: never came in %s, where %q was followed by %q",
		e.Input, name(e.Zone), FormatExact(e.Before, e.Zone), FormatExact(e.After, e.Zone))
}

// AmbiguousError is a wall clock that showed twice, because it was put back.
type AmbiguousError struct {
	Input         string
	Zone          *time.Location
	First, Second time.Time // in Zone, the two instants in order
}

func (e *AmbiguousError) Error() string {
	return fmt.Sprintf("time %q: came twice in %s: %q and %q",
		e.Input, name(e.Zone), FormatExact(e.First, e.Zone), FormatExact(e.Second, e.Zone))
}

// name is what to call loc in a sentence; time.Local calls itself "Local".
func name(loc *time.Location) string {
	if loc == time.Local {
		return "the local zone"
	}
	return loc.String()
}
