// SPDX-License-Identifier: Apache-2.0

package walscan

import (
	"fmt"
	"hash/crc32"

	"github.com/kbcli/kbcli/engine/pg"
)

// Options tell a Scanner what it is going to be fed.
type Options struct {
	SegmentSize pg.SegmentSize
	Start       pg.LSN      // of the first byte fed: the start of a page, normally of a segment
	SystemID    pg.SystemID // of the cluster, where known; 0 takes the first that is read
}

// Scanner reads WAL that is pushed into it. It is not safe for concurrent use.
type Scanner struct {
	size  pg.SegmentSize
	start pg.LSN

	sysID pg.SystemID
	magic uint16 // of the first page; 0 until it was read
	major int
	tli   pg.TimelineID // of the last page read

	imageApply, imageCompressed uint8

	pos    pg.LSN // next byte expected
	skipTo pg.LSN // bytes before it belong to no record: padding, and what follows a switch
	prev   pg.LSN // start of the last whole record; 0 while there was none
	end    pg.LSN // end of the last whole record

	// The record that is not whole yet: want is 0 when there is none.
	recStart pg.LSN
	recTLI   pg.TimelineID
	want     int // bytes needed for the next step: its length, its header, all of it
	buf      []byte

	foreign uint32 // bytes to come of the record that began before start
	skipped bool   // there was such a record
	aborted pg.LSN // start of a record that the page just read says was never finished

	hdr [longHeaderSize]byte
	err error

	rec     Record
	blocks  [maxBlockID + 1]BlockRef
	dataLen [maxBlockID + 1]uint16
}

// keepBuffer is how much memory a Scanner keeps from one record to the next.
const keepBuffer = 512 << 10

// New makes a Scanner. It panics if o.SegmentSize is not valid or o.Start is not
// the start of a page: both are mistakes of the caller, not of the WAL.
func New(o Options) *Scanner {
	if !o.SegmentSize.Valid() {
		panic(fmt.Sprintf("walscan: segment size %d", o.SegmentSize))
	}
	if o.Start%pg.BlockSize != 0 {
		panic(fmt.Sprintf("walscan: %s is not the start of a page", o.Start))
	}
	return &Scanner{
		size: o.SegmentSize, sysID: o.SystemID,
		start: o.Start, pos: o.Start, skipTo: o.Start, end: o.Start,
	}
}

// Feed consumes p, the WAL bytes that follow those already fed, and calls fn
// for each record that they complete, in order.
//
// An *EndError or *CorruptError is final: the same one is returned from then
// on. An error of fn is returned as it is, at once; Position then tells how much
// of p was consumed, and the rest may be fed again.
func (s *Scanner) Feed(p []byte, fn func(*Record) error) error {
	if s.err != nil {
		return s.err
	}
	for len(p) > 0 {
		var n int
		var err error
		switch {
		case s.pos < s.skipTo:
			n = int(min(uint64(len(p)), uint64(s.skipTo-s.pos)))
			s.pos += pg.LSN(n)
		case s.inHeader():
			n, err = s.feedHeader(p)
		case s.foreign > 0:
			n = s.feedForeign(p)
		case s.want > 0:
			n, err = s.feedRecord(p, fn)
		default:
			n, err = s.feedWhole(p, fn)
		}
		if err != nil {
			return err
		}
		p = p[n:]
	}
	return nil
}

// Position is the LSN of the next byte that Feed expects.
func (s *Scanner) Position() pg.LSN { return s.pos }

// NextRecord is where the record that is not whole yet starts or, if there is
// none, where the next one will: PostgreSQL's ReadRecPtr, after page headers.
// To read on in another process, scan from the segment that holds it.
func (s *Scanner) NextRecord() pg.LSN {
	switch {
	case s.want > 0:
		return s.recStart
	case s.foreign > 0:
		return s.body(align(s.advance(s.pos, s.foreign)))
	}
	return s.body(max(s.pos, s.skipTo))
}

// Major is the release that wrote the WAL, 13 to 18; 0 before the first page.
func (s *Scanner) Major() int { return s.major }

// SystemID is the cluster's; 0 while neither Options nor a page has told it.
func (s *Scanner) SystemID() pg.SystemID { return s.sysID }

// Timeline is that of the last page whose header was read; 0 before the first.
func (s *Scanner) Timeline() pg.TimelineID { return s.tli }

// SkippedPartial tells whether the WAL fed began within a record, whose rest was
// passed over.
func (s *Scanner) SkippedPartial() bool { return s.skipped }

// feedForeign passes over bytes of the record that began before s.start.
func (s *Scanner) feedForeign(p []byte) int {
	n := min(s.pageRoom(), len(p), int(s.foreign))
	s.pos += pg.LSN(n)
	s.foreign -= uint32(n)
	if s.foreign == 0 {
		s.skipTo = align(s.pos)
		s.end = s.skipTo
	}
	return n
}

// feedWhole handles records that lie whole in p on one page, without copying
// them, and starts the assembly of one that does not.
func (s *Scanner) feedWhole(p []byte, fn func(*Record) error) (n int, err error) {
	if room := s.pageRoom(); len(p) > room {
		p = p[:room]
	}
	for len(p)-n >= recordHeaderSize {
		total := le.Uint32(p[n:])
		if total < recordHeaderSize || uint64(total) > uint64(len(p)-n) {
			break
		}
		rec := p[n : n+int(total) : n+int(total)]
		start := s.pos
		if reason := s.checkHeader(rec, start); reason != "" {
			return n, s.corrupt(start, reason)
		}
		s.pos += pg.LSN(total)
		s.skipTo = align(s.pos)
		n += int(total)
		if err := s.deliver(rec, start, s.tli, fn); err != nil {
			return n, err
		}
		pad := s.skipTo - s.pos
		if pad > pg.LSN(len(p)-n) {
			return n, nil
		}
		s.pos += pad
		n += int(pad)
	}
	if n < len(p) {
		s.recStart, s.recTLI = s.pos, s.tli
		s.buf = s.buf[:0]
		s.want = 4
	}
	return n, nil
}

// feedRecord adds to the record that is not whole yet.
func (s *Scanner) feedRecord(p []byte, fn func(*Record) error) (int, error) {
	n := min(s.pageRoom(), len(p), s.want-len(s.buf))
	s.buf = append(s.buf, p[:n]...)
	s.pos += pg.LSN(n)
	if len(s.buf) == 4 && s.want == 4 {
		switch total := le.Uint32(s.buf); {
		case total == 0:
			return n, s.ended()
		case total < recordHeaderSize:
			return n, s.corrupt(s.recStart, fmt.Sprintf("record of %d bytes, less than its header", total))
		case total > maxRecordSize:
			return n, s.corrupt(s.recStart, fmt.Sprintf("record of %d bytes, more than 1 GiB", total))
		}
		s.want = recordHeaderSize
		return n, nil
	}
	if len(s.buf) < s.want {
		return n, nil
	}
	if len(s.buf) == recordHeaderSize {
		if reason := s.checkHeader(s.buf, s.recStart); reason != "" {
			return n, s.corrupt(s.recStart, reason)
		}
		if s.want = int(le.Uint32(s.buf)); s.want > recordHeaderSize {
			return n, nil
		}
	}
	s.want = 0
	s.skipTo = align(s.pos)
	err := s.deliver(s.buf, s.recStart, s.recTLI, fn)
	if cap(s.buf) > keepBuffer {
		s.buf = nil
	}
	return n, err
}

// checkHeader verifies what can be without the rest of the record. The result is
// empty or says what is wrong.
func (s *Scanner) checkHeader(b []byte, start pg.LSN) string {
	if id := RmgrID(b[17]); !id.valid(s.major) {
		return fmt.Sprintf("resource manager %d is not known", uint8(id))
	}
	prev := pg.LSN(le.Uint64(b[8:]))
	if s.prev != 0 && prev != s.prev {
		return fmt.Sprintf("record's link to the one before it is %s, not %s", prev, s.prev)
	}
	if s.prev == 0 && prev >= start {
		return fmt.Sprintf("record's link to the one before it is %s", prev)
	}
	return ""
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// checksum is the CRC-32C of a record: of all that follows its header, then of
// the header up to the checksum.
func checksum(b []byte) uint32 {
	crc := crc32.Update(0, castagnoli, b[recordHeaderSize:])
	return crc32.Update(crc, castagnoli, b[:recordCRCOffset])
}

// deliver verifies the whole record b and calls fn with it. Before that s is as
// it has to be after the record: fn may ask for Position and NextRecord.
func (s *Scanner) deliver(b []byte, start pg.LSN, tli pg.TimelineID, fn func(*Record) error) error {
	crc := checksum(b)
	if want := le.Uint32(b[recordCRCOffset:]); crc != want {
		return s.corrupt(start, fmt.Sprintf("record's CRC is %08X, not %08X", want, crc))
	}
	if reason := s.decode(b); reason != "" {
		return s.corrupt(start, reason)
	}
	r := &s.rec
	if s.aborted != 0 {
		o, ok, err := r.OverwriteContrecord()
		if !ok || err != nil || o.Overwritten != s.aborted {
			return s.corrupt(start, fmt.Sprintf("record after the unfinished one at %s is not the one that should tell of it", s.aborted))
		}
		s.aborted = 0
	}
	if r.IsSwitch() {
		s.skipTo = s.size.Floor(s.skipTo + pg.LSN(s.size) - 1)
	}
	r.Start, r.End, r.Timeline, r.Major = start, s.skipTo, tli, s.major
	s.prev, s.end = start, s.skipTo
	return fn(r)
}

func (s *Scanner) corrupt(at pg.LSN, reason string) error {
	s.err = &CorruptError{LSN: at, Reason: reason}
	return s.err
}

func (s *Scanner) ended() error {
	s.err = &EndError{LSN: s.end}
	return s.err
}
