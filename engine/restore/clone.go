// SPDX-License-Identifier: Apache-2.0

package restore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"github.com/kbcli/kbcli/engine/basebackup"
	"github.com/kbcli/kbcli/engine/pg"
	"github.com/kbcli/kbcli/engine/repository"
	"github.com/kbcli/kbcli/internal/reflink"
)

// Onto tells the plan where it will be carried out: a snapshot is cloned onto its own
// file system, and copied onto another. dir need not be there yet. Plans of other backups
// are as they were. It leaves nothing behind.
func (p *Plan) Onto(dir string) error {
	if p.manifest.Snapshot == nil || p.OfVolume() { // whether a volume can be had of it was asked before
		return nil
	}
	if err := basebackup.Here(p.manifest); err != nil {
		return fmt.Errorf("backup %s: %w", p.Backup, err)
	}
	for {
		info, err := os.Stat(dir)
		if err == nil && info.IsDir() {
			break
		}
		if err == nil || !errors.Is(err, fs.ErrNotExist) || dir == filepath.Dir(dir) {
			return fmt.Errorf("restore: %s: %w", dir, errors.Join(err, fs.ErrInvalid))
		}
		dir = filepath.Dir(dir)
	}
	err := reflink.Probe(filepath.Join(p.manifest.Snapshot.Data(), "PG_VERSION"), dir)
	var no *reflink.Error
	if err != nil && !errors.As(err, &no) {
		return fmt.Errorf("restore: %w", err)
	}
	p.Copied = err != nil
	p.estimate()
	return nil
}

// cloneJobs is how many files are cloned at once at least: it waits for the disk's
// journal more than for the processor.
const cloneJobs = 4

// clone brings the files of a snapshot.
func (f *fetcher) clone(ctx context.Context) error {
	source, err := os.OpenRoot(f.plan.manifest.Snapshot.Data())
	if err != nil {
		return err
	}
	defer source.Close()
	var next atomic.Int64
	g, ctx := errgroup.WithContext(ctx)
	for range max(f.into.Jobs, cloneJobs) {
		g.Go(func() error {
			for ctx.Err() == nil {
				i := int(next.Add(1)) - 1
				if i >= len(f.files.Files) {
					return nil
				}
				e := &f.files.Files[i]
				if e.Kind != repository.RegularFile {
					continue
				}
				if err := f.cloneFile(ctx, source, e); err != nil {
					return fmt.Errorf("%s: %w", e.Path, err)
				}
				done := f.done.Add(e.Size)
				if f.into.Progress != nil && i%256 == 0 {
					f.into.Progress(done, f.total)
				}
			}
			return ctx.Err()
		})
	}
	return g.Wait()
}

func (f *fetcher) cloneFile(ctx context.Context, source *os.Root, e *repository.File) (err error) {
	src, err := basebackup.OpenFile(source, e)
	if err != nil {
		return err
	}
	defer src.Close()
	root, name := f.place(e.Path)
	dst, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, os.FileMode(e.Mode))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, dst.Close()) }()
	switch {
	case e.Path == controlPath:
		raw := make([]byte, e.Size)
		if _, err := io.ReadFull(src, raw); err != nil {
			return err
		}
		if raw, err = pg.InvalidateCheckpoint(raw); err != nil {
			return err
		}
		_, err = dst.Write(raw)
	case f.plan.Copied:
		_, err = io.Copy(dst, &patient{ctx, src})
	default:
		err = reflink.Clone(dst, src)
		var no *reflink.Error
		if errors.As(err, &no) && no.Apart() { // a tablespace's new place
			_, err = io.Copy(dst, &patient{ctx, src})
		}
	}
	if err != nil {
		return err
	}
	info, err := dst.Stat()
	if err != nil {
		return err
	}
	if info.Size() != e.Size {
		return fmt.Errorf("%d bytes arrived, not %d", info.Size(), e.Size)
	}
	return f.begin(dst, e)
}

// patient reads until its context ends.
type patient struct {
	ctx context.Context
	r   io.Reader
}

func (p *patient) Read(b []byte) (int, error) {
	if err := p.ctx.Err(); err != nil {
		return 0, err
	}
	return p.r.Read(b)
}
