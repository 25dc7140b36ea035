// SPDX-License-Identifier: Apache-2.0

package humantime

import (
	"fmt"
	"strings"
	"time"
)

// months holds the English names, long and short, in lower case.
var months = func() map[string]time.Month {
	names := make(map[string]time.Month)
	for m := time.January; m <= time.December; m++ {
		long := strings.ToLower(m.String())
		names[long] = m
		names[long[:3]] = m
	}
	return names
}()

// isoDate reads YYYY-MM-DD, what follows it, and so the rest of the text.
func (p *parser) isoDate() (Moment, error) {
	year, err := p.number(4, 4, "a year of four digits")
	if err != nil {
		return Moment{}, err
	}
	if !p.take('-') {
		return Moment{}, p.want("a hyphen and the month")
	}
	at := p.pos
	month, err := p.number(2, 2, "a month of two digits")
	if err != nil {
		return Moment{}, err
	}
	if month < 1 || month > 12 {
		p.pos = at
		return Moment{}, p.want("a month from 01 to 12")
	}
	if !p.take('-') {
		return Moment{}, p.want("a hyphen and the day")
	}
	at = p.pos
	day, err := p.number(2, 2, "a day of two digits")
	if err != nil {
		return Moment{}, err
	}
	if err := p.checkDay(at, year, time.Month(month), day); err != nil {
		return Moment{}, err
	}
	if !p.take('T') && !p.take('t') && !p.spaces() {
		return Moment{}, p.want("a clock such as 19:56:40")
	}
	return p.dated(year, time.Month(month), day)
}

// namedDate reads what follows the name of a month: D[D] [","] YYYY and the
// rest of the text.
func (p *parser) namedDate(month time.Month) (Moment, error) {
	if !p.spaces() {
		return Moment{}, p.want("a space and the day of the month")
	}
	at := p.pos
	day, err := p.number(1, 2, "a day of the month")
	if err != nil {
		return Moment{}, err
	}
	comma := p.take(',')
	if !p.spaces() && !comma {
		return Moment{}, p.want("a comma and the year")
	}
	year, err := p.number(4, 4, "a year of four digits")
	if err != nil {
		return Moment{}, err
	}
	if err := p.checkDay(at, year, month, day); err != nil {
		return Moment{}, err
	}
	if !p.spaces() {
		return Moment{}, p.want("a clock such as 19:56:40")
	}
	return p.dated(year, month, day)
}

func (p *parser) checkDay(at, year int, month time.Month, day int) error {
	// Day 0 of the next month is the last of this one.
	last := time.Date(year, month+1, 0, 0, 0, 0, 0, time.UTC).Day()
	if day >= 1 && day <= last {
		return nil
	}
	p.pos = at
	return p.want(fmt.Sprintf("a day of %s %04d, 1 to %d", month, year, last))
}

// dated reads the clock and the zone that end the text.
func (p *parser) dated(year int, month time.Month, day int) (Moment, error) {
	clock, err := p.clock()
	if err != nil {
		return Moment{}, err
	}
	wall := time.Date(year, month, day, 0, 0, 0, 0, time.UTC).Add(clock)
	zone, err := p.zone()
	if err != nil {
		return Moment{}, err
	}
	t, err := p.resolve(wall, zone)
	if err != nil {
		return Moment{}, err
	}
	if zone == nil && inRange(t) {
		return Moment{}, &NoZoneError{
			Input: p.input, Local: t.In(p.env.Local),
			Suggestions: [2]string{spell(t, p.env.Local), t.Format(time.RFC3339Nano)},
		}
	}
	return Moment{Time: t, Zone: zone}, nil
}

// spell is the page's form when it says all of t, else the exact one.
func spell(t time.Time, loc *time.Location) string {
	if t.Nanosecond() == 0 {
		return FormatSeconds(t, loc)
	}
	return FormatExact(t, loc)
}

// clock reads HH:MM[:SS[.fraction]] as the time since midnight.
func (p *parser) clock() (time.Duration, error) {
	hour, err := p.twoDigits("hour", 23)
	if err != nil {
		return 0, err
	}
	if !p.take(':') {
		return 0, p.want("a colon and the minutes")
	}
	minute, err := p.twoDigits("minute", 59)
	if err != nil {
		return 0, err
	}
	d := time.Duration(hour)*time.Hour + time.Duration(minute)*time.Minute
	if !p.take(':') {
		return d, nil
	}
	second, err := p.twoDigits("second", 59)
	if err != nil {
		return 0, err
	}
	fraction, err := p.fraction()
	if err != nil {
		return 0, err
	}
	return d + time.Duration(second)*time.Second + fraction, nil
}

func (p *parser) twoDigits(what string, most int) (int, error) {
	at := p.pos
	v, err := p.number(2, 2, fmt.Sprintf("two digits for the %s", what))
	if err != nil {
		return 0, err
	}
	if v <= most {
		return v, nil
	}
	p.pos = at
	want := fmt.Sprintf("00 to %d for the %s", most, what)
	switch {
	case what == "hour" && v == 24:
		return 0, p.refuse("the midnight that ends a day is 00:00 of the next", want)
	case what == "second" && v == 60:
		return 0, p.refuse("PostgreSQL's clock has no leap seconds", want)
	}
	return 0, p.want(want)
}

// fraction reads ".123" if it is there. Zeros past the microsecond say nothing
// and are allowed; other digits there would have to be dropped, and are not.
func (p *parser) fraction() (time.Duration, error) {
	if !p.take('.') {
		return 0, nil
	}
	n := p.count(isDigit)
	if n == 0 {
		return 0, p.want("digits of a second")
	}
	var d time.Duration
	for i, unit := 0, 100*time.Millisecond; i < n; i, unit = i+1, unit/10 {
		digit := time.Duration(p.text[p.pos] - '0')
		if i >= 6 && digit != 0 {
			return 0, p.refuse("finer than PostgreSQL's clock, which counts microseconds", "at most six digits of a second")
		}
		if i < 6 {
			d += digit * unit
		}
		p.pos++
	}
	return d, nil
}
