// SPDX-License-Identifier: Apache-2.0

package pg_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/kbcli/kbcli/internal/testpg"
)

// server is one PostgreSQL for one test: a directory of its own, a Unix socket
// in it, no TCP.
type server struct {
	bin, dir, sock string
	proc           *exec.Cmd
	log            bytes.Buffer
	done           chan struct{}
}

// binDir is where the programs of a major release are.
func binDir(t testing.TB, major int) string {
	t.Helper()
	return testpg.Binaries(t, major).BinDir
}

// run executes a program of the server's as the user PostgreSQL wants.
func run(t testing.TB, name string, args ...string) []byte {
	t.Helper()
	c := exec.Command(name, args...)
	c.SysProcAttr, c.Dir = asPostgres(t), "/"
	out, err := c.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
	return out
}

func asPostgres(t testing.TB) *syscall.SysProcAttr {
	if os.Geteuid() != 0 {
		return nil
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		t.Fatal(err)
	}
	uid, _ := strconv.Atoi(u.Uid)
	gid, _ := strconv.Atoi(u.Gid)
	return &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}
}

// newDir makes a directory that belongs to the server's user.
func newDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "pgtest")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if a := asPostgres(t); a != nil {
		if err := os.Chown(dir, int(a.Credential.Uid), int(a.Credential.Gid)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func initdb(t testing.TB, major int, args ...string) *server {
	t.Helper()
	root := newDir(t)
	s := &server{bin: binDir(t, major), dir: filepath.Join(root, "data"), sock: root}
	run(t, filepath.Join(s.bin, "initdb"), append([]string{"-N", "-k", "-A", "trust", "-U", "postgres", "--no-locale", "-E", "UTF8", "-D", s.dir}, args...)...)
	return s
}

// launch starts the server and returns at once; wait or stop it.
func (s *server) launch(t testing.TB) {
	t.Helper()
	s.log.Reset()
	s.proc = exec.Command(filepath.Join(s.bin, "postgres"), "-D", s.dir, "-k", s.sock, "-c", "listen_addresses=", "-c", "fsync=off")
	s.proc.SysProcAttr, s.proc.Dir = asPostgres(t), "/"
	s.proc.Stdout, s.proc.Stderr = &s.log, &s.log
	if err := s.proc.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	s.done = done
	go func(p *exec.Cmd) { p.Wait(); close(done) }(s.proc)
	t.Cleanup(s.stop)
}

func (s *server) stop() {
	s.proc.Process.Signal(syscall.SIGINT)
	<-s.done
}

// start launches the server and returns when it answers.
func (s *server) start(t testing.TB) *pgconn.PgConn {
	t.Helper()
	s.launch(t)
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		conn, err := pgconn.Connect(t.Context(), fmt.Sprintf("host=%s user=postgres dbname=postgres", s.sock))
		if err == nil {
			t.Cleanup(func() { conn.Close(context.Background()) })
			return conn
		}
		select {
		case <-s.done:
			t.Fatalf("the server stopped: %s", s.log.Bytes())
		default:
		}
		if time.Now().After(deadline) {
			t.Fatalf("the server does not answer: %v", err)
		}
	}
}

// query runs a statement and returns its rows as text.
func query(t testing.TB, conn *pgconn.PgConn, sql string) [][]string {
	t.Helper()
	results, err := conn.Exec(t.Context(), sql).ReadAll()
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	var rows [][]string
	for _, r := range results {
		for _, row := range r.Rows {
			var texts []string
			for _, v := range row {
				texts = append(texts, string(v))
			}
			rows = append(rows, texts)
		}
	}
	return rows
}

func read(t testing.TB, path ...string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(path...))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func exists(path ...string) bool {
	_, err := os.Stat(filepath.Join(path...))
	return !errors.Is(err, os.ErrNotExist)
}

// write stores a file that belongs to the server's user.
func write(t testing.TB, b []byte, path ...string) {
	t.Helper()
	name := filepath.Join(path...)
	if err := os.WriteFile(name, b, 0o600); err != nil {
		t.Fatal(err)
	}
	if a := asPostgres(t); a != nil {
		if err := os.Chown(name, int(a.Credential.Uid), int(a.Credential.Gid)); err != nil {
			t.Fatal(err)
		}
	}
}
