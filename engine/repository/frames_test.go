// SPDX-License-Identifier: Apache-2.0

package repository

import (
	"bytes"
	"context"
	"errors"
	"io"
	"testing"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/kbcli/kbcli/engine/blob"
	"github.com/kbcli/kbcli/engine/blob/mem"
)

// TestLimited: what goes through the limited lineage is held back, and nothing else.
func TestLimited(t *testing.T) {
	l := newLineage(t, create(t, mem.New(testClock), Options{}))
	if l.Limited(0, 0) != l {
		t.Error("without limits it is another")
	}
	w := &PackWriter{}
	raw := noise(1, 400<<10)
	w.Add(raw, xxhash.Sum64(raw))
	took := func(f func() error) time.Duration {
		t.Helper()
		began := time.Now()
		if err := f(); err != nil {
			t.Fatal(err)
		}
		return time.Since(began)
	}
	slow := l.Limited(1<<20, 2<<20)
	put := took(func() error { _, err := slow.PutPack(t.Context(), PackRef{"b", 1}, w); return err })
	read := func(l *Lineage) func() error {
		return func() error {
			return l.ReadFrames(t.Context(), PackRef{"b", 1}, w.Frames(), func(int, []byte) error { return nil })
		}
	}
	got := took(read(slow))
	if put < 300*time.Millisecond || got < 150*time.Millisecond {
		t.Errorf("400 KiB were put at 1 MiB a second in %s, and read at 2 MiB in %s", put, got)
	}
	if free := took(read(l)); free > got {
		t.Errorf("without a limit it took %s, with one %s", free, got)
	}
}

// sipping counts the bytes that are read.
type sipping struct {
	blob.Store
	read, gets int64
}

func (s *sipping) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	rc, err := s.Store.Get(ctx, key, offset, length)
	s.gets++
	return &sip{rc, s}, err
}

type sip struct {
	io.ReadCloser
	s *sipping
}

func (r *sip) Read(p []byte) (int, error) {
	n, err := r.ReadCloser.Read(p)
	r.s.read += int64(n)
	return n, err
}

// TestFewFrames: of a pack of which little is wanted little is read, sealed or not.
func TestFewFrames(t *testing.T) {
	identity, recipient := somebody(t)
	for name, options := range map[string]Options{"open": {}, "sealed": {Recipients: []string{recipient}, Identities: identity}} {
		t.Run(name, func(t *testing.T) {
			s := &sipping{Store: mem.New(testClock)}
			l := newLineage(t, create(t, s, options))
			w := &PackWriter{}
			var raws [][]byte
			for i := range uint64(12) {
				raws = append(raws, noise(i, FrameSize))
				w.Add(raws[i], xxhash.Sum64(raws[i]))
			}
			if _, err := l.PutPack(t.Context(), PackRef{"b", 1}, w); err != nil {
				t.Fatal(err)
			}
			for _, want := range [][]int{{2, 7, 11}, {0}, {11}, {5, 5, 6}, {3, 4}} {
				var ask []FrameInfo
				for _, i := range want {
					ask = append(ask, w.Frames()[i])
				}
				s.read, s.gets = 0, 0
				at := 0
				err := l.ReadFrames(t.Context(), PackRef{"b", 1}, ask, func(i int, raw []byte) error {
					if i != at || !bytes.Equal(raw, raws[want[i]]) {
						t.Errorf("%v: frame %d is another", want, i)
					}
					at++
					return nil
				})
				if err != nil || at != len(ask) {
					t.Fatalf("%v: %d frames, %v", want, at, err)
				}
				if most := int64(len(want))*(FrameSize+130<<10) + 200<<10; s.read > most || s.gets > int64(len(want))+3 {
					t.Errorf("%v: %d bytes were read with %d requests", want, s.read, s.gets)
				}
			}
			// a bit of what is read is found, of what is not it does not matter
			key := l.packKey(PackRef{"b", 1})
			b := raw(t, s, key)
			at := int(headerSize(key)) + 7*FrameSize + FrameSize/2
			b[at] ^= 1
			if err := s.Replace(t.Context(), key, bytes.NewReader(b)); err != nil {
				t.Fatal(err)
			}
			read := func(i int) error {
				return l.ReadFrames(t.Context(), PackRef{"b", 1}, w.Frames()[i:i+1], func(int, []byte) error { return nil })
			}
			var corrupt *CorruptError
			if err := read(7); !errors.As(err, &corrupt) {
				t.Errorf("the damaged frame: %v", err)
			}
			if err := read(10); err != nil {
				t.Errorf("another: %v", err)
			}
		})
	}
}
