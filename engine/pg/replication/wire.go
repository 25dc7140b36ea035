// SPDX-License-Identifier: Apache-2.0

package replication

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/kbcli/kbcli/engine/pg"
)

const (
	// readBuffer holds several of the server's largest messages: 128 KiB of WAL.
	readBuffer = 512 << 10
	// maxMessage bounds what a server can make us allocate; only a history file
	// is ever longer than the buffer.
	maxMessage = 16 << 20
)

// wire frames PostgreSQL's messages on a connection whose start-up is done.
// Reading belongs to one goroutine, writing to whoever holds out.
type wire struct {
	conn net.Conn
	in   io.Reader // of conn, and of what was read ahead during the start-up
	buf  []byte
	r, w int // buf[r:w] is read and not handed out

	out sync.Mutex

	watched <-chan struct{} // of the context that may interrupt a read
	unwatch func() bool
	watch   sync.Mutex // guards epoch, and the deadline with it
	epoch   int
}

func newWire(conn net.Conn, in io.Reader) *wire {
	return &wire{conn: conn, in: in, buf: make([]byte, readBuffer)}
}

// next returns the next message. body holds until the next call. After the
// error of a cancelled context next can be called again and loses nothing;
// after any other the connection is of no use.
func (w *wire) next(ctx context.Context) (kind byte, body []byte, err error) {
	if err := ctx.Err(); err != nil {
		return 0, nil, err
	}
	w.obey(ctx)
	if err := w.fill(ctx, 5); err != nil {
		return 0, nil, err
	}
	size := int64(binary.BigEndian.Uint32(w.buf[w.r+1:]))
	if size < 4 || size > maxMessage {
		return 0, nil, fmt.Errorf("server sent a message of %d bytes", size)
	}
	if err := w.fill(ctx, 1+int(size)); err != nil {
		return 0, nil, err
	}
	kind, body = w.buf[w.r], w.buf[w.r+5:w.r+1+int(size)]
	w.r += 1 + int(size)
	return kind, body, nil
}

// fill reads until n bytes wait.
func (w *wire) fill(ctx context.Context, n int) error {
	if w.w-w.r >= n {
		return nil
	}
	if w.r == w.w {
		w.r, w.w = 0, 0
	}
	if len(w.buf)-w.r < n {
		to := w.buf
		if len(to) < n {
			to = make([]byte, n)
		}
		w.w = copy(to, w.buf[w.r:w.w])
		w.r, w.buf = 0, to
	}
	for w.w-w.r < n {
		got, err := w.in.Read(w.buf[w.w:])
		w.w += got
		if err == nil || w.w-w.r >= n {
			continue
		}
		if cause := ctx.Err(); cause != nil {
			return cause
		}
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return fmt.Errorf("read from server: %w", err)
	}
	return nil
}

// obey makes reads end when ctx does. Contexts are told apart by their Done
// channel, so that a loop around next arms nothing anew.
func (w *wire) obey(ctx context.Context) {
	done := ctx.Done()
	if done == w.watched {
		return
	}
	w.forget()
	w.watched = done
	if done == nil {
		return
	}
	epoch := w.epoch // only this goroutine writes it
	w.unwatch = context.AfterFunc(ctx, func() {
		w.watch.Lock()
		defer w.watch.Unlock()
		if w.epoch == epoch {
			w.conn.SetReadDeadline(time.Unix(1, 0))
		}
	})
}

// forget lets go of the context that obey took up.
func (w *wire) forget() {
	w.watch.Lock()
	w.epoch++
	w.conn.SetReadDeadline(time.Time{})
	w.watch.Unlock()
	if w.unwatch != nil {
		w.unwatch()
	}
	w.watched, w.unwatch = nil, nil
}

// send writes one message whose first five bytes are room for its header.
func (w *wire) send(kind byte, message []byte) error {
	w.out.Lock()
	defer w.out.Unlock()
	return w.sendLocked(kind, message)
}

func (w *wire) sendLocked(kind byte, message []byte) error {
	message[0] = kind
	binary.BigEndian.PutUint32(message[1:], uint32(len(message)-1))
	if _, err := w.conn.Write(message); err != nil {
		return fmt.Errorf("write to server: %w", err)
	}
	return nil
}

// errMalformed is for messages that break the protocol.
var errMalformed = errors.New("server sent a malformed message")

// cutRow reads a DataRow; NULL is nil. The values point into body.
func cutRow(body []byte) ([][]byte, error) {
	if len(body) < 2 {
		return nil, errMalformed
	}
	n := int(binary.BigEndian.Uint16(body))
	if body = body[2:]; len(body) < 4*n {
		return nil, errMalformed
	}
	row := make([][]byte, n)
	for i := range row {
		if len(body) < 4 {
			return nil, errMalformed
		}
		size := int32(binary.BigEndian.Uint32(body))
		body = body[4:]
		if size == -1 {
			continue
		}
		if size < 0 || int(size) > len(body) {
			return nil, errMalformed
		}
		row[i], body = body[:size:size], body[size:]
	}
	if len(body) != 0 {
		return nil, errMalformed
	}
	return row, nil
}

// The bodies of CopyData messages from the server.
const (
	walHeader     = 1 + 8 + 8 + 8 // 'w', start, end of WAL, clock
	keepaliveSize = 1 + 8 + 8 + 1 // 'k', end of WAL, clock, reply wanted
)

// cutCopyData reads a CopyData of a stream into d or k, whichever it returns
// true for first.
func cutCopyData(body []byte, d *Data, k *Keepalive) (isData bool, err error) {
	u64 := func(at int) uint64 { return binary.BigEndian.Uint64(body[at:]) }
	switch {
	case len(body) >= walHeader && body[0] == 'w':
		*d = Data{Start: pg.LSN(u64(1)), ServerEnd: pg.LSN(u64(9)), ServerTime: pg.Timestamp(u64(17)), Bytes: body[walHeader:len(body):len(body)]}
		return true, nil
	case len(body) == keepaliveSize && body[0] == 'k':
		*k = Keepalive{ServerEnd: pg.LSN(u64(1)), ServerTime: pg.Timestamp(u64(9)), ReplyRequested: body[17] != 0}
		return false, nil
	}
	return false, errMalformed
}
