// SPDX-License-Identifier: Apache-2.0

package humantime

import (
	"math"
	"strings"
	"time"
)

const (
	aDay  = 24 * time.Hour
	aWeek = 7 * aDay
)

// units holds the words for a length of time. Months and years have none of
// their own.
var units = map[string]time.Duration{
	"s": time.Second, "sec": time.Second, "secs": time.Second, "second": time.Second, "seconds": time.Second,
	"m": time.Minute, "min": time.Minute, "mins": time.Minute, "minute": time.Minute, "minutes": time.Minute,
	"h": time.Hour, "hr": time.Hour, "hrs": time.Hour, "hour": time.Hour, "hours": time.Hour,
	"d": aDay, "day": aDay, "days": aDay,
	"w": aWeek, "week": aWeek, "weeks": aWeek,
}

const wantUnit = "a unit: seconds, minutes, hours, days or weeks"

// ago reads one or more counts with their units, and "ago".
func (p *parser) ago() (Moment, error) {
	var total time.Duration
	smallest := time.Duration(math.MaxInt64)
	for {
		at := p.pos
		n, err := p.number(1, 9, "a count of at most nine digits")
		if err != nil {
			return Moment{}, err
		}
		p.spaces()
		unit, err := p.unit()
		if err != nil {
			return Moment{}, err
		}
		if unit >= smallest {
			p.pos = at
			return Moment{}, p.refuse("units go from large to small, each once", "for example 1 hour 30 minutes ago")
		}
		smallest = unit
		if time.Duration(n) > (math.MaxInt64-total)/unit {
			p.pos = at
			return Moment{}, p.refuse("out of range", "an instant from 2000 to 2261")
		}
		total += time.Duration(n) * unit
		p.spaces()
		if !isDigit(p.at(0)) {
			break
		}
	}
	at := p.pos
	if !strings.EqualFold(p.word(), "ago") {
		p.pos = at
		return Moment{}, p.want("ago")
	}
	if err := p.end(); err != nil {
		return Moment{}, err
	}
	if p.env.Now.IsZero() {
		return Moment{}, ErrNoClock
	}
	return Moment{Time: p.env.Now.Add(-total), Relative: true, Zone: p.env.Local}, nil
}

func (p *parser) unit() (time.Duration, error) {
	at := p.pos
	word := strings.ToLower(p.word())
	if unit, ok := units[word]; ok {
		return unit, nil
	}
	p.pos = at
	switch word {
	case "month", "months", "mon", "year", "years", "y", "yr", "yrs":
		return 0, p.refuse("months and years differ in length", wantUnit)
	}
	return 0, p.want(wantUnit)
}

// day reads the clock and perhaps the zone after "today" or "yesterday". The
// calendar is the one that hangs in that zone.
func (p *parser) day(shift int) (Moment, error) {
	if !p.spaces() {
		return Moment{}, p.want("a space and a clock such as 15:00")
	}
	clock, err := p.clock()
	if err != nil {
		return Moment{}, err
	}
	zone, err := p.zone()
	if err != nil {
		return Moment{}, err
	}
	if zone == nil {
		zone = p.env.Local
	}
	if p.env.Now.IsZero() {
		return Moment{}, ErrNoClock
	}
	year, month, today := p.env.Now.In(zone).Date()
	wall := time.Date(year, month, today+shift, 0, 0, 0, 0, time.UTC).Add(clock)
	t, err := p.resolve(wall, zone)
	if err != nil {
		return Moment{}, err
	}
	return Moment{Time: t, Relative: true, Zone: zone}, nil
}
