// SPDX-License-Identifier: Apache-2.0

// Package restore gives a data directory back as it was at one byte of WAL.
//
//	catalog.Resolution ─▶ Plan ─▶ Fetch ─▶ Recover ─▶ proof ─▶ a server that can start
//	                       │        packs     WAL fed     reached
//	                       ▼        → files   ahead       = planned?
//	                 printed, refused
//
// A Plan is a value: it says which backup, which segments, the last commit kept and
// the first lost, and how long it will take. Nothing is written before it is made,
// and what was made is done: recovery is told the LSN of the plan, and judged by
// it.
//
// Invariants. The target directory is new, or one that was given up for it (Delta, below);
// nothing outside it and the directories
// of its tablespaces is written (os.Root). It cannot start without its
// backup_label, for its control file names no checkpoint. While it recovers it
// listens on a socket in a directory of its own and archives nowhere. WAL that the
// repository cannot give ends recovery with an error, never as if the log ended
// there. If what was reached is not what was planned, that is a *NotReachedError
// and the directory is not handed out.
//
// Tablespaces that the WAL makes on the way lie beside the others: the record that makes one
// is handed to the server with another path (tablespaces.go).
//
// How long it will take is what such work takes typically, by files, bytes, and records
// and bytes of WAL, times how the restores went that were measured before: Rates.
//
// The files of a snapshot are cloned from it, or copied if the new server lies on another
// file system; all else is the same. Those of a VolumeSnapshot are there when the volume
// was made of it, which is for whoever runs the server: Fetch looks whether it is the
// backup's volume by its control file, writes the label, makes a start without it
// impossible, and takes away what no backup has. Such a volume serves one recovery.
//
// With a Delta the directory holds a server's files already, of the same system
// identifier and with no process in it:
//
//	CheckReuse ─▶ the control file names no checkpoint, the label goes ─▶ what the backup
//	  does not have goes ─▶ each frame: its checksum over the directory's bytes
//	     ├─ equal: kept
//	     └─ else: fetched, compared by pages, written where they differ
//	  ─▶ the backup's control file ─▶ label, manifest, sync, as ever
//
// Afterwards it is to the byte what an empty one becomes. From the first change on it does
// not start, and is one that a Delta can be made of again, until its label is written last.
//
// Memory is bounded by Into.Bounds: frames are unpacked as they arrive, so that a worker
// holds a few of them and never a pack; beside them there are the lists of files, and while
// WAL is fed a segment for each that is fetched, stored and raw.
//
// A restore that was interrupted is begun anew, or taken up as a Delta; it leaves a
// directory that cannot start.
package restore
