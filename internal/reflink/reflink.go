// SPDX-License-Identifier: Apache-2.0

package reflink

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Error says why a file cannot be cloned.
type Error struct {
	From, To   string // a file, and where its clone would lie
	FileSystem string // of To: "ext4"
	Err        error
}

func (e *Error) Error() string {
	var number unix.Errno
	name := ""
	if errors.As(e.Err, &number) {
		name = unix.ErrnoName(number) + ": "
	}
	if number == unix.EOPNOTSUPP { // it has two names
		name = "EOPNOTSUPP: "
	}
	switch {
	case errors.Is(e.Err, unix.EXDEV):
		return fmt.Sprintf("%s%s is on another file system than %s", name, e.To, e.From)
	case e.FileSystem == "xfs" && e.Unsupported():
		return name + "this xfs was made without reflink and cannot share blocks"
	case e.Unsupported():
		return fmt.Sprintf("%s%s cannot share blocks", name, e.FileSystem)
	}
	return fmt.Sprintf("clone %s to %s: %v", e.From, e.To, e.Err)
}

func (e *Error) Unwrap() error { return e.Err }

// Unsupported tells that the file system cannot clone at all.
func (e *Error) Unsupported() bool {
	for _, no := range []error{unix.EOPNOTSUPP, unix.ENOTTY, unix.ENOSYS, unix.EINVAL} {
		if errors.Is(e.Err, no) {
			return true
		}
	}
	return false
}

// Apart tells that the two lie on different file systems.
func (e *Error) Apart() bool { return errors.Is(e.Err, unix.EXDEV) }

// Clone makes dst, a new file open for writing, share all blocks of src. What fails for
// the sake of the file systems is an *Error; dst is then empty, as before. The clone is
// durable once its file system was synced.
func Clone(dst, src *os.File) error {
	err := unix.IoctlFileClone(int(dst.Fd()), int(src.Fd()))
	if errors.Is(err, unix.EINVAL) && noCopyOnWrite(dst, src) == nil {
		err = unix.IoctlFileClone(int(dst.Fd()), int(src.Fd()))
	}
	if err != nil {
		return &Error{src.Name(), dst.Name(), fileSystem(dst), err}
	}
	return nil
}

// noCOW is FS_NOCOW_FL of linux/fs.h.
const noCOW = 0x00800000

// noCopyOnWrite gives dst the same attribute C as src (chattr(1)): btrfs clones only
// between files that are alike in it, and data directories on btrfs often have it.
func noCopyOnWrite(dst, src *os.File) error {
	from, err := unix.IoctlGetInt(int(src.Fd()), unix.FS_IOC_GETFLAGS)
	if err != nil {
		return err
	}
	to, err := unix.IoctlGetInt(int(dst.Fd()), unix.FS_IOC_GETFLAGS)
	if err != nil {
		return err
	}
	want := to&^noCOW | from&noCOW
	if want == to {
		return unix.EINVAL
	}
	return unix.IoctlSetPointerInt(int(dst.Fd()), unix.FS_IOC_SETFLAGS, want)
}

// Probe clones file, which has at least a byte, into a file without a name in dir, and
// leaves nothing behind. The error says why files like it cannot be cloned there.
func Probe(file, dir string) error {
	src, err := os.Open(file)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := nameless(dir)
	if err != nil {
		return err
	}
	defer dst.Close()
	err = Clone(dst, src)
	var no *Error
	if errors.As(err, &no) {
		no.To = dir
	}
	return err
}

// nameless makes a file that goes when it is closed.
func nameless(dir string) (*os.File, error) {
	fd, err := unix.Open(dir, unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err == nil {
		return os.NewFile(uintptr(fd), filepath.Join(dir, "probe")), nil
	}
	if !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.EISDIR) {
		return nil, &fs.PathError{Op: "open", Path: dir, Err: err}
	}
	f, err := os.CreateTemp(dir, ".probe-")
	if err != nil {
		return nil, err
	}
	return f, os.Remove(f.Name())
}

// names of file systems, by the magic number of statfs(2).
var names = map[uint32]string{
	unix.EXT4_SUPER_MAGIC: "ext4", unix.XFS_SUPER_MAGIC: "xfs", unix.BTRFS_SUPER_MAGIC: "btrfs",
	unix.TMPFS_MAGIC: "tmpfs", unix.NFS_SUPER_MAGIC: "nfs", unix.OVERLAYFS_SUPER_MAGIC: "overlayfs",
	unix.F2FS_SUPER_MAGIC: "f2fs", 0x2fc12fc1: "zfs", 0x65735546: "fuse",
}

func fileSystem(f *os.File) string {
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &st); err != nil {
		return "the file system"
	}
	if name := names[uint32(st.Type)]; name != "" {
		return name
	}
	return fmt.Sprintf("a file system of type %#x", uint32(st.Type))
}
