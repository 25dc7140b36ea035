// SPDX-License-Identifier: Apache-2.0

package humantime

import (
	"fmt"
	"strings"
	"time"
	_ "time/tzdata" // a container without a zone database must still know Europe/Paris
)

const wantZone = "a zone such as UTC+0800, +08:00, Z or Asia/Shanghai"

// zone reads the zone that ends the text; nil says that there is none.
func (p *parser) zone() (*time.Location, error) {
	spaced := p.spaces()
	if p.pos == len(p.text) {
		return nil, nil
	}
	if c := p.at(0); c == '+' || c == '-' {
		return p.offset(2)
	}
	start := p.pos
	word := p.word()
	switch strings.ToUpper(word) {
	case "Z":
		return time.UTC, p.end()
	case "UTC":
		if !spaced {
			break
		}
		if c := p.at(0); c == '+' || c == '-' {
			return p.offset(1)
		}
		if p.at(0) != '/' {
			return time.UTC, p.end()
		}
	case "AM", "PM":
		p.pos = start
		return nil, p.refuse("am and pm are not read", "a clock of 24 hours and then "+wantZone)
	}
	p.pos = start
	if word == "" || !spaced {
		return nil, p.want(wantZone)
	}
	return p.namedZone()
}

// offset reads a sign and HH, HHMM, HH:MM or HH:MM:SS to the end of the text,
// counting east. PostgreSQL prints the last for local mean times.
func (p *parser) offset(leastDigits int) (*time.Location, error) {
	start := p.pos
	sign := 1
	if p.text[p.pos] == '-' {
		sign = -1
	}
	p.pos++
	var hour, minute, second int
	var err error
	if p.count(isDigit) == 4 {
		if hour, err = p.number(4, 4, ""); err != nil {
			return nil, err
		}
		hour, minute = hour/100, hour%100
	} else {
		if hour, err = p.number(leastDigits, 2, "an offset such as +08, +0800 or +08:00"); err != nil {
			return nil, err
		}
		if p.take(':') {
			if minute, err = p.twoDigits("minute", 59); err != nil {
				return nil, err
			}
			if p.take(':') {
				if second, err = p.twoDigits("second", 59); err != nil {
					return nil, err
				}
			}
		}
	}
	if err := p.end(); err != nil {
		return nil, err
	}
	seconds := hour*3600 + minute*60 + second
	if minute > 59 || seconds > maxOffset {
		p.pos = start
		return nil, p.want("an offset of at most 15:59:59")
	}
	if seconds == 0 {
		return time.UTC, nil
	}
	return time.FixedZone("", sign*seconds), nil
}

// namedZone reads Area/City to the end of the text.
func (p *parser) namedZone() (*time.Location, error) {
	start := p.pos
	p.pos += p.count(func(c byte) bool {
		return isLetter(c) || isDigit(c) || strings.IndexByte("/_+-", c) >= 0
	})
	city := p.text[start:p.pos]
	if err := p.end(); err != nil {
		return nil, err
	}
	p.pos = start
	area, _, ok := strings.Cut(city, "/")
	switch {
	case !ok:
		return nil, p.refuse(fmt.Sprintf("%s is not one zone: CST, for one, is UTC-0600 in Chicago and UTC+0800 in Shanghai", city), wantZone)
	case area == "Etc" && strings.ContainsAny(city, "+-"):
		return nil, p.refuse(city+" counts the wrong way round: Etc/GMT+8 is UTC-0800", wantZone)
	case area == "right" || area == "posix":
		// Directories of the system's database. Under right/ the clocks count
		// leap seconds: 27 s away from everybody else's.
		return nil, p.refuse(city+" is not in the time zone database", wantZone)
	}
	loc, err := time.LoadLocation(city)
	if err != nil {
		return nil, p.refuse(city+" is not in the time zone database, where upper and lower case matter", wantZone)
	}
	return loc, nil
}

// resolve finds the one instant at which the clocks of zone show wall, whose
// own zone says nothing. A nil zone is the reader's own.
func (p *parser) resolve(wall time.Time, zone *time.Location) (time.Time, error) {
	if zone == nil {
		zone = p.env.Local
	}
	// Offsets are less than 16 hours, so every instant that could show wall is
	// within 16 hours of wall read as UTC. Walk the spans of constant offset there.
	const reach = 16 * time.Hour
	var found []time.Time
	var gap *SkippedError
	for at := wall.Add(-reach); ; {
		_, offset := at.In(zone).Zone()
		start, end := at.In(zone).ZoneBounds()
		t := wall.Add(-time.Duration(offset) * time.Second)
		if (start.IsZero() || !t.Before(start)) && (end.IsZero() || t.Before(end)) {
			found = append(found, t)
		}
		if end.IsZero() || end.After(wall.Add(reach)) {
			break
		}
		_, next := end.In(zone).Zone()
		if !t.Before(end) && wall.Add(-time.Duration(next)*time.Second).Before(end) {
			gap = &SkippedError{Input: p.input, Zone: zone, Before: end.Add(-time.Second).In(zone), After: end.In(zone)}
		}
		at = end
	}
	switch {
	case len(found) == 1:
		return found[0], nil
	case len(found) > 1:
		return time.Time{}, &AmbiguousError{Input: p.input, Zone: zone, First: found[0].In(zone), Second: found[len(found)-1].In(zone)}
	case gap != nil:
		return time.Time{}, gap
	}
	return time.Time{}, &SyntaxError{Input: p.input, Want: wantZone, Why: "no instant has this clock in " + name(zone)}
}
