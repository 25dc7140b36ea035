// SPDX-License-Identifier: Apache-2.0

package restore

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// program sees to it that the server's user can run the program: it may be installed where
// only this process's user gets at it. A copy costs what a hundred megabytes of data do.
func (s *recoverer) program() error {
	if s.r.UID < 0 || mayRun(s.r.Program, s.r.UID, s.r.GID) {
		return nil
	}
	to := filepath.Join(s.r.Scratch, "wal-await")
	if err := os.Remove(to); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	from, err := os.Open(s.r.Program)
	if err != nil {
		return err
	}
	defer from.Close()
	if err := copyProgram(to, from); err != nil {
		return err
	}
	s.r.Program = to
	return s.own(to)
}

// mayRun tells whether a user with one group may run a program, for certain: every part of
// its path is one that the mode lets them through, and has no access list that could say
// otherwise.
func mayRun(path string, uid, gid int) bool {
	path, err := filepath.EvalSymlinks(path)
	if err != nil || !filepath.IsAbs(path) {
		return false
	}
	for at := path; ; at = filepath.Dir(at) {
		var st unix.Stat_t
		if unix.Stat(at, &st) != nil {
			return false
		}
		if _, err := unix.Lgetxattr(at, "system.posix_acl_access", nil); !errors.Is(err, unix.ENODATA) && !errors.Is(err, unix.ENOTSUP) {
			return false
		}
		shift := 0
		switch {
		case int(st.Uid) == uid:
			shift = 6
		case int(st.Gid) == gid:
			shift = 3
		}
		if st.Mode>>shift&1 == 0 {
			return false
		}
		if at == filepath.Dir(at) {
			break
		}
	}
	var vfs unix.Statfs_t
	return unix.Statfs(path, &vfs) == nil && vfs.Flags&unix.ST_NOEXEC == 0
}

// copyProgram writes a program that will be run. No process is started meanwhile: its
// child would have the file open for writing until it runs what it is to run, and
// until then the kernel refuses to run the file (ETXTBSY).
func copyProgram(to string, from io.Reader) error {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	f, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o700)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, from)
	return errors.Join(err, f.Close())
}
