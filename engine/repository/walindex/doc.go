// SPDX-License-Identifier: Apache-2.0

// Package walindex says what the records of one WAL segment say: which
// transactions ended and when, what rows they changed, restore points, parameter
// changes, checkpoints, timeline changes, files made and removed, which blocks
// changed, and how many bytes each resource manager wrote.
//
// A record belongs to the segment in which it ends, so that the index of a
// segment is complete when the segment is. A Builder is fed the records as they
// are archived; the index of a year of WAL is then read instead of the WAL.
//
//	"X1" │ flags u8 │ timeline │ segment │ first │ next │ last │ sections…
//	                  uvarint    uvarint   LSNs as uvarint
//	flags: 1 partial, 2 detailed: by a writer that knows all sections below, 4 cut
//
//	section:  tag uvarint │ length uvarint │ entries
//	  1 transactions   n × { kind u8, start, end, xid, time, subtransactions, dropped n × {spc, db, rel} }
//	  2 restore points n × { start, time, name }
//	  3 parameters     n × { start, max_connections, max_worker_processes, max_wal_senders,
//	                         max_prepared_transactions, max_locks_per_transaction, wal_level, flags }
//	  4 checkpoints    n × { start, redo, time, flags u8 }
//	  5 timelines      n × { start, timeline, previous, time }
//	  6 backup ends    n × { start, start of the backup }
//	  7 bytes          n × { resource manager u8, records, bytes }
//	  8 tablespaces    n × { start, oid, path }
//	  9 relations      n × { spc, db, rel as varint differences }: named below by their place here
//	 10 changes        n × { flags u8, rows, [more], n × db }
//	                       rows: n × { relation<<3 │ which counts follow, inserted, updated, deleted }
//	                       flags: 1 at least, 2 more follows; more: inserted, updated, deleted
//	 11 changed        for each of the transactions: the place of its changes, from 1; 0: none
//	 12 blocks         n × { relation, fork u8, from+1, runs n × { gap<<1 │ several, [blocks] } }
//	 13 whole          n × { spc, db }
//	 14 creations      n × { start, xid, relation, fork u8 }
//	 15 truncations    n × { start, xid, relation, blocks, flags }
//	 16 maps           n × { start, xid, spc, db, pg_class }
//	 17 databases made n × { start, xid, spc, db, flags u8, source spc, source db }
//	 18 and dropped    n × { start, xid, db, n × spc }
//	 19 spaces dropped n × { start, xid, oid }
//	 20 truncates      n × { start, xid, db, n × relation oid }
//	 21 open           since, floor, n × { xid, top, changes, folded rows, folded more, folded to }, n × { db, pg_class }
//	 22 opaque         n × { start, resource manager u8 }
//	 23 overwritten    start, as uvarint
//
// LSNs, xids and times are varint differences to the entry before in their
// section. An unknown tag is passed over: later versions add sections. The whole
// is compressed and checksummed by package repository.
//
// # Rows
//
// Rows are counted by transaction, from the records of package heap: those of its
// subtransactions are its own unless they were rolled back, which their own aborts
// tell. A transaction may span segments; what was counted of those still open is in
// the section open, and the index of the segment after begins with it. An index that
// could not begin with it, and one whose Builder had to let go of some, counts anew
// since an LSN. Transactions that began before are marked "at least", until the server
// logs that the last of them is over: then all is known again.
//
// # Blocks
//
// Sections 12, 13 and 22 are what a backup must copy again. A block of a main
// or init fork, or of a visibility map, that differs from what it was before the WAL is told, as
//   - a block that a record refers to, whatever the record is, and the block of the
//     visibility map whose bits a heap's record clears;
//   - all blocks from one on: of a file that was made or truncated (From);
//   - all of a database: copied by files, or with more files changed than are kept (Whole;
//     database 0 of tablespace 0 is everything there is).
//
// More may be told than changed. Where Opaque is not empty an extension changed
// files in a way that only it knows.
//
// WAL does not tell, and a backup copies whole or leaves out as it always does:
//   - free space maps (_fsm), unlogged and temporary tables;
//   - blocks by which a file grew, that are still empty: all behind its former end are new;
//   - hint bits, unless the cluster has checksums or wal_log_hints: they do no harm;
//   - the first block of an SP-GiST index, where it notes which page it used last: no harm either;
//   - what a server mends without a word: bits of a visibility map that were wrong;
//   - everything that is not a relation: pg_xact, pg_multixact, pg_subtrans, pg_commit_ts,
//     pg_twophase, pg_logical, pg_replslot, pg_stat, pg_filenode.map (section 16 tells of it),
//     PG_VERSION, pg_control, configuration;
//   - anything at all while wal_level was minimal (section 3 tells of it), and what
//     extensions write past the buffer manager.
//
// # Bounds
//
// A Builder holds at most some 10 MiB of open transactions and 32 MiB of blocks, and
// besides what the index itself holds: one entry per record of the kinds that are
// listed. Lists of files end at 2^18 entries; the index is then Cut.
package walindex
