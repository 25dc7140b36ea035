// SPDX-License-Identifier: Apache-2.0

// Package retention says what of a lineage may go, and lets it go.
//
//	repository ──Load──▶ Input ──Plan──▶ List ──Step──▶ Marks ──SaveMarks──▶ repository
//	                      pure values, no clock        └─▶ List ──Apply──────▶ repository
//
// It goes in two steps. What a plan lets go is marked first, and deleted when it has been
// marked for the grace of the policy and the plan of that time says so as well; a mark is
// taken back when a plan keeps the thing again. Until then all of it is whole. A mark's
// age is counted in looks, not read off a clock: see Marks.
//
// The promise: every moment of the last TTL that can be gone back to stays so, on
// every path of timelines. A path is served by its base: the newest whole backup that
// had ended when the promised time began, together with all WAL of the path from
// its start. What lies before the base goes, but for manual backups and the WAL from
// their start to their stop.
//
// Numbers move where the promised time begins, and nothing else: MinBackups back to
// the end of the oldest scheduled backup that is to stay at least, MaxBackups forward
// to that of the oldest that is to stay at most. Manual backups are not counted, and
// neither are those whose WAL is not whole: they serve nobody.
//
// Where something is not known, it is kept: a path of which it is not known that it
// ended before the promised time is served like any other, a path without a base
// keeps all its WAL, and the newest backup never goes. Clocks may have been set back:
// a backup is a base only if no backup before it on its path ended within the
// promised time.
//
// Which segments there are Load is told by chapters where there are. Apply deletes a chapter
// before the first of its segments, so that none tells of what is gone.
//
// A List holds in every prefix: each single deletion leaves the promise whole, so that
// Apply may be interrupted anywhere, and a new Plan goes on where it stopped.
package retention
