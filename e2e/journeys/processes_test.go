// SPDX-License-Identifier: Apache-2.0

package journeys

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// stopAll ends everything that runs on a state directory: first who would start
// the others again.
func stopAll(state string) error {
	errs := []error{stopAgent(state)}
	below, err := filepath.Glob(filepath.Join(state, "*", "agent.pid"))
	for _, path := range below { // of state directories in this one
		errs = append(errs, stopAgent(filepath.Dir(path)))
	}
	return errors.Join(append(errs, err, stopServers(state))...)
}

// stopAgent kills the agent, if there is one.
func stopAgent(state string) error {
	pid, err := firstLine(filepath.Join(state, "agent.pid"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	// The pid may have been given to somebody else since.
	cmdline, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil || !bytes.Contains(cmdline, []byte("kbcli")) || !bytes.Contains(cmdline, []byte(state)) {
		return nil
	}
	return kill(pid)
}

// stopServers kills every postmaster whose data directory is below state.
func stopServers(state string) error {
	var errs []error
	err := filepath.WalkDir(state, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.Name() != "postmaster.pid" {
			return nil // what goes away meanwhile needs no stopping
		}
		pid, err := firstLine(path)
		if err != nil || pid <= 1 {
			return nil
		}
		if dir, err := os.Readlink(fmt.Sprintf("/proc/%d/cwd", pid)); err == nil && strings.HasPrefix(dir, state+"/") {
			errs = append(errs, kill(pid))
		}
		return nil
	})
	return errors.Join(append(errs, err)...)
}

func firstLine(path string) (int, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	line, _, _ := strings.Cut(string(text), "\n")
	return strconv.Atoi(strings.TrimSpace(line))
}

// kill ends a process and waits until it is gone. SIGQUIT ends a postmaster with
// all its children, and anybody else too; SIGKILL is for who does not listen.
func kill(pid int) error {
	if err := syscall.Kill(pid, syscall.SIGQUIT); errors.Is(err, syscall.ESRCH) {
		return nil
	} else if err != nil {
		return err
	}
	for i := range 100 {
		if gone(pid) {
			return nil
		}
		if i == 60 {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		time.Sleep(50 * time.Millisecond)
	}
	return fmt.Errorf("process %d does not end", pid)
}

// gone tells whether a process is no more, or only a name that nobody waited for.
func gone(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return true
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	return strings.HasPrefix(rest, "Z")
}
