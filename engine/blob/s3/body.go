// SPDX-License-Identifier: Apache-2.0

package s3

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"strconv"
	"strings"

	"github.com/minio/minio-go/v7"

	"github.com/kbcli/kbcli/engine/blob"
	"github.com/kbcli/kbcli/engine/blob/stall"
)

// Get implements blob.Reader.
func (s *Store) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	if err := check(ctx, blob.VerbGet, key); err != nil {
		return nil, err
	}
	if offset < 0 || length < -1 {
		return nil, fmt.Errorf("get %s: range of %d bytes at %d", key, length, offset)
	}
	if length == 0 {
		// No range says that; but the object must be there.
		if _, err := s.Stat(ctx, key); err != nil {
			return nil, err
		}
		return http.NoBody, nil
	}
	var opts minio.GetObjectOptions
	ranged := offset > 0 || length > 0
	if ranged {
		opts.Set("Range", rangeHeader(offset, length))
	}
	reading, cancel := context.WithCancel(ctx)
	rc, info, header, err := s.core.GetObject(reading, s.bucket, s.prefix+key, opts)
	if err != nil {
		cancel()
		if statusOf(err) == http.StatusRequestedRangeNotSatisfiable {
			return http.NoBody, nil // beyond the end of an object that is there
		}
		return nil, s.fail(ctx, blob.VerbGet, key, err)
	}
	want := info.Size
	if ranged {
		want, err = rangeGot(header.Get("Content-Range"), offset, length, info.Size)
	}
	if err != nil || want < 0 {
		rc.Close()
		cancel()
		if err == nil {
			err = errors.New("the server told no size")
		}
		return nil, fmt.Errorf("get %s: %w", key, err)
	}
	return &gotBody{
		ctx: ctx, cancel: cancel, key: key, rc: rc, left: want,
		version: info.ETag + " " + info.VersionID, w: stall.New(cancel, s.stall),
	}, nil
}

func rangeHeader(offset, length int64) string {
	if length < 0 || offset > math.MaxInt64-length {
		return fmt.Sprintf("bytes=%d-", offset)
	}
	return fmt.Sprintf("bytes=%d-%d", offset, offset+length-1)
}

// rangeGot is how many bytes a server that says contentRange sends for a range;
// the error says that it sends another one, or did not heed it.
func rangeGot(contentRange string, offset, length, size int64) (int64, error) {
	if contentRange == "" && size == 0 {
		return 0, nil // some servers answer any range of an empty object so
	}
	span, _, _ := strings.Cut(strings.TrimPrefix(contentRange, "bytes "), "/")
	first, last, ok := strings.Cut(span, "-")
	a, aerr := strconv.ParseInt(first, 10, 64)
	b, berr := strconv.ParseInt(last, 10, 64)
	if !ok || aerr != nil || berr != nil || a != offset || b < a || (length > 0 && b-a >= length) {
		return 0, fmt.Errorf("asked for %s the server sends %q", rangeHeader(offset, length), contentRange)
	}
	if size >= 0 && size != b-a+1 {
		return 0, fmt.Errorf("the server sends %d bytes for the range %q", size, contentRange)
	}
	return b - a + 1, nil
}

// gotBody is the body of a GET, which must have all bytes that its head told.
type gotBody struct {
	ctx     context.Context
	cancel  context.CancelFunc
	key     string
	rc      io.ReadCloser
	left    int64
	version string
	w       *stall.Watch
}

func (b *gotBody) Version() string { return b.version }

func (b *gotBody) Read(p []byte) (int, error) {
	if err := b.ctx.Err(); err != nil {
		return 0, fmt.Errorf("get %s: %w", b.key, err)
	}
	if b.left == 0 {
		return 0, io.EOF
	}
	b.w.Start()
	n, err := b.rc.Read(p[:min(int64(len(p)), b.left)])
	b.w.Stop()
	b.left -= int64(n)
	if err == nil || b.left == 0 {
		return n, nil // the end of a whole body is said by the next read
	}
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return n, fmt.Errorf("get %s: %d bytes missing: %w", b.key, b.left, classify(b.ctx, b.w.Explain(err)))
}

func (b *gotBody) Close() error {
	b.w.Stop()
	err := b.rc.Close()
	b.cancel()
	return err
}
