// SPDX-License-Identifier: Apache-2.0

package restore

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// NoRoomError says that the disk is too small for what would be written.
type NoRoomError struct {
	Dir        string
	Need, Free int64
}

func (e *NoRoomError) Error() string {
	return fmt.Sprintf("%s has %d bytes free, the restore needs %d", e.Dir, e.Free, e.Need)
}

// NotEmptyError says that the target directory holds something.
type NotEmptyError struct{ Dir string }

func (e *NotEmptyError) Error() string { return fmt.Sprintf("directory %s is not empty", e.Dir) }

// CheckRoom fails unless the target is empty and has room for the data and for
// the WAL that waits to be replayed.
func (p *Plan) CheckRoom(into Into) error {
	entries, err := os.ReadDir(into.DataDirectory)
	if err == nil && len(entries) > 0 && into.Delta == nil {
		return &NotEmptyError{into.DataDirectory}
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("restore: %w", err)
	}
	var old int64 // what is there is written over
	if into.Delta != nil {
		for _, dir := range []string{into.DataDirectory, into.Tablespaces} {
			n, err := used(dir)
			if err != nil {
				return fmt.Errorf("restore: %w", err)
			}
			old += n
		}
	}
	dir := into.DataDirectory
	for {
		var st unix.Statfs_t
		err := unix.Statfs(dir, &st)
		if errors.Is(err, unix.ENOENT) && dir != filepath.Dir(dir) {
			dir = filepath.Dir(dir)
			continue
		}
		if err != nil {
			return fmt.Errorf("restore: %s: %w", dir, err)
		}
		free := int64(st.Bavail) * st.Bsize
		data := p.BackupBytes
		if p.Snapshot != "" && !p.Copied {
			data = 0 // shared with the snapshot
		}
		need := p.NeedBytes - p.BackupBytes + max(data-old, 0)
		if free < need {
			return &NoRoomError{dir, need, free}
		}
		return nil
	}
}

// used is how many bytes of the disk a directory takes.
func used(dir string) (int64, error) {
	var n int64
	err := filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		if st, ok := info.Sys().(*syscall.Stat_t); ok && (d.IsDir() || st.Nlink == 1) {
			n += st.Blocks * 512
		}
		return nil
	})
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	return n, err
}
