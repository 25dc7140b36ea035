// SPDX-License-Identifier: Apache-2.0

package blob

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"strings"
	"time"
)

// ErrNotExist says that the place answered: there is no such object.
var ErrNotExist = errors.New("object does not exist")

// ErrExist says that Put found an object under the key and left it alone.
var ErrExist = errors.New("object already exists")

// ErrUnreachable says that the place could not be asked or did not answer in
// time. Errors that a later try may mend wrap it.
var ErrUnreachable = errors.New("storage is unreachable")

// ErrDenied says that the place refused the credentials or the right. No retry
// mends it.
var ErrDenied = errors.New("storage denied access")

// ErrNoSpace says that the place is full.
var ErrNoSpace = errors.New("no space left in storage")

// ErrNoBucket says that the place itself (bucket, directory) is missing, which
// is not the same as an absent object.
var ErrNoBucket = errors.New("storage place does not exist")

// Info describes an object.
type Info struct {
	Key     string
	Size    int64
	ModTime time.Time // by the clock of the place; for display only
}

// Body is what Put stores: it can be read again from its start, for a retry.
// *bytes.Reader, *strings.Reader and *io.SectionReader are Bodies.
type Body interface {
	io.ReaderAt
	Size() int64
}

// Lister lists.
type Lister interface {
	// List yields every object whose key starts with prefix, in ascending
	// byte order of keys. prefix need not end at a slash. An object that is
	// put or deleted meanwhile may or may not be seen. After an error
	// nothing more is yielded.
	List(ctx context.Context, prefix string) iter.Seq2[Info, error]
	// ListAfter is List of the keys that are greater than after, which need
	// not be a key: what comes before costs nothing. "" is List.
	ListAfter(ctx context.Context, prefix, after string) iter.Seq2[Info, error]
}

// Reader reads.
type Reader interface {
	Lister
	// Stat describes one object, or ErrNotExist.
	Stat(ctx context.Context, key string) (Info, error)
	// Get reads length bytes from offset; length -1 means to the end. A range
	// that reaches over the end is cut there. The caller closes the reader;
	// a read that ends before the promised bytes gives io.ErrUnexpectedEOF or
	// an error that wraps ErrUnreachable, never a silent io.EOF.
	Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error)
}

// Store reads, writes and deletes. All methods may be called at once from many
// goroutines.
type Store interface {
	Reader
	// Put stores body under key unless key exists: then ErrExist, and what is
	// there is unchanged. Of two Puts at once exactly one succeeds. After a
	// nil return the object survives a power cut. After any other error the
	// object may be there, whole, or not.
	Put(ctx context.Context, key string, body Body) error
	// Replace stores body under key whether or not key exists. Readers see
	// the old object or the new, whole.
	Replace(ctx context.Context, key string, body Body) error
	// Delete removes an object. That it was not there is no error.
	Delete(ctx context.Context, key string) error
	// String names the place for people, without secrets: "s3://bucket/prefix".
	String() string
}

// CheckKey refuses keys that some place would misread: empty, absolute, with
// empty, "." or ".." parts, over 900 bytes, or with bytes outside
// [A-Za-z0-9._=+@-] and slash. Every Store calls it.
func CheckKey(key string) error {
	if key == "" || len(key) > 900 {
		return fmt.Errorf("object key %q: length must be 1 to 900", key)
	}
	for part := range strings.SplitSeq(key, "/") {
		if part == "" || part == "." || part == ".." {
			return fmt.Errorf("object key %q: empty or dotted part", key)
		}
		if len(part) > 200 {
			return fmt.Errorf("object key %q: a part is over 200 bytes", key)
		}
	}
	for i := range len(key) {
		c := key[i]
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9':
		case strings.IndexByte("._=+@-/", c) >= 0:
		default:
			return fmt.Errorf("object key %q: byte %q is not allowed", key, c)
		}
	}
	return nil
}

// ReadAll gets a whole object, refusing one larger than limit bytes.
func ReadAll(ctx context.Context, r Reader, key string, limit int64) ([]byte, error) {
	info, err := r.Stat(ctx, key)
	if err != nil {
		return nil, err
	}
	if info.Size > limit {
		return nil, fmt.Errorf("object %s: %d bytes, more than the %d expected", key, info.Size, limit)
	}
	rc, err := r.Get(ctx, key, 0, -1)
	if err != nil {
		return nil, err
	}
	defer rc.Close()
	b := make([]byte, 0, info.Size+1)
	for {
		if len(b) == cap(b) {
			b = append(b, 0)[:len(b)]
		}
		n, err := rc.Read(b[len(b):cap(b)])
		b = b[:len(b)+n]
		if int64(len(b)) > limit {
			return nil, fmt.Errorf("object %s: more than the %d bytes expected", key, limit)
		}
		if err == io.EOF {
			return b, nil
		}
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", key, err)
		}
	}
}
