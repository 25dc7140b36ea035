// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package fs

import (
	"os"
	"syscall"
)

// renameNew renames a file unless the new name exists: only Linux can.
func renameNew(from, to string) error {
	return &os.LinkError{Op: "rename", Old: from, New: to, Err: syscall.ENOTSUP}
}
