// SPDX-License-Identifier: Apache-2.0

package repository

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/cespare/xxhash/v2"

	"github.com/kbcli/kbcli/engine/blob"
	"github.com/kbcli/kbcli/engine/blob/mem"
	"github.com/kbcli/kbcli/engine/pg"
)

// sealedAndNot runs a test on a repository of each sort, in memory.
func sealedAndNot(t *testing.T, test func(t *testing.T, s *mem.Store, o Options)) {
	t.Run("plain", func(t *testing.T) { test(t, mem.New(nil), Options{}) })
	t.Run("sealed", func(t *testing.T) {
		id, to := somebody(t)
		_, other := somebody(t)
		test(t, mem.New(nil), Options{Recipients: []string{other, to}, Identities: id})
	})
}

func TestEveryKindIsThere(t *testing.T) {
	sealedAndNot(t, func(t *testing.T, s *mem.Store, o Options) {
		_, objects := fill(t, create(t, s, o))
		seen := map[Kind]bool{}
		for _, ob := range objects {
			seen[ob.kind] = true
			b := raw(t, s, ob.key)
			if Kind(b[8]) != ob.kind || (b[10] == flagSealed) != (ob.kind.sealed() && len(o.Recipients) > 0) {
				t.Errorf("%s: kind %s, flags %d", ob.key, Kind(b[8]), b[10])
			}
			if hasContent := binary.LittleEndian.Uint64(b[32:]) != 0; hasContent != (ob.kind == KindSegment || ob.kind == KindTail) {
				t.Errorf("%s: has a content hash: %t", ob.key, hasContent)
			}
		}
		for k := KindRepository; k <= KindLock; k++ {
			if !seen[k] || strings.HasPrefix(k.String(), "kind") {
				t.Errorf("no %s is tried", k)
			}
		}
		if Kind(0).String() != "kind 0" || Kind(99).String() != "kind 99" {
			t.Error("unknown kinds have names")
		}
	})
}

// Any byte that is turned over, cut off or added is found out, and nothing else is.
func TestDamageIsFound(t *testing.T) {
	sealedAndNot(t, func(t *testing.T, s *mem.Store, o Options) {
		r := create(t, s, o)
		_, objects := fill(t, r)
		for _, ob := range objects {
			want, err := ob.read(t.Context(), r)
			if err != nil {
				t.Fatalf("%s: %v", ob.key, err)
			}
			good := raw(t, s, ob.key)
			try := func(what string, b []byte) {
				t.Helper()
				replace(t, s, ob.key, b)
				got, err := ob.read(t.Context(), r)
				if !ob.exact && err == nil {
					if got != want {
						t.Errorf("%s of %s gives other bytes", what, ob.key)
					}
					return
				}
				wantDamage(t, what, ob.key, err)
			}
			for i := range good {
				bad := slices.Clone(good)
				bad[i] ^= 1 << (i % 8)
				try("a turned bit", bad)
				bad[i] = ^good[i]
				try("a turned byte", bad)
				if t.Failed() {
					t.Fatalf("at byte %d", i)
				}
			}
			for n := range good {
				try("truncation", good[:n])
			}
			if ob.exact {
				try("an added byte", append(slices.Clone(good), 0))
			}
			if t.Failed() {
				return
			}
			replace(t, s, ob.key, good)
			if got, err := ob.read(t.Context(), r); err != nil || got != want {
				t.Fatalf("%s made good: %v", ob.key, err)
			}
		}
	})
}

// Damage that was given fitting checksums is found further in, where what is
// stored is known by more than them.
func TestForgeryIsFound(t *testing.T) {
	sealedAndNot(t, func(t *testing.T, s *mem.Store, o Options) {
		r := create(t, s, o)
		_, objects := fill(t, r)
		for _, ob := range objects {
			if !slices.Contains([]Kind{KindSegment, KindTail, KindPack, KindFiles}, ob.kind) {
				continue
			}
			good := raw(t, s, ob.key)
			at := int(headerSize(ob.key))
			want, err := ob.read(t.Context(), r)
			if err != nil {
				t.Fatal(err)
			}
			for i := at; i < len(good); i++ {
				bad := slices.Clone(good)
				bad[i] ^= 0x10
				binary.LittleEndian.PutUint64(bad[24:], xxhash.Sum64(bad[at:]))
				reseal(bad, ob.key)
				replace(t, s, ob.key, bad)
				got, err := ob.read(t.Context(), r)
				var corrupt *CorruptError
				switch {
				case err == nil && got == want: // a byte that means nothing
				case errors.As(err, &corrupt) && corrupt.Key == ob.key:
				case errors.Is(err, ErrSealed) && len(o.Recipients) > 0: // it is sealed to somebody else
				default:
					t.Fatalf("%s, byte %d: %v", ob.key, i-at, err)
				}
			}
			replace(t, s, ob.key, good)
		}
	})
}

// reseal makes the checksum of an envelope fit.
func reseal(b []byte, key string) {
	sum := xxhash.Sum64(append(slices.Clone(b[:40]), b[headFixed:headFixed+len(key)]...))
	binary.LittleEndian.PutUint64(b[40:], sum)
}

func TestCopiedObjectIsFound(t *testing.T) {
	sealedAndNot(t, func(t *testing.T, s *mem.Store, o Options) {
		r := create(t, s, o)
		_, objects := fill(t, r)
		for _, to := range objects {
			good := raw(t, s, to.key)
			for _, from := range objects {
				if from.key == to.key {
					continue
				}
				replace(t, s, to.key, raw(t, s, from.key))
				got, err := to.read(t.Context(), r)
				if !to.exact && err == nil {
					t.Errorf("%s reads as %s: %q", from.key, to.key, got)
				} else {
					wantDamage(t, "a copy of "+from.key, to.key, err)
				}
			}
			replace(t, s, to.key, good)
		}
	})
}

func TestHeaderOfLaterVersions(t *testing.T) {
	l, s := plainLineage(t)
	if err := l.PutHistory(t.Context(), 2, []byte("x")); err != nil {
		t.Fatal(err)
	}
	key := l.historyKey(2)
	good := raw(t, s, key)
	for _, test := range []struct {
		at   int
		to   byte
		want string
	}{{9, 2, "version 2"}, {10, 2, "flags"}, {11, 1, "flags"}} {
		b := slices.Clone(good)
		b[test.at] = test.to
		reseal(b, key)
		replace(t, s, key, b)
		var corrupt *CorruptError
		if _, err := l.History(t.Context(), 2); err == nil || errors.As(err, &corrupt) || !strings.Contains(err.Error(), test.want) || !strings.Contains(err.Error(), "newer kbcli") {
			t.Errorf("byte %d: %v", test.at, err)
		}
	}
	// what an envelope claims is not believed before it has come
	b := slices.Clone(good)
	binary.LittleEndian.PutUint64(b[16:], 1<<62)
	reseal(b, key)
	replace(t, s, key, b)
	_, err := l.History(t.Context(), 2)
	wantDamage(t, "a huge length", key, err)
	if err := l.PutHistory(t.Context(), 3, make([]byte, 2<<20)); err == nil {
		t.Error("what could not be read was stored")
	}
}

func FuzzDecodeHeader(f *testing.F) {
	h := header{kind: KindTail, flags: 1, bodyLen: 100, bodySum: 1, content: 2}
	f.Add(h.encode("a/b"), "a/b")
	f.Fuzz(func(t *testing.T, b []byte, key string) {
		h, err := decodeHeader(b, KindTail, key)
		if err == nil && !bytes.HasPrefix(b, h.encode(key)) {
			t.Errorf("%x reads as %+v", b, h)
		}
	})
}

func TestBody(t *testing.T) {
	for _, b := range []*body{{[]byte("head"), []byte("payload")}, {nil, []byte("x")}, {[]byte("x"), nil}} {
		want := string(b.head) + string(b.payload)
		if err := iotest.TestReader(io.NewSectionReader(b, 0, b.Size()), []byte(want)); err != nil {
			t.Error(err)
		}
		if _, err := b.ReadAt(make([]byte, 1), -1); err == nil || err == io.EOF {
			t.Errorf("before the start: %v", err)
		}
	}
}

// broken ends every Get early, as a lost connection does.
type broken struct {
	blob.Store
	err error
}

func (b broken) Get(ctx context.Context, key string, off, length int64) (io.ReadCloser, error) {
	rc, err := b.Store.Get(ctx, key, off, length)
	if err != nil {
		return nil, err
	}
	return io.NopCloser(io.MultiReader(io.LimitReader(rc, 20), iotest.ErrReader(b.err))), nil
}

// What a store says of itself is not taken for damage, nor for absence.
func TestStoreErrorsStayThemselves(t *testing.T) {
	s := mem.New(nil)
	r := create(t, s, Options{})
	_, objects := fill(t, r)
	for _, want := range []error{io.ErrUnexpectedEOF, blob.ErrUnreachable, blob.ErrDenied} {
		r := &Repository{store: broken{s, want}, clock: testClock}
		for _, ob := range objects {
			_, err := ob.read(t.Context(), r)
			var corrupt *CorruptError
			if !errors.Is(err, want) || errors.As(err, &corrupt) || errors.Is(err, blob.ErrNotExist) {
				t.Errorf("%s: %v became %v", ob.key, want, err)
			}
		}
	}
}

func TestAbsence(t *testing.T) {
	s := mem.New(nil)
	r := create(t, s, Options{})
	_, objects := fill(t, r)
	for _, ob := range objects {
		if ob.kind == KindTail || ob.kind == KindLock || ob.kind == KindGap || ob.kind == KindBeat || ob.kind == KindRepository {
			continue // found by listing, or absence has a meaning of its own
		}
		good := raw(t, s, ob.key)
		if err := s.Delete(t.Context(), ob.key); err != nil {
			t.Fatal(err)
		}
		if _, err := ob.read(t.Context(), r); !errors.Is(err, blob.ErrNotExist) {
			t.Errorf("%s: %v", ob.key, err)
		}
		replace(t, s, ob.key, good)
	}
}

// vanishing loses an object as soon as it was found to be there.
type vanishing struct {
	blob.Store
	times int
}

func (v *vanishing) Put(ctx context.Context, key string, b blob.Body) error {
	err := v.Store.Put(ctx, key, b)
	if v.times > 0 && errors.Is(err, blob.ErrExist) {
		v.times--
		_ = v.Store.Delete(ctx, key)
	}
	return err
}

func TestPutOfWhatVanishes(t *testing.T) {
	l, s := plainLineage(t)
	g := pg.Segment{Timeline: 1, Number: 1}
	putSegment(t, l, g, quiet(1))
	v := &vanishing{s, 1}
	l.repo = &Repository{store: v, clock: testClock}
	putSegment(t, l, g, quiet(2))
	if b, err := l.Segment(t.Context(), g, nil); err != nil || !bytes.Equal(b, quiet(2)) {
		t.Errorf("%d bytes, %v", len(b), err)
	}
}
