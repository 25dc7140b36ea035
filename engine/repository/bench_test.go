// SPDX-License-Identifier: Apache-2.0

package repository

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/cespare/xxhash/v2"

	"github.com/kbcli/kbcli/engine/blob/mem"
)

// heap is a frame like those of a table: pages with rows of numbers and of text that is
// random in part.
func heap() []byte {
	rnd := rand.New(rand.NewPCG(1, 2))
	b := make([]byte, 0, FrameSize)
	for i := 0; len(b) < FrameSize; i++ {
		b = binary.LittleEndian.AppendUint64(b, uint64(i))
		b = binary.LittleEndian.AppendUint32(b, rnd.Uint32N(100000))
		b = fmt.Appendf(b, "%016x ", rnd.Uint64())
		b = append(b, make([]byte, 71)...)
	}
	return b[:FrameSize]
}

func BenchmarkCompress(b *testing.B) {
	for name, raw := range map[string][]byte{"heap": heap(), "random": noise(1, FrameSize)} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(FrameSize)
			b.ReportAllocs()
			var out []byte
			for b.Loop() {
				out = Compress(out[:0], raw)
			}
			b.ReportMetric(float64(FrameSize)/float64(len(out)), "ratio")
		})
	}
}

func BenchmarkDecompress(b *testing.B) {
	for name, raw := range map[string][]byte{"heap": heap(), "random": noise(1, FrameSize)} {
		b.Run(name, func(b *testing.B) {
			stored := Compress(nil, raw)
			f := FrameInfo{Stored: uint32(len(stored)), Raw: FrameSize, Sum: xxhash.Sum64(raw)}
			b.SetBytes(FrameSize)
			b.ReportAllocs()
			var out []byte
			for b.Loop() {
				var err error
				if out, err = decodeFrame(out, stored, f); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkPack stores a pack of four frames that do not compress, and reads it again.
func BenchmarkPack(b *testing.B) {
	identity, recipient := somebody(b)
	for name, options := range map[string]Options{"open": {}, "sealed": {Recipients: []string{recipient}, Identities: identity}} {
		r := create(b, mem.New(testClock), options)
		l := newLineage(b, r)
		w := &PackWriter{}
		for i := range uint64(4) {
			raw := noise(i, FrameSize)
			w.Add(raw, xxhash.Sum64(raw))
		}
		key := l.packKey(PackRef{"b", 1})
		b.Run(name+"/seal", func(b *testing.B) {
			b.SetBytes(int64(len(w.buf)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := r.seal(KindPack, key, w.buf, 0); err != nil {
					b.Fatal(err)
				}
			}
		})
		if _, err := l.PutPack(context.Background(), PackRef{"b", 1}, w); err != nil {
			b.Fatal(err)
		}
		b.Run(name+"/read", func(b *testing.B) {
			b.SetBytes(int64(len(w.buf)))
			b.ReportAllocs()
			for b.Loop() {
				if err := l.ReadFrames(context.Background(), PackRef{"b", 1}, w.Frames(), func(int, []byte) error { return nil }); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkFiles writes and reads the list of a backup of 20,000 files and 100 GB.
func BenchmarkFiles(b *testing.B) {
	f := &Files{Packs: []PackRef{{"backup-default-my-pg-20230417195547", 1}}}
	for i := range 100_000 {
		f.Frames = append(f.Frames, Frame{0, FrameInfo{uint64(i) * 70_000, 70_000, FrameSize, rand.Uint64()}})
	}
	for i := range 20_000 {
		e := File{Path: fmt.Sprintf("base/16384/%08d", 16384+i), Mode: 0o600, Size: 5 * FrameSize, ModTime: testTime.UnixMicro()}
		for k := range uint32(5) {
			e.Extents = append(e.Extents, Extent{FrameSize, uint32(i)*5 + k, 0})
		}
		f.Files = append(f.Files, e)
	}
	enc := f.encode()
	b.Run("write", func(b *testing.B) {
		b.SetBytes(int64(len(enc)))
		b.ReportAllocs()
		for b.Loop() {
			if !bytes.Equal(f.encode(), enc) {
				b.Fatal("another list")
			}
		}
	})
	b.Run("read", func(b *testing.B) {
		b.SetBytes(int64(len(enc)))
		b.ReportAllocs()
		for b.Loop() {
			if _, err := parseFiles(enc); err != nil {
				b.Fatal(err)
			}
		}
	})
}
