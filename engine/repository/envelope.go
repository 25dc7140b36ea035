// SPDX-License-Identifier: Apache-2.0

package repository

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"

	"filippo.io/age"
	"github.com/cespare/xxhash/v2"

	"github.com/kbcli/kbcli/engine/blob"
)

// Kind says what an object is.
type Kind uint8

// The kinds of objects. The numbers are part of the format.
const (
	KindRepository Kind = iota + 1
	KindLineage
	KindHistory
	KindSegment
	KindTail
	KindIndex
	KindGap
	KindBeat
	KindPack
	KindFiles
	KindManifest
	KindLock
	KindNames

	// nobody but this package puts or reads these
	kindChapter
	kindTombstone
)

var kindNames = [...]string{
	"", "repository", "lineage", "history", "segment", "tail", "index",
	"gap", "beat", "pack", "files", "manifest", "lock", "names", "chapter", "tombstone",
}

// String is the name FORMAT.md uses, in lower case.
func (k Kind) String() string {
	if int(k) < len(kindNames) && kindNames[k] != "" {
		return kindNames[k]
	}
	return fmt.Sprintf("kind %d", uint8(k))
}

func (k Kind) sealed() bool {
	switch k {
	case KindSegment, KindTail, KindIndex, KindPack, KindFiles, KindNames, kindChapter:
		return true
	}
	return false
}

// limit bounds the body of an object of this kind, and so what reading one takes.
func (k Kind) limit() int64 {
	switch k {
	case KindSegment, KindTail, KindIndex, KindFiles:
		return maxObject
	case KindPack:
		return 64 << 20 // PackSize, a frame more, its table, its seal
	case KindManifest, KindNames, kindChapter, kindTombstone:
		return 64 << 20
	}
	return 1 << 20
}

const (
	magic       = "\x89kbcli\n\x1a"
	headFixed   = 48
	bodyVersion = 1
	flagSealed  = 1
)

// CorruptError says that an object is there and is not what it should be.
type CorruptError struct {
	Key    string
	Reason string
}

func (e *CorruptError) Error() string {
	return fmt.Sprintf("object %s is damaged: %s", e.Key, e.Reason)
}

// ConflictError says that other bytes are already stored under a key that must
// never change.
type ConflictError struct{ Key string }

func (e *ConflictError) Error() string {
	return fmt.Sprintf("object %s already exists with different content", e.Key)
}

// ErrSealed says that reading needs an identity and none was given that fits.
var ErrSealed = errors.New("the repository is sealed and no identity that opens it was given")

type header struct {
	kind    Kind
	flags   uint8
	bodyLen int64
	bodySum uint64
	content uint64
}

func headerSize(key string) int64 { return headFixed + int64(len(key)) }

func (h header) encode(key string) []byte {
	b := make([]byte, 0, headerSize(key))
	b = append(b, magic...)
	b = append(b, byte(h.kind), bodyVersion, h.flags, 0)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(key)))
	b = binary.LittleEndian.AppendUint64(b, uint64(h.bodyLen))
	b = binary.LittleEndian.AppendUint64(b, h.bodySum)
	b = binary.LittleEndian.AppendUint64(b, h.content)
	var d xxhash.Digest
	d.Reset()
	_, _ = d.Write(b)
	_, _ = d.WriteString(key)
	b = binary.LittleEndian.AppendUint64(b, d.Sum64())
	return append(b, key...)
}

// decodeHeader checks b, the first headerSize(key) bytes of an object, against what
// the caller expects it to be.
func decodeHeader(b []byte, kind Kind, key string) (header, error) {
	bad := func(format string, a ...any) (header, error) {
		return header{}, &CorruptError{key, fmt.Sprintf(format, a...)}
	}
	if int64(len(b)) < headerSize(key) {
		return bad("%d bytes are too few for its envelope", len(b))
	}
	if string(b[:8]) != magic {
		return bad("it does not begin as a kbcli object")
	}
	h := header{
		kind:    Kind(b[8]),
		flags:   b[10],
		bodyLen: int64(binary.LittleEndian.Uint64(b[16:])),
		bodySum: binary.LittleEndian.Uint64(b[24:]),
		content: binary.LittleEndian.Uint64(b[32:]),
	}
	if n := binary.LittleEndian.Uint32(b[12:]); int(n) != len(key) {
		return bad("it was written under another key")
	}
	var d xxhash.Digest
	d.Reset()
	_, _ = d.Write(b[:40])
	_, _ = d.Write(b[headFixed:headerSize(key)])
	if d.Sum64() != binary.LittleEndian.Uint64(b[40:]) {
		return bad("the checksum of its envelope does not match")
	}
	if got := string(b[headFixed:headerSize(key)]); got != key {
		return bad("it was written as %s", got)
	}
	if h.kind != kind {
		return bad("it is a %s, not a %s", h.kind, kind)
	}
	if b[9] != bodyVersion {
		return header{}, fmt.Errorf("object %s has format version %d, this kbcli reads version %d: use a newer kbcli", key, b[9], bodyVersion)
	}
	if h.flags&^flagSealed != 0 || b[11] != 0 {
		return header{}, fmt.Errorf("object %s has flags %02x%02x that this kbcli does not know: use a newer kbcli", key, b[10], b[11])
	}
	if h.bodyLen < 0 || h.bodyLen > kind.limit() {
		return bad("it claims a body of %d bytes, more than a %s may have", uint64(h.bodyLen), kind)
	}
	return h, nil
}

// body joins a header and a payload for blob.Put without copying.
type body struct {
	head    []byte
	payload []byte
}

func (b *body) Size() int64 { return int64(len(b.head) + len(b.payload)) }

func (b *body) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, fmt.Errorf("negative offset %d", off)
	}
	n := 0
	if off < int64(len(b.head)) {
		n = copy(p, b.head[off:])
	}
	if rest := off + int64(n) - int64(len(b.head)); n < len(p) && rest >= 0 && rest < int64(len(b.payload)) {
		n += copy(p[n:], b.payload[rest:])
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// seal wraps payload in its envelope. content is stored as it is.
func (r *Repository) seal(kind Kind, key string, payload []byte, content uint64) (*body, error) {
	h := header{kind: kind, content: content}
	if kind.sealed() && len(r.recipients) > 0 {
		sealed, err := r.encrypt(payload)
		if err != nil {
			return nil, fmt.Errorf("seal %s: %w", key, err)
		}
		payload, h.flags = sealed, flagSealed
	}
	if int64(len(payload)) > kind.limit() {
		return nil, fmt.Errorf("object %s: a body of %d bytes is more than a %s may have", key, len(payload), kind)
	}
	h.bodyLen = int64(len(payload))
	h.bodySum = xxhash.Sum64(payload)
	return &body{h.encode(key), payload}, nil
}

type sliceWriter struct{ b []byte }

func (w *sliceWriter) Write(p []byte) (int, error) {
	w.b = append(w.b, p...)
	return len(p), nil
}

func (r *Repository) encrypt(payload []byte) ([]byte, error) {
	out := &sliceWriter{b: make([]byte, 0, len(payload)+len(payload)/2048+1024)}
	w, err := age.Encrypt(out, r.recipients...)
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(payload); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return out.b, nil
}

// put stores payload under key. That the same content is already there is
// success; other content is a *ConflictError. Of what is sealed only what has a
// content hash can be known again: each sealing gives other bytes.
func (r *Repository) put(ctx context.Context, kind Kind, key string, payload []byte, content uint64) error {
	b, err := r.seal(kind, key, payload, content)
	if err != nil {
		return err
	}
	var h header
	for try := 0; ; try++ {
		if err = r.store.Put(ctx, key, b); !errors.Is(err, blob.ErrExist) {
			return err
		}
		if h, err = r.readHeader(ctx, kind, key); err == nil {
			break
		}
		// deleted since: the key is free again
		if !errors.Is(err, blob.ErrNotExist) || try == 2 {
			return err
		}
	}
	same := h.content == content && content != 0 ||
		h.flags == 0 && b.head[10] == 0 && h.bodySum == xxhash.Sum64(b.payload) && h.bodyLen == int64(len(b.payload))
	if !same {
		return &ConflictError{key}
	}
	return nil
}

func (r *Repository) replace(ctx context.Context, kind Kind, key string, payload []byte) error {
	b, err := r.seal(kind, key, payload, 0)
	if err != nil {
		return err
	}
	return r.store.Replace(ctx, key, b)
}

// readHeader reads only the envelope.
func (r *Repository) readHeader(ctx context.Context, kind Kind, key string) (header, error) {
	info, err := r.store.Stat(ctx, key)
	if err != nil {
		return header{}, err
	}
	b, err := r.getRange(ctx, key, 0, headerSize(key))
	if err != nil {
		return header{}, err
	}
	h, err := decodeHeader(b, kind, key)
	if err == nil && h.bodyLen != info.Size-headerSize(key) {
		err = &CorruptError{key, fmt.Sprintf("it should have %d bytes and has %d", h.bodyLen+headerSize(key), info.Size)}
	}
	return h, err
}

// getRange reads up to length bytes from off: fewer only where the object ends.
func (r *Repository) getRange(ctx context.Context, key string, off, length int64) ([]byte, error) {
	rc, err := r.store.Get(ctx, key, off, length)
	if err != nil {
		return nil, err
	}
	defer rc.Close()
	return readUpTo(rc, key, length)
}

// readUpTo reads until n bytes or the end. What a store says of a broken
// connection, io.ErrUnexpectedEOF too, stays an error; the end of an object does
// not become one. Memory grows with what arrives, not with what was claimed.
func readUpTo(r io.Reader, key string, n int64) ([]byte, error) {
	b := make([]byte, 0, min(n, 32<<20))
	for int64(len(b)) < n {
		if len(b) == cap(b) {
			b = slices.Grow(b, int(min(n-int64(len(b)), int64(len(b)))))
		}
		m, err := r.Read(b[len(b):min(int64(cap(b)), n)])
		b = b[:len(b)+m]
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", key, err)
		}
	}
	return b, nil
}

// maxObject bounds what is read into memory at once. The largest objects are
// segments of 1 GiB that do not compress.
const maxObject = 1<<30 + 64<<20

// get reads a whole object and returns its payload, checked and unsealed.
func (r *Repository) get(ctx context.Context, kind Kind, key string) ([]byte, error) {
	p, _, err := r.getContent(ctx, kind, key)
	return p, err
}

func (r *Repository) getContent(ctx context.Context, kind Kind, key string) ([]byte, uint64, error) {
	rc, err := r.store.Get(ctx, key, 0, -1)
	if err != nil {
		return nil, 0, err
	}
	defer rc.Close()
	head, err := readUpTo(rc, key, headerSize(key))
	if err != nil {
		return nil, 0, err
	}
	h, err := decodeHeader(head, kind, key)
	if err != nil {
		return nil, 0, err
	}
	p, err := readUpTo(rc, key, h.bodyLen+1) // one more, to see that there is none
	if err != nil {
		return nil, 0, err
	}
	if int64(len(p)) != h.bodyLen {
		return nil, 0, &CorruptError{key, fmt.Sprintf("its body should have %d bytes and has %d or more", h.bodyLen, len(p))}
	}
	if xxhash.Sum64(p) != h.bodySum {
		return nil, 0, &CorruptError{key, "the checksum of its body does not match"}
	}
	if h.flags&flagSealed != 0 {
		if p, err = r.decrypt(key, p); err != nil {
			return nil, 0, err
		}
	}
	return p, h.content, nil
}

func (r *Repository) decrypt(key string, p []byte) ([]byte, error) {
	if len(r.identities) == 0 {
		return nil, fmt.Errorf("read %s: %w", key, ErrSealed)
	}
	src := &body{payload: p}
	at, size, err := age.DecryptReaderAt(src, src.Size(), r.identities...)
	if err != nil {
		var none *age.NoIdentityMatchError
		if errors.As(err, &none) {
			return nil, fmt.Errorf("read %s: %w", key, ErrSealed)
		}
		return nil, &CorruptError{key, err.Error()}
	}
	out := make([]byte, size)
	if _, err := io.ReadFull(io.NewSectionReader(at, 0, size), out); err != nil {
		return nil, &CorruptError{key, err.Error()}
	}
	return out, nil
}
