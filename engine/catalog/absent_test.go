// SPDX-License-Identifier: Apache-2.0

package catalog

import (
	"errors"
	"os"
	"testing"

	"github.com/kbcli/kbcli/engine/repository"
)

// TestAbsent: a snapshot is a base where it is, and nothing where it is not.
func TestAbsent(t *testing.T) {
	w := story(t)
	m := &repository.Manifest{
		Name: "s", Type: repository.TypeSnapshot, Timeline: 1, StartLSN: at(1, 310), StopLSN: at(1, 390), StartTime: clock(11), StopTime: clock(12),
		Snapshot: &repository.Snapshot{Machine: "db1", Path: "/srv/s", ID: "1"},
	}
	w.must(w.l.PutBackup(t.Context(), m, &repository.Files{Snapshot: true}))
	for _, here := range []bool{false, true} {
		repo, err := repository.Open(t.Context(), w.store, repository.Options{Snapshots: func(*repository.Manifest) error {
			if here {
				return nil
			}
			return os.ErrNotExist
		}})
		w.must(err)
		l, err := repo.Lineage(t.Context(), w.l.Info().ID)
		w.must(err)
		c, err := Load(t.Context(), l)
		w.must(err)
		want, backups := "a", 1
		if here {
			want, backups = "s", 2
		}
		if len(c.Backups()) != backups || len(c.Absent()) != 2-backups {
			t.Errorf("here %t: %d backups, %d absent", here, len(c.Backups()), len(c.Absent()))
		}
		r, err := c.Resolve(t.Context(), Target{Latest: true})
		if err != nil || r.Backup.Name != want {
			t.Errorf("here %t: %+v, %v", here, r, err)
		}
		_, err = c.Resolve(t.Context(), Target{Backup: "s"})
		var absent *repository.AbsentError
		if here != (err == nil) || !here && !errors.As(err, &absent) {
			t.Errorf("here %t: %v", here, err)
		}
	}
}
