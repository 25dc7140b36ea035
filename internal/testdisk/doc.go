// SPDX-License-Identifier: Apache-2.0

// Package testdisk gives tests a file system of their own: mkfs in a file under /tmp,
// mounted by a loop device. It needs root.
//
// A child process unmounts it and removes the file as soon as the test process says so
// or is gone, however it ended. What is still open there then holds the loop device, not
// the mount.
package testdisk
