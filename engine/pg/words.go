// SPDX-License-Identifier: Apache-2.0

package pg

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// LSN is a byte position in the write-ahead log. Zero is invalid: no WAL is
// ever written there.
type LSN uint64

// String is PostgreSQL's form, two hexadecimal halves: "16/B374D848".
func (l LSN) String() string {
	return fmt.Sprintf("%X/%X", uint32(l>>32), uint32(l))
}

// ParseLSN reads what String writes. Each half has one to eight hexadecimal
// digits of either case.
func ParseLSN(s string) (LSN, error) {
	hi, lo, ok := strings.Cut(s, "/")
	if !ok {
		return 0, fmt.Errorf("LSN %q: no slash", s)
	}
	h, err := parseHex32(hi)
	if err != nil {
		return 0, fmt.Errorf("LSN %q: %w", s, err)
	}
	l, err := parseHex32(lo)
	if err != nil {
		return 0, fmt.Errorf("LSN %q: %w", s, err)
	}
	return LSN(h)<<32 | LSN(l), nil
}

// MarshalText makes an LSN read as PostgreSQL's form in JSON and YAML.
func (l LSN) MarshalText() ([]byte, error) { return []byte(l.String()), nil }

// UnmarshalText reads what MarshalText writes.
func (l *LSN) UnmarshalText(b []byte) error {
	v, err := ParseLSN(string(b))
	if err != nil {
		return err
	}
	*l = v
	return nil
}

func parseHex32(s string) (uint32, error) {
	if len(s) == 0 || len(s) > 8 {
		return 0, fmt.Errorf("%q is not one to eight hexadecimal digits", s)
	}
	var v uint32
	for i := range len(s) {
		c := s[i]
		switch {
		case c >= '0' && c <= '9':
			c -= '0'
		case c >= 'A' && c <= 'F':
			c -= 'A' - 10
		case c >= 'a' && c <= 'f':
			c -= 'a' - 10
		default:
			return 0, fmt.Errorf("%q is not one to eight hexadecimal digits", s)
		}
		v = v<<4 | uint32(c)
	}
	return v, nil
}

// TimelineID numbers one history of a cluster. The first is 1; zero is invalid.
type TimelineID uint32

// String is decimal, as PostgreSQL prints it for people.
func (t TimelineID) String() string { return strconv.FormatUint(uint64(t), 10) }

// ParseTimelineID reads a decimal timeline, at least 1.
func ParseTimelineID(s string) (TimelineID, error) {
	v, err := strconv.ParseUint(s, 10, 32)
	if err != nil || v == 0 {
		return 0, fmt.Errorf("timeline %q is not a number from 1 to 4294967295", s)
	}
	return TimelineID(v), nil
}

// SystemID is what initdb wrote into pg_control: two servers with the same one
// share a history.
type SystemID uint64

// String is decimal, as pg_controldata prints it.
func (s SystemID) String() string { return strconv.FormatUint(uint64(s), 10) }

// ParseSystemID reads what String writes.
func ParseSystemID(s string) (SystemID, error) {
	v, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("system identifier %q is not a number", s)
	}
	return SystemID(v), nil
}

// MarshalText writes the decimal form: the value does not fit a JSON number.
func (s SystemID) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads what MarshalText writes.
func (s *SystemID) UnmarshalText(b []byte) error {
	v, err := ParseSystemID(string(b))
	if err != nil {
		return err
	}
	*s = v
	return nil
}

// XID is a 32-bit transaction identifier, as WAL records carry it.
type XID uint32

// Oid is an object identifier.
type Oid uint32

// RelFileLocator names the file of a relation: tablespace, database, number.
type RelFileLocator struct {
	Spc, DB, Rel Oid
}

// String is pg_waldump's form, "1663/5/16384".
func (r RelFileLocator) String() string { return fmt.Sprintf("%d/%d/%d", r.Spc, r.DB, r.Rel) }

// ForkNumber tells the files of one relation apart.
type ForkNumber uint8

// The forks of a relation (src/include/common/relpath.h).
const (
	MainFork ForkNumber = iota
	FSMFork
	VMFork
	InitFork
)

// String is pg_waldump's name of the fork.
func (f ForkNumber) String() string {
	switch f {
	case MainFork:
		return "main"
	case FSMFork:
		return "fsm"
	case VMFork:
		return "vm"
	case InitFork:
		return "init"
	}
	return strconv.Itoa(int(f))
}

// Timestamp is PostgreSQL's timestamptz: microseconds since 2000-01-01 00:00 UTC.
type Timestamp int64

const pgEpochUnixMicro = 946684800 * 1_000_000

// Time is the same instant in UTC.
func (t Timestamp) Time() time.Time { return time.UnixMicro(int64(t) + pgEpochUnixMicro).UTC() }

// TimestampOf cuts t to microseconds, towards the past.
func TimestampOf(t time.Time) Timestamp { return Timestamp(t.UnixMicro() - pgEpochUnixMicro) }

// BlockSize is the size of a page in bytes; other sizes of PostgreSQL builds are refused.
const BlockSize = 8192

// RelSegBlocks is how many pages one file of a relation holds (1 GiB).
const RelSegBlocks = 131072

// Version is a server version number: 150020 is 15.20.
type Version int

// Major is 15 of 15.20.
func (v Version) Major() int { return int(v) / 10000 }

// String is "15.20".
func (v Version) String() string { return fmt.Sprintf("%d.%d", int(v)/10000, int(v)%10000) }

// OldestMajor and NewestMajor are the releases of PostgreSQL that are tested.
const (
	OldestMajor = 13
	NewestMajor = 18
)
