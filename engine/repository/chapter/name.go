// SPDX-License-Identifier: Apache-2.0

package chapter

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/kbcli/kbcli/engine/pg"
)

// logBytes is how much WAL shares the first 16 digits of its segments' names.
const logBytes = 1 << 32

// PerLog is how many segments of a size make one chapter, unless a lineage says
// otherwise.
func PerLog(size pg.SegmentSize) uint64 { return logBytes / uint64(size) }

// Name is what a chapter's key says.
type Name struct {
	First pg.Segment
	// Stamped is set if anything in it has a time; Min and Max are the earliest and the
	// latest. Where it is not set both are 0.
	Stamped  bool
	Min, Max pg.Timestamp
}

const none = "none"

// Key is the last part of the chapter's key.
func (n Name) Key(size pg.SegmentSize) string {
	from, to := none, none
	if n.Stamped {
		from, to = stamp(n.Min), stamp(n.Max)
	}
	return size.Name(n.First) + "-" + from + "-" + to
}

func stamp(t pg.Timestamp) string {
	return fmt.Sprintf("%016X", uint64(t.Time().UnixMicro()))
}

// ParseName reads what Key wrote, of a chapter that begins at a multiple of per segments.
func ParseName(size pg.SegmentSize, per uint64, key string) (Name, error) {
	parts := strings.Split(key, "-")
	if len(parts) != 3 {
		return Name{}, fmt.Errorf("chapter name %q is not a segment and two times", key)
	}
	var n Name
	var err error
	if n.First, err = size.ParseName(parts[0]); err != nil {
		return Name{}, err
	}
	if n.Stamped = parts[1] != none; n.Stamped {
		for i, t := range []*pg.Timestamp{&n.Min, &n.Max} {
			v, err := strconv.ParseUint(parts[i+1], 16, 64)
			if err != nil {
				return Name{}, fmt.Errorf("chapter name %q: %w", key, err)
			}
			*t = pg.TimestampOf(time.UnixMicro(int64(v)))
		}
	}
	if n.Key(size) != key || n.First.Number%per != 0 || n.Min > n.Max {
		return Name{}, fmt.Errorf("chapter name %q is not as it is written", key)
	}
	return n, nil
}

// Run is the segments [From, To) of a timeline, by number.
type Run struct {
	Timeline pg.TimelineID
	From, To uint64
}

// Runs puts whole segments together that come by timeline and number.
type Runs []Run

// Add adds the segments [from, to).
func (rs *Runs) Add(tli pg.TimelineID, from, to uint64) {
	if n := len(*rs); n > 0 && (*rs)[n-1].Timeline == tli && (*rs)[n-1].To >= from {
		(*rs)[n-1].To = max((*rs)[n-1].To, to)
		return
	}
	*rs = append(*rs, Run{tli, from, to})
}
