// SPDX-License-Identifier: Apache-2.0

package local

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kbcli/kbcli/engine/restore"
)

// left are the directories of trials that are there.
func (m *machine) left(t *testing.T) []string {
	t.Helper()
	all, err := filepath.Glob(filepath.Join(m.trials(), "*"))
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestVerifyRestore(t *testing.T) {
	m := newMachine(t)
	c := m.newCluster(t, "my-pg")
	m.sql(t, c, `create database "Other db"`)
	m.sql(t, c, "create table t as select i, repeat(md5(i::text), 200) as wide from generate_series(1, 20000) i")
	m.sql(t, c, "create index on t (i)")
	m.sql(t, c, "checkpoint")
	b := m.backup(t, "my-pg", "b1")
	var steps []string
	r, err := m.VerifyRestore(t.Context(), b, func(s string) {
		if word, _, _ := strings.Cut(s, " "); len(steps) == 0 || steps[len(steps)-1] != word {
			steps = append(steps, word)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(r.Databases, []string{"Other db", "postgres", "template1"}) || r.Relations < 500 || r.Backup != "b1" || r.Reached == "" || r.Seconds == 0 || !strings.HasPrefix(r.Version, "1") {
		t.Errorf("%+v", r)
	}
	if want := []string{"Fetching", "Recovering", "Starting", "Reading"}; !slices.Equal(steps, want) {
		t.Errorf("steps %q", steps)
	}
	if all := m.left(t); len(all) > 0 {
		t.Errorf("left behind: %q", all)
	}

	// somebody gives up, and somebody is killed
	ctx, cancel := context.WithCancel(t.Context())
	if _, err := m.VerifyRestore(ctx, b, func(s string) {
		if strings.HasPrefix(s, "Reading") {
			cancel()
		}
	}); !errors.Is(err, context.Canceled) {
		t.Errorf("given up: %v", err)
	}
	if all := m.left(t); len(all) > 0 {
		t.Errorf("left behind: %q", all)
	}
	dead := filepath.Join(m.trials(), "dead")
	if err := os.MkdirAll(filepath.Join(dead, "data"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dead+".lock", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := m.sweepTrials(); err != nil || len(m.left(t)) > 0 {
		t.Errorf("sweep: %v, and there is %q", err, m.left(t))
	}

	// a table whose rows are not what they were is found, though every byte is as it was stored
	var path, data string
	m.sql(t, c, "select pg_relation_filepath('t'), current_setting('data_directory')", &path, &data)
	breakPages(t, m, c.Name, filepath.Join(data, path))
	bad := m.backup(t, "my-pg", "bad")
	var damaged *restore.DamagedError
	if _, err := m.VerifyRestore(t.Context(), bad, nil); !errors.As(err, &damaged) || damaged.Backup != "bad" || !strings.Contains(err.Error(), "t") {
		t.Errorf("a broken table: %v", err)
	} else {
		t.Logf("%v", err)
	}

	// a pack that is gone
	packs, err := filepath.Glob(filepath.Join(m.repository(), "lineages", b.Status.Lineage, "backup", "b1", "pack", "*"))
	if err != nil || len(packs) == 0 {
		t.Fatal(packs, err)
	}
	if err := os.Remove(packs[0]); err != nil {
		t.Fatal(err)
	}
	if _, err := m.VerifyRestore(t.Context(), b, nil); !errors.As(err, &damaged) || damaged.Backup != "b1" {
		t.Errorf("a pack that is gone: %v", err)
	}
	if all := m.left(t); len(all) > 0 {
		t.Errorf("left behind: %q", all)
	}
}

// breakPages stops a server, overwrites a part of a page of a file, and starts it again.
func breakPages(t *testing.T, m *machine, cluster, path string) {
	t.Helper()
	s := &server{data: m.data("default", cluster)}
	inst, err := findInstall(0)
	if err != nil {
		t.Fatal(err)
	}
	acc, err := serverAccount()
	if err != nil {
		t.Fatal(err)
	}
	s.install, s.account, s.dir, s.socket = inst, acc, m.cluster("default", cluster), m.socket("default", cluster)
	if err := s.stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte(strings.Repeat("broken", 200)), 8192*3+4096); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	c := m.running(t, cluster)
	for deadline := time.Now().Add(60 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		conn, err := m.Admin(t.Context(), c, "postgres")
		if err == nil {
			_ = conn.Close(t.Context())
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the agent does not start it again: %v", err)
		}
	}
}
