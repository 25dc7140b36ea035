// SPDX-License-Identifier: Apache-2.0

package restore

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/kbcli/kbcli/engine/pg"
)

// NotReusableError says why a directory is not one to restore over.
type NotReusableError struct {
	Dir    string
	Reason string
	// Running says that a server runs on it, or may.
	Running bool
}

func (e *NotReusableError) Error() string {
	return fmt.Sprintf("directory %s cannot be restored over: %s", e.Dir, e.Reason)
}

// CheckReuse refuses, with a *NotReusableError, a directory that a Delta must not be made
// of: it is to be the data directory of a server of this system identifier and release,
// uid's own (unless that is -1), on which no server of this machine runs. It writes nothing.
func (p *Plan) CheckReuse(dir string, uid int) error {
	no := func(format string, a ...any) error {
		return &NotReusableError{Dir: dir, Reason: fmt.Sprintf(format, a...)}
	}
	if p.manifest.Snapshot != nil {
		return no("backup %s, which the restore begins with, is a snapshot: its files are not in the repository, and are cloned at once into an empty directory", p.Backup)
	}
	info, err := os.Lstat(dir)
	switch {
	case err != nil:
		return no("%v", err)
	case !info.IsDir():
		return no("it is not a directory")
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok && uid >= 0 && int(st.Uid) != uid {
		return no("it belongs to user %d, and the server would run as user %d", st.Uid, uid)
	}
	root, err := os.OpenRoot(dir) // no link leads out of it
	if err != nil {
		return no("%v", err)
	}
	defer root.Close()
	raw, err := root.ReadFile(controlPath)
	if errors.Is(err, fs.ErrNotExist) {
		return no("it has no control file, which would tell whose it is")
	}
	if err != nil {
		return no("%v", err)
	}
	control, err := pg.ParseControlFile(raw)
	switch {
	case err != nil:
		return no("its control file: %v", err)
	case control.SystemID != p.SystemID:
		return no("its system identifier is %s, and that of the backup %s: it is another server's", control.SystemID, p.SystemID)
	case int(control.CatalogVersion) != p.manifest.Settings.CatalogVersion:
		return no("its catalog version is %d, and that of the backup %d: it is another release's", control.CatalogVersion, p.manifest.Settings.CatalogVersion)
	}
	pid, err := servedBy(dir, info)
	if err != nil {
		return no("%v", err)
	}
	if pid != 0 {
		return &NotReusableError{dir, fmt.Sprintf("process %d runs in it: a server, or who looks at it", pid), true}
	}
	return nil
}

// servedBy finds a process that works in dir, as every process of a server does; 0 if
// there is none. A process that may be the server and cannot be looked at is one.
func servedBy(dir string, is fs.FileInfo) (pid int, err error) {
	procs, err := os.ReadDir("/proc")
	if err != nil {
		return 0, fmt.Errorf("whether a server runs on it cannot be told: %w", err)
	}
	for _, d := range procs {
		n, err := strconv.Atoi(d.Name())
		if err != nil {
			continue
		}
		if at, err := os.Stat(filepath.Join("/proc", d.Name(), "cwd")); err == nil && os.SameFile(at, is) {
			return n, nil
		}
	}
	b, err := os.ReadFile(filepath.Join(dir, "postmaster.pid"))
	if err != nil {
		return 0, nil
	}
	line, _, _ := strings.Cut(string(b), "\n")
	n, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil || n <= 0 {
		return 0, nil
	}
	if _, err := os.Stat(fmt.Sprintf("/proc/%d/cwd", n)); errors.Is(err, fs.ErrPermission) {
		return n, nil
	}
	return 0, nil
}

// disarm sees to it, durably, that the directory does not start any more, and stays one
// that CheckReuse knows again: before anything in it is changed.
func (f *fetcher) disarm() (err error) {
	root, err := os.OpenRoot(f.into.DataDirectory)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	raw, err := root.ReadFile(controlPath)
	if err != nil {
		return err
	}
	if raw, err = pg.InvalidateCheckpoint(raw); err != nil {
		return err
	}
	// first this: without its label a base backup would start from the wrong checkpoint
	if err := f.putControl(root, raw); err != nil {
		return err
	}
	// with a label it would start from the checkpoint that the label names
	for _, name := range []string{"backup_label", "backup_label.old", "tablespace_map", "recovery.signal", "standby.signal"} {
		if err := root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return syncIn(root, ".")
}

// putControl puts a control file in place of the old, whole and durable.
func (f *fetcher) putControl(root *os.Root, raw []byte) (err error) {
	const temp = controlPath + ".new"
	if err := root.Remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	file, err := root.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = file.Write(raw)
	if err = errors.Join(err, file.Sync(), file.Close(), f.own(root, temp)); err != nil {
		return err
	}
	if err := root.Rename(temp, controlPath); err != nil {
		return err
	}
	return syncIn(root, path.Dir(controlPath))
}

// syncIn makes durable what a directory names.
func syncIn(root *os.Root, dir string) error {
	d, err := root.Open(dir)
	if err != nil {
		return err
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		return fmt.Errorf("sync %s: %w", dir, err)
	}
	return nil
}

// readFullAt reads b, or as much as there is, and gives how much that is.
func readFullAt(r io.ReaderAt, b []byte, off int64) (int, error) {
	n, err := r.ReadAt(b, off)
	if err == io.EOF {
		err = nil
	}
	return n, err
}
