// SPDX-License-Identifier: Apache-2.0

package restore

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/kbcli/kbcli/engine/repository"
)

// backupManifest writes PostgreSQL's backup_manifest for what was written, so that
// pg_verifybackup can judge it (documentation, chapter "Backup Manifest Format";
// version 2 since PostgreSQL 17).
func (f *fetcher) backupManifest(extra []extraFile) ([]byte, error) {
	m := f.plan.manifest
	version := 1
	if m.Version >= 170000 {
		version = 2
	}
	var b strings.Builder
	fmt.Fprintf(&b, "{ \"PostgreSQL-Backup-Manifest-Version\": %d,\n", version)
	if version >= 2 {
		fmt.Fprintf(&b, "\"System-Identifier\": %s,\n", f.plan.SystemID)
	}
	b.WriteString("\"Files\": [")
	first := true
	line := func(path string, size int64, at time.Time, crc *uint32) error {
		if !first {
			b.WriteByte(',')
		}
		first = false
		name, err := json.Marshal(path)
		if err != nil {
			return err
		}
		field := "\"Path\": " + string(name)
		if !utf8.ValidString(path) {
			field = "\"Encoded-Path\": \"" + hex.EncodeToString([]byte(path)) + "\""
		}
		fmt.Fprintf(&b, "\n{ %s, \"Size\": %d, \"Last-Modified\": \"%s GMT\"", field, size, at.UTC().Format("2006-01-02 15:04:05"))
		if crc != nil {
			// PostgreSQL prints the four bytes of the CRC in memory order
			fmt.Fprintf(&b, ", \"Checksum-Algorithm\": \"CRC32C\", \"Checksum\": \"%s\"", hex.EncodeToString(binary.LittleEndian.AppendUint32(nil, *crc)))
		}
		b.WriteString(" }")
		return nil
	}
	for i := range f.files.Files {
		e := &f.files.Files[i]
		if e.Kind != repository.RegularFile {
			continue
		}
		var crc *uint32 // what was cloned was not read
		if m.Snapshot == nil {
			sum, err := joinSums(f.sums[i], e)
			if err != nil {
				return nil, err
			}
			crc = &sum
		}
		if err := line(e.Path, e.Size, time.UnixMicro(e.ModTime), crc); err != nil {
			return nil, err
		}
	}
	for _, x := range extra {
		crc := crc32.Checksum(x.content, castagnoli)
		if err := line(x.name, int64(len(x.content)), m.StopTime, &crc); err != nil {
			return nil, err
		}
	}
	fmt.Fprintf(&b, "\n],\n\"WAL-Ranges\": [\n{ \"Timeline\": %s, \"Start-LSN\": \"%s\", \"End-LSN\": \"%s\" }\n],\n", m.Timeline, m.StartLSN, m.StopLSN)
	// over everything but its own, last line
	sha := sha256.Sum256([]byte(b.String()))
	fmt.Fprintf(&b, "\"Manifest-Checksum\": \"%s\"}\n", hex.EncodeToString(sha[:]))
	return []byte(b.String()), nil
}

// joinSums makes the CRC of a file from those of its stretches, which must cover it.
func joinSums(sums []sum, e *repository.File) (uint32, error) {
	slices.SortFunc(sums, func(a, b sum) int { return cmp.Compare(a.offset, b.offset) })
	var crc uint32
	var at int64
	for _, s := range sums {
		if s.offset != at {
			return 0, fmt.Errorf("%s was written with a hole at %d", e.Path, at)
		}
		crc = joinCRC(crc, s.crc, s.length)
		at += s.length
	}
	if at != e.Size {
		return 0, fmt.Errorf("%s has %d bytes written, not %d", e.Path, at, e.Size)
	}
	return crc, nil
}

// joinCRC gives the CRC-32C of A followed by B from those of A and B and B's length:
// appending a zero bit to A is a linear map over GF(2), whose powers are squared up
// to the length.
func joinCRC(a, b uint32, length int64) uint32 {
	if length == 0 {
		return a
	}
	for n, m := length, zeroBytes(); n > 0; n, m = n>>1, m[1:] {
		if n&1 != 0 {
			a = apply(m[0], a)
		}
	}
	return a ^ b
}

// zeroBytes are the maps that append 1, 2, 4… zero bytes: a file may be in very many
// stretches.
var zeroBytes = sync.OnceValue(func() [][32]uint32 {
	var m [32]uint32 // one zero bit
	m[0] = crc32.Castagnoli
	for i := 1; i < 32; i++ {
		m[i] = 1 << (i - 1)
	}
	for range 3 {
		m = square(m)
	}
	out := make([][32]uint32, 63) // of a positive int64
	for i := range out {
		out[i] = m
		m = square(m)
	}
	return out
})

func apply(m [32]uint32, v uint32) uint32 {
	var out uint32
	for i := 0; v != 0; i, v = i+1, v>>1 {
		if v&1 != 0 {
			out ^= m[i]
		}
	}
	return out
}

func square(m [32]uint32) [32]uint32 {
	var out [32]uint32
	for i := range m {
		out[i] = apply(m, m[i])
	}
	return out
}
