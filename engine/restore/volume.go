// SPDX-License-Identifier: Apache-2.0

package restore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/kbcli/kbcli/engine/basebackup"
	"github.com/kbcli/kbcli/engine/pg"
)

// NotTheVolumeError says that a volume does not hold the snapshot of the plan.
type NotTheVolumeError struct{ Backup, Volume, Reason string }

func (e *NotTheVolumeError) Error() string {
	return fmt.Sprintf("the volume at %s was not made of the snapshot of backup %s: %s", e.Volume, e.Backup, e.Reason)
}

// OfVolume tells that the files are not fetched: they are in the volume that Into.Volume
// names, which was made of the backup's VolumeSnapshot.
func (p *Plan) OfVolume() bool {
	return p.manifest.Snapshot != nil && p.manifest.Snapshot.VolumeSnapshot != ""
}

// volume takes over what a volume holds that was made of the backup's snapshot: moves the
// directory to its new place, looks whether it is the backup's, and makes of it what a
// fetched one is. It can be called again after it was interrupted, but not after recovery
// has begun.
type volume struct {
	plan *Plan
	into Into
	root *os.Root // of the volume
	data *os.Root
}

func (p *Plan) fetchVolume(ctx context.Context, into Into) (err error) {
	if into.Volume == "" {
		return errors.New("restore: the backup's files are in a volume, and none was given")
	}
	v := &volume{plan: p, into: into}
	if v.root, err = os.OpenRoot(into.Volume); err != nil {
		return fmt.Errorf("restore: %w", err)
	}
	defer func() { err = errors.Join(err, v.root.Close()) }()
	if err := v.move(p.manifest.Snapshot.Directory, into.DataDirectory); err != nil {
		return fmt.Errorf("restore: %w", err)
	}
	if v.data, err = os.OpenRoot(into.DataDirectory); err != nil {
		return fmt.Errorf("restore: %w", err)
	}
	defer func() { err = errors.Join(err, v.data.Close()) }()
	for _, step := range []func(context.Context) error{v.label, v.strip, v.tablespaces} {
		if err := step(ctx); err != nil {
			return fmt.Errorf("restore: %w", err)
		}
	}
	if into.Progress != nil {
		into.Progress(p.BackupBytes, p.BackupBytes)
	}
	return syncFilesystem(into.DataDirectory)
}

// move gives a directory of the volume another place there; it may have it already.
func (v *volume) move(from, to string) error {
	rel, err := filepath.Rel(v.into.Volume, to)
	if err != nil || !filepath.IsLocal(rel) || rel == "." {
		return fmt.Errorf("%s is not in the volume at %s", to, v.into.Volume)
	}
	if _, err := v.root.Lstat(rel); err == nil || from == rel {
		return err
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := v.root.MkdirAll(filepath.Dir(rel), 0o755); err != nil { // the server's user passes through
		return err
	}
	err = v.root.Rename(from, rel)
	if errors.Is(err, fs.ErrNotExist) {
		return &NotTheVolumeError{v.plan.Backup, v.into.Volume, "it has no " + from}
	}
	return err
}

// label looks whether the directory is the backup's, writes backup_label, and then makes
// a start without it impossible. A directory that has the label was looked at before.
func (v *volume) label(context.Context) error {
	m := v.plan.manifest
	have, err := v.data.ReadFile("backup_label")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := v.data.OpenFile(filepath.FromSlash(controlPath), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, 1<<16))
	if err != nil {
		return err
	}
	if !bytes.Equal(have, m.Label) || len(have) == 0 {
		if err := v.check(raw); err != nil {
			return err
		}
		if err := v.put("backup_label", m.Label); err != nil {
			return err
		}
		if err := syncFilesystem(v.into.DataDirectory); err != nil {
			return err
		}
	}
	if raw, err = pg.InvalidateCheckpoint(raw); err != nil {
		return err
	}
	if _, err := f.WriteAt(raw, 0); err != nil {
		return err
	}
	return f.Sync()
}

// check holds the control file against the manifest: a snapshot that was cut between the
// start of the backup and its stop has a checkpoint from between them.
func (v *volume) check(raw []byte) error {
	m, no := v.plan.manifest, ""
	c, err := pg.ParseControlFile(raw)
	switch {
	case err != nil:
		return &NotTheVolumeError{v.plan.Backup, v.into.Volume, err.Error()}
	case c.SystemID != v.plan.SystemID:
		no = fmt.Sprintf("its system identifier is %s, and not %s", c.SystemID, v.plan.SystemID)
	case int(c.CatalogVersion) != m.Settings.CatalogVersion || int(c.ControlVersion) != m.Settings.ControlVersion:
		no = fmt.Sprintf("its catalog is of version %d, and not %d", c.CatalogVersion, m.Settings.CatalogVersion)
	case c.Timeline != m.Timeline:
		no = fmt.Sprintf("it is on timeline %s, and not %s", c.Timeline, m.Timeline)
	case c.Redo < m.StartLSN || c.Redo > m.StopLSN:
		no = fmt.Sprintf("its last checkpoint is at %s, and the backup from %s to %s", c.Redo, m.StartLSN, m.StopLSN)
	}
	if no != "" {
		return &NotTheVolumeError{v.plan.Backup, v.into.Volume, no}
	}
	return nil
}

func (v *volume) put(name string, content []byte) error {
	if err := v.data.WriteFile(name, content, 0o600); err != nil {
		return err
	}
	return v.own(v.data, name)
}

func (v *volume) own(root *os.Root, name string) error {
	if v.into.UID < 0 {
		return nil
	}
	return root.Lchown(name, v.into.UID, v.into.GID)
}

// strip takes away what a backup does not hold, and gives the rest the modes that
// PostgreSQL asks for: who mounts a volume may have changed them.
func (v *volume) strip(ctx context.Context) error { return v.stripDir(ctx, v.data, "") }

func (v *volume) stripDir(ctx context.Context, root *os.Root, at string) error {
	return fs.WalkDir(root.FS(), ".", func(p string, d fs.DirEntry, err error) error {
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return err
		}
		mode := fs.FileMode(0o600)
		switch {
		case p != "." && p != "backup_label" && basebackup.LeftOut(at+p):
			if err := root.RemoveAll(p); err != nil {
				return err
			}
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		case d.IsDir():
			mode = 0o700
		case !d.Type().IsRegular():
			return v.own(root, p) // a link: what it leads to is elsewhere
		}
		if err := root.Chmod(p, mode); err != nil {
			return err
		}
		return v.own(root, p)
	})
}

// tablespaces brings them to where those of the new server lie, and links them.
func (v *volume) tablespaces(ctx context.Context) error {
	m := v.plan.manifest
	if len(m.Tablespaces) == 0 {
		return nil
	}
	if v.into.Tablespaces == "" {
		return fmt.Errorf("the backup has the tablespace %d (%s) and no place for it was given", m.Tablespaces[0].Oid, m.Tablespaces[0].Location)
	}
	links := make(pg.TablespaceMap, 0, len(m.Tablespaces))
	for _, t := range m.Tablespaces {
		to, err := filepath.Abs(filepath.Join(v.into.Tablespaces, fmt.Sprint(t.Oid)))
		if err != nil {
			return err
		}
		from, err := filepath.Rel(v.into.Volume, t.Location)
		if err != nil || !filepath.IsLocal(from) {
			return fmt.Errorf("tablespace %d was at %s, which is not in the volume at %s", t.Oid, t.Location, v.into.Volume)
		}
		if err := v.move(from, to); err != nil {
			return err
		}
		space, err := os.OpenRoot(to)
		if err != nil {
			return err
		}
		err = v.stripDir(ctx, space, fmt.Sprintf("pg_tblspc/%d/", t.Oid))
		if err = errors.Join(err, space.Close()); err != nil {
			return err
		}
		link := filepath.Join("pg_tblspc", fmt.Sprint(t.Oid))
		if err := v.data.Remove(link); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if err := v.data.Symlink(to, link); err != nil {
			return err
		}
		if err := v.own(v.data, link); err != nil {
			return err
		}
		links = append(links, pg.TablespaceLink{OID: t.Oid, Path: to})
	}
	return v.put("tablespace_map", links.Bytes(m.Version/10000))
}
