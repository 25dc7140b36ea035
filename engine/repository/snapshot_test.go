// SPDX-License-Identifier: Apache-2.0

package repository

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kbcli/kbcli/engine/blob"
)

func snapshotOf(name string) (*Manifest, *Files) {
	m := manifestOf(name, 0x700000)
	m.Type = TypeSnapshot
	m.Snapshot = &Snapshot{Machine: "db1", Path: "/srv/snapshots/c-553bd8028737/" + name, ID: "000102030405060708090a0b0c0d0e0f"}
	return m, &Files{Snapshot: true, Files: []File{
		{Path: "PG_VERSION", Mode: 0o600, Size: 3, ModTime: testTime.UnixMicro()},
		{Path: "base", Kind: Directory, Mode: 0o700, ModTime: testTime.UnixMicro()},
		{Path: "base/1", Mode: 0o600, Size: 8192 << 17, ModTime: testTime.UnixMicro()},
	}}
}

// TestSnapshotFormat holds the list of files and the manifest of a snapshot against
// those that were written down: what is released must stay as it is.
func TestSnapshotFormat(t *testing.T) {
	m, files := snapshotOf("s1")
	doc, err := json.MarshalIndent(m, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	for name, got := range map[string][]byte{
		"snapshot.files":    []byte(hex.EncodeToString(files.encode()) + "\n"),
		"snapshot.manifest": append(doc, '\n'),
	} {
		path := filepath.Join(formatDir, name)
		if *update {
			if err := os.WriteFile(path, got, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), string(got)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func TestSnapshotManifest(t *testing.T) {
	l, s := plainLineage(t)
	m, files := snapshotOf("s1")
	if err := l.PutBackup(t.Context(), m, files); err != nil {
		t.Fatal(err)
	}
	got, err := l.Manifest(t.Context(), "s1")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(m, got); diff != "" {
		t.Errorf("manifest (-put +got):\n%s", diff)
	}
	list, err := l.Files(t.Context(), got)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(files.Files, list.Files); diff != "" || !list.Snapshot {
		t.Errorf("files of a snapshot: %t (-put +got):\n%s", list.Snapshot, diff)
	}
	var absent *AbsentError
	if err := l.repo.Reach(got); !errors.As(err, &absent) || absent.Backup != "s1" {
		t.Errorf("where nobody looks: %v", err)
	}
	l.repo.snapshots = func(m *Manifest) error { return blob.ErrNotExist }
	if err := l.repo.Reach(got); !errors.As(err, &absent) || !errors.Is(err, blob.ErrNotExist) {
		t.Errorf("where it is not: %v", err)
	}
	l.repo.snapshots = func(m *Manifest) error { return nil }
	if err := l.repo.Reach(got); err != nil {
		t.Errorf("where it is: %v", err)
	}

	// what does not fit together is not stored
	for name, change := range map[string]func(*Manifest, *Files){
		"files in the repository": func(_ *Manifest, f *Files) { f.Snapshot = false; f.Files = f.Files[1:2] },
		"no place":                func(m *Manifest, _ *Files) { m.Snapshot = nil },
		"full":                    func(m *Manifest, _ *Files) { m.Type = TypeFull },
		"both places":             func(m *Manifest, _ *Files) { m.Snapshot.VolumeSnapshot = "shop/s2" },
		"no namespace":            func(m *Manifest, _ *Files) { m.Snapshot = &Snapshot{VolumeSnapshot: "s2", Directory: "data"} },
		"no name":                 func(m *Manifest, _ *Files) { m.Snapshot = &Snapshot{VolumeSnapshot: "shop/", Directory: "data"} },
		"no directory":            func(m *Manifest, _ *Files) { m.Snapshot = &Snapshot{VolumeSnapshot: "shop/s2"} },
		"outside of the volume":   func(m *Manifest, _ *Files) { m.Snapshot = &Snapshot{VolumeSnapshot: "shop/s2", Directory: "../data"} },
		"a pack":                  func(_ *Manifest, f *Files) { f.Packs = []PackRef{{"s1", 1}} },
	} {
		m, files := snapshotOf("s2")
		change(m, files)
		if err := l.PutBackup(t.Context(), m, files); err == nil {
			t.Errorf("%s: it was stored", name)
		}
	}
	// a type of tomorrow is not read as if it held nothing, and not as damage
	key := l.manifestKey("s1")
	doc, err := l.repo.get(t.Context(), KindManifest, key)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Delete(t.Context(), key); err != nil {
		t.Fatal(err)
	}
	if err := l.repo.put(t.Context(), KindManifest, key, bytes.Replace(doc, []byte(`"snapshot",`), []byte(`"hologram",`), 1), 0); err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{func() error { _, err := l.Manifest(t.Context(), "s1"); return err }(), func() error { _, err := l.Manifests(t.Context()); return err }()} {
		var corrupt *CorruptError
		if err == nil || errors.As(err, &corrupt) || !strings.Contains(err.Error(), `type "hologram"`) || !strings.Contains(err.Error(), "newer kbcli") {
			t.Errorf("a type of tomorrow: %v", err)
		}
	}
}

// TestVolumeSnapshotManifest: what a VolumeSnapshot is in a manifest, and that it is
// removed by whoever can.
func TestVolumeSnapshotManifest(t *testing.T) {
	l, _ := plainLineage(t)
	m, files := snapshotOf("v1")
	m.Snapshot = &Snapshot{VolumeSnapshot: "shop/v1", Directory: "pgroot/data", ID: "000102030405060708090a0b0c0d0e0f"}
	if err := l.PutBackup(t.Context(), m, files); err != nil {
		t.Fatal(err)
	}
	raw, err := l.repo.get(t.Context(), KindManifest, l.manifestKey("v1"))
	if err != nil {
		t.Fatal(err)
	}
	var doc struct{ Snapshot map[string]string }
	if err := json.Unmarshal(raw, &doc); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"volumeSnapshot": "shop/v1", "directory": "pgroot/data", "id": "000102030405060708090a0b0c0d0e0f"}
	if diff := cmp.Diff(want, doc.Snapshot); diff != "" {
		t.Errorf("snapshot in the manifest (-want +got):\n%s", diff)
	}
	got, err := l.Manifest(t.Context(), "v1")
	if err != nil || got.Snapshot.String() != "VolumeSnapshot shop/v1" {
		t.Fatalf("%v, %v", got, err)
	}
	if err := l.repo.Reach(got); err == nil || !strings.HasPrefix(err.Error(), "its snapshot is VolumeSnapshot shop/v1, and not here: ") {
		t.Errorf("where nobody looks: %v", err)
	}
	if err := l.repo.RemoveSnapshot(t.Context(), l.Info().ID, got); err == nil {
		t.Error("it was removed where nobody can")
	}
	removed := ""
	l.repo.removeSnapshot = func(_ context.Context, lineage string, m *Manifest) error {
		removed = lineage + " " + m.Name
		return nil
	}
	if err := l.repo.RemoveSnapshot(t.Context(), l.Info().ID, got); err != nil || removed != l.Info().ID+" v1" {
		t.Errorf("removed %q, %v", removed, err)
	}
}
