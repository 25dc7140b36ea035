// SPDX-License-Identifier: Apache-2.0

package local

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
)

// clearStale removes the lock files of a server that was killed, with its machine perhaps.
// PostgreSQL keeps to the process number in them, which after a restart of the
// machine may well be that of another server, and would refuse to start. No
// process is in the data directory, so that none of its processes is left: each of
// them is there, and so is a backend that outlived its postmaster.
func (s *server) clearStale() error {
	lockFile := filepath.Join(s.data, "postmaster.pid")
	if _, err := os.Lstat(lockFile); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	inhabited, err := anyProcessIn(s.data)
	if err != nil || inhabited {
		return err // PostgreSQL knows what to say of it
	}
	stale, err := filepath.Glob(filepath.Join(s.socket, ".s.PGSQL.*"))
	if err != nil {
		return err
	}
	// the data directory's own last: it says that there is something to clear
	for _, path := range append(stale, lockFile) {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("clear what a killed server left: %w", err)
		}
	}
	return nil
}

// anyProcessIn tells whether the current directory of some process is dir. One
// that may not be looked at counts as being there, if it is the directory's owner's.
func anyProcessIn(dir string) (bool, error) {
	want, err := os.Stat(dir)
	if err != nil {
		return false, err
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return false, err
	}
	for _, e := range entries {
		if _, err := strconv.Atoi(e.Name()); err != nil {
			continue
		}
		proc := filepath.Join("/proc", e.Name())
		at, err := os.Stat(filepath.Join(proc, "cwd"))
		switch {
		case err == nil:
			if os.SameFile(at, want) {
				return true, nil
			}
		case errors.Is(err, fs.ErrPermission):
			if who, err := os.Stat(proc); err == nil && sameOwner(who, want) {
				return true, nil
			}
		}
		// anything else: it ended meanwhile, or is a kernel's thread
	}
	return false, nil
}

func sameOwner(a, b os.FileInfo) bool {
	as, aok := a.Sys().(*syscall.Stat_t)
	bs, bok := b.Sys().(*syscall.Stat_t)
	return aok && bok && as.Uid == bs.Uid
}
