// SPDX-License-Identifier: Apache-2.0

package s3

import (
	"context"
	"crypto/md5"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/minio/minio-go/v7"

	"github.com/kbcli/kbcli/engine/blob"
	"github.com/kbcli/kbcli/engine/blob/stall"
)

// maxPut is the largest object that one PUT may have, by Amazon's rule.
const maxPut = 5 << 30

// Put implements blob.Store. The body is read twice, first for its checksums. It
// holds at most 5 GiB.
func (s *Store) Put(ctx context.Context, key string, body blob.Body) error {
	return s.settle(ctx, blob.VerbPut, key, body)
}

// Replace implements blob.Store, with the limits of Put.
func (s *Store) Replace(ctx context.Context, key string, body blob.Body) error {
	return s.settle(ctx, blob.VerbReplace, key, body)
}

// conflicts are answers that say that nothing was stored because something else
// happened at the same moment. They settle in no time and are not ambiguous, so
// they are tried again here. The last is versitygw's when a DELETE prunes the
// folder that a PUT needs; meant in earnest it stays.
var conflicts = map[string]bool{
	"ConditionalRequestConflict": true,
	"OperationAborted":           true,
	"ExistingObjectIsDirectory":  true,
}

func (s *Store) settle(ctx context.Context, verb blob.Verb, key string, body blob.Body) error {
	for tries := 1; ; tries++ {
		err := s.send(ctx, verb, key, body)
		if tries == 8 || !conflicts[codeOf(err)] {
			return err
		}
		select {
		case <-time.After(time.Duration(tries) * 10 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("%s %s: %w", verb, key, ctx.Err())
		}
	}
}

func (s *Store) send(ctx context.Context, verb blob.Verb, key string, body blob.Body) error {
	if err := check(ctx, verb, key); err != nil {
		return err
	}
	size := body.Size()
	if size > maxPut {
		return fmt.Errorf("%s %s: %d bytes, more than the %d of one PUT", verb, key, size, int64(maxPut))
	}
	sums, err := sum(ctx, blob.Unpaced(body))
	if err != nil {
		return fmt.Errorf("%s %s: %w", verb, key, err)
	}
	opts := minio.PutObjectOptions{
		DisableMultipart: true,
		// The checksum of the whole is signed instead, with or without TLS.
		DisableContentSha256: true,
	}
	if verb == blob.VerbPut {
		opts.SetMatchETagExcept("*")
	}

	sending, cancel := context.WithCancel(ctx)
	defer cancel()
	w := stall.New(cancel, s.stall)
	defer w.Stop()
	source := stall.NewSent(body, size, w)
	_, err = s.core.PutObject(sending, s.bucket, s.prefix+key, source, size, sums.md5, sums.sha256, opts)
	unread := source.End()
	switch {
	case err == nil:
		return nil
	case unread != nil:
		return fmt.Errorf("%s %s: %w", verb, key, unread)
	case verb == blob.VerbPut && statusOf(err) == http.StatusPreconditionFailed:
		return fmt.Errorf("%s %s: %w", verb, key, blob.ErrExist)
	case codeOf(err) == "NoSuchKey":
		// A PUT has no object to miss: it was the bucket, or no S3 server.
		return fmt.Errorf("%s %s: %w (HTTP 404)", verb, key, blob.ErrNoBucket)
	}
	return fmt.Errorf("%s %s: %w", verb, key, classify(ctx, w.Explain(err)))
}

type sums struct {
	md5    string // base64
	sha256 string // hexadecimal
}

// sum reads a body for its checksums. MD5 is what the oldest servers check and
// what a bucket with object lock demands; the SHA-256 is part of the signature.
func sum(ctx context.Context, body blob.Body) (sums, error) {
	m, h := md5.New(), sha256.New()
	buf := make([]byte, min(body.Size(), 1<<20))
	for off := int64(0); off < body.Size(); {
		if err := ctx.Err(); err != nil {
			return sums{}, err
		}
		part := buf[:min(int64(len(buf)), body.Size()-off)]
		if n, err := body.ReadAt(part, off); n < len(part) {
			if err == nil || err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return sums{}, fmt.Errorf("read body: %w", err)
		}
		m.Write(part)
		h.Write(part)
		off += int64(len(part))
	}
	return sums{base64.StdEncoding.EncodeToString(m.Sum(nil)), hex.EncodeToString(h.Sum(nil))}, nil
}
