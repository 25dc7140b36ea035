// SPDX-License-Identifier: Apache-2.0

package pg

import "fmt"

// SegmentSize is the number of bytes in a WAL segment file: a power of two from
// 1 MiB to 1 GiB, fixed by initdb.
type SegmentSize uint32

// DefaultSegmentSize is what initdb takes when it is not told.
const DefaultSegmentSize SegmentSize = 16 << 20

// Valid tells whether PostgreSQL would accept s.
func (s SegmentSize) Valid() bool {
	return s >= 1<<20 && s <= 1<<30 && s&(s-1) == 0
}

// Number is the segment that holds the byte at l.
func (s SegmentSize) Number(l LSN) uint64 { return uint64(l) / uint64(s) }

// Start is the first byte of segment n.
func (s SegmentSize) Start(n uint64) LSN { return LSN(n * uint64(s)) }

// End is the byte after segment n.
func (s SegmentSize) End(n uint64) LSN { return LSN((n + 1) * uint64(s)) }

// Floor is the start of the segment that holds l.
func (s SegmentSize) Floor(l LSN) LSN { return l &^ LSN(s-1) }

// Offset is the distance of l from the start of its segment.
func (s SegmentSize) Offset(l LSN) int64 { return int64(l & LSN(s-1)) }

// perLog is how many segments share one value of the middle part of a name.
func (s SegmentSize) perLog() uint64 { return 0x1_0000_0000 / uint64(s) }

// Segment names one WAL segment: a timeline and a number.
type Segment struct {
	Timeline TimelineID
	Number   uint64
}

// Name is the file name of g in pg_wal: 24 upper-case hexadecimal digits.
func (s SegmentSize) Name(g Segment) string {
	per := s.perLog()
	return fmt.Sprintf("%08X%08X%08X", uint32(g.Timeline), uint32(g.Number/per), uint32(g.Number%per))
}

// ParseName reads what Name writes. A name whose last part is out of range for
// this segment size is an error.
func (s SegmentSize) ParseName(name string) (Segment, error) {
	if !s.Valid() {
		return Segment{}, fmt.Errorf("WAL segment size %d is not a power of two from 1 MiB to 1 GiB", uint32(s))
	}
	if len(name) != 24 {
		return Segment{}, fmt.Errorf("WAL segment name %q has not 24 digits", name)
	}
	var part [3]uint32
	for i := range part {
		p := name[8*i : 8*i+8]
		v, err := parseHex32(p)
		if err != nil {
			return Segment{}, fmt.Errorf("WAL segment name %q: %w", name, err)
		}
		part[i] = v
	}
	if part[0] == 0 {
		return Segment{}, fmt.Errorf("WAL segment name %q: timeline 0", name)
	}
	if uint64(part[2]) >= s.perLog() {
		return Segment{}, fmt.Errorf("WAL segment name %q does not fit segments of %d bytes", name, uint32(s))
	}
	g := Segment{TimelineID(part[0]), uint64(part[1])*s.perLog() + uint64(part[2])}
	if s.Name(g) != name {
		return Segment{}, fmt.Errorf("WAL segment name %q is not in upper case", name)
	}
	return g, nil
}
