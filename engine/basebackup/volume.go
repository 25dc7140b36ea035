// SPDX-License-Identifier: Apache-2.0

package basebackup

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/kbcli/kbcli/engine/repository"
)

// Volume is the storage under a server, where that can be snapshotted as a whole. Its
// methods are called in the order Clear, Cut, Settle, by one goroutine.
type Volume interface {
	// Root is the directory at which the volume is mounted.
	Root() string
	// Clear removes what an interrupted try of a backup left; nil if there is nothing.
	Clear(ctx context.Context, lineage, backup string) error
	// Cut makes the snapshot that will be known by id, and returns when what it holds is
	// fixed. It says in at where it is, also when it fails.
	Cut(ctx context.Context, lineage, backup, id string) (at repository.Snapshot, err error)
	// Settle waits until volumes can be made of it.
	Settle(ctx context.Context, at repository.Snapshot) error
}

// frozen is a snapshot of the volume.
type frozen struct {
	*snapshot
	volume    Volume
	id        string
	directory string // of the data, from the volume's root
}

// OutsideVolumeError says that a part of the server does not lie in the volume that
// would be snapshotted.
type OutsideVolumeError struct{ What, Path, Root string }

func (e *OutsideVolumeError) Error() string {
	return fmt.Sprintf("%s lies at %s, outside of the volume at %s: a snapshot of that would be without it", e.What, e.Path, e.Root)
}

// place sees to it that one snapshot holds all: several volumes have no moment in common.
func (f *frozen) place(ctx context.Context) error {
	root, err := filepath.EvalSymlinks(f.volume.Root())
	if err != nil {
		return fmt.Errorf("snapshot: %w", err)
	}
	inside := func(what, path string) (string, error) {
		path, err := filepath.EvalSymlinks(path)
		if err != nil {
			return "", fmt.Errorf("snapshot: %w", err)
		}
		rel, err := filepath.Rel(root, path)
		if err != nil || !filepath.IsLocal(rel) {
			return "", &OutsideVolumeError{what, path, root}
		}
		return rel, nil
	}
	if f.directory, err = inside("the data directory", f.cfg.DataDirectory); err != nil {
		return err
	}
	spaces := filepath.Join(f.cfg.DataDirectory, "pg_tblspc")
	links, err := os.ReadDir(spaces)
	if err != nil {
		return fmt.Errorf("snapshot: %w", err)
	}
	for _, l := range links {
		if l.Type()&fs.ModeSymlink == 0 {
			continue
		}
		if _, err := inside("tablespace "+l.Name(), filepath.Join(spaces, l.Name())); err != nil {
			return err
		}
	}
	return f.volume.Clear(ctx, f.cfg.Lineage.Info().ID, f.cfg.Name)
}

func (f *frozen) freeze(ctx context.Context) (err error) {
	f.report("cutting the snapshot")
	f.at, err = f.volume.Cut(ctx, f.cfg.Lineage.Info().ID, f.cfg.Name, f.id)
	f.at.Directory = f.directory
	return err
}

func (f *frozen) settle(ctx context.Context) error {
	f.report("waiting for the snapshot")
	return f.volume.Settle(ctx, f.at)
}

func (f *frozen) undo(ctx context.Context) error {
	return f.volume.Clear(ctx, f.cfg.Lineage.Info().ID, f.cfg.Name)
}
