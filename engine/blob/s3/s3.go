// SPDX-License-Identifier: Apache-2.0

package s3

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"net/http"
	"strings"
	"time"

	"github.com/minio/minio-go/v7"

	"github.com/kbcli/kbcli/engine/blob"
	"github.com/kbcli/kbcli/engine/blob/stall"
)

// Store is a part of a bucket.
type Store struct {
	core      minio.Core
	transport *http.Transport
	bucket    string
	prefix    string // "" or ends in a slash
	stall     time.Duration
}

// Open connects to a bucket and makes sure that it is there and may be listed:
// ErrNoBucket, ErrDenied and ErrUnreachable say why not, a fault of the Config
// wraps none of them. Nothing is written.
func Open(ctx context.Context, c Config) (*Store, error) {
	s, err := c.open()
	if err != nil {
		return nil, fmt.Errorf("open s3://%s: %w", c.Bucket, err)
	}
	if err := s.checkBucket(ctx); err != nil {
		s.Close()
		return nil, fmt.Errorf("open %s at %s: %w", s, s.core.EndpointURL().Host, err)
	}
	return s, nil
}

// Close drops the connections that wait for a next request. The Store can still
// be used.
func (s *Store) Close() { s.transport.CloseIdleConnections() }

func (s *Store) String() string {
	return "s3://" + s.bucket + strings.TrimSuffix("/"+s.prefix, "/")
}

// checkBucket asks whether the bucket is there. A listing is asked for rather
// than a HEAD because the answer has a body, with words.
func (s *Store) checkBucket(ctx context.Context) error {
	for _, err := range s.list(ctx, s.prefix, "", 1) {
		return err
	}
	return nil
}

// fail describes the failure of a verb. What looks like absence is believed
// after the bucket has answered for itself: a HEAD has no body that could tell a
// missing bucket, and what answers 404 need not be an S3 server at all.
func (s *Store) fail(ctx context.Context, verb blob.Verb, key string, err error) error {
	err = classify(ctx, err)
	if errors.Is(err, blob.ErrNotExist) {
		if berr := s.checkBucket(ctx); berr != nil {
			err = berr
		}
	}
	return fmt.Errorf("%s %s: %w", verb, key, err)
}

func check(ctx context.Context, verb blob.Verb, key string) error {
	if err := blob.CheckKey(key); err != nil {
		return fmt.Errorf("%s: %w", verb, err)
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%s %s: %w", verb, key, err)
	}
	return nil
}

// Stat implements blob.Reader.
func (s *Store) Stat(ctx context.Context, key string) (blob.Info, error) {
	if err := check(ctx, blob.VerbStat, key); err != nil {
		return blob.Info{}, err
	}
	o, err := s.core.StatObject(ctx, s.bucket, s.prefix+key, minio.StatObjectOptions{})
	if err != nil {
		return blob.Info{}, s.fail(ctx, blob.VerbStat, key, err)
	}
	if o.Size < 0 {
		return blob.Info{}, fmt.Errorf("stat %s: the server told no size", key)
	}
	return blob.Info{Key: key, Size: o.Size, ModTime: o.LastModified}, nil
}

// Delete implements blob.Store.
func (s *Store) Delete(ctx context.Context, key string) error {
	if err := check(ctx, blob.VerbDelete, key); err != nil {
		return err
	}
	err := s.core.RemoveObject(ctx, s.bucket, s.prefix+key, minio.RemoveObjectOptions{})
	if err == nil {
		return nil
	}
	err = s.fail(ctx, blob.VerbDelete, key, err)
	if errors.Is(err, blob.ErrNotExist) {
		return nil
	}
	return err
}

// List implements blob.Lister. Objects whose names are no keys, such as the
// markers of folders that some tools make, are not shown.
func (s *Store) List(ctx context.Context, prefix string) iter.Seq2[blob.Info, error] {
	return s.ListAfter(ctx, prefix, "")
}

// ListAfter implements blob.Lister.
func (s *Store) ListAfter(ctx context.Context, prefix, after string) iter.Seq2[blob.Info, error] {
	return func(yield func(blob.Info, error) bool) {
		// What cannot begin a key begins none, and some servers would read it
		// as something else.
		if prefix != "" && blob.CheckKey(strings.TrimSuffix(prefix, "/")+"x") != nil {
			if err := s.checkBucket(ctx); err != nil {
				yield(blob.Info{}, fmt.Errorf("list %s: %w", prefix, err))
			}
			return
		}
		last, from := "", ""
		// some servers refuse to start where no key can be
		if after > prefix {
			from = s.prefix + after
		}
		for o, err := range s.list(ctx, s.prefix+prefix, from, 0) {
			if err != nil {
				yield(blob.Info{}, fmt.Errorf("list %s: %w", prefix, err))
				return
			}
			key, ok := strings.CutPrefix(o.Key, s.prefix)
			if !ok || !strings.HasPrefix(key, prefix) || key <= after || blob.CheckKey(key) != nil {
				continue
			}
			// Who reads a listing to its end concludes what is missing.
			if key <= last {
				yield(blob.Info{}, fmt.Errorf("list %s: the server lists %s after %s, which is not in order", prefix, key, last))
				return
			}
			last = key
			if !yield(blob.Info{Key: key, Size: o.Size, ModTime: o.LastModified}, nil) {
				return
			}
		}
	}
}

// list yields objects under a prefix of the bucket, those after a key where one is
// given, asking for pages of so many, zero being the server's choice.
func (s *Store) list(ctx context.Context, prefix, after string, page int) iter.Seq2[minio.ObjectInfo, error] {
	return func(yield func(minio.ObjectInfo, error) bool) {
		// The library's channel is left only by canceling.
		listing, cancel := context.WithCancel(ctx)
		defer cancel()
		w := stall.New(cancel, s.stall)
		defer w.Stop()
		owner := false
		w.Start()
		for o := range s.core.ListObjectsIter(listing, s.bucket, minio.ListObjectsOptions{
			Prefix: prefix, StartAfter: after, Recursive: true, MaxKeys: page, FetchOwner: &owner,
		}) {
			w.Stop()
			if o.Err != nil {
				yield(minio.ObjectInfo{}, classify(ctx, w.Explain(o.Err)))
				return
			}
			if ctx.Err() != nil {
				break
			}
			if !yield(o, nil) {
				return
			}
			w.Start()
		}
		// The library ends without a word when the context has ended.
		switch {
		case ctx.Err() != nil:
			yield(minio.ObjectInfo{}, ctx.Err())
		case w.Fired():
			yield(minio.ObjectInfo{}, classify(ctx, w.Explain(nil)))
		}
	}
}
