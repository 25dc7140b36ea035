// SPDX-License-Identifier: Apache-2.0

package pg

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"strings"
)

// History is what NNNNNNNN.history tells: the path of timelines that leads to
// one timeline. Each position of the log belongs to exactly one timeline of a
// path. A path without entries starts at the beginning of time, as timeline 1
// does, which has no file.
type History struct {
	Timeline TimelineID     // whose history this is; it has no end
	Entries  []HistoryEntry // its ancestors, oldest first
}

// HistoryEntry says where one ancestor was left.
type HistoryEntry struct {
	Timeline TimelineID
	End      LSN    // the switch point: the first byte that is not Timeline's any more
	Reason   string // what PostgreSQL noted for people: "no recovery target specified"
}

// ParseHistory reads the history file of timeline tli as PostgreSQL does
// (readTimeLineHistory in src/backend/access/transam/timeline.c): blank lines
// and lines that begin with # say nothing, timelines increase and end below
// tli, what follows the switch point is for people. Beyond PostgreSQL it
// refuses a switch point of 0/0, which no server writes.
//
// A server whose recovery stopped on an ancestor of the timeline that it was told to
// follow notes that it left the latter, at a point before its beginning. The ancestors
// then ended there as well: their switch points are set to that.
func ParseHistory(tli TimelineID, data []byte) (History, error) {
	if tli == 0 {
		return History{}, errors.New("history of timeline 0")
	}
	h := History{Timeline: tli}
	for n, line := range strings.Split(string(data), "\n") {
		rest := strings.TrimLeft(line, cSpace)
		if rest == "" || rest[0] == '#' {
			continue
		}
		e, err := parseHistoryEntry(rest)
		if err != nil {
			return History{}, fmt.Errorf("history of timeline %d, line %d: %w", tli, n+1, err)
		}
		if k := len(h.Entries); k > 0 {
			last := h.Entries[k-1]
			if e.Timeline <= last.Timeline {
				return History{}, fmt.Errorf("history of timeline %d, line %d: timeline %d does not come after %d", tli, n+1, e.Timeline, last.Timeline)
			}
		}
		if e.Timeline >= tli {
			return History{}, fmt.Errorf("history of timeline %d, line %d: timeline %d is not its ancestor", tli, n+1, e.Timeline)
		}
		h.Entries = append(h.Entries, e)
	}
	for i := len(h.Entries) - 2; i >= 0; i-- {
		h.Entries[i].End = min(h.Entries[i].End, h.Entries[i+1].End)
	}
	return h, nil
}

// cSpace is what isspace accepts in the C locale; scanf skips it.
const cSpace = " \t\v\f\r\n"

func parseHistoryEntry(s string) (HistoryEntry, error) {
	number, rest := cutDigits(s, "0123456789")
	if number == "" {
		return HistoryEntry{}, errors.New("no timeline")
	}
	var tli uint64
	for _, c := range number {
		if tli = tli*10 + uint64(c-'0'); tli > math.MaxUint32 {
			break
		}
	}
	if tli == 0 || tli > math.MaxUint32 {
		return HistoryEntry{}, fmt.Errorf("timeline %q is not a number from 1 to 4294967295", number)
	}
	const hex = "0123456789abcdefABCDEF"
	hi, rest := cutDigits(strings.TrimLeft(rest, cSpace), hex)
	rest, slash := strings.CutPrefix(rest, "/")
	lo, rest := cutDigits(rest, hex)
	if hi == "" || !slash || lo == "" {
		return HistoryEntry{}, errors.New("no switch point")
	}
	end, err := ParseLSN(hi + "/" + lo)
	if err != nil {
		return HistoryEntry{}, err
	}
	if end == 0 {
		return HistoryEntry{}, errors.New("switch point 0/0")
	}
	return HistoryEntry{Timeline: TimelineID(tli), End: end, Reason: strings.Trim(rest, cSpace)}, nil
}

func cutDigits(s, digits string) (before, after string) {
	end := len(s) - len(strings.TrimLeft(s, digits))
	return s[:end], s[end:]
}

// Bytes is the file as PostgreSQL writes it: an entry a line and, because each
// server appends to its parent's file, a blank line between entries. Line
// breaks in a reason become spaces.
func (h History) Bytes() []byte {
	var b bytes.Buffer
	for i, e := range h.Entries {
		if i > 0 {
			b.WriteByte('\n')
		}
		reason := strings.Trim(strings.Map(lineBreakToSpace, e.Reason), cSpace)
		fmt.Fprintf(&b, "%d\t%s\t%s\n", e.Timeline, e.End, reason)
	}
	return b.Bytes()
}

func lineBreakToSpace(r rune) rune {
	if r == '\n' || r == '\r' {
		return ' '
	}
	return r
}

// SwitchPoint is where timeline tli was left on this path, the first byte that
// is no more tli's. It is false for a timeline that is not an ancestor, and for
// the path's own timeline, which has no end.
func (h History) SwitchPoint(tli TimelineID) (LSN, bool) {
	for _, e := range h.Entries {
		if e.Timeline == tli {
			return e.End, true
		}
	}
	return 0, false
}

// TimelineAt is the timeline that owns the byte at l on this path.
func (h History) TimelineAt(l LSN) TimelineID {
	for _, e := range h.Entries {
		if l < e.End {
			return e.Timeline
		}
	}
	return h.Timeline
}

// Contains tells whether the byte at l, as timeline tli wrote it, is part of
// this path.
func (h History) Contains(tli TimelineID, l LSN) bool { return h.TimelineAt(l) == tli }

// HistoryFileName is "00000002.history" for timeline 2.
func HistoryFileName(tli TimelineID) string { return fmt.Sprintf("%08X.history", uint32(tli)) }

// ParseHistoryFileName reads what HistoryFileName writes.
func ParseHistoryFileName(name string) (TimelineID, error) {
	digits, ok := strings.CutSuffix(name, ".history")
	if !ok || len(digits) != 8 {
		return 0, fmt.Errorf("history file name %q is not eight digits and .history", name)
	}
	v, err := parseHex32(digits)
	if err != nil {
		return 0, fmt.Errorf("history file name %q: %w", name, err)
	}
	if v == 0 || HistoryFileName(TimelineID(v)) != name {
		return 0, fmt.Errorf("history file name %q is not one PostgreSQL writes", name)
	}
	return TimelineID(v), nil
}
