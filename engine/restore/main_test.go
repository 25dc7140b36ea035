// SPDX-License-Identifier: Apache-2.0

package restore_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kbcli/kbcli/engine/archive"
	"github.com/kbcli/kbcli/engine/basebackup"
	"github.com/kbcli/kbcli/engine/blob"
	"github.com/kbcli/kbcli/engine/blob/fs"
	"github.com/kbcli/kbcli/engine/catalog"
	"github.com/kbcli/kbcli/engine/repository"
	"github.com/kbcli/kbcli/engine/restore"
	"github.com/kbcli/kbcli/internal/testpg"
	"github.com/kbcli/kbcli/internal/testrepo"
)

// The test binary is also the program that restore_command asks for WAL.
func TestMain(m *testing.M) {
	if text := os.Getenv(childEnv); text != "" {
		childMain(text)
		return
	}
	if len(os.Args) == 4 && os.Args[1] != "" && os.Args[1][0] == '/' {
		code, err := archive.Await(context.Background(), os.Args[1], os.Args[2], os.Args[3])
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
		os.Exit(code)
	}
	os.Exit(m.Run())
}

// rig is a server that is archived into a repository.
type rig struct {
	server  *testpg.Server
	store   blob.Store
	repo    *repository.Repository
	lineage *repository.Lineage
	spool   string
	sync    bool

	archiver *archive.Archiver
	stop     context.CancelFunc
	done     chan error
}

func logger(t testing.TB) *slog.Logger {
	return slog.New(slog.NewTextHandler(testWriter{t}, &slog.HandlerOptions{Level: slog.LevelInfo}))
}

type testWriter struct{ t testing.TB }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Log(strings.TrimSpace(string(p)))
	return len(p), nil
}

// newRig makes a repository, in a directory unless store is given, and begins to archive.
func newRig(t testing.TB, server *testpg.Server, store blob.Store) *rig {
	t.Helper()
	return newRigWith(t, server, store, repository.Options{})
}

func newRigWith(t testing.TB, server *testpg.Server, store blob.Store, options repository.Options) *rig {
	t.Helper()
	if store == nil {
		var err error
		if store, err = fs.Create(filepath.Join(t.TempDir(), "repo")); err != nil {
			t.Fatal(err)
		}
	}
	options.Snapshots = basebackup.Here
	repo, lineage := testrepo.New(t, store, options, testrepo.Info(t, server))
	return &rig{server: server, store: store, repo: repo, lineage: lineage, spool: filepath.Join(t.TempDir(), "spool")}
}

func (r *rig) startArchiving(t testing.TB) {
	t.Helper()
	a, err := archive.New(archive.Config{
		Lineage: r.lineage, Conninfo: r.server.ConnString("postgres") + " application_name=kbcli_t", Slot: "kbcli_t", Spool: r.spool,
		SpoolLimit: 1 << 30, WhenFull: archive.WaitWhenFull, Sync: r.sync,
		TailInterval: 300 * time.Millisecond, BeatInterval: time.Minute,
		Clock: time.Now, Log: logger(t),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	r.archiver, r.stop, r.done = a, cancel, make(chan error, 2)
	done := r.done
	go func() { err := a.Run(ctx); done <- err; done <- err }()
	t.Cleanup(func() {
		cancel()
		select {
		case <-done:
		case <-time.After(20 * time.Second):
		}
	})
}

func (r *rig) stopArchiving(t testing.TB) {
	t.Helper()
	r.stop()
	if err := <-r.done; err != nil {
		t.Fatalf("archiver: %v", err)
	}
}

func (r *rig) backup(t testing.TB, name string) *repository.Manifest {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	m, err := basebackup.Take(ctx, basebackup.Config{
		Lineage: r.lineage, Conninfo: r.server.ConnString("postgres"), Name: name, Manual: true, Fast: true, Workers: 2,
		WaitWAL: r.archiver.Wait, Clock: time.Now, Log: logger(t),
	})
	if err != nil {
		t.Fatalf("backup: %v", err)
	}
	return m
}

// proven waits until every commit acknowledged by at is in the repository.
func (r *rig) proven(t testing.TB, at time.Time) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; {
		if !r.archiver.Status().Proven.Before(at) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("not proven to %s: %+v", at, r.archiver.Status())
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// catalog loads what the repository holds, and what the archiver knows beside.
func (r *rig) catalog(t testing.TB) *catalog.Catalog {
	t.Helper()
	c, err := catalog.Load(t.Context(), r.lineage)
	if err != nil {
		t.Fatal(err)
	}
	if st := r.archiver.Status(); st.Repository != 0 {
		c.Grow(st.RepositoryTimeline, st.Repository, st.Proven)
	}
	return c
}

// restored is a server that came from a plan.
type restored struct {
	*testpg.Server
	plan    *restore.Plan
	reached *restore.Reached
}

func (r *rig) restore(t testing.TB, target catalog.Target) *restored {
	t.Helper()
	p, err := restore.MakePlan(t.Context(), r.catalog(t), target)
	if err != nil {
		t.Fatalf("plan for %s: %v", target, err)
	}
	return r.execute(t, p)
}

func (r *rig) execute(t testing.TB, p *restore.Plan) *restored {
	t.Helper()
	into, recovery := r.place(t)
	if err := p.Fetch(t.Context(), into); err != nil {
		t.Fatalf("fetch: %v", err)
	}
	reached, err := p.Recover(t.Context(), recovery)
	if err != nil {
		log, _ := os.ReadFile(filepath.Join(recovery.Scratch, "recovery.log"))
		t.Fatalf("recover: %v\n%s", err, log)
	}
	s := testpg.StartAt(t, into.DataDirectory, testpg.Options{Major: r.server.Major})
	return &restored{s, p, reached}
}

func (r *rig) place(t testing.TB) (restore.Into, restore.Recovery) {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "kbr")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	uid, gid := testpg.Owner(t)
	into := restore.Into{DataDirectory: filepath.Join(dir, "data"), Tablespaces: filepath.Join(dir, "spaces"), UID: uid, GID: gid, Jobs: 2}
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return into, restore.Recovery{
		Into: into, BinDir: r.server.BinDir, Program: program, Scratch: filepath.Join(dir, "r"),
	}
}
