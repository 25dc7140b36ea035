// SPDX-License-Identifier: Apache-2.0

package walscan

import (
	"encoding/binary"

	"github.com/kbcli/kbcli/engine/pg"
)

var le = binary.LittleEndian

// Record is one WAL record. It and everything it points to belong to the
// Scanner and are valid only during the call that it is handed to.
type Record struct {
	Start    pg.LSN        // of the record's header
	End      pg.LSN        // where the next may begin: pg_waldump's EndRecPtr
	Prev     pg.LSN        // start of the record before it
	Timeline pg.TimelineID // of the page it starts on
	Major    int           // release of PostgreSQL that wrote it
	XID      pg.XID        // 0 outside a transaction
	TopXID   pg.XID        // the transaction XID is a part of, where that is told; else 0
	Origin   uint16        // replication origin; 0 is this server
	Rmgr     RmgrID
	Info     uint8 // the resource manager's operation in the high four bits
	TotalLen uint32
	Blocks   []BlockRef // in the order of their IDs
	Main     []byte     // the resource manager's own data
}

// BlockRef is a page that a record changes.
type BlockRef struct {
	Rel        pg.RelFileLocator
	Block      uint32 // page number within the fork
	ID         uint8  // the resource manager's number of the page in this record
	Fork       pg.ForkNumber
	HasImage   bool   // the record holds an image of the page
	ApplyImage bool   // redo puts the image in place; else it is there to verify
	WillInit   bool   // redo makes the page anew, whatever it held
	ImageLen   int    // bytes of the image as stored, without its hole, maybe compressed
	Data       []byte // the resource manager's data about this page
}

// Op is the resource manager's operation, the high four bits of Info.
func (r *Record) Op() uint8 { return r.Info & 0xF0 }

// The record header, XLogRecord:
//
//	0  tot_len u32 │ 4 xid u32 │ 8 prev u64 │ 16 info u8 │ 17 rmid u8 │ 18 – │ 20 crc u32
const (
	recordHeaderSize = 24
	recordCRCOffset  = 20
	maxRecordSize    = 1 << 30 // above XLogRecordMaxSize of every release that has one
	maxBlockID       = 32
)

// What follows the record header: block headers in the order of their IDs, then
// the length of the main data; then the images and data of the blocks; then the
// main data.
const (
	idDataShort   = 255
	idDataLong    = 254
	idOrigin      = 253
	idToplevelXID = 252

	blockForkMask = 0x0F
	blockHasImage = 0x10
	blockHasData  = 0x20
	blockWillInit = 0x40
	blockSameRel  = 0x80

	imageHasHole = 0x01
)

// imageFlags gives the bits of a block image's info that differ by release.
func imageFlags(major int) (apply, compressed uint8) {
	if major < 15 {
		return 0x04, 0x02
	}
	return 0x02, 0x04 | 0x08 | 0x10
}

// decode fills s.rec from b, a record whose CRC is right. The result is empty
// or says what is wrong with b.
func (s *Scanner) decode(b []byte) string {
	r := &s.rec
	r.TotalLen = uint32(len(b))
	r.XID = pg.XID(le.Uint32(b[4:]))
	r.Prev = pg.LSN(le.Uint64(b[8:]))
	r.Info = b[16]
	r.Rmgr = RmgrID(b[17])
	r.TopXID, r.Origin = 0, 0
	r.Blocks, r.Main = s.blocks[:0], nil

	p := b[recordHeaderSize:]
	payload := 0 // bytes that the headers read so far lay claim to
	mainLen := 0
	for len(p) > payload {
		id := p[0]
		switch {
		case id == idDataShort:
			if len(p) < 2 {
				return "record header is cut short"
			}
			mainLen = int(p[1])
			p = p[2:]
		case id == idDataLong:
			if len(p) < 5 {
				return "record header is cut short"
			}
			mainLen = int(le.Uint32(p[1:]))
			p = p[5:]
		case id == idOrigin:
			if len(p) < 3 {
				return "record header is cut short"
			}
			r.Origin = le.Uint16(p[1:])
			p = p[3:]
			continue
		case id == idToplevelXID && s.major >= 14:
			if len(p) < 5 {
				return "record header is cut short"
			}
			r.TopXID = pg.XID(le.Uint32(p[1:]))
			p = p[5:]
			continue
		case id <= maxBlockID:
			n, reason := s.decodeBlock(p)
			if reason != "" {
				return reason
			}
			p = p[n:]
			last := len(r.Blocks) - 1
			payload += r.Blocks[last].ImageLen + int(s.dataLen[last])
			continue
		default:
			return "unknown block ID"
		}
		payload += mainLen
		break // the length of the main data is the last of the headers
	}
	if len(p) != payload {
		return "lengths in the record header do not add up to the record's"
	}
	for i := range r.Blocks {
		blk := &r.Blocks[i]
		p = p[blk.ImageLen:]
		n := int(s.dataLen[i])
		blk.Data = p[:n:n]
		p = p[n:]
	}
	r.Main = p
	return ""
}

// decodeBlock appends the block whose header p begins with to s.rec.Blocks, and
// returns the size of that header.
func (s *Scanner) decodeBlock(p []byte) (int, string) {
	const cut = "block header is cut short"
	r := &s.rec
	i := len(r.Blocks)
	if i > 0 && p[0] <= r.Blocks[i-1].ID {
		return 0, "block IDs are out of order"
	}
	if len(p) < 4 {
		return 0, cut
	}
	flags := p[1]
	s.dataLen[i] = le.Uint16(p[2:])
	if (flags&blockHasData != 0) != (s.dataLen[i] != 0) {
		return 0, "block data flag does not fit its length"
	}
	s.blocks[i] = BlockRef{
		ID:       p[0],
		Fork:     pg.ForkNumber(flags & blockForkMask),
		WillInit: flags&blockWillInit != 0,
	}
	blk := &s.blocks[i]
	n := 4
	if flags&blockHasImage != 0 {
		if len(p) < n+5 {
			return 0, cut
		}
		info := p[n+4]
		blk.HasImage = true
		blk.ImageLen = int(le.Uint16(p[n:]))
		blk.ApplyImage = info&s.imageApply != 0
		if blk.ImageLen > pg.BlockSize {
			return 0, "block image is larger than a page"
		}
		n += 5
		if info&imageHasHole != 0 && info&s.imageCompressed != 0 {
			n += 2 // length of the hole; else it is what the image lacks
		}
	}
	if flags&blockSameRel == 0 {
		if len(p) < n+12 {
			return 0, cut
		}
		blk.Rel = pg.RelFileLocator{
			Spc: pg.Oid(le.Uint32(p[n:])),
			DB:  pg.Oid(le.Uint32(p[n+4:])),
			Rel: pg.Oid(le.Uint32(p[n+8:])),
		}
		n += 12
	} else if i == 0 {
		return 0, "first block refers to the relation of the block before it"
	} else {
		blk.Rel = s.blocks[i-1].Rel
	}
	if len(p) < n+4 {
		return 0, cut
	}
	blk.Block = le.Uint32(p[n:])
	r.Blocks = s.blocks[:i+1]
	return n + 4, ""
}
