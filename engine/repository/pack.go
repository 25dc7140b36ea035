// SPDX-License-Identifier: Apache-2.0

package repository

import (
	"context"
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"

	"github.com/cespare/xxhash/v2"

	"github.com/kbcli/kbcli/internal/wire"
)

// FrameSize is the most raw bytes that one frame of a pack holds.
const FrameSize = 1 << 20

// PackSize is about how many bytes a pack takes in the store before the next begins, and
// the most: a PackWriter may be told to make smaller ones.
const PackSize = 16 << 20

// maxStored bounds what a frame takes: zstd adds a few bytes to what does not compress.
const maxStored = FrameSize + 4<<10

// PackRef names a pack: the backup that wrote it and its number there.
type PackRef struct {
	Backup string
	Number uint32
}

// FrameInfo is where a frame lies in its pack's payload and what it gives.
type FrameInfo struct {
	Offset uint64
	Stored uint32
	Raw    uint32
	Sum    uint64 // xxh64 of the raw bytes
}

// PackWriter gathers frames. It is used by one goroutine. It takes Size and two frames
// of memory, and PutPack as much again in a sealed repository.
type PackWriter struct {
	Size int // about how many bytes a pack takes; 0 is PackSize, and more is not heeded

	buf    []byte
	frames []FrameInfo
}

func (w *PackWriter) size() int {
	if w.Size <= 0 {
		return PackSize
	}
	return min(w.Size, PackSize)
}

// Add compresses raw, at most FrameSize bytes, as the pack's next frame and
// returns its number in the pack. sum is the xxh64 of raw.
func (w *PackWriter) Add(raw []byte, sum uint64) int {
	if w.buf == nil {
		w.buf = make([]byte, 0, w.size()+2*FrameSize)
	}
	off := len(w.buf)
	w.buf = Compress(w.buf, raw)
	w.frames = append(w.frames, FrameInfo{uint64(off), uint32(len(w.buf) - off), uint32(len(raw)), sum})
	return len(w.frames) - 1
}

// Frames are those added since the last Reset.
func (w *PackWriter) Frames() []FrameInfo { return w.frames }

// Full tells whether the pack should be put and the next begun.
func (w *PackWriter) Full() bool { return len(w.buf) >= w.size() }

// Reset empties the writer and keeps its memory.
func (w *PackWriter) Reset() { w.buf, w.frames = w.buf[:0], w.frames[:0] }

func (l *Lineage) packKey(p PackRef) string {
	return l.key("backup", p.Backup, "pack", fmt.Sprintf("%08d", p.Number))
}

// PutPack stores what w holds. The writer can be Reset when it returned. It gives
// the bytes that the object takes.
func (l *Lineage) PutPack(ctx context.Context, p PackRef, w *PackWriter) (int64, error) {
	// behind w.buf, not in it: PutPack may be called again after an error
	b := binary.AppendUvarint(w.buf, uint64(len(w.frames)))
	for _, f := range w.frames {
		b = binary.AppendUvarint(b, uint64(f.Stored))
		b = binary.AppendUvarint(b, uint64(f.Raw))
		b = binary.LittleEndian.AppendUint64(b, f.Sum)
	}
	b = binary.LittleEndian.AppendUint32(b, uint32(len(b)-len(w.buf)))
	key := l.packKey(p)
	if err := l.repo.put(ctx, KindPack, key, b, 0); err != nil {
		return 0, err
	}
	return headerSize(key) + int64(len(b)), nil
}

// Packs lists the numbers of the packs that a backup wrote, ascending, and the
// bytes that they take.
func (l *Lineage) Packs(ctx context.Context, backup string) (numbers []uint32, size int64, err error) {
	if err := checkBackupName(backup); err != nil {
		return nil, 0, err
	}
	prefix := l.key("backup", backup, "pack") + "/"
	for info, err := range l.repo.store.List(ctx, prefix) {
		if err != nil {
			return nil, 0, fmt.Errorf("list packs of %s: %w", backup, err)
		}
		n, err := strconv.ParseUint(strings.TrimPrefix(info.Key, prefix), 10, 32)
		if err != nil {
			return nil, 0, &CorruptError{info.Key, "its name is not a number"}
		}
		if info.Key != l.packKey(PackRef{backup, uint32(n)}) {
			return nil, 0, &CorruptError{info.Key, "its name is not that of a pack"}
		}
		numbers = append(numbers, uint32(n))
		size += info.Size
	}
	return numbers, size, nil
}

// DeletePack removes a pack.
func (l *Lineage) DeletePack(ctx context.Context, p PackRef) error {
	return l.repo.store.Delete(ctx, l.packKey(p))
}

// PackTable reads a whole pack, checks every frame of it and returns its table.
func (l *Lineage) PackTable(ctx context.Context, p PackRef) ([]FrameInfo, error) {
	key := l.packKey(p)
	payload, err := l.repo.get(ctx, KindPack, key)
	if err != nil {
		return nil, err
	}
	frames, err := parsePackTable(payload)
	if err != nil {
		return nil, &CorruptError{key, err.Error()}
	}
	var raw []byte
	for i, f := range frames {
		if raw, err = decodeFrame(raw[:0], payload[f.Offset:f.Offset+uint64(f.Stored)], f); err != nil {
			return nil, &CorruptError{key, fmt.Sprintf("frame %d: %v", i, err)}
		}
	}
	return frames, nil
}

func parsePackTable(payload []byte) ([]FrameInfo, error) {
	if len(payload) < 4 {
		return nil, fmt.Errorf("its table is cut")
	}
	n := uint64(binary.LittleEndian.Uint32(payload[len(payload)-4:]))
	if n > uint64(len(payload)-4) {
		return nil, fmt.Errorf("its table is cut")
	}
	end := len(payload) - 4 - int(n)
	c := wire.Reader{B: payload[end : len(payload)-4]}
	count := c.Count(10)
	frames := make([]FrameInfo, 0, count)
	var off uint64
	for range count {
		f := FrameInfo{Offset: off, Stored: c.U32(), Raw: c.U32(), Sum: c.Fixed64()}
		off += uint64(f.Stored)
		if f.Raw > FrameSize || f.Stored > maxStored || off > uint64(end) {
			c.Fail("frame reaches out of the pack")
		}
		frames = append(frames, f)
	}
	if err := c.Done(); err != nil {
		return nil, err
	}
	if off != uint64(end) {
		return nil, fmt.Errorf("its frames take %d bytes, not %d", off, end)
	}
	return frames, nil
}

// decodeFrame undoes the frame f, which is stored, into dst.
func decodeFrame(dst, stored []byte, f FrameInfo) ([]byte, error) {
	if cap(dst) < int(f.Raw) {
		dst = make([]byte, 0, max(int(f.Raw), FrameSize))
	}
	out, err := decoder().DecodeAll(stored, dst[:0:max(int(f.Raw), 0)])
	if err != nil {
		return nil, fmt.Errorf("decompress: %w", err)
	}
	if len(out) != int(f.Raw) || xxhash.Sum64(out) != f.Sum {
		return nil, fmt.Errorf("the checksum of its bytes does not match")
	}
	return out, nil
}
