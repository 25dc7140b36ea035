// SPDX-License-Identifier: Apache-2.0

package blob

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"math/rand/v2"
	"time"
)

// RetryOptions says how patient Retry is. The zero value is a good start.
type RetryOptions struct {
	// Min bounds the first wait; each further bound is twice the one before,
	// up to Max. The wait is a random part of its bound, so that many clients
	// of a store that comes back do not come back at once. Zero means 200 ms
	// and 15 s.
	Min, Max time.Duration
	// MaxElapsed is how long after the first failure the verb gives up. Every
	// byte and every listed object that arrives starts it afresh. Zero means
	// two minutes, a negative value that only the context ends it.
	MaxElapsed time.Duration
	// Notify, if set, is told of each failure before the wait that follows it.
	// It may be called from many goroutines and must not block.
	Notify func(RetryEvent)
	// Rand gives numbers in [0,1); nil means math/rand.
	Rand func() float64
}

// RetryEvent is a failure that will be retried.
type RetryEvent struct {
	Verb    Verb
	Key     string // the prefix for VerbList
	Attempt int    // failures since the last progress, from 1
	Err     error
	Wait    time.Duration
}

type noticeKey struct{}

// WithNotice lets f hear, beside Notify, of each failure that a verb under the context
// tries again: so who asked can tell why it takes long. Of several the innermost hears.
func WithNotice(ctx context.Context, f func(RetryEvent)) context.Context {
	return context.WithValue(ctx, noticeKey{}, f)
}

// Retry tries again what failed with ErrUnreachable, and nothing else.
//
// Get goes on where a broken body broke off, and so does List. If the object has
// been replaced meanwhile the body ends with ErrUnreachable: begin again. Put is exact over retries: when a try failed in a way that
// leaves open whether the object was stored, and a later one finds it there,
// the bytes there are compared with body, and if they are the same Put
// succeeded. So two writers of equal bytes under one key may both be told that
// they won; who uses Put as an election must put something of its own into the
// body. Replace and Delete may take effect again at each try, so after a lost
// answer the last of two racing Replaces may be the one that began first.
func Retry(s Store, o RetryOptions) Store {
	if o.Min <= 0 {
		o.Min = 200 * time.Millisecond
	}
	if o.Max <= 0 {
		o.Max = 15 * time.Second
	}
	if o.MaxElapsed == 0 {
		o.MaxElapsed = 2 * time.Minute
	}
	if o.Rand == nil {
		o.Rand = rand.Float64
	}
	return &retrying{inner: s, o: o}
}

type retrying struct {
	inner Store
	o     RetryOptions
}

func (r *retrying) String() string { return r.inner.String() }

// patience is the state of one verb between its tries.
type patience struct {
	o       *RetryOptions
	verb    Verb
	key     string
	attempt int
	giveUp  <-chan time.Time // nil before the first failure
}

func (r *retrying) patience(verb Verb, key string) *patience {
	return &patience{o: &r.o, verb: verb, key: key}
}

func (p *patience) progress() { p.attempt, p.giveUp = 0, nil }

// again waits and returns nil if the verb shall be tried again after err, else
// the error to return.
func (p *patience) again(ctx context.Context, err error) error {
	if !errors.Is(err, ErrUnreachable) {
		return err
	}
	if ctx.Err() != nil {
		return fmt.Errorf("%w: %w", ctx.Err(), err)
	}
	p.attempt++
	if p.giveUp == nil && p.o.MaxElapsed > 0 {
		p.giveUp = time.After(p.o.MaxElapsed)
	}
	bound := p.o.Max
	if n := p.attempt - 1; n < 30 && p.o.Min<<n < bound {
		bound = p.o.Min << n
	}
	wait := time.Duration(p.o.Rand() * float64(bound))
	event := RetryEvent{Verb: p.verb, Key: p.key, Attempt: p.attempt, Err: err, Wait: wait}
	if p.o.Notify != nil {
		p.o.Notify(event)
	}
	if hear, ok := ctx.Value(noticeKey{}).(func(RetryEvent)); ok {
		hear(event)
	}
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-p.giveUp:
		return fmt.Errorf("gave up after %d tries: %w", p.attempt, err)
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", ctx.Err(), err)
	}
}

func (r *retrying) Stat(ctx context.Context, key string) (Info, error) {
	p := r.patience(VerbStat, key)
	for {
		info, err := r.inner.Stat(ctx, key)
		if err == nil {
			return info, nil
		}
		if err := p.again(ctx, err); err != nil {
			return Info{}, err
		}
	}
}

func (r *retrying) Delete(ctx context.Context, key string) error {
	p := r.patience(VerbDelete, key)
	for {
		err := r.inner.Delete(ctx, key)
		if err == nil {
			return nil
		}
		if err := p.again(ctx, err); err != nil {
			return err
		}
	}
}

func (r *retrying) Replace(ctx context.Context, key string, body Body) error {
	p := r.patience(VerbReplace, key)
	for {
		err := r.inner.Replace(ctx, key, body)
		if err == nil {
			return nil
		}
		if err := p.again(ctx, err); err != nil {
			return err
		}
	}
}

func (r *retrying) Put(ctx context.Context, key string, body Body) error {
	p := r.patience(VerbPut, key)
	for {
		err := r.inner.Put(ctx, key, body)
		if err == nil {
			return nil
		}
		if p.attempt > 0 && errors.Is(err, ErrExist) {
			return r.ownOrExist(ctx, key, body, err)
		}
		if err := p.again(ctx, err); err != nil {
			return err
		}
	}
}

// ownOrExist is nil if what is under key is body, and exist if it is not.
func (r *retrying) ownOrExist(ctx context.Context, key string, body Body, exist error) error {
	same, err := r.holds(ctx, key, Unpaced(body))
	switch {
	case errors.Is(err, ErrNotExist):
		// Something was there and was deleted since. Whose it was cannot be
		// known; that Put found it is true.
		return exist
	case err != nil:
		return fmt.Errorf("put %s: compare with what an earlier try may have stored: %w", key, err)
	case !same:
		return exist
	}
	return nil
}

// holds says whether the object under key has the bytes of body.
func (r *retrying) holds(ctx context.Context, key string, body Body) (bool, error) {
	info, err := r.Stat(ctx, key)
	if err != nil || info.Size != body.Size() {
		return false, err
	}
	rc, err := r.Get(ctx, key, 0, -1)
	if err != nil {
		return false, err
	}
	defer rc.Close()
	want := io.NewSectionReader(body, 0, body.Size())
	a, b := make([]byte, 64<<10), make([]byte, 64<<10)
	for {
		n, err := io.ReadFull(rc, a)
		// The promised bytes ended where the object ends, else rc would have
		// said so with an error of its own.
		if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
			return false, err
		}
		m, werr := io.ReadFull(want, b)
		if werr != nil && werr != io.EOF && werr != io.ErrUnexpectedEOF {
			return false, fmt.Errorf("read body: %w", werr)
		}
		if !bytes.Equal(a[:n], b[:m]) {
			return false, nil
		}
		if err != nil {
			return true, nil
		}
	}
}

func (r *retrying) List(ctx context.Context, prefix string) iter.Seq2[Info, error] {
	return r.ListAfter(ctx, prefix, "")
}

func (r *retrying) ListAfter(ctx context.Context, prefix, after string) iter.Seq2[Info, error] {
	return func(yield func(Info, error) bool) {
		p := r.patience(VerbList, prefix)
		last := after // what was seen before the listing broke is not asked for again
		for {
			var broken error
			for info, err := range r.inner.ListAfter(ctx, prefix, last) {
				if err != nil {
					broken = err
					break
				}
				last = info.Key
				p.progress()
				if !yield(info, nil) {
					return
				}
			}
			if broken == nil {
				return
			}
			if err := p.again(ctx, broken); err != nil {
				yield(Info{}, err)
				return
			}
		}
	}
}
