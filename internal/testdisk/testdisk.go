// SPDX-License-Identifier: Apache-2.0

package testdisk

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// Start mounts a new file system of a kind that has a mkfs, "xfs" or "btrfs" or
// "ext4", until the end of the test. size is in bytes, xfs wants 300 MB at least; the file
// is sparse.
func Start(t testing.TB, kind string, size int64) string {
	t.Helper()
	dir, stop, err := Mount(kind, size)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// watch waits until its standard input ends, and takes the mount away. It is patient
// with servers that are about to end.
const watch = `trap '' INT TERM HUP
cat >/dev/null
i=0
until umount "$1/mnt" 2>/dev/null; do
	i=$((i+1))
	[ $i -lt 50 ] || { echo "$1/mnt is in use" >&2; umount -l "$1/mnt"; break; }
	sleep 0.1
done
rm -rf "$1"`

// Mount is Start without a test: stop unmounts, and may be called again.
func Mount(kind string, size int64) (dir string, stop func() error, err error) {
	root, err := os.MkdirTemp("/tmp", "kbdisk-")
	if err != nil {
		return "", nil, err
	}
	dir = filepath.Join(root, "mnt")
	image := filepath.Join(root, "image")
	undo := func(err error) (string, func() error, error) {
		_ = os.RemoveAll(root)
		return "", nil, fmt.Errorf("make a file system of type %s: %w", kind, err)
	}
	if err := os.Chmod(root, 0o755); err != nil {
		return undo(err)
	}
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		return undo(err)
	}
	if err := os.Truncate(image, size); err != nil {
		return undo(err)
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		return undo(err)
	}
	if err := run("mkfs."+kind, "-q", image); err != nil {
		return undo(err)
	}
	watcher := exec.Command("sh", "-c", watch, "sh", root)
	watcher.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	var said strings.Builder
	watcher.Stderr = &said
	hold, err := watcher.StdinPipe()
	if err != nil {
		return undo(err)
	}
	if err := run("mount", "-o", "loop", image, dir); err != nil {
		return undo(err)
	}
	if err := watcher.Start(); err != nil {
		_ = run("umount", dir)
		return undo(err)
	}
	stopped := false
	return dir, func() error {
		if stopped {
			return nil
		}
		stopped = true
		_ = hold.Close()
		err := watcher.Wait()
		if said.Len() > 0 {
			err = fmt.Errorf("unmount: %s", strings.TrimSpace(said.String()))
		}
		return err
	}, nil
}

func run(program string, args ...string) error {
	cmd := exec.Command(program, args...)
	cmd.Env = append(os.Environ(), "PATH="+os.Getenv("PATH")+":/usr/sbin:/sbin")
	if path, err := exec.LookPath(program); err != nil {
		for _, dir := range []string{"/usr/sbin", "/sbin"} {
			if _, err := os.Stat(filepath.Join(dir, program)); err == nil {
				path = filepath.Join(dir, program)
			}
		}
		if path == "" {
			return err
		}
		cmd.Path, cmd.Err = path, nil
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", program, err, strings.TrimSpace(string(out)))
	}
	return nil
}
