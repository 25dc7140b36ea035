// SPDX-License-Identifier: Apache-2.0

package blob

import "io"

// Verb names a method of Store, for counters, notices and planned faults.
type Verb string

// The verbs of a Store. List covers the whole iteration, Get the request and
// the reading of its body.
const (
	VerbList    Verb = "list"
	VerbStat    Verb = "stat"
	VerbGet     Verb = "get"
	VerbPut     Verb = "put"
	VerbReplace Verb = "replace"
	VerbDelete  Verb = "delete"
)

// Versioned is what the reader that Get returns may also be: Version names the
// bytes being read, so that a later Get of the same key can be known to read
// the same ones. An empty Version, like a reader that is not Versioned, says
// nothing.
type Versioned interface {
	Version() string
}

func versionOf(r io.Reader) string {
	if v, ok := r.(Versioned); ok {
		return v.Version()
	}
	return ""
}

// Unpaced is body without the slowness that Limit gives it. A Store that must
// read a body for itself before it sends it, for a checksum, reads the unpaced
// one, so that only what is sent counts against the limit.
func Unpaced(body Body) Body {
	if p, ok := body.(*pacedBody); ok {
		return p.Body
	}
	return body
}
