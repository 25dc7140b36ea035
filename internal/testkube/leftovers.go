// SPDX-License-Identifier: Apache-2.0

package testkube

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
)

// Leftovers is what is on this machine of a run whose directory was dir: processes,
// mounts, loop devices, cgroups, the directory. After Down it is empty.
func Leftovers(dir string) ([]string, error) {
	found, err := processesOf(dir)
	if err != nil {
		return nil, err
	}
	for i := range found {
		found[i] = "process " + found[i]
	}
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, dir) {
			found = append(found, "mount "+strings.TrimSpace(line))
		}
	}
	loops, err := loopsOf(dir)
	if err != nil {
		return nil, err
	}
	for _, l := range loops {
		found = append(found, "loop device "+l)
	}
	groups, err := cgroupsOf(cgroupName(dir))
	if err != nil {
		return nil, err
	}
	for _, g := range groups {
		found = append(found, "cgroup "+g)
	}
	if _, err := os.Lstat(dir); err == nil {
		found = append(found, "directory "+dir)
	}
	return found, nil
}

// processesOf lists the processes that have dir in their command line or environment, each
// as "pid command".
func processesOf(dir string) ([]string, error) {
	all, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	var found []string
	for _, e := range all {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		has, err := processHas(pid, dir)
		if err != nil {
			return nil, err
		}
		if has {
			line, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)) // it may end just now
			found = append(found, fmt.Sprintf("%d %s", pid, strings.ReplaceAll(string(line), "\x00", " ")))
		}
	}
	return found, nil
}

// processHas tells whether a process runs and has text in its command line or environment.
// So a number that was given to somebody else is not taken for ours.
func processHas(pid int, text string) (bool, error) {
	if pid == 0 {
		return false, nil
	}
	for _, name := range []string{"cmdline", "environ"} {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, name))
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
			return false, nil
		}
		if errors.Is(err, fs.ErrPermission) {
			continue // even root may not look at every process; ours it may
		}
		if err != nil {
			return false, err
		}
		if bytes.Contains(b, []byte(text)) {
			return true, nil
		}
	}
	return false, nil
}

// loopsOf lists the loop devices whose files lie in dir, each as "loop3 file".
func loopsOf(dir string) ([]string, error) {
	names, err := filepath.Glob("/sys/block/loop*/loop/backing_file")
	if err != nil {
		return nil, err
	}
	var found []string
	for _, name := range names {
		file, err := os.ReadFile(name)
		if err != nil {
			continue // it was let go just now
		}
		// Of a file on a mount of the node alone the path begins at that mount.
		if strings.Contains(string(file), filepath.Base(dir)) {
			found = append(found, filepath.Base(filepath.Dir(filepath.Dir(name)))+" "+strings.TrimSpace(string(file)))
		}
	}
	return found, nil
}

// cgroupsOf lists the groups of a run, parents first.
func cgroupsOf(name string) ([]string, error) {
	hierarchies, err := cgroupHierarchies()
	if err != nil {
		return nil, err
	}
	var found []string
	for _, h := range hierarchies {
		err := filepath.WalkDir(filepath.Join(h, name), func(path string, d fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			if err != nil {
				return err
			}
			if d.IsDir() {
				found = append(found, path)
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return found, nil
}
