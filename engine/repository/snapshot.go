// SPDX-License-Identifier: Apache-2.0

package repository

import (
	"errors"
	"fmt"
	"path/filepath"
)

// Snapshot is where the files of a snapshot lie: outside the repository, on one machine.
type Snapshot struct {
	Machine string `json:"machine"` // its host name, for people
	Path    string `json:"path"`    // absolute
	ID      string `json:"id"`      // a random number that the directory holds too
}

// Data is the clone of the data directory, with the tablespaces as directories in it.
func (s Snapshot) Data() string { return filepath.Join(s.Path, "data") }

// AbsentError says that a backup is listed and its snapshot cannot be reached.
type AbsentError struct {
	Backup   string
	Snapshot Snapshot
	Err      error // what was found in its place
}

func (e *AbsentError) Error() string {
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

var errNotLooked = errors.New("snapshots are not looked for")

// check tells whether a list of files is of the kind that the manifest means.
func (m *Manifest) check(f *Files) error {
	switch {
	case (m.Type == TypeSnapshot) != (m.Snapshot != nil):
		return fmt.Errorf("a backup of type %s, and its snapshot is named: %t", m.Type, m.Snapshot != nil)
	case f.Snapshot != (m.Snapshot != nil):
		return errors.New("its list of files is that of another type of backup")
	case f.Snapshot && (len(f.Packs) > 0 || len(f.Frames) > 0):
		return errors.New("a snapshot has packs")
	}
	return nil
}
