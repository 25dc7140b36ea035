// SPDX-License-Identifier: Apache-2.0

//go:build cgo

package repository

import (
	"slices"
	"sync"

	"github.com/DataDog/zstd"
)

// compressors have a context of C's memory each, under a megabyte, which goes when the
// garbage collector takes them from the pool.
var compressors = sync.Pool{New: func() any { return zstd.NewCtx() }}

// compress is Compress.
func compress(dst, raw []byte) []byte {
	c := compressors.Get().(zstd.Ctx)
	defer compressors.Put(c)
	dst = slices.Grow(dst, zstd.CompressBound(len(raw)))
	// a checksum a frame, which is left out here, would be checked twice: every frame's raw bytes have an xxh64
	frame, err := c.CompressLevel(dst[len(dst):cap(dst)], raw, zstd.BestSpeed)
	if err != nil {
		panic(err) // there is room for any frame: C has no memory left
	}
	return dst[:len(dst)+len(frame)]
}
