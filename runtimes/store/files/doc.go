// SPDX-License-Identifier: Apache-2.0

// Package files is the store of one machine: each object is a YAML file that
// people may read, grep, copy and edit.
//
//	<dir>/clusters/default/my-pg.yaml
//	<dir>/backups/default/backup-default-my-pg-20230417195547.yaml
//	<dir>/backuprepos/local.yaml             no namespace
//	<dir>/.locks/…                           one lock an object, while it is written
//
//	# Written by kbcli, spec 9f86d081884c7d65. …
//	apiVersion: apps.kubeblocks.io/v1alpha1
//	…
//	...
//
// The first line holds a hash of the spec, and the last one is YAML's end of a
// document. By the hash an edit by hand is told from a change of the status, so
// that the generation grows with it; by the end a file that was cut short is
// told from one that says less. A file that somebody makes from nothing needs
// neither, nor a uid: it gets them with its first change by kbcli.
//
// Invariants. A file is replaced whole (package atomicfile): a reader, or a
// machine that lost its power, sees the old object or the new one. Reading takes
// no lock and needs no right to write. Writers of one object exclude each other
// by flock, across processes; a lock ends with its process. The
// resourceVersion counts the changes and has a hash of the file, so that a
// writer who read before an edit by hand is told of the conflict.
//
// A file that does not decode or does not validate hides nothing but itself: Get
// names it, with its line; List returns the others besides; Watch sends Broken
// and keeps what it told before.
//
// The directory must be on a local file system. Files are 0644 and directories
// 0755: no secret is in an object.
package files
