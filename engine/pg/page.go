// SPDX-License-Identifier: Apache-2.0

package pg

import (
	"encoding/binary"
	"strconv"
)

// Offsets in a page header (PageHeaderData in src/include/storage/bufpage.h).
const (
	pageChecksumAt   = 8
	pageFlagsAt      = 10
	pageLowerAt      = 12
	pageUpperAt      = 14
	pageSpecialAt    = 16
	pageHeaderSize   = 24
	pageValidFlags   = 0x0007
	checksumLanes    = 32
	checksumRow      = 4 * checksumLanes
	checksumPrime    = 16777619
	checksumMaxAlign = 8
)

// checksumBasis starts the 32 hashes that run side by side over a page
// (src/include/storage/checksum_impl.h).
var checksumBasis = [checksumLanes]uint32{
	0x5B1F36E9, 0xB8525960, 0x02AB50AA, 0x1DE66D2A, 0x79FF467A, 0x9BB9F8A3, 0x217E7CD2, 0x83E13D2C,
	0xF8D4474F, 0xE39EB970, 0x42C6AE16, 0x993216FA, 0x7B093B5D, 0x98DAFF3C, 0xF718902A, 0x0B1C9CDB,
	0xE58F764B, 0x187636BC, 0x5D7B3BB1, 0xE73DE7DE, 0x92BEC979, 0xCCA6C0B2, 0x304A0979, 0x85AA43D4,
	0x783125BB, 0x6CA8EAA2, 0xE407EAC6, 0x4B5CFC3E, 0x9FBF8C76, 0x15CA20BE, 0xF2CA9FD3, 0x959BD756,
}

// PageChecksum is the checksum PostgreSQL keeps in a page's header, for the page
// at the given block number of its relation: file number times RelSegBlocks
// plus the place in the file. The value that the header holds does not count,
// and page is not changed. It panics unless page has BlockSize bytes.
func PageChecksum(page []byte, block uint32) uint16 {
	p := (*[BlockSize]byte)(page)
	var first [checksumRow]byte
	copy(first[:], p[:])
	first[pageChecksumAt], first[pageChecksumAt+1] = 0, 0
	var sum uint32
	// Eight lanes at a time stay in registers; four walks over a page that is
	// in the first-level cache cost less than spilling all 32.
	for lane := 0; lane < checksumLanes; lane += 8 {
		sum ^= checksumOctet(p, &first, lane)
	}
	return uint16((sum^block)%65535 + 1)
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

// PageIsNew tells whether PostgreSQL takes page for one that was added to its
// file and never filled: its header is empty.
func PageIsNew(page []byte) bool {
	return binary.LittleEndian.Uint16(page[pageUpperAt:]) == 0
}

// PageLSN is the end of the last WAL record that changed page. Below
// BackupLabel.Start it was not touched since the backup began.
func PageLSN(page []byte) LSN {
	return LSN(binary.LittleEndian.Uint32(page))<<32 | LSN(binary.LittleEndian.Uint32(page[4:]))
}

// PageState is VerifyPage's finding.
type PageState uint8

// What a page can be.
const (
	PageValid       PageState = iota // header and checksum are right
	PageZero                         // all zeros: added to the file, never written
	PageBadChecksum                  // the checksum in the header is not that of the page
	PageBadHeader                    // the checksum is right, or the header empty, and the header makes no sense
)

// String is a word for reports.
func (s PageState) String() string {
	switch s {
	case PageValid:
		return "valid"
	case PageZero:
		return "zero"
	case PageBadChecksum:
		return "bad checksum"
	case PageBadHeader:
		return "bad header"
	}
	return strconv.Itoa(int(s))
}

// Ok tells whether PostgreSQL would read such a page.
func (s PageState) Ok() bool { return s == PageValid || s == PageZero }

// VerifyPage judges a page of a cluster with checksums as PostgreSQL does when
// it reads one from disk; block is PageChecksum's. A page that a running server
// was writing can look bad: read it again, and forgive one whose PageLSN lies
// behind the start of the backup, for recovery writes it anew. It panics unless
// page has BlockSize bytes.
func VerifyPage(page []byte, block uint32) PageState {
	p := (*[BlockSize]byte)(page)
	u16 := func(at int) uint16 { return binary.LittleEndian.Uint16(p[at:]) }
	if PageIsNew(page) {
		if *p == ([BlockSize]byte{}) {
			return PageZero
		}
		return PageBadHeader
	}
	if PageChecksum(page, block) != u16(pageChecksumAt) {
		return PageBadChecksum
	}
	lower, upper, special := u16(pageLowerAt), u16(pageUpperAt), u16(pageSpecialAt)
	if u16(pageFlagsAt)&^pageValidFlags != 0 || lower > upper || upper > special ||
		special > BlockSize || special%checksumMaxAlign != 0 {
		return PageBadHeader
	}
	return PageValid
}
