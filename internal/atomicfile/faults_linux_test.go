// SPDX-License-Identifier: Apache-2.0

package atomicfile

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"testing"
)

// writeTmpfs fills a small file system that only this process sees, and that
// goes with it.
func writeTmpfs(dir string) error {
	if err := syscall.Mount("none", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("keep mounts private: %w", err)
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%d", room)); err != nil {
		return fmt.Errorf("mount tmpfs: %w", err)
	}
	return writeTooMuch(dir, syscall.ENOSPC)
}

func TestFullDisk(t *testing.T) {
	cmd := child(t, "write-tmpfs", t.TempDir())
	cmd.SysProcAttr.Cloneflags = syscall.CLONE_NEWNS
	if uid, gid := os.Geteuid(), os.Getegid(); uid != 0 {
		// Whoever is not root is root of a user namespace of their own.
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: uid, Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: gid, Size: 1}}
	}
	err := cmd.Start()
	if errors.Is(err, syscall.EPERM) {
		t.Log("mounts are forbidden here: TestWriteBeyondTheFileSizeLimit stands alone")
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatalf("child: %v\n%s", err, cmd.Stderr)
	}
}

func init() { children["write-tmpfs"] = writeTmpfs }
