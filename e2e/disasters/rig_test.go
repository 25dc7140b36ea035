// SPDX-License-Identifier: Apache-2.0

package disasters

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kbcli/kbcli/engine/archive"
	"github.com/kbcli/kbcli/engine/basebackup"
	"github.com/kbcli/kbcli/engine/blob/fault"
	"github.com/kbcli/kbcli/engine/blob/fs"
	"github.com/kbcli/kbcli/engine/catalog"
	"github.com/kbcli/kbcli/engine/repository"
	"github.com/kbcli/kbcli/engine/restore"
	"github.com/kbcli/kbcli/internal/testpg"
	"github.com/kbcli/kbcli/internal/testrepo"
)

// The test binary is also the program that restore_command asks for WAL.
func TestMain(m *testing.M) {
	if len(os.Args) == 5 && os.Args[1] == "wal-await" {
		code, err := archive.Await(context.Background(), os.Args[2], os.Args[3], os.Args[4])
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
		os.Exit(code)
	}
	os.Exit(m.Run())
}

// rig is a server that is archived into a repository on another disk, so to speak.
type rig struct {
	server  *testpg.Server
	store   *fault.Store
	lineage *repository.Lineage
	spool   string
	log     *slog.Logger

	archiver *archive.Archiver
	stop     context.CancelFunc
	done     chan error
}

type testWriter struct{ t *testing.T }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Log(strings.TrimSpace(string(p)))
	return len(p), nil
}

// newRig starts a server, its archiver, and takes a backup.
func newRig(t *testing.T, sync bool, settings map[string]string) *rig {
	t.Helper()
	s := testpg.Start(t, testpg.Options{Settings: settings})
	s.Exec(t, ledgerTable)
	r := protect(t, s)
	r.follow(t, s, sync)
	r.backup(t, "b1")
	if sync {
		s.Set(t, map[string]string{"synchronous_standby_names": "kbcli_t"})
		s.Reload(t)
	}
	return r
}

// protect makes a repository for a server.
func protect(t *testing.T, s *testpg.Server) *rig {
	t.Helper()
	dir, err := fs.Create(filepath.Join(t.TempDir(), "repo"))
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{
		server: s, store: fault.New(dir, 1), spool: filepath.Join(t.TempDir(), "spool"),
		log: slog.New(slog.NewTextHandler(testWriter{t}, &slog.HandlerOptions{Level: slog.LevelError})),
	}
	info := testrepo.Info(t, s)
	info.ChapterSegments = 2 // so that there are chapters without 4 GiB of WAL
	_, r.lineage = testrepo.New(t, r.store, repository.Options{}, info)
	return r
}

// follow archives a server, and no other any more.
func (r *rig) follow(t *testing.T, s *testpg.Server, sync bool) {
	t.Helper()
	if r.stop != nil {
		r.stop()
		for err := range r.done {
			if err != nil {
				t.Fatalf("archiver: %v", err)
			}
		}
	}
	var err error
	r.server = s
	r.archiver, err = archive.New(archive.Config{
		Lineage: r.lineage, Conninfo: s.ConnString("postgres") + " application_name=kbcli_t", Slot: "kbcli_t", Spool: r.spool,
		SpoolLimit: 1 << 30, WhenFull: archive.WaitWhenFull, Sync: sync,
		TailInterval: time.Second, BeatInterval: time.Minute, Clock: time.Now, Log: r.log,
	})
	if err != nil {
		t.Fatal(err)
	}
	actx, cancel := context.WithCancel(context.Background())
	archiver, done := r.archiver, make(chan error, 1)
	r.stop, r.done = cancel, done
	go func() {
		defer close(done)
		done <- archiver.Run(actx)
	}()
	t.Cleanup(func() {
		cancel()
		for range done {
		}
	})
}

func (r *rig) backup(t *testing.T, name string) *repository.Manifest {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	m, err := basebackup.Take(ctx, basebackup.Config{
		Lineage: r.lineage, Conninfo: r.server.ConnString("postgres"), Name: name, Manual: true, Fast: true, Workers: 2,
		WaitWAL: r.archiver.Wait, Clock: time.Now, Log: r.log,
	})
	if err != nil {
		t.Fatalf("backup %s: %v", name, err)
	}
	return m
}

// lose is the end of the host: nothing that was on it is left, and nothing leaves it
// any more.
func (r *rig) lose(t *testing.T) (at time.Time) {
	t.Helper()
	r.store.Set(fault.Rule{Action: fault.Fail(nil)})
	at = time.Now()
	r.server.Kill9(t)
	r.stop()
	if err := <-r.done; err != nil {
		t.Errorf("archiver: %v", err)
	}
	for _, dir := range []string{r.server.DataDir, r.spool} {
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
	}
	r.store.Set()
	return at
}

// restored is a server that came from the repository alone.
type restored struct {
	*testpg.Server
	plan *restore.Plan
}

func (r *rig) restore(t *testing.T, c *catalog.Catalog, target catalog.Target) *restored {
	t.Helper()
	p, err := restore.MakePlan(t.Context(), c, target)
	if err != nil {
		t.Fatalf("plan for %s: %v", target, err)
	}
	return r.execute(t, p)
}

func (r *rig) execute(t *testing.T, p *restore.Plan) *restored {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "kbd")
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
	recovery := restore.Recovery{
		Into: into, BinDir: r.server.BinDir, Program: program, Args: []string{"wal-await"},
		Scratch: filepath.Join(dir, "r"),
	}
	if err := p.Fetch(t.Context(), into); err != nil {
		t.Fatalf("fetch: %v", err)
	}
	// an end elsewhere than planned is an error of Recover
	if _, err := p.Recover(t.Context(), recovery); err != nil {
		log, _ := os.ReadFile(filepath.Join(recovery.Scratch, "recovery.log"))
		t.Fatalf("recover to %s: %v\n%s", p.Target, err, log)
	}
	s := testpg.StartAt(t, into.DataDirectory, testpg.Options{Major: r.server.Major, Settings: map[string]string{"fsync": "off"}})
	return &restored{s, p}
}

// sound checks a restored server with PostgreSQL's own tools, and stops it.
func (x *restored) sound(t *testing.T) {
	t.Helper()
	run := func(name string, args ...string) {
		t.Helper()
		out, err := exec.Command(x.Program(name), args...).CombinedOutput()
		if err != nil {
			t.Errorf("%s: %v\n%s", name, err, out)
		} else if bytes.Contains(out, []byte("skipping")) {
			t.Errorf("%s: %s", name, out)
		}
	}
	run("pg_amcheck", "--heapallindexed", "--install-missing", "--all", "-h", x.SocketDir, "-p", fmt.Sprint(x.Port), "-U", "postgres")
	x.Stop(t, testpg.Fast)
	run("pg_checksums", "--check", "-D", x.DataDir)
}

func long() bool { return os.Getenv("KBCLI_LONG_TESTS") == "1" }
