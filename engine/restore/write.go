// SPDX-License-Identifier: Apache-2.0

package restore

import (
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path"
	"path/filepath"
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/kbcli/kbcli/engine/pg"
	"github.com/kbcli/kbcli/engine/repository"
)

// directUnit is what place, length and memory of a write past the page cache are multiples
// of: at least the block of any disk.
const directUnit = 4096

// openFile keeps the file that was written last open, and its directory: frames of one
// file follow each other, and so do files of one directory. A file then costs one look-up
// and not one for each part of its path.
type openFile struct {
	file   int // -1: none
	f      *os.File
	direct bool // f writes past the page cache

	dir  string   // the backup's name of it
	root *os.Root // nil: none

	whole, part []byte // of a Delta: a frame of the directory, and a stretch of a file
}

// frame and piece are room for a frame and for a part of one.
func (o *openFile) frame(n int) []byte { return room(&o.whole, n) }
func (o *openFile) piece(n int) []byte { return room(&o.part, n) }

func room(b *[]byte, n int) []byte {
	if cap(*b) < n {
		*b = make([]byte, max(n, repository.FrameSize))
	}
	return (*b)[:n]
}

// close closes both. It may be called again.
func (o *openFile) close() error {
	err := o.closeFile()
	if o.root != nil {
		err = errors.Join(err, o.root.Close())
		o.root = nil
	}
	return err
}

func (o *openFile) closeFile() error {
	if o.f == nil {
		return nil
	}
	err := o.f.Close()
	o.f, o.file, o.direct = nil, -1, false
	return err
}

// past has the file written past the page cache if direct is set, and through it else.
func (o *openFile) past(direct bool) error {
	if o.direct == direct {
		return nil
	}
	flags, err := unix.FcntlInt(o.f.Fd(), unix.F_GETFL, 0)
	if err != nil {
		return err
	}
	flags &^= unix.O_DIRECT
	if direct {
		flags |= unix.O_DIRECT
	}
	if _, err := unix.FcntlInt(o.f.Fd(), unix.F_SETFL, flags); err != nil {
		return err
	}
	o.direct = direct
	return nil
}

// in gives the directory of a file, and the file's name there.
func (f *fetcher) in(o *openFile, p string) (*os.Root, string, error) {
	root, name := f.place(p)
	dir, base := filepath.Split(name)
	if dir == "" {
		return root, base, nil
	}
	if o.root == nil || o.dir != path.Dir(p) {
		if err := o.close(); err != nil {
			return nil, "", err
		}
		var err error
		if o.root, err = root.OpenRoot(filepath.Clean(dir)); err != nil {
			return nil, "", err
		}
		o.dir = path.Dir(p)
	}
	return o.root, base, nil
}

func (f *fetcher) write(i int, b []byte, offset int64) error {
	w := &openFile{file: -1}
	err := f.writeTo(w, i, b, offset)
	return errors.Join(err, w.close())
}

// beginsToDisk is how many bytes in one go are sent on their way to the disk at once.
// Of small files that would only be more to ask of it; stretches between pages that
// changed here and there are about so long.
const beginsToDisk = 64 << 10

func (f *fetcher) writeTo(w *openFile, i int, b []byte, offset int64) error {
	e := &f.files.Files[i]
	if w.file != i {
		if err := f.openTo(w, i, e); err != nil {
			return err
		}
	}
	if e.Path == controlPath {
		if offset != 0 || int64(len(b)) != e.Size {
			return fmt.Errorf("the backup's control file is in pieces")
		}
		var err error
		if b, err = pg.InvalidateCheckpoint(b); err != nil {
			return err
		}
	}
	var err error
	switch {
	case f.delta == nil:
		err = f.writeOut(w, b, offset)
	case e.Path == controlPath:
		f.control = slices.Clone(b)
		f.delta.written.Add(int64(len(b)))
	default:
		err = f.writeDiffering(w, i, b, offset)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", e.Path, err)
	}
	if f.placed(i, b, offset) && f.delta == nil {
		f.date(w.f, i, e)
	}
	return nil
}

// writeOut writes b. What is much goes to the disk at once, past the page cache where the
// file system lets it.
func (f *fetcher) writeOut(w *openFile, b []byte, offset int64) error {
	if len(b) < beginsToDisk {
		return f.writeCached(w, b, offset)
	}
	n, err := f.writeDirect(w, b, offset)
	if err != nil || n == len(b) {
		return err
	}
	b, offset = b[n:], offset+int64(n)
	if err := f.writeCached(w, b, offset); err != nil {
		return err
	}
	// the disk works while the next frames are unpacked: finish has less to wait for
	err = unix.SyncFileRange(int(w.f.Fd()), offset, int64(len(b)), unix.SYNC_FILE_RANGE_WRITE)
	if errors.Is(err, unix.ENOSYS) {
		return nil
	}
	return err
}

func (f *fetcher) writeCached(w *openFile, b []byte, offset int64) error {
	if len(b) == 0 {
		return nil
	}
	if err := w.past(false); err != nil {
		return err
	}
	// The kernel lets one at a time write to a file, and has the other cores spin
	// meanwhile that could unpack.
	turn := &f.turns[w.file%len(f.turns)]
	turn.Lock()
	defer turn.Unlock()
	_, err := w.f.WriteAt(b, offset)
	return err
}

// writeDirect writes what of b can go past the page cache, from its beginning on, and says
// how much that was. A database that is restored is mostly larger than what its server will
// read of it soon: to copy it into memory costs as much CPU as to unpack it, and takes the
// memory from those who use theirs.
func (f *fetcher) writeDirect(w *openFile, b []byte, offset int64) (int, error) {
	n := len(b) / directUnit * directUnit
	if n == 0 || offset%directUnit != 0 || uintptr(unsafe.Pointer(unsafe.SliceData(b)))%directUnit != 0 || f.cached.Load() {
		return 0, nil
	}
	err := w.past(true)
	if err == nil {
		_, err = w.f.WriteAt(b[:n], offset)
	}
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOPNOTSUPP) {
		f.cached.Store(true) // not on this file system
		return 0, nil
	}
	return n, err
}

// placed counts a stretch of a file that is as it should be, and tells whether it was the
// last of the file.
func (f *fetcher) placed(i int, b []byte, offset int64) bool {
	whole := f.missing[i].Add(-int64(len(b))) == 0
	f.mu.Lock()
	f.sums[i] = append(f.sums[i], sum{offset, int64(len(b)), crc32.Checksum(b, castagnoli)})
	f.mu.Unlock()
	done := f.done.Add(int64(len(b)))
	if f.into.Progress != nil {
		f.into.Progress(done, f.total)
	}
	return whole
}

func (f *fetcher) openTo(w *openFile, i int, e *repository.File) error {
	if err := w.closeFile(); err != nil {
		return err
	}
	root, name, err := f.in(w, e.Path)
	if err != nil {
		return err
	}
	flags := os.O_WRONLY | os.O_CREATE
	if f.delta != nil {
		flags = os.O_RDWR | os.O_CREATE
	}
	file, err := root.OpenFile(name, flags, writable(e))
	if err != nil {
		return err
	}
	w.f, w.file = file, i
	if f.started[i].CompareAndSwap(false, true) {
		return f.begin(file, e)
	}
	return nil
}

func (f *fetcher) begin(file *os.File, e *repository.File) error {
	if f.into.UID >= 0 {
		if err := file.Chown(f.into.UID, f.into.GID); err != nil {
			return err
		}
	}
	if f.delta != nil {
		info, err := file.Stat()
		if err == nil && info.Size() > e.Size {
			err = file.Truncate(e.Size)
		}
		if err != nil {
			return err
		}
	}
	if e.Mode&^0o700 != 0 || f.delta != nil {
		return file.Chmod(writable(e)) // the umask may have taken some of it
	}
	return nil
}

// ownerWrites is what a file's owner needs of its mode while it is written. Keys may lack it.
const ownerWrites = 0o600

// writable is a file's mode until finish gives it its own.
func writable(e *repository.File) os.FileMode { return os.FileMode(e.Mode) | ownerWrites }

// date gives a whole file its time while it is open, which saves looking it up again.
// Kernels before 5.8 cannot: then finish does.
func (f *fetcher) date(file *os.File, i int, e *repository.File) {
	at := unix.NsecToTimespec(e.ModTime * 1000)
	f.dated[i] = unix.UtimesNanoAt(int(file.Fd()), "", []unix.Timespec{at, at}, unix.AT_EMPTY_PATH) == nil
}
