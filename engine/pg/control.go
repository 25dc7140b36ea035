// SPDX-License-Identifier: Apache-2.0

package pg

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"
	"strconv"
	"time"
)

// ControlFileSize is the length of global/pg_control, most of it zeros.
const ControlFileSize = 8192

// ErrControlFileCRC says that the bytes of a control file do not agree with
// their checksum: damage, or a read that raced with a running server's write.
// Read it again before believing in damage.
var ErrControlFileCRC = errors.New("control file does not match its CRC")

// ControlFile is what global/pg_control says about a data directory
// (ControlFileData in src/include/catalog/pg_control.h).
type ControlFile struct {
	SystemID       SystemID
	ControlVersion uint32
	CatalogVersion uint32
	Major          int // 13 to 18, from the catalog version
	State          DBState
	Modified       time.Time // seconds precision, UTC

	Checkpoint     LSN // the last checkpoint's record
	Redo           LSN // where recovery from it begins
	Timeline       TimelineID
	PrevTimeline   TimelineID // differs from Timeline only when the checkpoint began it
	CheckpointTime time.Time  // seconds precision, UTC

	MinRecoveryPoint         LSN // 0 outside archive recovery
	MinRecoveryPointTimeline TimelineID
	BackupStartPoint         LSN // not 0 while a restored backup is not consistent yet
	BackupEndPoint           LSN // the same, for a backup taken from a standby
	BackupEndRequired        bool

	WALLevel        WALLevel
	MaxConnections  int
	MaxWorkers      int // max_worker_processes
	MaxWALSenders   int
	MaxPreparedXact int // max_prepared_transactions
	MaxLocksPerXact int // max_locks_per_transaction

	BlockSize       int
	RelSegBlocks    int // pages in one file of a relation
	WALBlockSize    int
	SegmentSize     SegmentSize
	ChecksumVersion uint32 // 0: pages carry no checksums
}

// DataChecksums tells whether pages carry checksums.
func (c ControlFile) DataChecksums() bool { return c.ChecksumVersion != 0 }

// DBState is what a cluster was doing when its control file was written.
type DBState uint32

// The states of a cluster.
const (
	StateStartingUp DBState = iota
	StateShutDown
	StateShutDownInRecovery
	StateShuttingDown
	StateInCrashRecovery
	StateInArchiveRecovery
	StateInProduction
)

// String is pg_controldata's word.
func (s DBState) String() string {
	words := [...]string{
		"starting up", "shut down", "shut down in recovery", "shutting down",
		"in crash recovery", "in archive recovery", "in production",
	}
	if int(s) < len(words) {
		return words[s]
	}
	return "unrecognized status code " + strconv.FormatUint(uint64(s), 10)
}

// WALLevel is how much a server writes into its WAL.
type WALLevel uint32

// The WAL levels. Only replica and logical can be archived.
const (
	WALMinimal WALLevel = iota
	WALReplica
	WALLogical
)

// String is the value of the setting wal_level.
func (l WALLevel) String() string {
	switch l {
	case WALMinimal:
		return "minimal"
	case WALReplica:
		return "replica"
	case WALLogical:
		return "logical"
	}
	return "unrecognized wal_level " + strconv.FormatUint(uint64(l), 10)
}

// controlLayout is what sets the control files of one release apart. All that
// this package reads lies before the fields that moved.
type controlLayout struct {
	major   int
	control uint32 // PG_CONTROL_VERSION
	crcAt   int
}

// Catalog versions of released servers. Betas have others and are refused.
var controlLayouts = map[uint32]controlLayout{
	202007201: {13, 1300, 288},
	202107181: {14, 1300, 288},
	202209061: {15, 1300, 288},
	202307071: {16, 1300, 288},
	202406281: {17, 1700, 288}, // CheckPoint.wal_level fills what was padding
	202506291: {18, 1800, 292}, // default_char_signedness precedes the nonce
}

// Offsets common to 13 to 18.
const (
	atSystemID         = 0
	atControlVersion   = 8
	atCatalogVersion   = 12
	atState            = 16
	atModified         = 24
	atCheckpoint       = 32
	atRedo             = 40 // CheckPoint begins here
	atTimeline         = 48
	atPrevTimeline     = 52
	atCheckpointTime   = 104
	atMinRecovery      = 136
	atMinRecoveryTLI   = 144
	atBackupStart      = 152
	atBackupEnd        = 160
	atBackupEndNeeded  = 168
	atWALLevel         = 172
	atMaxConnections   = 180
	atMaxWorkers       = 184
	atMaxWALSenders    = 188
	atMaxPreparedXact  = 192
	atMaxLocksPerXact  = 196
	atMaxAlign         = 204
	atBlockSize        = 216
	atRelSegBlocks     = 220
	atWALBlockSize     = 224
	atSegmentSize      = 228
	atChecksumVersion  = 252
	controlVersionSwap = 0x0000_FFFF // a version of another byte order is above this
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// ParseControlFile reads global/pg_control of PostgreSQL 13 to 18. Bytes that
// fail their CRC give ErrControlFileCRC. A build that this package cannot work
// with is an error: another byte order, block size or alignment.
func ParseControlFile(data []byte) (ControlFile, error) {
	layout, err := controlLayoutOf(data)
	if err != nil {
		return ControlFile{}, err
	}
	u32 := func(at int) uint32 { return binary.LittleEndian.Uint32(data[at:]) }
	u64 := func(at int) uint64 { return binary.LittleEndian.Uint64(data[at:]) }
	seconds := func(at int) time.Time { return time.Unix(int64(u64(at)), 0).UTC() }
	count := func(at int) int { return int(int32(u32(at))) }
	c := ControlFile{
		SystemID:                 SystemID(u64(atSystemID)),
		ControlVersion:           u32(atControlVersion),
		CatalogVersion:           u32(atCatalogVersion),
		Major:                    layout.major,
		State:                    DBState(u32(atState)),
		Modified:                 seconds(atModified),
		Checkpoint:               LSN(u64(atCheckpoint)),
		Redo:                     LSN(u64(atRedo)),
		Timeline:                 TimelineID(u32(atTimeline)),
		PrevTimeline:             TimelineID(u32(atPrevTimeline)),
		CheckpointTime:           seconds(atCheckpointTime),
		MinRecoveryPoint:         LSN(u64(atMinRecovery)),
		MinRecoveryPointTimeline: TimelineID(u32(atMinRecoveryTLI)),
		BackupStartPoint:         LSN(u64(atBackupStart)),
		BackupEndPoint:           LSN(u64(atBackupEnd)),
		BackupEndRequired:        data[atBackupEndNeeded] != 0,
		WALLevel:                 WALLevel(u32(atWALLevel)),
		MaxConnections:           count(atMaxConnections),
		MaxWorkers:               count(atMaxWorkers),
		MaxWALSenders:            count(atMaxWALSenders),
		MaxPreparedXact:          count(atMaxPreparedXact),
		MaxLocksPerXact:          count(atMaxLocksPerXact),
		BlockSize:                count(atBlockSize),
		RelSegBlocks:             count(atRelSegBlocks),
		WALBlockSize:             count(atWALBlockSize),
		SegmentSize:              SegmentSize(u32(atSegmentSize)),
		ChecksumVersion:          u32(atChecksumVersion),
	}
	if c.BlockSize != BlockSize || c.WALBlockSize != BlockSize || c.RelSegBlocks != RelSegBlocks {
		return ControlFile{}, fmt.Errorf("control file: a build with pages of %d, WAL pages of %d and %d pages a file is not supported", c.BlockSize, c.WALBlockSize, c.RelSegBlocks)
	}
	if align := u32(atMaxAlign); align != 8 {
		return ControlFile{}, fmt.Errorf("control file: a build with %d-byte alignment is not supported", align)
	}
	if !c.SegmentSize.Valid() {
		return ControlFile{}, fmt.Errorf("control file: WAL segment size %d is not a power of two from 1 MiB to 1 GiB", uint32(c.SegmentSize))
	}
	if c.Timeline == 0 {
		return ControlFile{}, errors.New("control file: timeline 0")
	}
	return c, nil
}

// controlLayoutOf finds the release that wrote data and checks its CRC.
func controlLayoutOf(data []byte) (controlLayout, error) {
	const header = atCatalogVersion + 4
	if len(data) < header {
		return controlLayout{}, fmt.Errorf("control file has %d bytes, not %d", len(data), ControlFileSize)
	}
	control := binary.LittleEndian.Uint32(data[atControlVersion:])
	catalog := binary.LittleEndian.Uint32(data[atCatalogVersion:])
	if control > controlVersionSwap {
		return controlLayout{}, fmt.Errorf("control file version %d: damaged, or of a machine with another byte order", control)
	}
	layout, ok := controlLayouts[catalog]
	if !ok || layout.control != control {
		return controlLayout{}, fmt.Errorf("control file version %d with catalog version %d is not of a release of PostgreSQL %d to %d", control, catalog, OldestMajor, NewestMajor)
	}
	if len(data) < layout.crcAt+4 {
		return controlLayout{}, fmt.Errorf("control file has %d bytes, not %d", len(data), ControlFileSize)
	}
	if crc32.Checksum(data[:layout.crcAt], castagnoli) != binary.LittleEndian.Uint32(data[layout.crcAt:]) {
		return controlLayout{}, ErrControlFileCRC
	}
	return layout, nil
}

// noCheckpoint is a position that passes PostgreSQL's test of form (it lies
// behind a page header) and that no server ever writes: WAL begins in the
// second segment.
const noCheckpoint LSN = 0x28

// InvalidateCheckpoint returns a copy of a control file that points at no
// checkpoint. A data directory that holds it starts only with a backup_label,
// which names the checkpoint itself; if somebody deletes the label the server
// stops with "could not locate a valid checkpoint record" where it would have
// opened torn data.
func InvalidateCheckpoint(data []byte) ([]byte, error) {
	if _, err := ParseControlFile(data); err != nil {
		return nil, err
	}
	layout, err := controlLayoutOf(data)
	if err != nil {
		return nil, err
	}
	out := slices.Clone(data)
	binary.LittleEndian.PutUint64(out[atCheckpoint:], uint64(noCheckpoint))
	binary.LittleEndian.PutUint64(out[atRedo:], uint64(noCheckpoint))
	binary.LittleEndian.PutUint32(out[layout.crcAt:], crc32.Checksum(out[:layout.crcAt], castagnoli))
	return out, nil
}
