// SPDX-License-Identifier: Apache-2.0

package restore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"github.com/kbcli/kbcli/engine/basebackup"
	"github.com/kbcli/kbcli/engine/pg"
	"github.com/kbcli/kbcli/engine/repository"
)

// snapshot checks the files of a snapshot: that they are there with their sizes, that
// the control file is one, and the checksums of pages.
func (v *verifier) snapshot(ctx context.Context) error {
	files, err := v.l.Files(ctx, v.m)
	if err != nil {
		return v.note("the list of files", err)
	}
	v.list(files)
	if v.m.Snapshot.VolumeSnapshot != "" { // its files are seen when a volume is made of it
		if err := v.l.Repository().Reach(v.m); err != nil {
			v.damage = append(v.damage, err)
		}
		return nil
	}
	if err := basebackup.Here(v.m); err != nil {
		v.damage = append(v.damage, err)
		return nil
	}
	root, err := os.OpenRoot(v.m.Snapshot.Data())
	if err != nil {
		v.damage = append(v.damage, err)
		return nil
	}
	defer root.Close()
	var next atomic.Int64
	g, ctx := errgroup.WithContext(ctx)
	for range verifyJobs {
		g.Go(func() error {
			buf := make([]byte, 128*pg.BlockSize)
			for ctx.Err() == nil {
				i := int(next.Add(1)) - 1
				if i >= len(files.Files) {
					return nil
				}
				f := &files.Files[i]
				if f.Kind != repository.RegularFile {
					continue
				}
				err := v.file(ctx, root, f, buf)
				if err != nil && ctx.Err() == nil {
					v.harm(err)
				}
			}
			return ctx.Err()
		})
	}
	return g.Wait()
}

func (v *verifier) harm(err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.damage = append(v.damage, err)
}

// file checks one file of a snapshot.
func (v *verifier) file(ctx context.Context, root *os.Root, f *repository.File, buf []byte) error {
	file, err := basebackup.OpenFile(root, f)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("file %s of the snapshot is missing: %w", f.Path, err)
	}
	if err != nil {
		return err
	}
	defer file.Close()
	segment, relation := basebackup.Relation(f.Path)
	for at := int64(0); at < f.Size; {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := io.ReadFull(file, buf[:min(int64(len(buf)), f.Size-at)])
		if err != nil {
			return fmt.Errorf("read %s: %w", f.Path, err)
		}
		if f.Path == controlPath {
			if _, err := pg.ParseControlFile(buf[:n]); err != nil {
				return fmt.Errorf("%s of the snapshot: %w", f.Path, err)
			}
		}
		if relation && v.m.Checksums {
			if err := v.pages(f.Path, segment, at, buf[:n]); err != nil {
				return err
			}
		}
		at += int64(n)
		v.progressed(int64(n))
	}
	return nil
}

// pages checks the checksums of whole pages. A page that the server wrote since the
// backup began may be anything: replay writes it anew.
func (v *verifier) pages(path string, segment uint32, at int64, b []byte) error {
	for i := 0; i+pg.BlockSize <= len(b); i += pg.BlockSize {
		page := b[i : i+pg.BlockSize]
		block := segment*pg.RelSegBlocks + uint32((at+int64(i))/pg.BlockSize)
		if !pg.VerifyPage(page, block).Ok() && pg.PageLSN(page) < v.m.StartLSN {
			return fmt.Errorf("file %s of the snapshot: the checksum of block %d does not match", path, block)
		}
	}
	return nil
}

func (v *verifier) progressed(n int64) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.done += n
	if v.progress != nil {
		v.progress(v.done, v.m.DataBytes)
	}
}
