// SPDX-License-Identifier: Apache-2.0

package blob

import (
	"context"
	"io"
	"time"
)

// Limit holds the bytes of all Puts and Replaces together under up bytes a
// second, and those of all Gets together under down. Zero or less means no
// limit. Requests without a body, and the bytes around a body, are not counted.
//
// The limit is held over every 20 ms or so: a pause is not saved up for a burst.
func Limit(s Store, up, down int64) Store {
	return &limited{Store: s, up: newPace(up), down: newPace(down)}
}

type limited struct {
	Store
	up, down *pace
}

func (l *limited) Put(ctx context.Context, key string, body Body) error {
	return l.Store.Put(ctx, key, l.paced(ctx, body))
}

func (l *limited) Replace(ctx context.Context, key string, body Body) error {
	return l.Store.Replace(ctx, key, l.paced(ctx, body))
}

func (l *limited) paced(ctx context.Context, body Body) Body {
	if l.up == nil {
		return body
	}
	return &pacedBody{Body: body, ctx: ctx, pace: l.up}
}

func (l *limited) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	rc, err := l.Store.Get(ctx, key, offset, length)
	if err != nil || l.down == nil {
		return rc, err
	}
	return &pacedReader{ReadCloser: rc, ctx: ctx, pace: l.down}, nil
}

// pace lets one taker through at a time and the next one after the time that
// the bytes of this one may need. So it needs to read no clock, and what is
// done with the bytes goes on while the next taker waits.
type pace struct {
	rate  int64
	chunk int // at most so many bytes in one take
	turn  chan struct{}
}

func newPace(rate int64) *pace {
	if rate <= 0 {
		return nil
	}
	p := &pace{rate: rate, chunk: int(min(max(rate/50, 512), 1<<20)), turn: make(chan struct{}, 1)}
	p.turn <- struct{}{}
	return p
}

func (p *pace) take(ctx context.Context, n int) error {
	select {
	case <-p.turn:
	case <-ctx.Done():
		return ctx.Err()
	}
	time.AfterFunc(time.Duration(int64(n)*int64(time.Second)/p.rate), func() { p.turn <- struct{}{} })
	return nil
}

type pacedBody struct {
	Body
	ctx  context.Context
	pace *pace
}

func (b *pacedBody) ReadAt(p []byte, off int64) (int, error) {
	done := 0
	for done < len(p) {
		part := p[done:min(len(p), done+b.pace.chunk)]
		n, err := b.Body.ReadAt(part, off+int64(done))
		if n > 0 {
			if terr := b.pace.take(b.ctx, n); terr != nil {
				return done, terr
			}
		}
		done += n
		if err != nil {
			return done, err
		}
	}
	return done, nil
}

type pacedReader struct {
	io.ReadCloser
	ctx  context.Context
	pace *pace
}

func (r *pacedReader) Version() string { return versionOf(r.ReadCloser) }

func (r *pacedReader) Read(p []byte) (int, error) {
	if len(p) > r.pace.chunk {
		p = p[:r.pace.chunk]
	}
	n, err := r.ReadCloser.Read(p)
	if n > 0 {
		if terr := r.pace.take(r.ctx, n); terr != nil {
			return 0, terr
		}
	}
	return n, err
}
