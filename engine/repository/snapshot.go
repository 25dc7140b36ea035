// SPDX-License-Identifier: Apache-2.0

package repository

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
)

// Snapshot is where the files of a snapshot lie: outside the repository, in a directory
// of one machine, or in a VolumeSnapshot of one Kubernetes.
type Snapshot struct {
	Machine string `json:"machine,omitempty"` // its host name, for people
	Path    string `json:"path,omitempty"`    // absolute
	ID      string `json:"id"`                // a random number that the directory or the VolumeSnapshot holds too

	// VolumeSnapshot is "namespace/name", and without Machine and Path. Directory is
	// that of the data, from the volume's root.
	VolumeSnapshot string `json:"volumeSnapshot,omitempty"`
	Directory      string `json:"directory,omitempty"`
}

// Data is the clone of the data directory, with the tablespaces as directories in it; of
// a snapshot that is a directory.
func (s Snapshot) Data() string { return filepath.Join(s.Path, "data") }

// String says to people where it is.
func (s Snapshot) String() string {
	if s.VolumeSnapshot != "" {
		return "VolumeSnapshot " + s.VolumeSnapshot
	}
	return s.Path
}

// check tells whether it is one of the two kinds.
func (s Snapshot) check() error {
	_, name, ok := strings.Cut(s.VolumeSnapshot, "/")
	switch {
	case s.VolumeSnapshot == "" && s.Directory == "":
		return nil
	case s.Path != "" || s.Machine != "" || !ok || name == "" || strings.Contains(name, "/"):
		return errors.New("its snapshot is neither a directory nor a VolumeSnapshot")
	case !filepath.IsLocal(s.Directory):
		return fmt.Errorf("the data directory %q of its snapshot is not inside of the volume", s.Directory)
	}
	return nil
}

// AbsentError says that a backup is listed and its snapshot cannot be reached.
type AbsentError struct {
	Backup   string
	Snapshot Snapshot
	Err      error // what was found in its place
}

func (e *AbsentError) Error() string {
	if v := e.Snapshot.VolumeSnapshot; v != "" {
		return fmt.Sprintf("its snapshot is VolumeSnapshot %s, and not here: %v", v, e.Err)
	}
	return fmt.Sprintf("its snapshot is on machine %s at %s, and not here: %v", e.Snapshot.Machine, e.Snapshot.Path, e.Err)
}

func (e *AbsentError) Unwrap() error { return e.Err }

// Reach is nil if the files of a backup can be read: always for one that the repository
// holds. Otherwise it is an *AbsentError, and the backup is no base for anything.
func (r *Repository) Reach(m *Manifest) error {
	if m.Snapshot == nil {
		return nil
	}
	err := errNotLooked
	if r.snapshots != nil {
		err = r.snapshots(m)
	}
	var absent *AbsentError
	if err != nil && !errors.As(err, &absent) {
		return &AbsentError{Backup: m.Name, Snapshot: *m.Snapshot, Err: err}
	}
	return err
}

// RemoveSnapshot removes the VolumeSnapshot that a backup of a lineage had, whose
// manifest is gone; nil if it is not there. Directories are for
// basebackup.RemoveSnapshot.
func (r *Repository) RemoveSnapshot(ctx context.Context, lineage string, m *Manifest) error {
	if m.Snapshot == nil || m.Snapshot.VolumeSnapshot == "" {
		return nil
	}
	if r.removeSnapshot == nil {
		return fmt.Errorf("remove VolumeSnapshot %s: %w", m.Snapshot.VolumeSnapshot, errNotLooked)
	}
	return r.removeSnapshot(ctx, lineage, m)
}

var errNotLooked = errors.New("snapshots are not looked for")

// check tells whether a list of files is of the kind that the manifest means.
func (m *Manifest) check(f *Files) error {
	switch {
	case (m.Type == TypeSnapshot) != (m.Snapshot != nil):
		return fmt.Errorf("a backup of type %s, and its snapshot is named: %t", m.Type, m.Snapshot != nil)
	case m.Snapshot != nil && m.Snapshot.check() != nil:
		return m.Snapshot.check()
	case f.Snapshot != (m.Snapshot != nil):
		return errors.New("its list of files is that of another type of backup")
	case f.Snapshot && (len(f.Packs) > 0 || len(f.Frames) > 0):
		return errors.New("a snapshot has packs")
	}
	return nil
}
