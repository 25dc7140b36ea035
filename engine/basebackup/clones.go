// SPDX-License-Identifier: Apache-2.0

package basebackup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/kbcli/kbcli/engine/pg"
	"github.com/kbcli/kbcli/engine/repository"
	"github.com/kbcli/kbcli/internal/reflink"
)

// clones are reflinks of the files, in a directory.
type clones struct {
	*snapshot
	done atomic.Int64
}

const making, deleting = ".tmp", ".deleting"

// place makes room for the snapshot, and looks whether it can be made there.
func (s *clones) place(ctx context.Context) error {
	if err := os.MkdirAll(filepath.Dir(s.at.Path), 0o700); err != nil {
		return fmt.Errorf("snapshot: %w", err)
	}
	if err := CanSnapshot(s.cfg.DataDirectory, filepath.Dir(s.at.Path)); err != nil {
		return err
	}
	return s.undo(ctx)
}

// undo removes what was made, or what an earlier try left.
func (s *clones) undo(context.Context) error {
	for _, dir := range []string{s.at.Path + making, s.at.Path + deleting, s.at.Path} {
		if err := os.RemoveAll(dir); err != nil {
			return fmt.Errorf("remove an unfinished snapshot: %w", err)
		}
	}
	return nil
}

// cloneJobs is how many files are cloned at once at least: it waits for the disk's
// journal more than for the processor.
const cloneJobs = 4

// freeze clones everything, the control file last.
func (s *clones) freeze(ctx context.Context) error {
	data := filepath.Join(s.at.Path+making, "data")
	if err := os.MkdirAll(data, 0o700); err != nil {
		return err
	}
	for i := range s.entries {
		e := &s.entries[i]
		s.total += e.Size
		if e.Kind == repository.Directory { // they come before what is in them
			if err := os.Mkdir(filepath.Join(data, filepath.FromSlash(e.Path)), 0o700); err != nil {
				return err
			}
		}
	}
	s.progress()
	var next atomic.Int64
	g, ctx := errgroup.WithContext(ctx)
	for range max(s.cfg.Workers, cloneJobs) {
		g.Go(func() error {
			for ctx.Err() == nil {
				i := int(next.Add(1)) - 1
				if i >= len(s.entries) {
					return nil
				}
				e := &s.entries[i]
				if e.Kind != repository.RegularFile || e.Path == controlPath {
					continue
				}
				var err error
				if s.gone[i], err = cloneEntry(e, filepath.Join(data, filepath.FromSlash(e.Path))); err != nil {
					return err
				}
				s.done.Add(e.Size)
				if i%256 == 0 {
					s.progress()
				}
			}
			return ctx.Err()
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	return s.cloneControl(data)
}

func (s *clones) progress() {
	if s.cfg.Progress != nil {
		s.cfg.Progress(Progress{Phase: "cloning", Done: s.done.Load(), Total: s.total})
	}
}

// cloneEntry clones one file, and tells its size as it is then. It is gone if the server
// removed it meanwhile.
func cloneEntry(e *entry, to string) (gone bool, err error) {
	src, err := os.OpenFile(e.source, os.O_RDONLY|unix.O_NOFOLLOW, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	defer src.Close()
	dst, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, dst.Close()) }()
	if err := reflink.Clone(dst, src); err != nil {
		return false, err
	}
	info, err := dst.Stat()
	if err != nil {
		return false, err
	}
	e.Size = info.Size()
	if rest := e.Size % pg.BlockSize; e.relation && rest > 0 {
		e.Size -= rest // the last page is being added; redo adds it
		return false, dst.Truncate(e.Size)
	}
	return false, nil
}

// cloneControl writes the control file, without its checkpoint: nobody shall start a
// server in the snapshot.
func (s *clones) cloneControl(data string) error {
	control, raw, err := readControl(s.cfg.DataDirectory)
	if err != nil {
		return err
	}
	s.control = control
	if raw, err = pg.InvalidateCheckpoint(raw); err != nil {
		return err
	}
	i := slices.IndexFunc(s.entries, func(e entry) bool { return e.Path == controlPath })
	if i < 0 {
		return fmt.Errorf("read data directory: %s is missing", controlPath)
	}
	s.entries[i].Size = int64(len(raw))
	return os.WriteFile(filepath.Join(data, filepath.FromSlash(controlPath)), raw, 0o600)
}

// settle makes the snapshot durable, and gives it its name.
func (s *clones) settle(context.Context) error {
	s.report("syncing")
	tmp := s.at.Path + making
	if err := describe(tmp, s.cfg.Lineage.Info().ID, s.cfg.Name, s.at.ID); err != nil {
		return err
	}
	dir, err := os.Open(tmp)
	if err != nil {
		return err
	}
	defer dir.Close()
	if err := unix.Syncfs(int(dir.Fd())); err != nil {
		return fmt.Errorf("sync %s: %w", tmp, err)
	}
	if err := os.Rename(tmp, s.at.Path); err != nil {
		return err
	}
	// and of the directories that were made for it
	if err := unix.Syncfs(int(dir.Fd())); err != nil {
		return fmt.Errorf("sync %s: %w", s.at.Path, err)
	}
	return nil
}

// CanSnapshot tells why a data directory or one of its tablespaces cannot be cloned
// into the existing directory dir: nil, or an error that wraps a *reflink.Error when it
// is the file system that cannot. It leaves nothing behind.
func CanSnapshot(dataDirectory, dir string) error {
	if err := reflink.Probe(filepath.Join(dataDirectory, "PG_VERSION"), dir); err != nil {
		return fmt.Errorf("data directory %s: %w", dataDirectory, err)
	}
	links, err := os.ReadDir(filepath.Join(dataDirectory, "pg_tblspc"))
	if err != nil {
		return err
	}
	for _, link := range links {
		if link.Type()&fs.ModeSymlink == 0 {
			continue
		}
		space := filepath.Join(dataDirectory, "pg_tblspc", link.Name())
		file, err := someFile(space + "/")
		if err == nil && file != "" {
			err = reflink.Probe(file, dir)
		} else if err == nil {
			err = sameDevice(space, dir)
		}
		if err != nil {
			return fmt.Errorf("tablespace %s: %w", link.Name(), err)
		}
	}
	return nil
}

var errFound = errors.New("found")

// someFile is any file below dir that has a byte; empty if there is none.
func someFile(dir string) (string, error) {
	found := ""
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		if info, err := d.Info(); err == nil && info.Size() > 0 {
			found = path
			return errFound
		}
		return nil
	})
	if errors.Is(err, errFound) {
		err = nil
	}
	return found, err
}

// sameDevice fails as cloning would, where there is nothing yet to clone.
func sameDevice(from, to string) error {
	var a, b unix.Stat_t
	if err := errors.Join(unix.Stat(from, &a), unix.Stat(to, &b)); err != nil {
		return err
	}
	if a.Dev != b.Dev {
		return &reflink.Error{From: from, To: to, Err: unix.EXDEV}
	}
	return nil
}
