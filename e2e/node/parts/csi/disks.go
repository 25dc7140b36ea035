// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
)

// smallest is the least that mkfs.xfs makes.
const smallest = 300 << 20

// disks are the images in a directory: volumes, snapshots, and where volumes are mounted.
// An image is there whole or not at all.
type disks struct{ dir string }

func (d disks) volume(id string) string   { return filepath.Join(d.dir, "vol-"+id+".img") }
func (d disks) snapshot(id string) string { return filepath.Join(d.dir, "snap-"+id+".img") }
func (d disks) mount(id string) string    { return filepath.Join(d.dir, "mnt", id) }

// holder is the file that names the node where the volume is mounted.
func (d disks) holder(id string) string { return d.mount(id) + ".node" }

// size is that of an image in bytes, and -1 if there is none.
func size(image string) (int64, error) {
	st, err := os.Stat(image)
	if errors.Is(err, fs.ErrNotExist) {
		return -1, nil
	}
	if err != nil {
		return 0, err
	}
	return st.Size(), nil
}

// format makes an empty image.
func format(image string, bytes int64) error {
	if err := command("truncate", "-s", strconv.FormatInt(bytes, 10), image+".tmp"); err != nil {
		return err
	}
	if err := command("mkfs.xfs", "-q", "-f", "-K", image+".tmp"); err != nil {
		return err
	}
	return os.Rename(image+".tmp", image)
}

// copyImage shares the bytes of an image that nobody writes.
func copyImage(from, to string) error {
	if err := command("cp", "--reflink=always", from, to+".tmp"); err != nil {
		return err
	}
	return os.Rename(to+".tmp", to)
}

// copyVolume copies a volume that may be in use: writes wait for the moment it takes.
func (d disks) copyVolume(id, to string) (err error) {
	if mounted(d.mount(id)) {
		if err := command("fsfreeze", "-f", d.mount(id)); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, command("fsfreeze", "-u", d.mount(id))) }()
	}
	return copyImage(d.volume(id), to)
}

// grow makes an image at least that large; what is in it is grown by growMounted.
func grow(image string, bytes int64) error {
	have, err := size(image)
	if err != nil || have >= bytes {
		return err
	}
	return command("truncate", "-s", strconv.FormatInt(bytes, 10), image)
}

// attach mounts a volume for a node, once. A copy of an image may be larger than the
// file system in it, and has the original's UUID.
func (d disks) attach(id, node string) error {
	at := d.mount(id)
	if by, err := os.ReadFile(d.holder(id)); err == nil && string(by) != node {
		return fmt.Errorf("volume %s is on node %s", id, by)
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if mounted(at) {
		return nil
	}
	if err := os.MkdirAll(at, 0o750); err != nil {
		return err
	}
	if err := os.WriteFile(d.holder(id), []byte(node), 0o640); err != nil {
		return err
	}
	if err := command("mount", "-o", "loop,nouuid", "-t", "xfs", d.volume(id), at); err != nil {
		return errors.Join(err, os.Remove(d.holder(id)))
	}
	return command("xfs_growfs", "-d", at)
}

func (d disks) detach(id string) error {
	if err := unmount(d.mount(id)); err != nil {
		return err
	}
	return remove(d.holder(id))
}

// growMounted makes the file system of a mounted volume as large as its image.
func (d disks) growMounted(id string) error {
	at := d.mount(id)
	device, err := exec.Command("findmnt", "-no", "SOURCE", at).Output()
	if err != nil {
		return fmt.Errorf("find the device of %s: %w", at, err)
	}
	if err := command("losetup", "-c", strings.TrimSpace(string(device))); err != nil {
		return err
	}
	return command("xfs_growfs", "-d", at)
}

func mounted(dir string) bool { return exec.Command("mountpoint", "-q", dir).Run() == nil }

// unmount takes a mount and its empty directory away. Neither need be there.
func unmount(dir string) error {
	if mounted(dir) {
		if err := command("umount", dir); err != nil {
			return err
		}
	}
	return remove(dir)
}

func remove(name string) error {
	if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func command(name string, args ...string) error {
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}
