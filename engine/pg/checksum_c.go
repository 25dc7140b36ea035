// SPDX-License-Identifier: Apache-2.0

//go:build cgo

package pg

// The lanes run side by side in the vector registers that the processor has: a compiler of C
// makes them of vectors, and Go's does not.

/*
#include <stdint.h>

enum { rows = 8192 / 128, header = 2 };

// some of the lanes, which arithmetic is by, anywhere in memory
typedef uint32_t lanes __attribute__((vector_size(32), aligned(4), may_alias));

// not functions: those would be compiled for every processor
#define MIX1(h, v) (h ^= (v), h = h * 16777619u ^ h >> 17)
#define MIX(v0, v1, v2, v3) (MIX1(h0, v0), MIX1(h1, v1), MIX1(h2, v2), MIX1(h3, v3))

#if defined(__x86_64__) && defined(__linux__)
__attribute__((target_clones("avx2", "default")))
#endif
static uint32_t checksum_block(const uint32_t *basis, const void *page) {
	const lanes *b = (const lanes *)basis, *p = page, zeros = {0};
	lanes h0 = b[0], h1 = b[1], h2 = b[2], h3 = b[3], first = p[0];
	first[header] &= 0xffff0000; // the checksum itself does not count
	MIX(first, p[1], p[2], p[3]);
	for (int i = 1; i < rows; i++) {
		p += 4;
		MIX(p[0], p[1], p[2], p[3]);
	}
	MIX(zeros, zeros, zeros, zeros);
	MIX(zeros, zeros, zeros, zeros);
	h0 ^= h1 ^ h2 ^ h3;
	uint32_t sum = 0;
	for (int i = 0; i < 8; i++)
		sum ^= h0[i];
	return sum;
}
*/
import "C"

import "unsafe"

// checksumBlock mixes a page whose checksum counts as zero.
func checksumBlock(p *[BlockSize]byte) uint32 {
	return uint32(C.checksum_block((*C.uint32_t)(unsafe.Pointer(&checksumBasis)), unsafe.Pointer(p)))
}
