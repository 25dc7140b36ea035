// SPDX-License-Identifier: Apache-2.0

// Package pg holds PostgreSQL's own words: the types, names and small files
// that every other room of the engine speaks in.
//
//	words      LSN, TimelineID, SystemID, XID, Oid, RelFileLocator, SegmentSize, Segment
//	files      History (NNNNNNNN.history), ControlFile (global/pg_control),
//	           BackupLabel (backup_label), TablespaceMap (tablespace_map)
//	pages      PageChecksum, PageIsNew, PageLSN
//	clock      Timestamp, microseconds since 2000-01-01 UTC
//
// Everything here is pure: no function touches a network, a disk or a clock.
// Each String round-trips through its Parse, and each parser takes hostile
// input: it returns an error, never panics, never allocates more than a small
// multiple of what it was given.
//
// The layouts are those of PostgreSQL 13 to 18 on little-endian 64-bit
// machines (src/include/access/xlog_internal.h, catalog/pg_control.h,
// storage/bufpage.h, storage/checksum_impl.h).
package pg
