// SPDX-License-Identifier: Apache-2.0

package served

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/kbcli/kbcli/engine/blob"
	"github.com/kbcli/kbcli/engine/blob/stall"
)

// upload reads a Body from its start to its end, once. The watch runs while the network
// has the bytes, and not while they are read, which a limit may make slow.
type upload struct {
	body blob.Body
	size int64
	next int64
	w    *stall.Watch

	mu     sync.Mutex
	closed bool
	err    error // of the body; to be read after close
}

var errSent = errors.New("the request is over")

func (u *upload) Read(p []byte) (int, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.closed {
		return 0, errSent
	}
	u.w.Stop()
	defer u.w.Start()
	if u.next == u.size {
		return 0, io.EOF
	}
	n, err := u.body.ReadAt(p[:min(int64(len(p)), u.size-u.next)], u.next)
	u.next += int64(n)
	if n > 0 {
		return n, nil // what else there was to say comes with the next read
	}
	if err == nil || err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	u.err = fmt.Errorf("read body: %w", err)
	return 0, u.err
}

// close waits for a Read that is under way and lets no other begin: net/http goes on
// reading after an early answer, when the bytes belong to the caller again.
func (u *upload) close() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.closed = true
}

// download is the body of an answer.
type download struct {
	*call
	ctx context.Context
	key string
}

// versionHeader names what the bytes of an answer are of: a Replace makes another one.
const versionHeader = "Kbcli-Version"

// Version implements what Retry asks of a body that it goes on with.
func (d *download) Version() string { return d.Header.Get(versionHeader) }

func (d *download) Read(p []byte) (int, error) {
	d.w.Start()
	n, err := d.Body.Read(p)
	d.w.Stop()
	if err == nil || err == io.EOF {
		return n, err
	}
	return n, about(blob.VerbGet, d.key, failed(d.ctx, d.w.Explain(err)))
}

func (d *download) Close() error {
	d.end()
	return nil
}

// arriving is the body of a Put as its Store asks for it: in order, and once.
type arriving struct {
	from io.Reader
	size int64
	next int64
}

func (a *arriving) Size() int64 { return a.size }

func (a *arriving) ReadAt(p []byte, off int64) (int, error) {
	if off != a.next {
		return 0, errors.New("a body that arrives is read in order")
	}
	n, err := io.ReadFull(a.from, p)
	a.next += int64(n)
	if err != nil {
		return n, fmt.Errorf("the connection ended early: %w", io.ErrUnexpectedEOF)
	}
	return n, nil
}
