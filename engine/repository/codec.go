// SPDX-License-Identifier: Apache-2.0

package repository

import (
	"fmt"
	"runtime"
	"sync"

	"github.com/klauspost/compress/zstd"
)

// decoder is shared: DecodeAll may be called by many goroutines, each with a worker's
// state of its own kept in the pool. It writes no further than the capacity it is given:
// what a frame claims cannot make it allocate.
var decoder = sync.OnceValue(func() *zstd.Decoder {
	d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(runtime.GOMAXPROCS(0)), zstd.WithDecoderMaxMemory(maxObject), zstd.WithDecodeAllCapLimit(true))
	if err != nil {
		panic(err) // the options are constants
	}
	return d
})

// Compress appends raw as one zstd frame to dst. Many goroutines may call it.
func Compress(dst, raw []byte) []byte { return compress(dst, raw) }

// decompress undoes one or more frames that give exactly length bytes.
func decompress(frames []byte, length int, room []byte) ([]byte, error) {
	if cap(room) < length {
		room = make([]byte, 0, length)
	}
	out, err := decoder().DecodeAll(frames, room[:0])
	if err != nil {
		return nil, fmt.Errorf("decompress: %w", err)
	}
	if len(out) != length {
		return nil, fmt.Errorf("decompress: %d bytes, not %d", len(out), length)
	}
	return out, nil
}

// smallFrame is what a frame may give that does not say how much. Compress leaves
// that out below 256 bytes.
const smallFrame = 64 << 10

// decompressOne undoes one frame of Compress, refusing more than limit bytes.
func decompressOne(frame []byte, limit int64) ([]byte, error) {
	var h zstd.Header
	if err := h.Decode(frame); err != nil {
		return nil, fmt.Errorf("decompress: %w", err)
	}
	if h.HasFCS {
		if h.FrameContentSize > uint64(limit) {
			return nil, fmt.Errorf("decompress: %d bytes, more than %d", h.FrameContentSize, limit)
		}
		return decompress(frame, int(h.FrameContentSize), nil)
	}
	out, err := decoder().DecodeAll(frame, make([]byte, 0, min(smallFrame, limit)))
	if err != nil {
		return nil, fmt.Errorf("decompress: %w", err)
	}
	return out, nil
}
