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
// Invariants. The target directory is new; nothing outside it and the directories
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
// A restore that was interrupted is begun anew; it leaves a directory that cannot
// start.
package restore
