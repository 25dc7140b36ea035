// SPDX-License-Identifier: Apache-2.0

package blob

import (
	"context"
	"errors"
	"fmt"
	"io"
)

func (r *retrying) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	b := &resumingBody{
		ctx: ctx, store: r.inner, key: key, next: offset, left: length,
		patience: r.patience(VerbGet, key),
	}
	for {
		err := b.open()
		if err == nil {
			return b, nil
		}
		if err := b.patience.again(ctx, err); err != nil {
			return nil, err
		}
	}
}

// resumingBody reads an object and, when the reading breaks, opens it again at
// the byte it had reached.
type resumingBody struct {
	ctx      context.Context
	store    Store
	key      string
	next     int64 // offset of the next byte
	left     int64 // of the bytes asked for, or -1: to the end
	version  string
	given    bool // bytes of version have been handed out
	rc       io.ReadCloser
	patience *patience
	err      error // sticky
}

func (b *resumingBody) open() error {
	rc, err := b.store.Get(b.ctx, b.key, b.next, b.left)
	if err != nil {
		return err
	}
	v := versionOf(rc)
	if b.given && v != b.version {
		rc.Close()
		return fmt.Errorf("get %s: %w", b.key, errReplaced)
	}
	b.rc, b.version = rc, v
	return nil
}

// errReplaced ends a body for good, but who begins again may succeed.
var errReplaced = fmt.Errorf("%w: the object was replaced while it was read", ErrUnreachable)

func (b *resumingBody) Version() string { return b.version }

func (b *resumingBody) Read(p []byte) (int, error) {
	if b.err != nil {
		return 0, b.err
	}
	for {
		if b.rc == nil {
			if err := b.open(); err != nil {
				if !errors.Is(err, errReplaced) {
					err = b.patience.again(b.ctx, err)
				}
				if err != nil {
					b.err = err
					return 0, err
				}
				continue
			}
		}
		n, err := b.rc.Read(p)
		b.next += int64(n)
		if b.left > 0 {
			b.left -= int64(n)
		}
		if n > 0 {
			b.given = true
			b.patience.progress()
		}
		if err == nil {
			return n, nil
		}
		if err == io.EOF || (b.left == 0 && broken(err)) {
			// All that was asked for has been given: how the connection ended
			// after it is of no interest.
			b.err = io.EOF
			return n, io.EOF
		}
		b.rc.Close()
		b.rc = nil
		if broken(err) && !errors.Is(err, ErrUnreachable) {
			err = fmt.Errorf("%w: get %s: %w", ErrUnreachable, b.key, err)
		}
		if err = b.patience.again(b.ctx, err); err != nil {
			b.err = err
			return n, err
		}
		if n > 0 {
			return n, nil
		}
	}
}

// broken says that a body ended early, in a way that a new request may mend.
func broken(err error) bool {
	return errors.Is(err, ErrUnreachable) || errors.Is(err, io.ErrUnexpectedEOF)
}

func (b *resumingBody) Close() error {
	if b.err == nil {
		b.err = errClosed
	}
	if b.rc == nil {
		return nil
	}
	rc := b.rc
	b.rc = nil
	return rc.Close()
}

var errClosed = errors.New("read after close")
