// SPDX-License-Identifier: Apache-2.0

// Package fs is a place for bytes in a directory. The object a/b/c is the file
// a/b/c; anybody may look, copy and checksum with the tools at hand.
//
//	root/
//	├── .tmp/          objects being written; List never shows it
//	└── a/b/c          objects, whole
//
// How an object gets there:
//
//	.tmp/x  write → fsync → link to a/b/c (Put: fails if it is there)
//	                        rename to a/b/c (Replace)
//	                      → fsync a/b, a, root
//
// Invariants. What has a name outside .tmp is whole and its bytes are on the
// disk. Put and Replace return nil only when every directory from the object up
// to the root is on the disk as well, and so does a Put that returns ErrExist:
// what it found survives a power cut, even if who wrote it died before it could
// sync the directory. Delete too is on the disk when it returns, so that
// objects go in the order in which they were deleted. An fsync that fails fails
// the verb, is never repeated for the same file, and undoes a Put.
//
// Absence is believed only while the root is the directory that was opened, or
// holds a .tmp of its own. So a file system that was unmounted, and the empty
// directory below it, is ErrNoBucket and not an empty store.
//
// Directories come with the first object in them and go with the last. A key
// may not be both an object and the folder of others: a and a/b.
//
// The file system must have hard links, or on Linux a rename that does not
// overwrite. Many processes on many machines may share one over NFS.
package fs
