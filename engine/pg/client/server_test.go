// SPDX-License-Identifier: Apache-2.0

package client_test

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/kbcli/kbcli/engine/pg/client"
	"github.com/kbcli/kbcli/internal/testpg"
)

var majors = []int{13, 15, 18}

// server is a PostgreSQL for one test, on a Unix socket of its own.
type server struct {
	bin, dir, sock string
	settings       []string
	proc           *exec.Cmd
	done           chan struct{}
	log            *bytes.Buffer
}

func binDir(t testing.TB, major int) string {
	t.Helper()
	return testpg.Binaries(t, major).BinDir
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

func chown(t testing.TB, name string) {
	if a := asPostgres(t); a != nil {
		if err := os.Chown(name, int(a.Credential.Uid), int(a.Credential.Gid)); err != nil {
			t.Fatal(err)
		}
	}
}

// newServer makes and starts a cluster with WAL segments of 1 MiB.
func newServer(t testing.TB, major int, settings ...string) *server {
	t.Helper()
	s := &server{bin: binDir(t, major), settings: settings}
	s.place(t)
	c := exec.Command(filepath.Join(s.bin, "initdb"), "-N", "-A", "trust", "-U", "postgres", "--no-locale", "--wal-segsize=1", "-D", s.dir)
	c.SysProcAttr, c.Dir = asPostgres(t), "/"
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("initdb: %v\n%s", err, out)
	}
	s.start(t)
	return s
}

func (s *server) place(t testing.TB) {
	root, err := os.MkdirTemp("", "pgtest")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(root) })
	chown(t, root)
	s.sock, s.dir = root, filepath.Join(root, "data")
}

func (s *server) start(t testing.TB) {
	t.Helper()
	args := []string{"-D", s.dir, "-k", s.sock, "-c", "listen_addresses=", "-c", "fsync=off", "-c", "autovacuum=off"}
	for _, v := range s.settings {
		args = append(args, "-c", v)
	}
	s.log = &bytes.Buffer{}
	s.proc = exec.Command(filepath.Join(s.bin, "postgres"), args...)
	s.proc.SysProcAttr, s.proc.Dir = asPostgres(t), "/"
	s.proc.Stdout, s.proc.Stderr = s.log, s.log
	if err := s.proc.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	s.done = done
	go func(p *exec.Cmd) { p.Wait(); close(done) }(s.proc)
	t.Cleanup(func() { s.stop(syscall.SIGQUIT) })
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		c, err := pgconn.Connect(t.Context(), s.info())
		if err == nil {
			c.Close(t.Context())
			return
		}
		select {
		case <-done:
			t.Fatalf("the server stopped: %s", s.log)
		default:
		}
		if time.Now().After(deadline) {
			t.Fatalf("the server does not answer: %v", err)
		}
	}
}

func (s *server) stop(sig syscall.Signal) {
	s.proc.Process.Signal(sig)
	<-s.done
}

// standby copies s, which is stopped for a moment, into a server that follows it.
func (s *server) standby(t testing.TB) *server {
	t.Helper()
	s.stop(syscall.SIGINT)
	f := &server{bin: s.bin}
	f.place(t)
	f.settings = append(append([]string{}, s.settings...), fmt.Sprintf("primary_conninfo=host=%s user=postgres", s.sock), "restore_command=")
	err := filepath.WalkDir(s.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(s.dir, path)
		to := filepath.Join(f.dir, rel)
		defer chown(t, to)
		if d.IsDir() {
			return os.Mkdir(to, 0o700)
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(to, b, 0o600)
	})
	if err == nil {
		err = os.WriteFile(filepath.Join(f.dir, "standby.signal"), nil, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	s.start(t)
	f.start(t)
	return f
}

func (s *server) info() string {
	return fmt.Sprintf("host=%s user=postgres dbname=postgres application_name=under_test", s.sock)
}

// sql runs a statement on a connection of its own and returns the first value.
func (s *server) sql(t testing.TB, statement string) string {
	t.Helper()
	c, err := pgconn.Connect(t.Context(), s.info())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(context.Background())
	results, err := c.Exec(t.Context(), statement).ReadAll()
	if err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
	last := results[len(results)-1]
	if len(last.Rows) == 0 {
		return ""
	}
	return string(last.Rows[0][0])
}

// await asks until the statement answers want.
func (s *server) await(t testing.TB, statement, want string) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		got := s.sql(t, statement)
		if got == want {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: %q, want %q", statement, got, want)
		}
	}
}

func (s *server) connect(t testing.TB, more string) *client.Conn {
	t.Helper()
	c, err := client.Connect(t.Context(), s.info()+" "+more)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func eachMajor(t *testing.T, f func(t *testing.T, major int)) {
	for _, major := range majors {
		t.Run(strconv.Itoa(major), func(t *testing.T) { f(t, major) })
	}
}
