// SPDX-License-Identifier: Apache-2.0

// Package repository lays bytes out in a place: what objects there are, how
// each is packed, compressed, sealed and checked. FORMAT.md, beside this file,
// is the contract; this package is its only reader and writer.
//
//	Repository            one place, many clusters; recipients of the seal
//	  Lineage             one line of one cluster's history
//	    Segment, Tail     WAL in     (engine/archive)
//	    walindex.Index    what the WAL says
//	    chapter.Chapter   what many indexes say, in short; its key tells of their segments
//	    Names             what the relations in it are called (engine/catalog)
//	    Pack, Files       data files (engine/basebackup)
//	    Manifest          written last
//	    Tombstone         what is to go   (engine/retention)
//
// Invariants. Nothing is listed that is not whole. No object but a beat, a
// tombstone or a lock is ever replaced (an index and a chapter may be made again); putting the same bytes again is
// fine, other bytes are a *ConflictError. Packs, lists of files and names that are sealed
// cannot be known again: putting one twice is a conflict. Every read checks what the object says of itself, and damage
// is a *CorruptError that names the key. Absence is blob.ErrNotExist and nothing
// else is. A Lineage is opened for writing with the system identifier and the
// version of the server, and refuses another's.
//
// Who writes into a sealed repository and has no identity for it can keep, in a directory
// of his own, copies of the lists of files and the WAL indexes that he wrote
// (Options.Copies). Only Lineage.Known reads them, and only of objects that are there.
//
// All types are safe for use by many goroutines unless they say otherwise.
package repository
