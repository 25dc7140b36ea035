// SPDX-License-Identifier: Apache-2.0

package local

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/kbcli/kbcli/api/v1alpha1"
)

// ownAgent tells whether this process is of the account that the agent has: what may be
// written is then the same.
func (r *Runtime) ownAgent() bool {
	info, err := os.Stat(r.state)
	if err != nil {
		return false
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	return ok && int(st.Uid) == os.Geteuid()
}

// dataOf is where the data of a cluster lie.
func dataOf(r *Runtime, c *v1alpha1.Cluster) string {
	if c.Status.DataDirectory != "" {
		return c.Status.DataDirectory
	}
	return r.data(c.Namespace, c.Name)
}

// sameDisk tells whether two paths lie on one disk, as far as the kernel tells. What is
// not there yet is where its parent is.
func sameDisk(a, b string) bool {
	x, xok := diskOf(a)
	y, yok := diskOf(b)
	return xok && yok && x == y
}

// diskOf names the disk of a path: of a partition its whole disk, else the device that
// the file system says.
func diskOf(path string) (string, bool) {
	var st unix.Stat_t
	for unix.Stat(path, &st) != nil {
		if path == filepath.Dir(path) {
			return "", false
		}
		path = filepath.Dir(path)
	}
	device := fmt.Sprintf("%d:%d", unix.Major(st.Dev), unix.Minor(st.Dev))
	at, err := filepath.EvalSymlinks("/sys/dev/block/" + device)
	if err != nil {
		return device, true // no block device: overlay, btrfs, a network
	}
	if _, err := os.Stat(filepath.Join(at, "partition")); err == nil {
		at = filepath.Dir(at)
	}
	return at, true
}
