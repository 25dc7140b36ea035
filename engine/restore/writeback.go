// SPDX-License-Identifier: Apache-2.0

package restore

import (
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// writebackPeriod lies between two passes of writeback.
const writebackPeriod = 100 * time.Millisecond

// writeback has the disk begin with the files of dirs that were modified since the given time,
// pass after pass until ctx ends: while the checkpoint that ends recovery takes the processor,
// so that syncFilesystem after it finds less to wait for. WAL is left alone, most of which is
// removed before that. What does not work here is syncFilesystem's to tell.
func writeback(ctx context.Context, since time.Time, dirs ...string) {
	for ctx.Err() == nil {
		for _, dir := range dirs {
			_ = filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
				switch {
				case ctx.Err() != nil:
					return ctx.Err()
				case err != nil:
					return nil // removed meanwhile, or syncFilesystem's to tell
				case e.IsDir() && (e.Name() == "pg_wal" || e.Name() == "pg_replslot"):
					return fs.SkipDir
				case e.Type().IsRegular():
					beginWriteback(path, e, since)
				}
				return nil
			})
		}
		select {
		case <-ctx.Done():
		case <-time.After(writebackPeriod):
		}
	}
}

func beginWriteback(path string, e fs.DirEntry, since time.Time) {
	info, err := e.Info()
	if err != nil || info.ModTime().Before(since) {
		return
	}
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return
	}
	defer f.Close()
	_ = unix.SyncFileRange(int(f.Fd()), 0, 0, unix.SYNC_FILE_RANGE_WRITE)
}
