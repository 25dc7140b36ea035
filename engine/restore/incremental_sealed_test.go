// SPDX-License-Identifier: Apache-2.0

package restore_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"filippo.io/age"

	"github.com/kbcli/kbcli/engine/basebackup"
	blobfs "github.com/kbcli/kbcli/engine/blob/fs"
	"github.com/kbcli/kbcli/engine/repository"
	"github.com/kbcli/kbcli/internal/testpg"
)

// TestIncrementalSealed: who cannot open what he wrote knows it from the copies that he
// kept; without them, or where they are damaged, everything is read.
func TestIncrementalSealed(t *testing.T) {
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	server := testpg.Start(t, testpg.Options{Settings: map[string]string{"autovacuum": "off"}})
	store, err := blobfs.Create(filepath.Join(t.TempDir(), "repo"))
	if err != nil {
		t.Fatal(err)
	}
	kept := filepath.Join(t.TempDir(), "known")
	r := newRigWith(t, server, store, repository.Options{Recipients: []string{id.Recipient().String()}, Copies: kept})
	server.Exec(t, "create table t as select i, md5(i::text) || md5((i*7)::text) as v from generate_series(1, 200000) i")
	server.Exec(t, "create table ledger (w int, i int, n int default 0, primary key (w, i))")
	r.startArchiving(t)
	m := r.backup(t, "full")
	stop := churn(t, server) // so that a backup seldom starts where a segment does
	defer stop()
	take := func(name string, base *repository.Manifest) *repository.Manifest {
		t.Helper()
		cfg := r.incrementalConfig(t, name, base)
		cfg.Incremental.Whole = true
		time.Sleep(300 * time.Millisecond)
		m, err := basebackup.Take(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	m1 := take("i1", m)
	if m1.ReadAll != "" {
		t.Errorf("%d of %d bytes are new, everything was read: %q", m1.NewBytes, m1.DataBytes, m1.ReadAll)
	}
	server.Exec(t, "update t set v = 'x' where i <= 1000")
	m2 := take("i2", m1)
	if m2.ReadAll != "" || len(m2.Uses) == 0 {
		t.Errorf("%d of %d bytes are new, everything was read: %q", m2.NewBytes, m2.DataBytes, m2.ReadAll)
	}
	stop()

	// nobody else may read them, and who asks for the object is not given them
	files := 0
	err = filepath.WalkDir(kept, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err == nil && info.Mode()&0o077 != 0 {
			t.Errorf("%s has mode %s", path, info.Mode())
		}
		if !d.IsDir() {
			files++
		}
		return err
	})
	if err != nil || files < 4 {
		t.Errorf("%d copies: %v", files, err)
	}
	if _, err := r.lineage.Files(t.Context(), m2); err == nil {
		t.Error("a sealed list of files was opened without a key")
	}

	// damage
	err = filepath.WalkDir(kept, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.Contains(path, "i2") {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		b[len(b)/2] ^= 1
		return os.WriteFile(path, b, 0o600)
	})
	if err != nil {
		t.Fatal(err)
	}
	m3 := take("i3", m2)
	if !strings.Contains(m3.ReadAll, "no copy is left: it is damaged") {
		t.Errorf("everything was read: %q", m3.ReadAll)
	}

	// each restores with the key
	want := contents(t, server)
	m4 := take("i4", m3)
	if m4.ReadAll != "" {
		t.Errorf("everything was read: %q", m4.ReadAll)
	}
	open, err := repository.Open(t.Context(), store, repository.Options{Identities: id.String(), Clock: time.Now, Snapshots: basebackup.Here})
	if err != nil {
		t.Fatal(err)
	}
	if r.lineage, err = open.Lineage(t.Context(), r.lineage.Info().ID); err != nil {
		t.Fatal(err)
	}
	r.judge(t, "i4", want)
}
