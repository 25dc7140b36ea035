// SPDX-License-Identifier: Apache-2.0

package restore

import (
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/kbcli/kbcli/engine/pg"
	"github.com/kbcli/kbcli/engine/repository"
)

// openFile keeps the file that was written last open, and its directory: frames of one
// file follow each other, and so do files of one directory. A file then costs one look-up
// and not one for each part of its path.
type openFile struct {
	file int // -1: none
	f    *os.File

	dir  string   // the backup's name of it
	root *os.Root // nil: none
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
	o.f, o.file = nil, -1
	return err
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
	if len(b) > 0 {
		if _, err := w.f.WriteAt(b, offset); err != nil {
			return err
		}
	}
	if len(b) >= beginsToDisk {
		// the disk works while the next frames are unpacked: finish has less to wait for
		err := unix.SyncFileRange(int(w.f.Fd()), offset, int64(len(b)), unix.SYNC_FILE_RANGE_WRITE)
		if err != nil && !errors.Is(err, unix.ENOSYS) {
			return fmt.Errorf("write %s: %w", e.Path, err)
		}
	}
	if f.missing[i].Add(-int64(len(b))) == 0 {
		f.date(w.f, i, e)
	}
	f.mu.Lock()
	f.sums[i] = append(f.sums[i], sum{offset, int64(len(b)), crc32.Checksum(b, castagnoli)})
	f.mu.Unlock()
	done := f.done.Add(int64(len(b)))
	if f.into.Progress != nil {
		f.into.Progress(done, f.total)
	}
	return nil
}

func (f *fetcher) openTo(w *openFile, i int, e *repository.File) error {
	if err := w.closeFile(); err != nil {
		return err
	}
	root, name, err := f.in(w, e.Path)
	if err != nil {
		return err
	}
	file, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE, os.FileMode(e.Mode))
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
	if e.Mode&^0o700 != 0 {
		return file.Chmod(os.FileMode(e.Mode)) // the umask may have taken some of it
	}
	return nil
}

// date gives a whole file its time while it is open, which saves looking it up again.
// Kernels before 5.8 cannot: then finish does.
func (f *fetcher) date(file *os.File, i int, e *repository.File) {
	at := unix.NsecToTimespec(e.ModTime * 1000)
	f.dated[i] = unix.UtimesNanoAt(int(file.Fd()), "", []unix.Timespec{at, at}, unix.AT_EMPTY_PATH) == nil
}
