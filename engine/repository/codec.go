// SPDX-License-Identifier: Apache-2.0

package repository

import (
	"fmt"
	"sync"

	"github.com/klauspost/compress/zstd"
)

// Encoders and decoders are shared: EncodeAll and DecodeAll may be called by
// many goroutines, each with a worker's state of its own kept in the pool.
var (
	encoder = sync.OnceValue(func() *zstd.Encoder {
		// a checksum a frame would be checked twice: every frame's raw bytes have an xxh64
		e, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderCRC(false),
			zstd.WithEncoderConcurrency(8), zstd.WithWindowSize(1<<20))
		if err != nil {
			panic(err) // the options are constants
		}
		return e
	})
	decoder = sync.OnceValue(func() *zstd.Decoder {
		d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(8), zstd.WithDecoderMaxMemory(maxObject))
		if err != nil {
			panic(err)
		}
		return d
	})
)

// Compress appends raw as one zstd frame to dst.
func Compress(dst, raw []byte) []byte { return encoder().EncodeAll(raw, dst) }

func compress(dst, raw []byte) []byte { return Compress(dst, raw) }

// decompress undoes one or more frames that give exactly length bytes; length -1
// means as many as they give.
func decompress(frames []byte, length int) ([]byte, error) {
	var dst []byte
	if length > 0 {
		dst = make([]byte, 0, length)
	}
	out, err := decoder().DecodeAll(frames, dst)
	if err != nil {
		return nil, fmt.Errorf("decompress: %w", err)
	}
	if length >= 0 && len(out) != length {
		return nil, fmt.Errorf("decompress: %d bytes, not %d", len(out), length)
	}
	return out, nil
}
