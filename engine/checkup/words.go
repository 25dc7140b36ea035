// SPDX-License-Identifier: Apache-2.0

package checkup

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

func pass(check, format string, args ...any) Finding {
	return Finding{Check: check, Level: Pass, Evidence: line(format, args...)}
}

func warn(check, next, format string, args ...any) Finding {
	return Finding{Check: check, Level: Warn, Evidence: line(format, args...), Next: next}
}

func fail(check, next, format string, args ...any) Finding {
	return Finding{Check: check, Level: Fail, Evidence: line(format, args...), Next: next}
}

// line is one line, whatever an error message in it holds.
func line(format string, args ...any) string {
	return strings.Join(strings.Fields(fmt.Sprintf(format, args...)), " ")
}

// size is a number of bytes for people, in powers of a thousand.
func size(n int64) string {
	if n < 1000 {
		return strconv.FormatInt(n, 10) + " B"
	}
	v, unit := float64(n)/1000, 0
	for ; v >= 999.5 && unit < 5; unit++ {
		v /= 1000
	}
	digits := 0
	if v < 9.95 {
		digits = 1
	}
	return strconv.FormatFloat(v, 'f', digits, 64) + " " + "kMGTPE"[unit:unit+1] + "B"
}

// span is a duration for people, in one unit, or two.
func span(d time.Duration) string {
	d = d.Abs()
	switch {
	case d < time.Second:
		return fmt.Sprintf("%d ms", max(1, d.Milliseconds()))
	case d < 2*time.Minute:
		return fmt.Sprintf("%d s", int(d/time.Second))
	case d < 2*time.Hour:
		return fmt.Sprintf("%d min", int(d/time.Minute))
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h", int(d/time.Hour))
	}
	return fmt.Sprintf("%d days", int(d/(24*time.Hour)))
}

func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return strconv.Itoa(n) + " " + noun + "s"
}

// share is free of total.
func share(free, total int64) string {
	if total <= 0 {
		return size(free) + " are free"
	}
	return fmt.Sprintf("%s of %s are free", size(free), size(total))
}
