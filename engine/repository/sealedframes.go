// SPDX-License-Identifier: Apache-2.0

package repository

import (
	"context"
	"errors"
	"fmt"
	"io"

	"filippo.io/age"

	"github.com/kbcli/kbcli/engine/blob"
)

// worthAsking is how many bytes of a sealed pack must not be wanted for pieces of it to be
// asked for: each is a request, and three more find out how the pack is sealed.
const worthAsking = 2 << 20

// readSealedFrames reads of a sealed pack what is wanted, from its start on or in pieces.
// Each chunk of it is authenticated before it is used, and each frame has its checksum:
// that of the whole body is for who has no identity.
func (l *Lineage) readSealedFrames(ctx context.Context, r *framesReader) error {
	if r.unwanted() < worthAsking {
		return l.streamSealedFrames(ctx, r)
	}
	src := &rangedBody{ctx: ctx, store: l.repo.store, key: r.key}
	defer src.close()
	head := make([]byte, headerSize(r.key))
	src.ahead = int64(len(head)) + 4096 // and how it is sealed
	n, err := src.ReadAt(head, 0)
	if err != nil && err != io.EOF {
		return fmt.Errorf("read %s: %w", r.key, err)
	}
	h, err := decodeHeader(head[:n], KindPack, r.key)
	if err != nil {
		return err
	}
	if h.flags&flagSealed == 0 {
		return l.streamSealedFrames(ctx, r)
	}
	plain, _, err := age.DecryptReaderAt(io.NewSectionReader(src, int64(len(head)), h.bodyLen), h.bodyLen, l.repo.identities...)
	if err != nil {
		return l.notOpened(ctx, r.key, src.err, err)
	}
	return r.groups(func(base, end uint64, from, to int) error {
		const chunk, sealed = 64 << 10, 64<<10 + 16
		src.ahead = int64((end+chunk-1)/chunk-base/chunk) * sealed
		return r.opened(r.read(io.NewSectionReader(plain, int64(base), int64(end-base)), base, from, to), src.err)
	})
}

// streamSealedFrames reads a pack from its start as far as it is wanted.
func (l *Lineage) streamSealedFrames(ctx context.Context, r *framesReader) error {
	rc, err := l.repo.store.Get(ctx, r.key, 0, -1)
	if err != nil {
		return err
	}
	defer rc.Close()
	head, err := readUpTo(rc, r.key, headerSize(r.key))
	if err != nil {
		return err
	}
	h, err := decodeHeader(head, KindPack, r.key)
	if err != nil {
		return err
	}
	body := &watchedReader{r: io.LimitReader(rc, h.bodyLen)}
	if h.flags&flagSealed == 0 {
		return r.read(body, 0, 0, len(r.frames))
	}
	plain, err := age.Decrypt(body, l.repo.identities...)
	if err != nil {
		return l.notOpened(ctx, r.key, body.err, err)
	}
	if err = r.read(plain, 0, 0, len(r.frames)); err == nil {
		err = r.end(rc)
	}
	return r.opened(err, body.err)
}

// notOpened says why a pack could not be unsealed, for which age gives a reason and the
// place, perhaps, one of its own.
func (l *Lineage) notOpened(ctx context.Context, key string, place, reason error) error {
	var none *age.NoIdentityMatchError
	switch {
	case place != nil:
		return fmt.Errorf("read %s: %w", key, place)
	case len(l.repo.identities) == 0:
		return fmt.Errorf("read %s: %w", key, ErrSealed)
	case errors.As(reason, &none):
		// the wrong identity, or damage where the right one would be known by
		if _, err := l.repo.get(ctx, KindPack, key); err != nil {
			return err
		}
		return fmt.Errorf("read %s: %w", key, ErrSealed)
	}
	return &CorruptError{key, reason.Error()}
}

// opened tells damage from a place that broke off.
func (r *framesReader) opened(err, place error) error {
	var unread *unreadError
	switch {
	case !errors.As(err, &unread):
		return err
	case place != nil:
		return fmt.Errorf("read %s: %w", r.key, place)
	}
	return &CorruptError{r.key, unread.err.Error()}
}

// unwanted is how many bytes of the pack a reader of pieces leaves out.
func (r *framesReader) unwanted() uint64 {
	left, at := uint64(0), uint64(0)
	_ = r.groups(func(base, end uint64, _, _ int) error {
		left += base - min(at, base)
		at = end
		return nil
	})
	return left
}

// watchedReader keeps the error of a place apart from those of who reads from it.
type watchedReader struct {
	r   io.Reader
	err error // but for io.EOF
}

func (w *watchedReader) Read(p []byte) (int, error) {
	n, err := w.r.Read(p)
	if err != nil && err != io.EOF {
		w.err = err
	}
	return n, err
}

// rangedBody reads an object in pieces. What is read one after the other is one request of
// ahead bytes, or of as many as are read at once. It is for one goroutine.
type rangedBody struct {
	ctx   context.Context
	store blob.Store
	key   string
	ahead int64

	rc       io.ReadCloser // nil: none is open
	pos, end int64
	err      error // of the place
}

func (b *rangedBody) close() {
	if b.rc != nil {
		_ = b.rc.Close() // it was only read
		b.rc = nil
	}
}

func (b *rangedBody) ReadAt(p []byte, off int64) (int, error) {
	if b.rc == nil || off != b.pos || off+int64(len(p)) > b.end {
		b.close()
		n := max(int64(len(p)), b.ahead)
		b.ahead = 0
		rc, err := b.store.Get(b.ctx, b.key, off, n)
		if err != nil {
			b.err = err
			return 0, err
		}
		b.rc, b.pos, b.end = rc, off, off+n
	}
	done := 0
	for done < len(p) {
		n, err := b.rc.Read(p[done:])
		done += n
		b.pos += int64(n)
		if err == nil {
			continue
		}
		b.close()
		if err != io.EOF {
			b.err = err
		} else if done == len(p) {
			err = nil
		}
		return done, err
	}
	return done, nil
}
