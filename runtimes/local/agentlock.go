// SPDX-License-Identifier: Apache-2.0

package local

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// lockFDEnv tells a program that takes an agent's place which of its open files
// holds the lock.
const lockFDEnv = "KBCLI_AGENT_LOCK_FD"

// agentLock is held by the agent of a state directory. The lock belongs to the open
// file, not to the process: it is let go by the kernel however the agent ends, is
// kept across exec, and can be asked for without being taken, so that a hundred
// verbs that look for the agent never keep one from starting.
type agentLock struct {
	f         *os.File
	inherited bool // from the program that was in this process before
}

// takeAgentLock takes the lock, or over the one that the program before held in
// this process. It does not wait: nil without an error says that another agent has it.
func takeAgentLock(path string) (*agentLock, error) {
	f := inheritedLock(path)
	inherited := f != nil
	if !inherited {
		var err error
		if f, err = os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644); err != nil {
			return nil, err
		}
	}
	whole := unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart}
	err := unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &whole)
	if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EACCES) {
		return nil, f.Close()
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: %w", path, err), f.Close())
	}
	return &agentLock{f, inherited}, nil
}

// inheritedLock is the file that lockFDEnv names, if it is this lock's. The name is
// taken out of the environment: children have nothing to do with it.
func inheritedLock(path string) *os.File {
	text, ok := os.LookupEnv(lockFDEnv)
	if !ok {
		return nil
	}
	_ = os.Unsetenv(lockFDEnv)
	fd, err := strconv.Atoi(text)
	if err != nil || fd < 3 {
		return nil
	}
	want, err := os.Stat(path)
	if err != nil {
		return nil
	}
	var st unix.Stat_t
	sys, ok := want.Sys().(*syscall.Stat_t)
	if !ok || unix.Fstat(fd, &st) != nil || st.Dev != sys.Dev || st.Ino != sys.Ino {
		return nil
	}
	unix.CloseOnExec(fd)
	return os.NewFile(uintptr(fd), path)
}

// passOn lets the program that exec puts here have the lock, and returns what its
// environment must hold. Nothing else may be started between this and exec.
func (l *agentLock) passOn() (string, error) {
	if _, err := unix.FcntlInt(l.f.Fd(), unix.F_SETFD, 0); err != nil {
		return "", fmt.Errorf("keep the lock: %w", err)
	}
	return lockFDEnv + "=" + strconv.Itoa(int(l.f.Fd())), nil
}

// keep takes passOn back.
func (l *agentLock) keep() { unix.CloseOnExec(int(l.f.Fd())) }

// is tells whether the lock is still the one at path. A file system that does not
// answer says nothing about it.
func (l *agentLock) is(path string) bool {
	own, err := l.f.Stat()
	if err != nil {
		return true
	}
	there, err := os.Stat(path)
	if err != nil {
		return !errors.Is(err, fs.ErrNotExist)
	}
	return os.SameFile(own, there)
}

func (l *agentLock) release() error { return l.f.Close() }

// lockHeld tells whether some process holds the lock, and touches nothing.
func lockHeld(path string) (bool, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer f.Close()
	ask := unix.Flock_t{Type: unix.F_RDLCK, Whence: io.SeekStart}
	if err := unix.FcntlFlock(f.Fd(), unix.F_OFD_GETLK, &ask); err != nil {
		return false, fmt.Errorf("look at %s: %w", path, err)
	}
	return ask.Type != unix.F_UNLCK, nil
}
