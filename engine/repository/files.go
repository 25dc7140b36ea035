// SPDX-License-Identifier: Apache-2.0

package repository

import (
	"encoding/binary"
	"fmt"
	"math"
	"path"
	"strings"

	"github.com/kbcli/kbcli/internal/wire"
)

// FileKind tells what stands under a path of a backup.
type FileKind uint8

// The kinds of files. Sockets, devices and pipes are never backed up.
const (
	RegularFile FileKind = iota
	Directory
	Symlink
)

// Files says which bytes of which frame are which block of which file. Those of a
// snapshot are listed alone, with their sizes: no pack, no frame and no extent.
type Files struct {
	Snapshot bool `json:",omitempty"`
	Packs    []PackRef
	Frames   []Frame
	Files    []File
}

// Frame is a frame of the pack Packs[Pack].
type Frame struct {
	Pack uint32
	FrameInfo
}

// File is one file, directory or symbolic link.
type File struct {
	Path    string
	Kind    FileKind
	Mode    uint32 // permission bits
	Size    int64
	ModTime int64 // Unix µs
	Link    string
	Extents []Extent
}

// Extent is a stretch of a file: Length bytes of frame Frames[Frame] from Skip on.
// Extents follow each other from the file's start.
type Extent struct {
	Length uint32
	Frame  uint32
	Skip   uint32
}

const (
	filesMagic    = "F1"
	snapshotMagic = "S1"
)

// A path takes little room in the table, where it shares what it has in common with
// the one before: these bound what it takes in memory.
const maxPath = 4096

var maxPaths = 1 << 30 // of all together; a test needs less

// encode writes the columns of FORMAT.md, not yet compressed.
func (f *Files) encode() []byte {
	b := []byte(filesMagic)
	if f.Snapshot {
		b = []byte(snapshotMagic)
	}
	b = binary.AppendUvarint(b, uint64(len(f.Packs)))
	for _, p := range f.Packs {
		b = appendString(b, p.Backup)
		b = binary.AppendUvarint(b, uint64(p.Number))
	}
	b = binary.AppendUvarint(b, uint64(len(f.Frames)))
	for _, fr := range f.Frames {
		b = binary.AppendUvarint(b, uint64(fr.Pack))
		b = binary.AppendUvarint(b, fr.Offset)
		b = binary.AppendUvarint(b, uint64(fr.Stored))
		b = binary.AppendUvarint(b, uint64(fr.Raw))
		b = binary.LittleEndian.AppendUint64(b, fr.Sum)
	}
	b = binary.AppendUvarint(b, uint64(len(f.Files)))
	before := ""
	for i := range f.Files {
		b = f.Files[i].append(b, before)
		before = f.Files[i].Path
	}
	return b
}

func appendString(b []byte, s string) []byte {
	b = binary.AppendUvarint(b, uint64(len(s)))
	return append(b, s...)
}

func (e *File) append(b []byte, before string) []byte {
	shared := 0
	for shared < len(before) && shared < len(e.Path) && before[shared] == e.Path[shared] {
		shared++
	}
	b = binary.AppendUvarint(b, uint64(shared))
	b = appendString(b, e.Path[shared:])
	b = append(b, byte(e.Kind))
	b = binary.AppendUvarint(b, uint64(e.Mode))
	b = binary.AppendUvarint(b, uint64(e.Size))
	b = binary.AppendVarint(b, e.ModTime)
	if e.Kind == Symlink {
		b = appendString(b, e.Link)
	}
	b = binary.AppendUvarint(b, uint64(len(e.Extents)))
	var last int64
	for _, x := range e.Extents {
		b = binary.AppendUvarint(b, uint64(x.Length))
		b = binary.AppendVarint(b, int64(x.Frame)-last)
		b = binary.AppendUvarint(b, uint64(x.Skip))
		last = int64(x.Frame)
	}
	return b
}

// parseFiles reads what encode writes and checks every reference in it.
func parseFiles(b []byte) (*Files, error) {
	f := &Files{}
	switch string(b[:min(len(b), 2)]) {
	case filesMagic:
	case snapshotMagic:
		f.Snapshot = true
	default:
		return nil, fmt.Errorf("its list of files does not begin as one")
	}
	c := wire.Reader{B: b[2:]}
	n := c.Count(2)
	f.Packs = make([]PackRef, 0, n)
	for range n {
		p := PackRef{string(c.Bytes(c.Uvarint())), c.U32()}
		if c.Err() == nil && checkBackupName(p.Backup) != nil {
			c.Fail(fmt.Sprintf("%q is not the name of a backup", p.Backup))
		}
		f.Packs = append(f.Packs, p)
	}
	n = c.Count(12)
	f.Frames = make([]Frame, 0, n)
	for range n {
		fr := Frame{c.U32(), FrameInfo{c.Uvarint(), c.U32(), c.U32(), c.Fixed64()}}
		if int(fr.Pack) >= len(f.Packs) || fr.Raw > FrameSize || fr.Stored > maxStored || fr.Stored == 0 || fr.Offset > math.MaxInt64/2 {
			c.Fail("a frame is out of range")
		}
		f.Frames = append(f.Frames, fr)
	}
	n = c.Count(6)
	f.Files = make([]File, 0, n)
	before, paths := "", 0
	for range n {
		e := f.parseFile(&c, before)
		if c.Err() != nil {
			break
		}
		if e.Path <= before {
			c.Fail(fmt.Sprintf("path %q is out of order", e.Path))
		}
		f.Files = append(f.Files, e)
		before = e.Path
		if paths += len(e.Path); paths > maxPaths {
			c.Fail("its paths are too many")
		}
	}
	if err := c.Done(); err != nil {
		return nil, fmt.Errorf("its list of files: %w", err)
	}
	return f, nil
}

func (f *Files) parseFile(c *wire.Reader, before string) File {
	shared := c.Uvarint()
	rest := c.Bytes(c.Uvarint())
	if shared > uint64(len(before)) || int(shared)+len(rest) > maxPath {
		c.Fail("a path shares more than there is, or is too long")
		return File{}
	}
	e := File{Path: before[:shared] + string(rest)}
	e.Kind = FileKind(c.U8())
	e.Mode = c.U32()
	size := c.Uvarint()
	e.ModTime = c.Varint()
	if e.Kind == Symlink {
		e.Link = string(c.Bytes(c.Uvarint()))
	}
	if e.Kind > Symlink || size > math.MaxInt64/2 || e.Mode > 0o7777 || e.Kind != RegularFile && size > 0 {
		c.Fail("a file's properties are out of range")
	}
	if e.Path == "" || e.Path == "." || path.IsAbs(e.Path) || path.Clean(e.Path) != e.Path ||
		e.Path == ".." || strings.HasPrefix(e.Path, "../") || strings.IndexByte(e.Path, 0) >= 0 {
		c.Fail(fmt.Sprintf("path %q does not stay inside its directory", e.Path))
	}
	e.Size = int64(size)
	n := c.Count(3)
	if n > 0 {
		e.Extents = make([]Extent, 0, n)
	}
	var last, total int64
	for range n {
		x := Extent{Length: c.U32()}
		last += c.Varint()
		x.Skip = c.U32()
		if last < 0 || last >= int64(len(f.Frames)) {
			c.Fail("an extent names no frame")
			return e
		}
		x.Frame = uint32(last)
		if uint64(x.Skip)+uint64(x.Length) > uint64(f.Frames[x.Frame].Raw) || x.Length == 0 {
			c.Fail("an extent reaches out of its frame")
			return e
		}
		total += int64(x.Length)
		e.Extents = append(e.Extents, x)
	}
	if f.Snapshot {
		if n > 0 {
			c.Fail("a snapshot's file has extents")
		}
		return e
	}
	if c.Err() == nil && total != e.Size {
		c.Fail(fmt.Sprintf("the extents of %q give %d bytes, not %d", e.Path, total, e.Size))
	}
	return e
}
