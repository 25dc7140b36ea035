// SPDX-License-Identifier: Apache-2.0

package replication_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/kbcli/kbcli/engine/pg/replication"
	"github.com/kbcli/kbcli/internal/testpg"
)

var majors = []int{13, 15, 18}

// server is a PostgreSQL for one test, on a Unix socket of its own.
type server struct {
	bin, dir, sock string
	settings       []string
	port           int // 0 is the usual one
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

// offerTLS makes the server listen on a loopback port, with a certificate. Its
// socket moves to that port's name too.
func (s *server) offerTLS(t testing.TB) int {
	t.Helper()
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer free.Close()
	s.port = free.Addr().(*net.TCPAddr).Port
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	about := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	cert, err := x509.CreateCertificate(rand.Reader, about, about, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for name, block := range map[string]*pem.Block{"server.crt": {Type: "CERTIFICATE", Bytes: cert}, "server.key": {Type: "PRIVATE KEY", Bytes: secret}} {
		name = filepath.Join(s.dir, name)
		if err := os.WriteFile(name, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
		chown(t, name)
	}
	s.settings = append(s.settings, "listen_addresses=127.0.0.1", "ssl=on", fmt.Sprintf("port=%d", s.port))
	return s.port
}

func (s *server) info() string {
	if s.port != 0 {
		return fmt.Sprintf("host=%s port=%d user=postgres dbname=postgres application_name=under_test", s.sock, s.port)
	}
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

// traffic writes about n MiB of WAL, whole pages of which are noise.
func (s *server) traffic(t testing.TB, n int) {
	t.Helper()
	s.sql(t, fmt.Sprintf("create table if not exists noise (b text); insert into noise select string_agg(md5(random()::text), '') from generate_series(1, %d * 32000) i group by i %% 5000", n))
}

func (s *server) connect(t testing.TB) *replication.Conn {
	t.Helper()
	c, err := replication.Connect(t.Context(), s.info())
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

func mustAs[T error](t *testing.T, err error) T {
	t.Helper()
	var want T
	if !errors.As(err, &want) {
		t.Fatalf("%v is not a %T", err, want)
	}
	return want
}
