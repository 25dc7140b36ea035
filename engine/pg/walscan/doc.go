// SPDX-License-Identifier: Apache-2.0

// Package walscan reads PostgreSQL's write-ahead log as it goes by.
//
//	s := walscan.New(walscan.Options{SegmentSize: size, Start: size.Start(n)})
//	for each piece p of WAL, however cut:
//		err := s.Feed(p, func(r *walscan.Record) error {
//			if x, ok, err := r.Xact(); ok { … }
//			return err
//		})
//
// A Scanner is a push parser: it is given bytes and calls back for each record
// that they complete. It holds the one record that is not whole yet, and
// nothing else.
//
//	bytes ─► pages ──────► records ─────────────► Record ─► Xact, RestorePoint, …
//	         header,       joined over pages,     blocks,   decoded when asked
//	         continuation  CRC, back link         data
//
// Invariants.
//   - How the bytes are cut into pieces changes nothing: not the records, not
//     the errors.
//   - A record is handed out only when its length, resource manager, link to the
//     record before it, CRC-32C and framing have been verified.
//   - Whatever it is fed, a Scanner does not panic, and the memory it holds stays
//     within twice the bytes of the unfinished record that have arrived, plus 512 KiB.
//   - Where WAL ends (EndError) and where it is damaged (CorruptError) are
//     different answers.
//
// The format is that of PostgreSQL 13 to 18 on little-endian 64-bit machines:
// src/include/access/{xlogrecord,xlog_internal,xact,heapam_xlog}.h,
// catalog/{pg_control,storage_xlog}.h and commands/{dbcommands_xlog,tablespace}.h.
// What differs between releases:
//
//	page magic          D106 D10D D110 D113 D116 D118 for 13 to 18
//	block image flags   13 and 14: hole 01, compressed 02, apply 04;
//	                    since 15: hole 01, apply 02, pglz 04, lz4 08, zstd 10
//	top-level xid       in the record header's block list (id 252) since 14
//	dropped statistics  in commits and aborts since 15: 12 bytes each, 16 since 18
//	database records    create 00, drop 10; since 15 create by log 10, drop 20
//	broken record       page flag 08 and OVERWRITE_CONTRECORD, in minor releases since 2021
//
// Records flagged SPECIAL_REL_UPDATE (Info bit 01: creation and truncation of
// relation files, databases) change files in ways that Blocks does not tell.
package walscan
