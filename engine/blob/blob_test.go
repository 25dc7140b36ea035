// SPDX-License-Identifier: Apache-2.0

package blob_test

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/kbcli/kbcli/engine/blob"
	"github.com/kbcli/kbcli/engine/blob/blobtest"
	"github.com/kbcli/kbcli/engine/blob/mem"
)

func TestWrappersConform(t *testing.T) {
	for name, wrap := range map[string]func(blob.Store) blob.Store{
		"Limit":     func(s blob.Store) blob.Store { return blob.Limit(s, 400<<20, 400<<20) },
		"unlimited": func(s blob.Store) blob.Store { return blob.Limit(s, 0, 0) },
		"Measure":   func(s blob.Store) blob.Store { return blob.Measure(s) },
		"Prefixed":  func(s blob.Store) blob.Store { return prefixed{blob.Prefixed(s, "p"), s} },
		"Retry":     func(s blob.Store) blob.Store { return blob.Retry(s, blob.RetryOptions{}) },
		"all": func(s blob.Store) blob.Store {
			return blob.Measure(blob.Retry(blob.Limit(s, 1<<30, 1<<30), blob.RetryOptions{}))
		},
	} {
		t.Run(name, func(t *testing.T) {
			blobtest.Run(t, func(*testing.T) blob.Store { return wrap(mem.New(nil)) })
		})
	}
}

// prefixed has objects beside the prefix, which must never be seen, and a prefix
// so short that the longest keys still fit.
type prefixed struct {
	blob.Store
	under blob.Store
}

func (p prefixed) Put(ctx context.Context, key string, body blob.Body) error {
	for _, beside := range []string{"p-", "pa", "q"} {
		if err := p.under.Put(ctx, beside, strings.NewReader("beside")); err != nil && !errors.Is(err, blob.ErrExist) && ctx.Err() == nil {
			return err
		}
	}
	return p.Store.Put(ctx, key, body)
}

func TestCheckKey(t *testing.T) {
	for key, ok := range map[string]bool{
		"a": true, "a/b": true, "A-Z.a_z=0+9@": true, "..a": true, "a..": true, ".a": true, "...": true,
		"": false, "/": false, "a/": false, "/a": false, "a//b": false, ".": false, "a/./b": false, "a/..": false,
		"a b": false, "a\nb": false, "a~": false, "é": false, "a\\b": false, "a*": false,
		strings.Repeat("a", 200): true, strings.Repeat("a", 201): false,
		strings.Repeat("a/", 449) + "aa": true, strings.Repeat("a/", 450) + "a": false,
	} {
		if err := blob.CheckKey(key); (err == nil) != ok {
			t.Errorf("%q: %v", key, err)
		}
	}
}

func TestReadAll(t *testing.T) {
	s := mem.New(nil)
	if err := s.Put(t.Context(), "k", strings.NewReader("0123456789")); err != nil {
		t.Fatal(err)
	}
	if b, err := blob.ReadAll(t.Context(), s, "k", 10); err != nil || string(b) != "0123456789" {
		t.Errorf("at the limit: %q, %v", b, err)
	}
	if b, err := blob.ReadAll(t.Context(), s, "k", 9); err == nil {
		t.Errorf("over the limit: %q", b)
	}
	if _, err := blob.ReadAll(t.Context(), s, "absent", 9); !errors.Is(err, blob.ErrNotExist) {
		t.Errorf("absent: %v", err)
	}
}

// careless is a place that breaks the promise of Put in one way or another.
type careless struct {
	blob.Store
	put func(ctx context.Context, key string, body blob.Body) error
}

func (c careless) Put(ctx context.Context, key string, body blob.Body) error {
	return c.put(ctx, key, body)
}

func TestCheckPut(t *testing.T) {
	s := mem.New(nil)
	if err := blob.CheckPut(t.Context(), s); err != nil {
		t.Errorf("a good place: %v", err)
	}
	for name, test := range map[string]struct {
		put  func(ctx context.Context, key string, body blob.Body) error
		want error
	}{
		"overwrites": {s.Replace, blob.ErrOverwrites},
		"overwrites and denies it": {func(ctx context.Context, key string, body blob.Body) error {
			err := s.Put(ctx, key, body)
			if err != nil {
				s.Replace(ctx, key, body)
			}
			return err
		}, blob.ErrOverwrites},
		"away": {func(context.Context, string, blob.Body) error { return blob.ErrUnreachable }, blob.ErrUnreachable},
	} {
		if err := blob.CheckPut(t.Context(), careless{s, test.put}); !errors.Is(err, test.want) {
			t.Errorf("%s: got %v, want %v", name, err, test.want)
		}
	}
	for info := range s.List(t.Context(), "") {
		t.Errorf("left over: %s", info.Key)
	}
}

func readAll(s blob.Store, key string, offset, length int64) (string, error) {
	rc, err := s.Get(context.Background(), key, offset, length)
	if err != nil {
		return "", err
	}
	defer rc.Close()
	b, err := io.ReadAll(rc)
	return string(b), err
}
