// SPDX-License-Identifier: Apache-2.0

package basebackup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/kbcli/kbcli/engine/pg"
	"github.com/kbcli/kbcli/engine/repository"
)

// entry is a file or directory to back up.
type entry struct {
	repository.File
	source   string // its path on this host
	relation bool   // its pages carry checksums, and its size is whole pages
	segment  uint32 // of the relation
}

// alone tells whether the file has frames of its own although it is small: WAL does not
// tell of it, so that the next incremental backup reads it and looks whether its bytes
// are still those of a frame.
func (e *entry) alone() bool {
	return !e.relation || strings.Contains(path.Base(e.Path), "_fsm")
}

// walker lists a data directory.
type walker struct {
	catalogDir string // PG_15_202209061: the directory in a tablespace that is ours
	entries    []entry
	skippedOdd []string // what is neither file nor directory, and was left out
}

// walk lists everything that a backup of the data directory at root holds, by
// path. Tablespaces stand under pg_tblspc/<oid>. What vanishes meanwhile is left out.
func (w *walker) walk(root string) error {
	if err := w.dir(root, ""); err != nil {
		return err
	}
	slices.SortFunc(w.entries, func(a, b entry) int { return strings.Compare(a.Path, b.Path) })
	return nil
}

func (w *walker) dir(source, rel string) error {
	list, err := os.ReadDir(source)
	if errors.Is(err, fs.ErrNotExist) && rel != "" {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read data directory: %w", err)
	}
	relations := relationDir(rel)
	unlogged := map[string]bool{}
	if relations {
		for _, e := range list {
			if n, fork, _, _, ok := relationFile(e.Name()); ok && fork == "init" {
				unlogged[n] = true
			}
		}
	}
	for _, e := range list {
		name := e.Name()
		if excluded(rel, name) {
			continue
		}
		it := entry{source: filepath.Join(source, name)}
		it.Path = path.Join(rel, name)
		if relations {
			n, fork, seg, temporary, ok := relationFile(name)
			if ok && (temporary || unlogged[n] && fork != "init") {
				continue
			}
			it.relation, it.segment = ok, seg
		}
		if err := w.add(it); err != nil {
			return err
		}
	}
	return nil
}

func (w *walker) add(it entry) error {
	info, err := os.Lstat(it.source)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read data directory: %w", err)
	}
	link := info.Mode()&fs.ModeSymlink != 0
	inTablespaces := path.Dir(it.Path) == "pg_tblspc"
	if link && (inTablespaces || it.Path == "pg_wal") {
		if info, err = os.Stat(it.source); err != nil {
			return fmt.Errorf("read data directory: %w", err)
		}
	}
	it.Mode = uint32(info.Mode().Perm())
	it.ModTime = info.ModTime().UnixMicro()
	switch {
	case info.Mode().IsRegular():
		it.Kind = repository.RegularFile
		it.Size = info.Size()
		if it.relation {
			it.Size -= it.Size % pg.BlockSize // the last page is being added; redo adds it
		}
		w.entries = append(w.entries, it)
		return nil
	case !info.IsDir():
		w.skippedOdd = append(w.skippedOdd, it.Path)
		return nil
	}
	it.Kind, it.Size = repository.Directory, 0
	w.entries = append(w.entries, it)
	switch {
	case it.Path == "pg_wal":
		status := it
		status.Path = "pg_wal/archive_status"
		w.entries = append(w.entries, status)
		return nil
	case emptied[it.Path]:
		return nil
	case inTablespaces && link:
		// other servers may share the place: only one directory there is ours
		own := entry{source: filepath.Join(it.source, w.catalogDir)}
		own.Path = path.Join(it.Path, w.catalogDir)
		return w.add(own)
	}
	return w.dir(it.source, it.Path)
}
