// SPDX-License-Identifier: Apache-2.0

package restore_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/kbcli/kbcli/engine/blob/fs"
	"github.com/kbcli/kbcli/engine/pg"
	"github.com/kbcli/kbcli/engine/restore"
	"github.com/kbcli/kbcli/internal/testpg"
)

// objectsOf lists the files of a repository in a directory whose key has part in it.
func objectsOf(t *testing.T, dir, part string) []string {
	t.Helper()
	var keys []string
	err := filepath.WalkDir(dir, func(p string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		key, err := filepath.Rel(dir, p)
		if err == nil && strings.Contains(key, part) {
			keys = append(keys, key)
		}
		return err
	})
	if err != nil || len(keys) == 0 {
		t.Fatalf("no object with %s: %v", part, err)
	}
	return keys
}

// TestVerify: a whole backup verifies, and every object of it that has one wrong bit,
// or is gone, is named, however many there are.
func TestVerify(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "repo")
	store, err := fs.Create(dir)
	if err != nil {
		t.Fatal(err)
	}
	r := newRig(t, testpg.Start(t, testpg.Options{}), store)
	r.startArchiving(t)
	m := r.backup(t, "b1")
	r.server.Exec(t, "select pg_switch_wal()")
	r.server.Exec(t, "create table t (id int)")
	r.stopArchiving(t)

	var done, total int64
	got, err := restore.Verify(t.Context(), r.lineage, m, func(d, n int64) { done, total = d, n })
	if err != nil {
		t.Fatal(err)
	}
	packs := objectsOf(t, dir, "/pack/")
	if got.Backup != "b1" || got.Files != m.Files || got.Bytes != m.DataBytes || got.Packs != len(packs) || got.Segments == 0 {
		t.Errorf("report %+v of a backup of %d files, %d bytes, %d packs", got, m.Files, m.DataBytes, len(packs))
	}
	if done != total || total == 0 || total > m.DataBytes {
		t.Errorf("progress ended at %d of %d", done, total)
	}

	size := r.lineage.Info().SegmentSize
	first := size.Name(pg.Segment{Timeline: m.Timeline, Number: size.Number(m.StartLSN)})
	wal := objectsOf(t, dir, first)
	wal = slices.DeleteFunc(wal, func(k string) bool { return strings.Contains(k, "/index/") })[:1]
	flip := func(b []byte) []byte {
		b = slices.Clone(b)
		b[len(b)*2/3] ^= 0x10
		return b
	}
	for _, c := range []struct {
		name string
		keys []string
		to   func([]byte) []byte // nil removes the object
		want string              // in place of the key
	}{
		{"pack", packs[:1], flip, ""},
		{"last pack", packs[len(packs)-1:], flip, ""},
		{"pack cut", packs[:1], func(b []byte) []byte { return b[:len(b)-1] }, ""},
		{"pack gone", packs[:1], nil, "of backup b1 is missing"},
		{"files", objectsOf(t, dir, "/files"), flip, ""},
		{"files gone", objectsOf(t, dir, "/files"), nil, "the list of files is missing"},
		{"wal", wal, flip, ""},
		{"wal gone", wal, nil, "is not in the repository"},
		{"two", []string{packs[0], wal[0]}, flip, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, key := range c.keys {
				path := filepath.Join(dir, key)
				whole, err := os.ReadFile(path)
				if err != nil {
					t.Fatal(err)
				}
				if err := os.Remove(path); err != nil {
					t.Fatal(err)
				}
				if c.to != nil {
					err = os.WriteFile(path, c.to(whole), 0o600)
				}
				if err != nil {
					t.Fatal(err)
				}
				defer os.WriteFile(path, whole, 0o600)
			}
			_, err := restore.Verify(t.Context(), r.lineage, m, nil)
			var damaged *restore.DamagedError
			if !errors.As(err, &damaged) || len(damaged.Damage) != len(c.keys) {
				t.Fatalf("verified: %v", err)
			}
			for _, key := range c.keys {
				if c.want != "" {
					key = c.want
				}
				if !strings.Contains(err.Error(), key) {
					t.Errorf("%s is not named: %v", key, err)
				}
			}
		})
	}
	if _, err := restore.Verify(t.Context(), r.lineage, m, nil); err != nil {
		t.Errorf("mended: %v", err)
	}
	wrong := *m
	wrong.DataBytes++
	if _, err := restore.Verify(t.Context(), r.lineage, &wrong, nil); err == nil || !strings.Contains(err.Error(), "its manifest says") {
		t.Errorf("a list that lacks a byte: %v", err)
	}
}
