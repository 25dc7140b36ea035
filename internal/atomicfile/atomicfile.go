// SPDX-License-Identifier: Apache-2.0

package atomicfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Option changes how a file is made.
type Option func(*options)

type options struct {
	owned    bool
	uid, gid int
}

// Owner makes the file uid's and gid's from its first byte; -1 leaves one as it
// is. Giving a file away takes root.
func Owner(uid, gid int) Option {
	return func(o *options) { o.owned, o.uid, o.gid = true, uid, gid }
}

// Write puts data at path, in place of the file that may be there. The mode is
// exact: the umask has no say, nor has the mode of the old file.
func Write(path string, data []byte, mode os.FileMode, opts ...Option) error {
	temp, err := writeTemp(path, data, mode, opts)
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := os.Rename(temp, path); err != nil {
		return errors.Join(fmt.Errorf("write %s: %w", path, err), remove(temp))
	}
	return SyncDir(filepath.Dir(path))
}

// WriteNew puts data at path unless something is there, even a dangling link:
// then the error is fs.ErrExist and nothing is changed. Of several at once, one
// succeeds. The file system must know hard links.
func WriteNew(path string, data []byte, mode os.FileMode, opts ...Option) error {
	// Only to save the writing: the link below is what decides.
	if _, err := os.Lstat(path); err == nil {
		return fmt.Errorf("write %s: %w", path, fs.ErrExist)
	}
	temp, err := writeTemp(path, data, mode, opts)
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := os.Link(temp, path); err != nil {
		return errors.Join(fmt.Errorf("write %s: %w", path, err), remove(temp))
	}
	if err := remove(temp); err != nil {
		return err
	}
	return SyncDir(filepath.Dir(path))
}

// SyncDir makes the names in dir survive a power cut: files created, renamed or
// removed there before the call.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("sync directory %s: %w", dir, err)
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		return fmt.Errorf("sync directory %s: %w", dir, err)
	}
	return nil
}

const tempPrefix = ".atomicfile-"

// IsTemp tells whether name, without its directory, is that of a temporary
// file, so that whoever lists a directory can pass over it.
func IsTemp(name string) bool { return strings.HasPrefix(name, tempPrefix) }

// RemoveTemp removes from dir the temporary files that killed processes left.
// Nobody may be writing there: that writer's file would be taken away, and its
// Write would return an error.
func RemoveTemp(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("remove temporary files: %w", err)
	}
	var errs []error
	for _, e := range entries {
		if IsTemp(e.Name()) && e.Type().IsRegular() {
			errs = append(errs, remove(filepath.Join(dir, e.Name())))
		}
	}
	return errors.Join(errs...)
}

// writeTemp makes a durable file beside path and returns its name. After an
// error there is none.
func writeTemp(path string, data []byte, mode os.FileMode, opts []Option) (string, error) {
	var o options
	for _, opt := range opts {
		opt(&o)
	}
	// CreateTemp's mode is 0600: no one else reads a byte before the mode says so.
	f, err := os.CreateTemp(filepath.Dir(path), tempPrefix+"*")
	if err != nil {
		return "", err
	}
	err = fill(f, data, mode, o)
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return "", errors.Join(err, remove(f.Name()))
	}
	return f.Name(), nil
}

func fill(f *os.File, data []byte, mode os.FileMode, o options) error {
	if o.owned {
		// Before the mode: a change of owner clears set-user-ID.
		if err := f.Chown(o.uid, o.gid); err != nil {
			return err
		}
	}
	if err := f.Chmod(mode); err != nil {
		return err
	}
	if _, err := f.Write(data); err != nil {
		return err
	}
	return f.Sync()
}

func remove(temp string) error {
	if err := os.Remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove temporary file: %w", err)
	}
	return nil
}
