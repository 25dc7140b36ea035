// SPDX-License-Identifier: Apache-2.0

package walscan

import (
	"fmt"

	"github.com/kbcli/kbcli/engine/pg"
)

// The page header, XLogPageHeaderData, and what the first page of a segment has
// more:
//
//	0  magic u16 │ 2 info u16 │ 4 tli u32 │ 8 pageaddr u64 │ 16 rem_len u32 │ 20 –
//	24 sysid u64 │ 32 seg_size u32 │ 36 xlog_blcksz u32
const (
	shortHeaderSize = 24
	longHeaderSize  = 40

	pageContinues = 0x01 // begins with the rest of a record
	pageLong      = 0x02 // the long header
	pageOverwrite = 0x08 // the record that should continue here never will
	pageAllFlags  = 0x0F // 0x04 is of no concern to readers
)

// majorOf tells the release by the magic number of its pages; 0 is none known.
func majorOf(magic uint16) int {
	switch magic {
	case 0xD106:
		return 13
	case 0xD10D:
		return 14
	case 0xD110:
		return 15
	case 0xD113:
		return 16
	case 0xD116:
		return 17
	case 0xD118:
		return 18
	}
	return 0
}

// align rounds up to where a record may start.
func align(l pg.LSN) pg.LSN { return (l + 7) &^ 7 }

// headerSize is that of the page that starts at l.
func (s *Scanner) headerSize(l pg.LSN) pg.LSN {
	if s.size.Offset(l) == 0 {
		return longHeaderSize
	}
	return shortHeaderSize
}

// body is l, or if l lies in a page header the byte after that header.
func (s *Scanner) body(l pg.LSN) pg.LSN {
	page := l &^ (pg.BlockSize - 1)
	return max(l, page+s.headerSize(page))
}

// advance is the position after n more bytes of records from l on.
func (s *Scanner) advance(l pg.LSN, n uint32) pg.LSN {
	for left := pg.LSN(n); ; {
		l = s.body(l)
		room := pg.BlockSize - l&(pg.BlockSize-1)
		if left <= room {
			return l + left
		}
		left -= room
		l += room
	}
}

// pageRoom is the number of bytes from s.pos to the end of its page.
func (s *Scanner) pageRoom() int { return int(pg.BlockSize - s.pos&(pg.BlockSize-1)) }

// inHeader tells whether the next byte belongs to a page header.
func (s *Scanner) inHeader() bool {
	off := s.pos & (pg.BlockSize - 1)
	return off < shortHeaderSize || off < longHeaderSize && s.size.Offset(s.pos) < longHeaderSize
}

// feedHeader collects the header of a page and checks it when it is whole.
func (s *Scanner) feedHeader(p []byte) (int, error) {
	off := s.pos & (pg.BlockSize - 1)
	page := s.pos - off
	size := s.headerSize(page)
	n := copy(s.hdr[off:size], p)
	s.pos += pg.LSN(n)
	if s.pos < page+size {
		return n, nil
	}
	return n, s.enterPage(page, s.hdr[:size])
}

// enterPage checks the header h of the page at addr, and that the page goes on
// where the one before it left off.
func (s *Scanner) enterPage(addr pg.LSN, h []byte) error {
	if [shortHeaderSize]byte(h) == [shortHeaderSize]byte{} {
		return s.ended()
	}
	magic, info := le.Uint16(h), le.Uint16(h[2:])
	switch {
	case s.magic == 0 && majorOf(magic) == 0:
		return s.corrupt(addr, fmt.Sprintf("page magic %04X is of no release of PostgreSQL from %d to %d", magic, pg.OldestMajor, pg.NewestMajor))
	case s.magic != 0 && magic != s.magic:
		return s.corrupt(addr, fmt.Sprintf("page magic is %04X, not %04X", magic, s.magic))
	case info&^pageAllFlags != 0 || (info&pageLong != 0) != (len(h) == longHeaderSize):
		return s.corrupt(addr, fmt.Sprintf("page flags are %04X", info))
	}
	if len(h) == longHeaderSize {
		if reason := s.checkLong(h); reason != "" {
			return s.corrupt(addr, reason)
		}
	}
	if a := pg.LSN(le.Uint64(h[8:])); a != addr {
		s.err = &CorruptError{LSN: addr, Reason: fmt.Sprintf("page address is %s", a), Stale: a < addr}
		return s.err
	}
	tli := pg.TimelineID(le.Uint32(h[4:]))
	if tli == 0 || tli < s.tli {
		return s.corrupt(addr, fmt.Sprintf("page is of timeline %s after timeline %s", tli, s.tli))
	}
	if s.magic == 0 {
		s.magic, s.major = magic, majorOf(magic)
		s.imageApply, s.imageCompressed = imageFlags(s.major)
	}
	s.tli = tli
	return s.continuePage(addr, info, le.Uint32(h[16:]))
}

// checkLong checks what only a long header has.
func (s *Scanner) checkLong(h []byte) string {
	id := pg.SystemID(le.Uint64(h[24:]))
	size, block := le.Uint32(h[32:]), le.Uint32(h[36:])
	switch {
	case s.sysID != 0 && id != s.sysID:
		return fmt.Sprintf("page is of system %s, not %s", id, s.sysID)
	case size != uint32(s.size):
		return fmt.Sprintf("page is of segments of %d bytes, not %d", size, uint32(s.size))
	case block != pg.BlockSize:
		return fmt.Sprintf("WAL page size is %d, not %d", block, pg.BlockSize)
	}
	s.sysID = id
	return ""
}

// continuePage compares what a page says it begins with, rem bytes of a record
// or none, with what should follow.
func (s *Scanner) continuePage(addr pg.LSN, info uint16, rem uint32) error {
	continues := info&pageContinues != 0
	if info&pageOverwrite != 0 {
		if continues {
			return s.corrupt(addr, "page both continues a record and says that it never will")
		}
		// The server died while it wrote a record, and this is what it wrote
		// in place of the rest when it came back.
		if s.want > 0 {
			s.aborted, s.want = s.recStart, 0
		}
		s.foreign = 0
		return nil
	}
	switch {
	case s.want > 0:
		left := le.Uint32(s.buf) - uint32(len(s.buf))
		if !continues || rem != left {
			return s.corrupt(addr, fmt.Sprintf("record at %s, with %d bytes to come, does not continue on this page", s.recStart, left))
		}
	case s.foreign > 0:
		if !continues || rem != s.foreign {
			return s.corrupt(addr, fmt.Sprintf("record with %d bytes to come does not continue on this page", s.foreign))
		}
	case addr == s.start && continues:
		if rem == 0 || rem > maxRecordSize {
			return s.corrupt(addr, fmt.Sprintf("page continues a record with %d bytes", rem))
		}
		s.foreign, s.skipped = rem, true
	case continues:
		return s.corrupt(addr, "page continues a record, but the one before it is whole")
	}
	return nil
}
