// SPDX-License-Identifier: Apache-2.0

// Package catalog answers questions about a lineage: which moments can be gone
// back to, and which byte of WAL a moment is.
//
//	manifests, histories ──▶ paths of timelines ─┐
//	segments, tails ───────▶ inventory ──────────┼─▶ windows
//	indexes (or the WAL itself) ─▶ commits ──────┴─▶ a moment → Stop
//
// A Catalog is a snapshot that Load takes from the repository alone; Grow moves
// its end as more is archived. Where an index is missing, partial or damaged, the
// WAL is read instead, so that no answer rests on less than the WAL.
//
// What a time means. PostgreSQL stamps a commit before it writes the record, so
// that times do not increase strictly along the WAL. A time T is the state just
// before the first commit record after the backup, in WAL order, that is stamped later
// than T. Every commit that a client saw acknowledged by T is in it: had a record
// stamped later stood before its own, that stamp would have been taken before its own
// record was written, and so before T. No commit stamped after T is in it, for those
// before the backup's end are older than the backup's StopTime, and that is not after
// T. Both hold by one clock, the server's, that is not set back: across a failover they
// hold as far as the two clocks agree, and where a clock was set back T is looked for
// after the newest backup that ended by T.
package catalog
