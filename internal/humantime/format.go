// SPDX-License-Identifier: Apache-2.0

package humantime

import "time"

const (
	minutesLayout = "Jan 02,2006 15:04 UTC-0700"
	secondsLayout = "Jan 02,2006 15:04:05 UTC-0700"
	exactLayout   = "2006-01-02 15:04:05.999999 -07:00"

	// maxOffset is PostgreSQL's own bound: 15:59:59 either way.
	maxOffset = 16*60*60 - 1
)

// Format prints t to the minute on loc's clock, as tables show it:
// "Apr 17,2023 19:56 UTC+0800". A nil loc is UTC. Seconds are cut, not rounded.
func Format(t time.Time, loc *time.Location) string {
	return printable(t, loc).Format(minutesLayout)
}

// FormatSeconds prints t to the second on loc's clock, as RECOVERABLE-TIME
// shows it: "Apr 17,2023 19:56:40 UTC+0800". A nil loc is UTC.
func FormatSeconds(t time.Time, loc *time.Location) string {
	return printable(t, loc).Format(secondsLayout)
}

// FormatExact prints t to the microsecond on loc's clock, with only the digits
// it needs: "2023-04-17 19:56:40.123 +08:00". A nil loc is UTC.
func FormatExact(t time.Time, loc *time.Location) string {
	return printable(t, loc).Format(exactLayout)
}

// printable is t on a clock whose offset the layouts can say. Local mean times
// have seconds in their offsets, which "UTC-0700" would drop, and the text
// would then name another instant.
func printable(t time.Time, loc *time.Location) time.Time {
	t = t.In(location(loc))
	_, offset := t.Zone()
	switch {
	case offset > maxOffset || offset < -maxOffset:
		return t.UTC()
	case offset%60 != 0:
		return t.In(time.FixedZone("", offset-offset%60))
	}
	return t
}
