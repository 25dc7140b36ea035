// SPDX-License-Identifier: Apache-2.0

package pod

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/engine/repository"
	"github.com/kbcli/kbcli/engine/restore"
	"github.com/kbcli/kbcli/internal/atomicfile"
	"github.com/kbcli/kbcli/runtimes/operator/specs"
	"github.com/kbcli/kbcli/runtimes/store"
)

// errUsedVolume says that recovery was interrupted on a volume that was made of a
// snapshot: the files are no longer those of the backup.
var errUsedVolume = errors.New("an interrupted recovery used the volume up: it is made of the snapshot again")

// given are the VolumeSnapshots for a pod that restores: it has the volume that the
// operator made, if the target was resolved to a backup before, and can make no other.
type given struct{ spec *v1alpha1.RestoreSpec }

var errNotGiven = errors.New("the volume of this pod was not made of it")

func (g given) Reach(m *repository.Manifest) error {
	if g.spec.Resolved != nil && g.spec.Resolved.BackupName == m.Name {
		return nil // also if the snapshot is gone meanwhile: the volume is here
	}
	return errNotGiven
}

func (given) Remove(context.Context, string, *repository.Manifest) error { return errNotGiven }

// takenVolume is the volume of a restore, and how far that is with it. A volume that was
// made of a snapshot can hold the note of another cluster, which was restored before it was
// snapshotted.
type takenVolume struct {
	Cluster    string `json:"cluster"` // its UID
	Backup     string `json:"backup"`
	OfVolume   bool   `json:"ofVolume,omitempty"` // made of the backup's snapshot
	Recovering bool   `json:"recovering"`         // the files are no longer those of the backup

	note, data, temporary string // paths
}

const takenNote = "restored-from.json"

// OtherDataError says that a volume holds what this restore did not put there.
type OtherDataError struct{ Directory string }

func (e *OtherDataError) Error() string {
	return fmt.Sprintf("%s holds the data of another cluster, and nothing is restored over data: give the new cluster another name, or delete its volumes", e.Directory)
}

// openTaken begins with a volume, or goes on. cluster is the UID. Data that neither this
// restore made nor the snapshot holds is not touched: an *OtherDataError.
func openTaken(at Places, cluster string, p *restore.Plan) (*takenVolume, error) {
	return takeVolume(at, takenVolume{Cluster: cluster, Backup: p.Backup, OfVolume: p.OfVolume()})
}

func takeVolume(at Places, now takenVolume) (*takenVolume, error) {
	note := filepath.Join(at.Volume, takenNote)
	t := &takenVolume{}
	b, err := os.ReadFile(note)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if err == nil && json.Unmarshal(b, t) != nil || t.Cluster != now.Cluster || t.Backup != now.Backup || t.OfVolume != now.OfVolume {
		if holdsData(at.Data) && !now.OfVolume {
			return nil, &OtherDataError{at.Data}
		}
		t = &now
		// what an interrupted restore of the source left, and was snapshotted with it
		if err := os.RemoveAll(at.Data + ".new"); err != nil {
			return nil, err
		}
	}
	t.note, t.data, t.temporary = note, at.Data, at.Data+".new"
	return t, t.write()
}

func holdsData(dir string) bool {
	_, err := os.Lstat(filepath.Join(dir, "PG_VERSION"))
	return err == nil
}

func (t *takenVolume) write() error {
	b, err := json.Marshal(t)
	if err != nil {
		return err
	}
	if err := atomicfile.Write(t.note, b, 0o600); err != nil {
		return fmt.Errorf("note whose volume it is: %w", err)
	}
	return nil
}

// used tells that an earlier try recovered, and did not come to its end.
func (t *takenVolume) used() bool {
	if !t.OfVolume || !t.Recovering {
		return false
	}
	_, err := os.Stat(t.temporary)
	return err == nil
}

// done tells that an earlier try came to its end.
func (t *takenVolume) done() bool { return t.Recovering && holdsData(t.data) }

// recovers notes that the files are about to change.
func (t *takenVolume) recovers() error {
	t.Recovering = true
	return t.write()
}

// askForVolume has the operator make the volume anew.
func (w *work) askForVolume(ctx context.Context) error {
	_, err := store.Mutate(ctx, w.Objects, w.Namespace, w.Cluster, func(c *v1alpha1.Cluster) error {
		if c.Annotations == nil {
			c.Annotations = map[string]string{}
		}
		c.Annotations[specs.AnnotationVolumeUsed] = w.Pod
		return nil
	})
	return err
}
