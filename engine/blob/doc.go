// SPDX-License-Identifier: Apache-2.0

// Package blob is a place for bytes: objects under keys, written whole, read
// whole or by ranges.
//
//	Lister ⊂ Reader ⊂ Store
//
//	fs/        a directory
//	s3/        any S3: endpoint, region, path style, TLS
//	served/    a place that another process has, such as a volume of Kubernetes
//	mem/       memory, for tests
//	fault/     another Store that fails on purpose
//	blobtest/  what every Store must pass
//	stall/     ends requests whose bytes do not move
//
// Retry, Limit and Measure wrap a Store and are Stores themselves:
//
//	Measure(Retry(Limit(s3)))
//
// Invariants. A Put that returned nil survives a power cut, and the object is
// seen whole by every later Get, List and Stat, from any machine. An object is
// never seen in part. Put never overwrites. ErrNotExist is returned only when the
// place said that the object is not there: a timeout, a refused credential and
// a missing bucket are other errors, so that absence can be acted upon.
package blob
