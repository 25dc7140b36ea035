// SPDX-License-Identifier: Apache-2.0

package repository

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/kbcli/kbcli/engine/blob"
	"github.com/kbcli/kbcli/engine/pg"
)

// The types of backups. One that this program does not know is not read.
const (
	TypeFull        = "full"
	TypeIncremental = "incremental"
	TypeSnapshot    = "snapshot"
)

// Manifest describes one backup. It is the last object a backup writes.
type Manifest struct {
	Name    string `json:"name"`
	Type    string `json:"type"`
	Manual  bool   `json:"manual,omitempty"`
	Version int    `json:"version"` // of the server, as 150020

	Timeline  pg.TimelineID `json:"timeline"`  // of StartLSN
	StartLSN  pg.LSN        `json:"startLSN"`  // redo begins here
	StopLSN   pg.LSN        `json:"stopLSN"`   // consistent from here on
	StartTime time.Time     `json:"startTime"` // by the server's clock
	// StopTime is the server's clock after the backup was stopped: every
	// commit before StopLSN has an earlier time.
	StopTime time.Time `json:"stopTime"`

	Label         []byte       `json:"label"` // backup_label, verbatim
	TablespaceMap []byte       `json:"tablespaceMap,omitempty"`
	Tablespaces   []Tablespace `json:"tablespaces,omitempty"`

	Files     int64     `json:"files"`
	DataBytes int64     `json:"dataBytes"` // of all files
	NewBytes  int64     `json:"newBytes"`  // raw bytes that this backup stored
	Stored    int64     `json:"stored"`    // bytes its own objects take, but for this one
	FilesSum  uint64    `json:"filesSum,string"`
	Written   time.Time `json:"written"` // by this host's clock

	// Snapshot is where the files of a snapshot lie, and nil for every other type:
	// the repository holds their bytes.
	Snapshot *Snapshot `json:"snapshot,omitempty"`

	// Base is the backup that an incremental one was compared with, and ReadAll why it
	// read everything all the same; neither says what it needs: that is Uses.
	Base    string `json:"base,omitempty"`
	ReadAll string `json:"readAll,omitempty"`

	// Uses lists the packs of other backups, by their names.
	Uses map[string][]uint32 `json:"uses,omitempty"`

	// Checksums tells whether pages carry checksums, and BadPages those
	// that did not match although read again.
	Checksums bool      `json:"checksums"`
	BadPages  []BadPage `json:"badPages,omitempty"`

	// Superuser may log in and is one, when the backup is taken. Empty is postgres, or
	// that nobody could.
	Superuser string `json:"superuser,omitempty"`

	Settings Settings `json:"settings"`
}

// Tablespace is a directory outside the data directory.
type Tablespace struct {
	Oid      pg.Oid `json:"oid"`
	Location string `json:"location"`
}

// BadPage is a page whose checksum is wrong in the server's own file.
type BadPage struct {
	Path  string `json:"path"`
	Block uint32 `json:"block"`
}

// Settings are what a server must be given at least to replay this backup's WAL.
type Settings struct {
	MaxConnections      int `json:"maxConnections"`
	MaxWorkerProcesses  int `json:"maxWorkerProcesses"`
	MaxWalSenders       int `json:"maxWalSenders"`
	MaxPreparedXacts    int `json:"maxPreparedTransactions"`
	MaxLocksPerXact     int `json:"maxLocksPerTransaction"`
	CatalogVersion      int `json:"catalogVersion"`
	ControlVersion      int `json:"controlVersion"`
	DataPageChecksumVer int `json:"dataPageChecksumVersion"`
}

func (l *Lineage) manifestKey(name string) string { return l.key("manifest", name) }
func (l *Lineage) filesKey(name string) string    { return l.key("backup", name, "files") }

// PutBackup stores the list of files and then the manifest. After it returned nil
// the backup is listed. It fills Written, FilesSum and adds to Stored. A name that
// has a manifest already is a *ConflictError, and that backup stays as it is; but a
// name has one writer at a time.
func (l *Lineage) PutBackup(ctx context.Context, m *Manifest, f *Files) error {
	if err := checkBackupName(m.Name); err != nil {
		return err
	}
	raw := f.encode()
	parsed, err := parseFiles(raw)
	if err != nil {
		return fmt.Errorf("backup %s: %w", m.Name, err)
	}
	if err := m.check(parsed); err != nil {
		return fmt.Errorf("backup %s: %w", m.Name, err)
	}
	packed := Compress(nil, raw)
	done := *m
	done.FilesSum = xxhash.Sum64(raw)
	done.Stored += int64(len(packed))
	done.Written = l.repo.clock().UTC().Truncate(time.Microsecond)
	b, err := json.MarshalIndent(done, "", " ")
	if err != nil {
		return err
	}
	switch _, err := l.repo.store.Stat(ctx, l.manifestKey(m.Name)); {
	case err == nil:
		return &ConflictError{l.manifestKey(m.Name)} // its list of files must stay
	case !errors.Is(err, blob.ErrNotExist):
		return err
	}
	// an interrupted try may have left its list of files without a manifest
	if err := l.repo.store.Delete(ctx, l.filesKey(m.Name)); err != nil {
		return err
	}
	if l.repo.kept(KindFiles) {
		l.repo.copies.put(l.filesKey(m.Name), packed)
		l.pruneCopies()
	}
	if err := l.repo.put(ctx, KindFiles, l.filesKey(m.Name), packed, 0); err != nil {
		return err
	}
	if err := l.repo.put(ctx, KindManifest, l.manifestKey(m.Name), b, 0); err != nil {
		return err
	}
	*m = done
	return nil
}

func checkBackupName(name string) error {
	if strings.Contains(name, "/") {
		return fmt.Errorf("backup name %q has a slash", name)
	}
	return blob.CheckKey(name)
}

// Manifest reads one backup's description; blob.ErrNotExist if there is no such backup.
func (l *Lineage) Manifest(ctx context.Context, name string) (*Manifest, error) {
	if err := checkBackupName(name); err != nil {
		return nil, err
	}
	key := l.manifestKey(name)
	b, err := l.repo.get(ctx, KindManifest, key)
	if err != nil {
		return nil, fmt.Errorf("backup %s: %w", name, err)
	}
	m := &Manifest{}
	if err := json.Unmarshal(b, m); err != nil {
		return nil, &CorruptError{key, err.Error()}
	}
	if m.Name != name || m.StopLSN < m.StartLSN || m.StartLSN == 0 || m.Timeline == 0 {
		return nil, &CorruptError{key, "it describes another backup or none"}
	}
	switch m.Type {
	case TypeFull, TypeIncremental, TypeSnapshot:
	default:
		return nil, fmt.Errorf("backup %s is of type %q, which this kbcli does not know: use a newer kbcli", name, m.Type)
	}
	if (m.Type == TypeSnapshot) != (m.Snapshot != nil) {
		return nil, &CorruptError{key, "it does not say whether its files lie in the repository"}
	}
	if m.Snapshot != nil {
		if err := m.Snapshot.check(); err != nil {
			return nil, &CorruptError{key, err.Error()}
		}
	}
	return m, nil
}

// Manifests reads all backups' descriptions, by the time they ended and name. A
// damaged one is left out and named in the error, a *CorruptError, beside the others;
// any other error comes alone.
func (l *Lineage) Manifests(ctx context.Context) ([]*Manifest, error) {
	var out []*Manifest
	var errs []error
	prefix := l.key("manifest") + "/"
	for info, err := range l.repo.store.List(ctx, prefix) {
		if err != nil {
			return nil, fmt.Errorf("list backups: %w", err)
		}
		m, err := l.Manifest(ctx, strings.TrimPrefix(info.Key, prefix))
		var corrupt *CorruptError
		switch {
		case errors.Is(err, blob.ErrNotExist): // deleted meanwhile
		case errors.As(err, &corrupt):
			errs = append(errs, err)
		case err != nil:
			return nil, err
		default:
			out = append(out, m)
		}
	}
	slices.SortFunc(out, func(a, b *Manifest) int {
		if c := a.StopTime.Compare(b.StopTime); c != 0 {
			return c
		}
		return strings.Compare(a.Name, b.Name)
	})
	return out, errors.Join(errs...)
}

// BackupFolders lists the names of all backups, finished or not.
func (l *Lineage) BackupFolders(ctx context.Context) ([]string, error) {
	var names []string
	prefix := l.key("backup") + "/"
	for info, err := range l.repo.store.List(ctx, prefix) {
		if err != nil {
			return nil, fmt.Errorf("list backups: %w", err)
		}
		name, _, _ := strings.Cut(strings.TrimPrefix(info.Key, prefix), "/")
		if len(names) == 0 || names[len(names)-1] != name {
			names = append(names, name)
		}
	}
	return names, nil
}

// Files reads which bytes of which frame are which block of which file.
func (l *Lineage) Files(ctx context.Context, m *Manifest) (*Files, error) {
	key := l.filesKey(m.Name)
	p, err := l.repo.get(ctx, KindFiles, key)
	if err != nil {
		p, err = l.repo.opened(KindFiles, key, err)
	}
	if err != nil {
		return nil, fmt.Errorf("backup %s: %w", m.Name, err)
	}
	raw, err := decompressOne(p, maxObject)
	if err != nil {
		return nil, &CorruptError{key, err.Error()}
	}
	if xxhash.Sum64(raw) != m.FilesSum {
		return nil, &CorruptError{key, "it is not the list of files that the manifest means"}
	}
	f, err := parseFiles(raw)
	if err != nil {
		return nil, &CorruptError{key, err.Error()}
	}
	if err := m.check(f); err != nil {
		return nil, &CorruptError{key, err.Error()}
	}
	return f, nil
}

// DeleteBackup removes a backup: its manifest first, so that it is never listed
// without being whole, then its list of files and those of its packs for
// which keep says no.
func (l *Lineage) DeleteBackup(ctx context.Context, name string, keep func(number uint32) bool) error {
	if err := checkBackupName(name); err != nil {
		return err
	}
	for _, key := range []string{l.manifestKey(name), l.filesKey(name)} {
		if err := l.repo.store.Delete(ctx, key); err != nil {
			return fmt.Errorf("delete backup %s: %w", name, err)
		}
	}
	numbers, _, err := l.Packs(ctx, name)
	if err != nil {
		return err
	}
	for _, n := range numbers {
		if keep(n) {
			continue
		}
		if err := l.DeletePack(ctx, PackRef{name, n}); err != nil {
			return fmt.Errorf("delete backup %s: %w", name, err)
		}
	}
	return nil
}
