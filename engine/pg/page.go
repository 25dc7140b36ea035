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
	checksumMaxAlign = 8
)

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
