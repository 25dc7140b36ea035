// SPDX-License-Identifier: Apache-2.0

package basebackup

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/kbcli/kbcli/engine/blob"
	"github.com/kbcli/kbcli/engine/pg/client"
	"github.com/kbcli/kbcli/engine/repository"
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
	return takeSnapshot(ctx, cfg, func(b *backup, id string) *snapshot {
		at.ID = id
		s := &snapshot{backup: b, at: at}
		s.means = &clones{snapshot: s}
		return s
	})
}

// VolumeSnapshot is Snapshot of the whole volume that the data directory and all
// tablespaces lie in. The list of files is what there was when the backup began.
func VolumeSnapshot(ctx context.Context, cfg Config, v Volume) (*repository.Manifest, error) {
	return takeSnapshot(ctx, cfg, func(b *backup, id string) *snapshot {
		s := &snapshot{backup: b}
		s.means = &frozen{snapshot: s, volume: v, id: id}
		return s
	})
}

// means are a way to hold files fast as they are.
type means interface {
	// place looks whether it can be done, and removes what an earlier try left.
	place(ctx context.Context) error
	// freeze is called while the backup is begun and not stopped.
	freeze(ctx context.Context) error
	// settle makes what was frozen durable, and gives it the name that at says.
	settle(ctx context.Context) error
	// undo removes what was made.
	undo(ctx context.Context) error
}

// snapshot is one that is being made.
type snapshot struct {
	*backup
	means
	at      repository.Snapshot
	entries []entry
	gone    []bool
}

// undoTime is how long removing what was made may take once the backup has failed.
const undoTime = 30 * time.Second

func takeSnapshot(ctx context.Context, cfg Config, prepare func(b *backup, id string) *snapshot) (*repository.Manifest, error) {
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
	s := prepare(b, hex.EncodeToString(id))
	if err := s.place(ctx); err != nil {
		return nil, err
	}
	m, files, err := s.take(ctx)
	if err != nil {
		uctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTime)
		defer cancel()
		return nil, errors.Join(err, s.undo(uctx))
	}
	// from here on the snapshot stays whatever happens: the manifest may be there
	// although putting it failed
	if err := cfg.Lineage.PutBackup(ctx, m, files); err != nil {
		return nil, err
	}
	b.report("done")
	return m, nil
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
	s.gone = make([]bool, len(s.entries))
	if err := s.freeze(ctx); err != nil {
		return nil, nil, fmt.Errorf("snapshot: %w", err)
	}
	e, err := s.stop(ctx, start)
	if err != nil {
		return nil, nil, err
	}
	if err := s.settle(ctx); err != nil {
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
