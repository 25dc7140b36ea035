// SPDX-License-Identifier: Apache-2.0

package blob

import (
	"context"
	"io"
	"iter"
	"strings"
)

// Prefixed is the part of s under prefix: the object that it knows as key is
// prefix/key in s, which must not be longer than any key. The prefix must itself
// pass CheckKey, else every verb says so.
func Prefixed(s Store, prefix string) Store {
	return &prefixed{inner: s, prefix: prefix}
}

type prefixed struct {
	inner  Store
	prefix string
}

func (p *prefixed) String() string { return p.inner.String() + "/" + p.prefix }

// under refuses a bad key by its own name before it is hidden in a longer one.
func (p *prefixed) under(key string) (string, error) {
	if err := CheckKey(key); err != nil {
		return "", err
	}
	return p.prefix + "/" + key, nil
}

func (p *prefixed) List(ctx context.Context, prefix string) iter.Seq2[Info, error] {
	return p.ListAfter(ctx, prefix, "")
}

func (p *prefixed) ListAfter(ctx context.Context, prefix, after string) iter.Seq2[Info, error] {
	if after != "" {
		after = p.prefix + "/" + after
	}
	return func(yield func(Info, error) bool) {
		if err := CheckKey(p.prefix); err != nil {
			yield(Info{}, err)
			return
		}
		for info, err := range p.inner.ListAfter(ctx, p.prefix+"/"+prefix, after) {
			info.Key = strings.TrimPrefix(info.Key, p.prefix+"/")
			if !yield(info, err) {
				return
			}
		}
	}
}

func (p *prefixed) Stat(ctx context.Context, key string) (Info, error) {
	full, err := p.under(key)
	if err != nil {
		return Info{}, err
	}
	info, err := p.inner.Stat(ctx, full)
	if err == nil {
		info.Key = key
	}
	return info, err
}

func (p *prefixed) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	full, err := p.under(key)
	if err != nil {
		return nil, err
	}
	return p.inner.Get(ctx, full, offset, length)
}

func (p *prefixed) Put(ctx context.Context, key string, body Body) error {
	full, err := p.under(key)
	if err != nil {
		return err
	}
	return p.inner.Put(ctx, full, body)
}

func (p *prefixed) Replace(ctx context.Context, key string, body Body) error {
	full, err := p.under(key)
	if err != nil {
		return err
	}
	return p.inner.Replace(ctx, full, body)
}

func (p *prefixed) Delete(ctx context.Context, key string) error {
	full, err := p.under(key)
	if err != nil {
		return err
	}
	return p.inner.Delete(ctx, full)
}
