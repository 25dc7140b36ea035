// SPDX-License-Identifier: Apache-2.0

// Package humantime reads and prints the moments people write: on the command
// line, in a policy, in the window that a describe shows.
//
// The grammar is total. A text is read whole or refused with an error that
// says where and why; nothing is guessed, rounded or filled in. Restoring to a
// moment that was misread is worse than not restoring at all.
//
//	moment   = keyword | ago | day clock [zone] | date clock zone
//	keyword  = "now" | "earliest" | "latest"
//	ago      = count unit { count unit } "ago"       10 minutes ago, 2h30m ago
//	day      = "today" | "yesterday"                 yesterday 15:00
//	date     = YYYY-MM-DD ("T" | space)              2023-04-17T19:56:40Z
//	         | Month D[D] [","] YYYY                 Apr 17,2023 19:56:40 UTC+0800
//	clock    = HH:MM [ ":SS" [ "." digits ] ]
//	zone     = "Z" | "UTC" | offset | "UTC" offset | Area/City
//	offset   = ("+"|"-") HH [ [":"] MM ] | ("+"|"-") HH:MM:SS
//	unit     = s m h d w, or the word: second, sec, minute, min, hour, hr, day, week
//
// Words may be in any case, except Area/City, which is a key of the time zone
// database (a copy is inside the program). After UTC one digit of hours will
// do: UTC+8. Space around the text is ignored. A day in "3 days ago" is 24
// hours. The units of one text grow smaller and none comes twice.
//
// # Invariants
//
//   - An offset counts east: UTC+0800 is eight hours ahead of UTC, as on the
//     page and in RFC 3339, and the opposite of a POSIX TZ variable.
//   - A Moment is whole microseconds in UTC, from 2000, where PostgreSQL counts
//     from, to the end of 2261, where a nanosecond clock does. A fraction finer
//     than a microsecond is refused unless the rest is zeros.
//   - What Format, FormatSeconds and FormatExact print, Parse reads back to the
//     same instant, cut to the precision printed.
//   - A wall clock that daylight saving skips or repeats is never resolved:
//     SkippedError and AmbiguousError carry the instants to choose from.
//   - A text without a zone is never resolved either: NoZoneError carries the
//     instant it would be here, and two spellings that say so.
//
// Refused on purpose: 04/05/2023, zone abbreviations (CST is in Chicago and in
// Shanghai), Etc/GMT+8 (which is eight hours west), am and pm, 24:00, the leap
// second 60, months and years ago, a date without a clock.
package humantime
