// SPDX-License-Identifier: Apache-2.0

package basebackup

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/kbcli/kbcli/engine/pg"
	"github.com/kbcli/kbcli/engine/repository"
)

// Copy makes a full backup of a snapshot that is here, without asking the server: it is
// the same backup, from the same start to the same stop, and its bytes are in the
// repository. Of cfg it needs neither Conninfo nor DataDirectory nor WaitWAL. An
// interrupted one is taken up. If the snapshot is not here that is a
// *repository.AbsentError; if something in it is not as its list says, nothing is made.
func Copy(ctx context.Context, cfg Config, from *repository.Manifest) (*repository.Manifest, error) {
	if from.Snapshot == nil {
		return nil, fmt.Errorf("backup %s is not a snapshot", from.Name)
	}
	if err := Here(from); err != nil {
		return nil, err
	}
	if err := cfg.Lineage.Covers(ctx, from.Timeline, from.StartLSN, from.StopLSN); err != nil {
		return nil, err
	}
	list, err := cfg.Lineage.Files(ctx, from)
	if err != nil {
		return nil, err
	}
	entries, control, err := snapshotEntries(from, list)
	if err != nil {
		return nil, fmt.Errorf("copy snapshot %s: %w", from.Name, err)
	}
	b := &backup{cfg: &cfg}
	earlier, packs, err := b.leftovers(ctx)
	if err != nil {
		return nil, err
	}
	if err := b.copyFiles(ctx, entries, from.StartLSN, from.Checksums, earlier, packs); err != nil {
		return nil, fmt.Errorf("copy snapshot %s: %w", from.Name, err)
	}
	if err := b.copyControl(ctx, control); err != nil {
		return nil, err
	}
	m := *from
	m.Name, m.Type, m.Manual, m.Snapshot, m.Uses = cfg.Name, repository.TypeFull, cfg.Manual, nil, nil
	files, err := b.copied(&m)
	if err != nil {
		return nil, err
	}
	if err := cfg.Lineage.PutBackup(ctx, &m, files); err != nil {
		return nil, err
	}
	b.report("done")
	return &m, nil
}

// snapshotEntries are the files of a snapshot, each of which is looked at, and the
// content of its control file.
func snapshotEntries(m *repository.Manifest, list *repository.Files) ([]entry, []byte, error) {
	root, err := os.OpenRoot(m.Snapshot.Data())
	if err != nil {
		return nil, nil, err
	}
	defer root.Close()
	var control []byte
	entries := make([]entry, len(list.Files))
	for i, f := range list.Files {
		e := &entries[i]
		e.File, e.source = f, filepath.Join(m.Snapshot.Data(), filepath.FromSlash(f.Path))
		e.segment, e.relation = Relation(f.Path)
		if f.Kind != repository.RegularFile {
			continue
		}
		file, err := OpenFile(root, &f)
		if err != nil {
			return nil, nil, err
		}
		if f.Path == controlPath {
			control = make([]byte, f.Size)
			if _, err = file.ReadAt(control, 0); err == nil {
				_, err = pg.ParseControlFile(control)
			}
		}
		if err = errors.Join(err, file.Close()); err != nil {
			return nil, nil, fmt.Errorf("read %s: %w", f.Path, err)
		}
	}
	if control == nil {
		return nil, nil, fmt.Errorf("the snapshot has no %s", controlPath)
	}
	return entries, control, nil
}
