// SPDX-License-Identifier: Apache-2.0

// Package archive moves WAL: in, from a server's walsender to the repository;
// out, from the repository to a server that recovers.
//
//	walsender ──receive──▶ spool ──sync──▶ acknowledged (async)
//	                         │
//	                       ship ──▶ frames ──▶ Tail about every second
//	                         │         └─────▶ Segment + Index when it is full
//	                       scan              └─▶ acknowledged (sync mode)
//
// Four goroutines work on one Archiver: receive writes what arrives into the
// spool; sync makes it durable; reply answers the server, so that a hanging
// upload or disk never costs the connection; ship reads the spool, compresses
// each byte once, scans each record once, and uploads in order. Where a stretch of
// WAL ends, at a timeline switch or a gap, receive leaves a jump, durable in the
// spool, which ship takes when it has put all that lies before.
//
// Invariants. A position is acknowledged only when it is durable where the mode
// promises: in the spool (async) or in the repository (sync). Streaming resumes
// where this archive ends and never where the server offers to begin: what lies
// between is a declared gap. Bytes that are streamed again are compared with those
// that are held; another content stops the archive with a *DivergedError. A
// timeline's history is stored before its first segment. A time is proven only by
// a primary, and only by answers to questions that were asked one at a time.
//
// After kill -9 a new Archiver over the same spool and lineage goes on without a
// hole: the spool holds what was acknowledged and not shipped, the server's slot
// what was not acknowledged. A spool has one Archiver: a second waits for the first
// to end.
package archive
