// SPDX-License-Identifier: Apache-2.0

package served

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/kbcli/kbcli/engine/blob"
)

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
