// SPDX-License-Identifier: Apache-2.0

package basebackup

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/kbcli/kbcli/engine/blob"
	"github.com/kbcli/kbcli/engine/pg"
	"github.com/kbcli/kbcli/engine/pg/client"
	"github.com/kbcli/kbcli/engine/repository"
	"github.com/kbcli/kbcli/internal/reflink"
)

// Snapshot makes a backup whose files are clones of the server's, in the new directory
// at.Path on the data directory's file system; see CanSnapshot. The repository gets the
// manifest and the list of files alone. at.Machine is told to people, at.ID is made here.
//
// The snapshot is durable before the manifest is written. What an interrupted one of
// the same name left is removed, and it is begun anew; of one that failed nothing stays
// but what could not be removed. A name that has a manifest already is a
// *repository.ConflictError.
func Snapshot(ctx context.Context, cfg Config, at repository.Snapshot) (*repository.Manifest, error) {
	_, err := cfg.Lineage.Manifest(ctx, cfg.Name)
	if err == nil {
		return nil, &repository.ConflictError{Key: "the manifest of " + cfg.Name}
	}
	if !errors.Is(err, blob.ErrNotExist) {
		return nil, err
	}
	c, err := client.Connect(ctx, cfg.Conninfo)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	b, err := begin(ctx, &cfg, c)
	if err != nil {
		return nil, err
	}
	id := make([]byte, 16)
	_, _ = rand.Read(id) // it never fails
	at.ID = hex.EncodeToString(id)
	s := &snapshot{backup: b, at: at}
	if err := s.place(); err != nil {
		return nil, err
	}
	m, files, err := s.take(ctx)
	if err != nil {
		return nil, errors.Join(err, s.undo())
	}
	// from here on the directory stays whatever happens: the manifest may be there
	// although putting it failed
	if err := cfg.Lineage.PutBackup(ctx, m, files); err != nil {
		return nil, err
	}
	b.report("done")
	return m, nil
}

// snapshot is one that is being made.
type snapshot struct {
	*backup
	at      repository.Snapshot
	entries []entry
	gone    []bool
	done    atomic.Int64
}

const making, deleting = ".tmp", ".deleting"

// place makes room for the snapshot, and looks whether it can be made there.
func (s *snapshot) place() error {
	if err := os.MkdirAll(filepath.Dir(s.at.Path), 0o700); err != nil {
		return fmt.Errorf("snapshot: %w", err)
	}
	if err := CanSnapshot(s.cfg.DataDirectory, filepath.Dir(s.at.Path)); err != nil {
		return err
	}
	return s.undo()
}

// undo removes what was made, or what an earlier try left.
func (s *snapshot) undo() error {
	for _, dir := range []string{s.at.Path + making, s.at.Path + deleting, s.at.Path} {
		if err := os.RemoveAll(dir); err != nil {
			return fmt.Errorf("remove an unfinished snapshot: %w", err)
		}
	}
	return nil
}

func (s *snapshot) take(ctx context.Context) (*repository.Manifest, *repository.Files, error) {
	s.report("starting")
	start, err := s.conn.BackupStart(ctx, s.cfg.Name, s.cfg.Fast)
	if err != nil {
		return nil, nil, fmt.Errorf("start backup: %w", err)
	}
	if s.entries, err = s.walk(); err != nil {
		return nil, nil, err
	}
	if err := s.clone(ctx); err != nil {
		return nil, nil, fmt.Errorf("snapshot: %w", err)
	}
	e, err := s.stop(ctx, start)
	if err != nil {
		return nil, nil, err
	}
	if err := s.settle(); err != nil {
		return nil, nil, fmt.Errorf("snapshot: %w", err)
	}
	if err := s.waitWAL(ctx, e); err != nil {
		return nil, nil, err
	}
	m, err := s.manifest(e)
	if err != nil {
		return nil, nil, err
	}
	at := s.at
	m.Type, m.Snapshot = repository.TypeSnapshot, &at
	files := &repository.Files{Snapshot: true}
	for i := range s.entries {
		if !s.gone[i] {
			files.Files = append(files.Files, s.entries[i].File)
		}
	}
	count(m, files)
	return m, files, nil
}

// cloneJobs is how many files are cloned at once at least: it waits for the disk's
// journal more than for the processor.
const cloneJobs = 4

// clone clones everything, the control file last.
func (s *snapshot) clone(ctx context.Context) error {
	s.gone = make([]bool, len(s.entries))
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

func (s *snapshot) progress() {
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
func (s *snapshot) cloneControl(data string) error {
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
func (s *snapshot) settle() error {
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
