// SPDX-License-Identifier: Apache-2.0

// Package guide runs the manual, docs/guide, from its first command to its last, with a
// real PostgreSQL and a real S3.
//
// A chapter's blocks marked sh are one session of bash -eu; the chapters run in order, in
// one state directory, as by a reader who types along. A block marked console after
// it is what it prints, compared loosely: numbers stand for numbers and months for
// months, "…" for anything, also for any number of lines. A line that is one number,
// or psql's count of rows, is compared as it is. What it prints besides does not matter.
//
// A block that is not run says why, in a comment before it, and their number is known:
//
//	<!-- not run: REASON -->
//
// What a reader replaces by their own, such as keys, is a row of a table in the chapter that
// uses it, and the test puts its own there. go test -update writes the console blocks anew.
package guide
