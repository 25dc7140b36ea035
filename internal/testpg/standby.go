// SPDX-License-Identifier: Apache-2.0

package testpg

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Standby makes a streaming standby of a running server that has no tablespaces
// of its own, and waits until it has caught up. A replication slot on the
// primary, standby_PORT, keeps the WAL it needs.
func Standby(t testing.TB, primary *Server) *Server {
	t.Helper()
	s := newServer(t, primary.Install)
	port, err := freePort()
	if err != nil {
		t.Fatalf("testpg: %v", err)
	}
	s.Port = port
	slot := fmt.Sprintf("standby_%d", port)
	primary.Exec(t, fmt.Sprintf("select pg_create_physical_replication_slot('%s', true)", slot))
	copyRunning(t, primary, s.DataDir)
	s.Set(t, map[string]string{
		"primary_conninfo":  primary.ConnString("postgres") + " application_name=" + slot,
		"primary_slot_name": slot,
	})
	if err := os.WriteFile(filepath.Join(s.DataDir, "standby.signal"), nil, 0o600); err != nil {
		t.Fatalf("testpg: %v", err)
	}
	if err := ownTree(s.DataDir); err != nil {
		t.Fatalf("testpg: %v", err)
	}
	s.Start(t)
	s.CatchUp(t, primary)
	return s
}

// CatchUp waits until the standby s has replayed what primary has written.
func (s *Server) CatchUp(t testing.TB, primary *Server) {
	t.Helper()
	var lsn string
	primary.QueryRow(t, "select pg_current_wal_flush_lsn()::text", &lsn)
	for deadline := time.Now().Add(startTimeout); ; time.Sleep(20 * time.Millisecond) {
		var done bool
		s.QueryRow(t, fmt.Sprintf("select coalesce(pg_last_wal_replay_lsn() >= '%s', false)", lsn), &done)
		if done {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("testpg: the standby did not reach %s in %s", lsn, startTimeout)
		}
	}
}

// Promote makes a standby a primary and waits until it is one.
func (s *Server) Promote(t testing.TB) {
	t.Helper()
	var done bool
	s.QueryRow(t, "select pg_promote(true, 60)", &done)
	if !done {
		t.Fatalf("testpg: the standby was not promoted in time")
	}
}

// copyRunning takes a base backup of a running server into dir.
func copyRunning(t testing.TB, from *Server, dir string) {
	t.Helper()
	ctx := context.Background()
	begin, end := "select pg_backup_start('testpg', true)", "select labelfile from pg_backup_stop(false)"
	if from.Major < 15 {
		begin, end = "select pg_start_backup('testpg', true, false)", "select labelfile from pg_stop_backup(false, false)"
	}
	// The backup belongs to the session that began it.
	c := from.Conn(t, "postgres")
	if _, err := c.Exec(ctx, begin); err != nil {
		t.Fatalf("testpg: %v", err)
	}
	if err := copyData(from.DataDir, dir); err != nil {
		t.Fatalf("testpg: copy %s: %v", from.DataDir, err)
	}
	var label string
	if err := c.QueryRow(ctx, end).Scan(&label); err != nil {
		t.Fatalf("testpg: %v", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "backup_label"), []byte(label), 0o600); err != nil {
		t.Fatalf("testpg: %v", err)
	}
}

// emptied are the directories whose contents a base backup leaves out.
var emptied = []string{"pg_wal", "pg_replslot", "pg_dynshmem", "pg_notify", "pg_serial", "pg_snapshots", "pg_stat_tmp", "pg_subtrans"}

// copyData copies a data directory under a running server. Files that vanish
// meanwhile are left out; pg_control goes last.
func copyData(from, to string) error {
	err := filepath.WalkDir(from, func(p string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, p)
		if err != nil {
			return err
		}
		switch {
		case d.IsDir() && leftOut(rel):
			return fs.SkipDir
		case d.IsDir():
			return os.Mkdir(filepath.Join(to, rel), 0o700)
		case path.Dir(rel) == "pg_tblspc":
			return fmt.Errorf("%s: tablespaces are not copied", rel)
		case leftOut(rel):
			return nil
		case !d.Type().IsRegular():
			return fmt.Errorf("%s is not a regular file", rel)
		}
		return copyFile(p, filepath.Join(to, rel))
	})
	if err != nil {
		return err
	}
	const control = "global/pg_control"
	return copyFile(filepath.Join(from, control), filepath.Join(to, control))
}

func leftOut(rel string) bool {
	switch rel {
	case "postmaster.pid", "postmaster.opts", "global/pg_control", "backup_label", "tablespace_map", "standby.signal", "recovery.signal":
		return true
	}
	for _, d := range emptied {
		if strings.HasPrefix(rel, d+"/") {
			return true
		}
	}
	return false
}

func copyFile(from, to string) error {
	r, err := os.Open(from)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer r.Close()
	w, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(w, r)
	return errors.Join(err, w.Close())
}
