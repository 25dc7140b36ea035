// SPDX-License-Identifier: Apache-2.0

// Package s3 is a place for bytes in a bucket of any server that speaks S3.
//
// What it asks of the server, beyond PUT, GET with a range, HEAD, DELETE and
// ListObjectsV2: a PUT with "If-None-Match: *" must fail when the key exists,
// also for two PUTs at once, and a read must see what was written before it.
// The tests see versitygw do so; Amazon S3, MinIO and R2 document it. A server
// that ignores the header overwrites without a word, so whoever sets up a
// repository calls blob.CheckPut first; it tries and tells.
//
// Invariants. An object is sent as one PUT, with its MD5 and a signed SHA-256:
// what was damaged on the way is refused by the server and never stored. A PUT is
// sent again only after an answer which says that nothing was stored; all else
// is left to blob.Retry, which knows what an ambiguous failure means. Absence is
// believed only after the bucket itself has answered. A connection that stands
// still for a minute is given up.
//
// No secret is ever in an error, a log line or a printed Config.
package s3
