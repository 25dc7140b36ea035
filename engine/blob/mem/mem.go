// SPDX-License-Identifier: Apache-2.0

package mem

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"iter"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/kbcli/kbcli/engine/blob"
)

// Store is a blob.Store in memory.
type Store struct {
	now     func() time.Time
	mu      sync.Mutex
	objects map[string]object
	puts    int
}

type object struct {
	data    []byte // never written to after it is here
	time    time.Time
	version int
}

// New makes an empty Store. Now gives the ModTime of objects; nil leaves it zero.
func New(now func() time.Time) *Store {
	if now == nil {
		now = func() time.Time { return time.Time{} }
	}
	return &Store{now: now, objects: map[string]object{}}
}

func (s *Store) String() string { return "mem:" }

// Put implements blob.Store.
func (s *Store) Put(ctx context.Context, key string, body blob.Body) error {
	return s.write(ctx, "put", key, body, false)
}

// Replace implements blob.Store.
func (s *Store) Replace(ctx context.Context, key string, body blob.Body) error {
	return s.write(ctx, "replace", key, body, true)
}

func (s *Store) write(ctx context.Context, verb, key string, body blob.Body, over bool) error {
	if err := check(ctx, verb, key); err != nil {
		return err
	}
	data := make([]byte, body.Size())
	if n, err := body.ReadAt(data, 0); n < len(data) {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return fmt.Errorf("%s %s: read body: %w", verb, key, err)
	}
	// The body may have been slow; what was cancelled meanwhile stays undone.
	if err := check(ctx, verb, key); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.objects[key]; ok && !over {
		return fmt.Errorf("%s %s: %w", verb, key, blob.ErrExist)
	}
	s.puts++
	s.objects[key] = object{data: data, time: s.now(), version: s.puts}
	return nil
}

func (s *Store) object(ctx context.Context, verb, key string) (object, error) {
	if err := check(ctx, verb, key); err != nil {
		return object{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	o, ok := s.objects[key]
	if !ok {
		return object{}, fmt.Errorf("%s %s: %w", verb, key, blob.ErrNotExist)
	}
	return o, nil
}

// Stat implements blob.Reader.
func (s *Store) Stat(ctx context.Context, key string) (blob.Info, error) {
	o, err := s.object(ctx, "stat", key)
	if err != nil {
		return blob.Info{}, err
	}
	return blob.Info{Key: key, Size: int64(len(o.data)), ModTime: o.time}, nil
}

// Get implements blob.Reader.
func (s *Store) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	if offset < 0 || length < -1 {
		return nil, fmt.Errorf("get %s: range of %d bytes at %d", key, length, offset)
	}
	o, err := s.object(ctx, "get", key)
	if err != nil {
		return nil, err
	}
	data := o.data[min(offset, int64(len(o.data))):]
	if length >= 0 {
		data = data[:min(length, int64(len(data)))]
	}
	return &body{Reader: bytes.NewReader(data), ctx: ctx, version: strconv.Itoa(o.version)}, nil
}

type body struct {
	*bytes.Reader
	ctx     context.Context
	version string
}

func (b *body) Version() string { return b.version }
func (b *body) Close() error    { return nil }

func (b *body) Read(p []byte) (int, error) {
	if b.ctx.Err() != nil {
		return 0, b.ctx.Err()
	}
	return b.Reader.Read(p)
}

// WriteTo hides that of bytes.Reader, which would not look at the context.
func (b *body) WriteTo(w io.Writer) (int64, error) {
	return io.Copy(w, struct{ io.Reader }{b})
}

// List implements blob.Lister.
func (s *Store) List(ctx context.Context, prefix string) iter.Seq2[blob.Info, error] {
	return s.ListAfter(ctx, prefix, "")
}

// ListAfter implements blob.Lister.
func (s *Store) ListAfter(ctx context.Context, prefix, after string) iter.Seq2[blob.Info, error] {
	return func(yield func(blob.Info, error) bool) {
		s.mu.Lock()
		var infos []blob.Info
		for k, o := range s.objects {
			if k > after && strings.HasPrefix(k, prefix) {
				infos = append(infos, blob.Info{Key: k, Size: int64(len(o.data)), ModTime: o.time})
			}
		}
		s.mu.Unlock()
		slices.SortFunc(infos, func(a, b blob.Info) int { return strings.Compare(a.Key, b.Key) })
		for _, info := range infos {
			if ctx.Err() != nil {
				break
			}
			if !yield(info, nil) {
				return
			}
		}
		if ctx.Err() != nil {
			yield(blob.Info{}, fmt.Errorf("list %s: %w", prefix, ctx.Err()))
		}
	}
}

// Delete implements blob.Store.
func (s *Store) Delete(ctx context.Context, key string) error {
	if err := check(ctx, "delete", key); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.objects, key)
	return nil
}

func check(ctx context.Context, verb, key string) error {
	if err := blob.CheckKey(key); err != nil {
		return fmt.Errorf("%s: %w", verb, err)
	}
	if ctx.Err() != nil {
		return fmt.Errorf("%s %s: %w", verb, key, ctx.Err())
	}
	return nil
}
