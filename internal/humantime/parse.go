// SPDX-License-Identifier: Apache-2.0

package humantime

import (
	"strings"
	"time"
)

// maxInput bounds the work a text can cause. The longest useful one is a third
// of it.
const maxInput = 128

const wantMoment = "a moment such as 2023-04-17T19:56:40Z, Apr 17,2023 19:56:40 UTC+0800, 10 minutes ago, yesterday 15:00, now, earliest or latest"

// Parse reads the whole of s or returns an error: *SyntaxError, *NoZoneError,
// *SkippedError, *AmbiguousError or ErrNoClock. It does not judge whether the
// moment can be restored. Safe for concurrent use.
func Parse(s string, env Env) (Moment, error) {
	env.Now = toMicroseconds(env.Now)
	env.Local = location(env.Local)
	p := &parser{input: s, text: strings.TrimRight(s, blanks), env: env}
	p.pos = len(p.text) - len(strings.TrimLeft(p.text, blanks))
	if len(s) > maxInput {
		return Moment{}, &SyntaxError{Input: s[:maxInput], Offset: maxInput, Want: "a moment in at most 128 characters", Why: "too long"}
	}
	m, err := p.moment()
	if err != nil {
		return Moment{}, err
	}
	if m.Keyword == None && !inRange(m.Time) {
		return Moment{}, &SyntaxError{Input: s, Want: "an instant from 2000 to 2261", Why: "out of range"}
	}
	return m, nil
}

const blanks = " \t\r\n"

// parser walks text, which is input without the blanks at its end, so that
// offsets into one are offsets into the other.
type parser struct {
	input, text string
	pos         int
	env         Env
}

func (p *parser) moment() (Moment, error) {
	switch digits := p.count(isDigit); {
	case digits == 4 && p.at(4) == '-':
		return p.isoDate()
	case digits > 0 && strings.IndexByte("/.-", p.at(digits)) >= 0:
		return Moment{}, p.refuse("which number is the day and which the month differs between countries",
			"the year first, 2023-04-05, or the month by name, Apr 05,2023")
	case digits > 0 && (p.at(digits) == ' ' || isLetter(p.at(digits))):
		return p.ago()
	}
	start := p.pos
	word := strings.ToLower(p.word())
	switch word {
	case "now":
		if p.env.Now.IsZero() {
			return Moment{}, ErrNoClock
		}
		return p.keyword(Now, p.env.Now)
	case "earliest":
		return p.keyword(Earliest, p.env.Earliest)
	case "latest":
		return p.keyword(Latest, p.env.Latest)
	case "today":
		return p.day(0)
	case "yesterday":
		return p.day(-1)
	}
	if month, ok := months[word]; ok {
		return p.namedDate(month)
	}
	p.pos = start
	return Moment{}, p.want(wantMoment)
}

func (p *parser) keyword(k Keyword, t time.Time) (Moment, error) {
	if err := p.end(); err != nil {
		return Moment{}, err
	}
	return Moment{Time: toMicroseconds(t), Keyword: k, Relative: k == Now, Zone: p.env.Local}, nil
}

// want is the error for something else, or nothing, standing at pos.
func (p *parser) want(what string) error {
	at := p.pos
	if at >= len(p.text) {
		at = len(p.input)
	}
	return &SyntaxError{Input: p.input, Offset: at, Want: what}
}

// refuse is the error for something that was understood, and is not accepted.
func (p *parser) refuse(why, want string) error {
	return &SyntaxError{Input: p.input, Offset: p.pos, Want: want, Why: why}
}

func (p *parser) end() error {
	if p.pos < len(p.text) {
		return p.want("nothing more")
	}
	return nil
}

// at is the byte i places on, and zero past the end. A zero byte in the text is
// in no class, so the two need not be told apart.
func (p *parser) at(i int) byte {
	if p.pos+i < len(p.text) {
		return p.text[p.pos+i]
	}
	return 0
}

// take steps over c if it is next.
func (p *parser) take(c byte) bool {
	if p.pos < len(p.text) && p.text[p.pos] == c {
		p.pos++
		return true
	}
	return false
}

// spaces steps over any number of spaces and tells whether there was one.
func (p *parser) spaces() bool {
	start := p.pos
	for p.take(' ') {
	}
	return p.pos > start
}

func (p *parser) count(class func(byte) bool) int {
	n := 0
	for class(p.at(n)) {
		n++
	}
	return n
}

func (p *parser) word() string {
	n := p.count(isLetter)
	p.pos += n
	return p.text[p.pos-n : p.pos]
}

// number reads a run of between least and most digits; a longer run is refused,
// not cut.
func (p *parser) number(least, most int, what string) (int, error) {
	n := p.count(isDigit)
	if n < least || n > most {
		return 0, p.want(what)
	}
	v := 0
	for range n {
		v = v*10 + int(p.text[p.pos]-'0')
		p.pos++
	}
	return v, nil
}

func isDigit(c byte) bool  { return '0' <= c && c <= '9' }
func isLetter(c byte) bool { return 'a' <= c|0x20 && c|0x20 <= 'z' }
