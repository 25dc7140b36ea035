// SPDX-License-Identifier: Apache-2.0

//go:build !cgo

package repository

import (
	"runtime"
	"sync"

	"github.com/klauspost/compress/zstd"
)

// encoder is Go's, for a program built without a C compiler. It is shared as decoder is.
var encoder = sync.OnceValue(func() *zstd.Encoder {
	// a checksum a frame would be checked twice: every frame's raw bytes have an xxh64
	e, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderCRC(false),
		zstd.WithEncoderConcurrency(runtime.GOMAXPROCS(0)), zstd.WithWindowSize(1<<20))
	if err != nil {
		panic(err) // the options are constants
	}
	return e
})

// compress is Compress.
func compress(dst, raw []byte) []byte { return encoder().EncodeAll(raw, dst) }
