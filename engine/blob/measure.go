// SPDX-License-Identifier: Apache-2.0

package blob

import (
	"context"
	"errors"
	"io"
	"iter"
	"sync/atomic"
)

// Measured is a Store that counts what passes through it.
type Measured struct {
	inner                                  Store
	list, stat, get, put, replace, deleted tally
}

// Measure counts the requests, bytes and errors of s. Under Retry it sees every
// try, over it what the caller sees.
func Measure(s Store) *Measured { return &Measured{inner: s} }

// Counters is what a Measured has counted since it was made. The numbers of one
// verb, and those of different verbs, are read one after the other and not at
// one instant; none ever goes down.
type Counters struct {
	List, Stat, Get, Put, Replace, Delete Count
}

// Count is the traffic of one verb.
type Count struct {
	Requests int64 // begun
	// Errors counts requests that ended in an error, a broken body included.
	// The answers ErrExist and ErrNotExist are not errors.
	Errors int64
	// Bytes of bodies: read so far by Get, and of each Put and Replace that
	// succeeded. Zero for the other verbs.
	Bytes int64
}

// Of is the count of one verb.
func (c Counters) Of(v Verb) Count {
	switch v {
	case VerbList:
		return c.List
	case VerbStat:
		return c.Stat
	case VerbGet:
		return c.Get
	case VerbPut:
		return c.Put
	case VerbReplace:
		return c.Replace
	case VerbDelete:
		return c.Delete
	}
	return Count{}
}

// Counters reads the counters.
func (m *Measured) Counters() Counters {
	return Counters{
		List: m.list.read(), Stat: m.stat.read(), Get: m.get.read(),
		Put: m.put.read(), Replace: m.replace.read(), Delete: m.deleted.read(),
	}
}

type tally struct{ requests, errors, bytes atomic.Int64 }

func (t *tally) read() Count {
	return Count{Requests: t.requests.Load(), Errors: t.errors.Load(), Bytes: t.bytes.Load()}
}

func (t *tally) ended(err error) {
	if err != nil && !errors.Is(err, ErrExist) && !errors.Is(err, ErrNotExist) {
		t.errors.Add(1)
	}
}

func (m *Measured) String() string { return m.inner.String() }

// List implements Store.
func (m *Measured) List(ctx context.Context, prefix string) iter.Seq2[Info, error] {
	return m.ListAfter(ctx, prefix, "")
}

// ListAfter implements Store.
func (m *Measured) ListAfter(ctx context.Context, prefix, after string) iter.Seq2[Info, error] {
	return func(yield func(Info, error) bool) {
		m.list.requests.Add(1)
		for info, err := range m.inner.ListAfter(ctx, prefix, after) {
			m.list.ended(err)
			if !yield(info, err) {
				return
			}
		}
	}
}

// Stat implements Store.
func (m *Measured) Stat(ctx context.Context, key string) (Info, error) {
	m.stat.requests.Add(1)
	info, err := m.inner.Stat(ctx, key)
	m.stat.ended(err)
	return info, err
}

// Get implements Store.
func (m *Measured) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	m.get.requests.Add(1)
	rc, err := m.inner.Get(ctx, key, offset, length)
	m.get.ended(err)
	if err != nil {
		return nil, err
	}
	return &measuredBody{ReadCloser: rc, tally: &m.get}, nil
}

// Put implements Store.
func (m *Measured) Put(ctx context.Context, key string, body Body) error {
	return m.put.write(body, func() error { return m.inner.Put(ctx, key, body) })
}

// Replace implements Store.
func (m *Measured) Replace(ctx context.Context, key string, body Body) error {
	return m.replace.write(body, func() error { return m.inner.Replace(ctx, key, body) })
}

func (t *tally) write(body Body, do func() error) error {
	t.requests.Add(1)
	err := do()
	t.ended(err)
	if err == nil {
		t.bytes.Add(body.Size())
	}
	return err
}

// Delete implements Store.
func (m *Measured) Delete(ctx context.Context, key string) error {
	m.deleted.requests.Add(1)
	err := m.inner.Delete(ctx, key)
	m.deleted.ended(err)
	return err
}

type measuredBody struct {
	io.ReadCloser
	tally  *tally
	failed bool
}

func (b *measuredBody) Version() string { return versionOf(b.ReadCloser) }

func (b *measuredBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.tally.bytes.Add(int64(n))
	if err != nil && err != io.EOF && !b.failed {
		b.failed = true
		b.tally.ended(err)
	}
	return n, err
}
