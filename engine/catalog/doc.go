// SPDX-License-Identifier: Apache-2.0

// Package catalog answers questions about a lineage: which moments can be gone
// back to, and which byte of WAL a moment is.
//
//	manifests, histories ──▶ paths of timelines ─┐
//	chapters, segments, tails ▶ inventory ───────┼─▶ windows
//	indexes (or the WAL itself) ─▶ commits ──────┴─▶ a moment → Stop
//
// A Catalog is a snapshot that Load takes from the repository alone; Grow moves
// its end as more is archived. Where an index is missing, partial or damaged, the
// WAL is read instead, so that no answer rests on less than the WAL. A file-system
// snapshot is a backup like any other where its files are, and none elsewhere.
//
// Chapters. Of WAL that is rolled up in chapters (engine/repository/chapter), which a
// Roller makes as it becomes complete, Load lists the chapters and not the segments,
// and an index is read only where its chapter does not say enough: to find a moment,
// the segment in which it comes; for the history of a year, none, unless changes of fewer
// rows than chapter.Rows are asked for. Answers are the same with them and without. A
// chapter that is damaged is passed over; Resolve warns of it, and the Roller makes it again.
//
// That a segment is there a chapter tells as it was when it was written. Windows and
// History believe it. Resolve does not: it lists what will be replayed, from the backup's
// start to the stop, so that a segment which was removed by hand is found before a
// recovery begins. It is then a hole like any other, and the target is resolved again.
//
// What a target means is what PostgreSQL's recovery_target_* of its kind means, and it is
// always one record before recovery begins:
//
//	time    before the first end of a transaction after the backup, by commit or rollback,
//	        that is stamped later; exclusive: at that time or later
//	LSN     after the first record that starts there or later; exclusive: before it
//	XID     after the end of that transaction; exclusive: before it. Of a prepared one
//	        the second phase is the end
//	name    after the newest restore point of that name
//
// Times. PostgreSQL stamps a commit before it writes the record, so that times do not
// increase strictly along the WAL. Every commit that a client saw acknowledged by T is in
// the state at T: had a record stamped later stood before its own, that stamp would
// have been taken before its own record was written, and so before T. No commit stamped
// after T is in it, for those before the backup's end are older than the backup's
// StopTime, and that is not after T. Both hold by one clock that is not set back.
//
// Where it was set back, or a failover went to a host whose clock is behind, a moment
// comes more than once. It is looked for after the newest backup that ended by T, as
// PostgreSQL would that starts from it, and only if it does not come there after an
// older one; the resolution's warnings name every other stretch of the log that holds
// it, and the LSN to have that instead.
//
// History. What the detailed indexes say is told as events: a table dropped, truncated or
// rewritten, rows deleted. WAL has numbers of files only. What they were called was asked of
// the server (AskNames) when archiving began, with each backup, and soon after a commit
// that changed pg_class; a file that came and went in between has its number alone.
// TRUNCATE, DROP and what writes all rows anew each leave a list of files that went; they
// are told apart by what the relation's file is in the names after, and by the rows of
// pg_class that the transaction made, changed and removed:
//
//	DROP                            removed; the relation is no more
//	TRUNCATE, SET TABLESPACE        changed; the tablespace tells which
//	VACUUM FULL, CLUSTER, REFRESH   a row made and removed beside it
//	ALTER TABLE that rewrites       so too, and rows are written into the new file
//	SET UNLOGGED                    so too, and the new file has an init fork
//	a database SET TABLESPACE       copied onto its own number, by no transaction's
//
// A DROP or TRUNCATE that was rolled back leaves no such list. It is known by what it did
// to pg_class, and its tables by the locks that standbys are told of: those are in the WAL
// alone, which is read for it only when it is asked for (HistoryQuery.Undone). A spike
// is a minute with far more WAL than is usual (history_spike.go says how much).
//
// Names that change all the time are put together (MergeNames), and a full object follows
// when the parts have become longer than it: what a query reads of before it begins
// is never more than about twice all names.
//
// Paths. A path is one way through the timelines. The default leads to the newest;
// Branches lists all. A window is a stretch of one path that has no hole.
package catalog
