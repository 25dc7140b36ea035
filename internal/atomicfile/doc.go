// SPDX-License-Identifier: Apache-2.0

// Package atomicfile writes whole files: a reader, and whoever looks after a
// power cut, finds the old bytes or the new ones and never a mixture.
//
//	create .atomicfile-*  →  owner, mode, bytes  →  fsync  →  rename or link  →  fsync of the directory
//
// The temporary file stands beside the file it becomes, because a rename is
// atomic only within one file system.
//
// # Invariants
//
//   - After a nil return the file survives a power cut.
//   - After an error the path holds what it held before, except that a failing
//     fsync of the directory comes after the rename: then it holds the new bytes,
//     whole, and whether they outlive a power cut is not known. An fsync is
//     never tried twice, since the kernel reports a lost write only once.
//   - After a return, with or without an error, no temporary file is left. A
//     process that is killed may leave one: IsTemp knows it and RemoveTemp
//     clears a directory of them.
//
// The directory must exist. A symbolic link at the path is replaced, not
// followed. The functions may be used concurrently, on one path too: the last
// Write wins, one WriteNew does.
package atomicfile
