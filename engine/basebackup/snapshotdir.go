// SPDX-License-Identifier: Apache-2.0

package basebackup

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/kbcli/kbcli/engine/repository"
)

// description is in a snapshot's directory and says which it is.
type description struct {
	Lineage string `json:"lineage"`
	Backup  string `json:"backup"`
	ID      string `json:"id"`
}

const descriptionFile = "snapshot.json"

func describe(dir, lineage, backup, id string) error {
	b, err := json.MarshalIndent(description{lineage, backup, id}, "", " ")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, descriptionFile), append(b, '\n'), 0o600)
}

func readDescription(dir string) (description, error) {
	var d description
	b, err := os.ReadFile(filepath.Join(dir, descriptionFile))
	if err != nil {
		return d, err
	}
	return d, json.Unmarshal(b, &d)
}

// Here is nil if the files of a backup can be reached from this process: always for one
// that lies in the repository, and for a snapshot if its directory is there; never for
// one of a volume. Otherwise it is a *repository.AbsentError.
func Here(m *repository.Manifest) error {
	if m.Snapshot == nil {
		return nil
	}
	if m.Snapshot.VolumeSnapshot != "" {
		return &repository.AbsentError{Backup: m.Name, Snapshot: *m.Snapshot, Err: errors.New("a Kubernetes has it, and this is none")}
	}
	d, err := readDescription(m.Snapshot.Path)
	if err == nil && (d.ID != m.Snapshot.ID || d.Backup != m.Name) {
		err = errors.New("that directory is another snapshot")
	}
	if err != nil {
		return &repository.AbsentError{Backup: m.Name, Snapshot: *m.Snapshot, Err: err}
	}
	return nil
}

// OpenFile opens a file of a snapshot that lies in root, and sees to it that it has the
// size that the list of files says: clones are never written again.
func OpenFile(root *os.Root, f *repository.File) (*os.File, error) {
	file, err := root.Open(filepath.FromSlash(f.Path))
	if err != nil {
		return nil, err
	}
	info, err := file.Stat()
	if err == nil && (!info.Mode().IsRegular() || info.Size() != f.Size) {
		err = fmt.Errorf("file %s of the snapshot has %d bytes, not %d", f.Path, info.Size(), f.Size)
	}
	if err != nil {
		file.Close()
		return nil, err
	}
	return file, nil
}

// Relation tells whether a file of a backup holds pages of a relation, and which segment
// of it.
func Relation(p string) (segment uint32, ok bool) {
	if !relationDir(path.Dir(p)) {
		return 0, false
	}
	_, _, segment, _, ok = relationFile(path.Base(p))
	return segment, ok
}

// RemoveSnapshot removes the directory of a snapshot, and what an interrupted one or an
// interrupted removal left beside it. It is renamed first, so that what is left never
// looks whole. A directory that is not there, or that says it is another snapshot, is
// success: nothing of this one is here. The manifest goes before: what is listed is whole.
func RemoveSnapshot(place, lineage, backup string) error {
	if !filepath.IsAbs(place) || filepath.Base(place) != backup || filepath.Base(filepath.Dir(place)) != lineage {
		return fmt.Errorf("remove snapshot: %q is not the place of snapshot %s of lineage %s", place, backup, lineage)
	}
	parent, err := os.Open(filepath.Dir(place))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("remove snapshot: %w", err)
	}
	defer parent.Close()
	// a half removed one first, or it would stand in the way
	for _, dir := range []string{place + deleting, place + making} {
		if err := os.RemoveAll(dir); err != nil {
			return fmt.Errorf("remove snapshot: %w", err)
		}
	}
	if d, err := readDescription(place); err == nil && d.Lineage == lineage && d.Backup == backup {
		if err := os.Rename(place, place+deleting); err != nil {
			return fmt.Errorf("remove snapshot: %w", err)
		}
		if err := parent.Sync(); err != nil {
			return fmt.Errorf("remove snapshot: %w", err)
		}
		if err := os.RemoveAll(place + deleting); err != nil {
			return fmt.Errorf("remove snapshot: %w", err)
		}
	}
	err = os.Remove(filepath.Dir(place)) // when it was the last
	if err != nil && !errors.Is(err, unix.ENOTEMPTY) && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("remove snapshot: %w", err)
	}
	return nil
}
