// SPDX-License-Identifier: Apache-2.0

package fs

import (
	"os"

	"golang.org/x/sys/unix"
)

// renameNew renames a file unless the new name exists.
func renameNew(from, to string) error {
	err := unix.Renameat2(unix.AT_FDCWD, from, unix.AT_FDCWD, to, unix.RENAME_NOREPLACE)
	if err != nil {
		return &os.LinkError{Op: "rename", Old: from, New: to, Err: err}
	}
	return nil
}
