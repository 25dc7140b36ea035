// SPDX-License-Identifier: Apache-2.0

// Package walindex says what the records of one WAL segment say: which
// transactions ended and when, restore points, parameter changes, checkpoints,
// timeline changes, and how many bytes each resource manager wrote.
//
// A record belongs to the segment in which it ends, so that the index of a
// segment is complete when the segment is. A Builder is fed the records as they
// are archived; the index of a year of WAL is then read instead of the WAL.
//
//	"X1" │ flags u8 │ timeline │ segment │ first │ next │ last │ sections…
//	                  uvarint    uvarint   LSNs as uvarint
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
//
// LSNs, xids and times are varint differences to the entry before in their
// section. An unknown tag is passed over: later versions add sections. The whole
// is compressed and checksummed by package repository.
package walindex
