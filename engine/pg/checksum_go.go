// SPDX-License-Identifier: Apache-2.0

//go:build !cgo

package pg

import "encoding/binary"

const (
	checksumRow   = 4 * checksumLanes
	checksumPrime = 16777619
)

// checksumBlock mixes a page whose checksum counts as zero.
func checksumBlock(p *[BlockSize]byte) uint32 {
	var first [checksumRow]byte
	copy(first[:], p[:])
	first[pageChecksumAt], first[pageChecksumAt+1] = 0, 0
	var sum uint32
	// Eight lanes at a time stay in registers; four walks over a page that is
	// in the first-level cache cost less than spilling all 32.
	for lane := 0; lane < checksumLanes; lane += 8 {
		sum ^= checksumOctet(p, &first, lane)
	}
	return sum
}

func checksumOctet(p *[BlockSize]byte, first *[checksumRow]byte, lane int) uint32 {
	b := (*[8]uint32)(checksumBasis[lane:])
	h0, h1, h2, h3, h4, h5, h6, h7 := b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]
	row := first[4*lane : 4*lane+32]
	for at := 4 * lane; ; {
		w := (*[32]byte)(row)
		a := binary.LittleEndian.Uint64(w[0:8])
		c := binary.LittleEndian.Uint64(w[8:16])
		e := binary.LittleEndian.Uint64(w[16:24])
		g := binary.LittleEndian.Uint64(w[24:32])
		h0, h1 = checksumMix(h0, uint32(a)), checksumMix(h1, uint32(a>>32))
		h2, h3 = checksumMix(h2, uint32(c)), checksumMix(h3, uint32(c>>32))
		h4, h5 = checksumMix(h4, uint32(e)), checksumMix(h5, uint32(e>>32))
		h6, h7 = checksumMix(h6, uint32(g)), checksumMix(h7, uint32(g>>32))
		if at += checksumRow; at >= BlockSize {
			break
		}
		row = p[at : at+32]
	}
	for range 2 {
		h0, h1, h2, h3 = checksumMix(h0, 0), checksumMix(h1, 0), checksumMix(h2, 0), checksumMix(h3, 0)
		h4, h5, h6, h7 = checksumMix(h4, 0), checksumMix(h5, 0), checksumMix(h6, 0), checksumMix(h7, 0)
	}
	return h0 ^ h1 ^ h2 ^ h3 ^ h4 ^ h5 ^ h6 ^ h7
}

func checksumMix(h, v uint32) uint32 {
	t := h ^ v
	return t*checksumPrime ^ t>>17
}
