// SPDX-License-Identifier: Apache-2.0

package testpg

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// Options describe a server. The zero value is DefaultMajor with checksums,
// 16 MiB segments and no fsync.
type Options struct {
	Major         int               // 13 to 18
	SegmentSizeMB int               // 1 to 1024; 0 is 16
	NoChecksums   bool              // of data pages
	Fsync         bool              // let the server call fsync
	Settings      map[string]string // for postgresql.conf; win over what testpg sets there
	InitdbArgs    []string
}

// StopMode is how a server is told to stop.
type StopMode syscall.Signal

// The ways of pg_ctl stop.
const (
	Smart     = StopMode(syscall.SIGTERM)
	Fast      = StopMode(syscall.SIGINT)
	Immediate = StopMode(syscall.SIGQUIT)
)

// Server is one data directory and the server that runs on it, or ran. Its
// methods fail the test rather than return an error; use it from one goroutine.
type Server struct {
	Install
	DataDir   string
	SocketDir string
	Port      int

	logFile string
	cmd     *exec.Cmd
	exited  chan struct{} // closed when the process is gone and waited for
	conns   map[string]*pgx.Conn
}

const startTimeout = 90 * time.Second

// Start makes a new cluster and runs it until the test ends.
func Start(t testing.TB, o Options) *Server {
	t.Helper()
	s := newServer(t, Binaries(t, o.Major))
	s.initdb(t, o)
	s.Start(t)
	return s
}

// StartAt runs a server on a data directory that exists, such as one that was
// restored, until the test ends. The directory is given to the user who runs
// PostgreSQL and stays when the test ends. Of o only Major and Settings count.
func StartAt(t testing.TB, dataDir string, o Options) *Server {
	t.Helper()
	s := newServer(t, Binaries(t, o.Major))
	s.DataDir = dataDir
	if err := ownTree(dataDir); err != nil {
		t.Fatalf("testpg: %v", err)
	}
	s.Set(t, o.Settings)
	s.Start(t)
	return s
}

// newServer makes the directories of a server that is not initialised yet, and
// sees to it that the end of the test takes them away.
func newServer(t testing.TB, i Install) *Server {
	t.Helper()
	dir := tempDir(t)
	s := &Server{
		Install:   i,
		DataDir:   filepath.Join(dir, "data"),
		SocketDir: dir,
		logFile:   filepath.Join(dir, "log"),
		conns:     map[string]*pgx.Conn{},
	}
	t.Cleanup(func() {
		if s.running() {
			s.closeConns()
			if err := s.stop(Immediate); err != nil {
				t.Errorf("testpg: %v", err)
			}
		}
		if t.Failed() {
			t.Logf("testpg: end of the log of PostgreSQL %d on %s:\n%s", s.Major, s.DataDir, s.logTail())
		}
	})
	return s
}

// tempDir is short enough for a socket's path, and belongs to who runs PostgreSQL.
func tempDir(t testing.TB) string {
	t.Helper()
	base := os.TempDir()
	if len(base) > 60 {
		base = "/tmp"
	}
	dir, err := os.MkdirTemp(base, "testpg-")
	if err != nil {
		t.Fatalf("testpg: %v", err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Errorf("testpg: %v", err)
		}
	})
	if err := errors.Join(os.Chmod(dir, 0o755), ownTree(dir)); err != nil {
		t.Fatalf("testpg: %v", err)
	}
	return dir
}

func (s *Server) initdb(t testing.TB, o Options) {
	t.Helper()
	args := []string{"-D", s.DataDir, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-locale", "--no-sync"}
	if !o.NoChecksums {
		args = append(args, "--data-checksums")
	} else if s.Major >= 18 {
		args = append(args, "--no-data-checksums")
	}
	if o.SegmentSizeMB != 0 {
		args = append(args, fmt.Sprintf("--wal-segsize=%d", o.SegmentSizeMB))
	}
	c, err := s.command("initdb", append(args, o.InitdbArgs...)...)
	if err != nil {
		t.Fatalf("testpg: %v", err)
	}
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("testpg: %s: %v\n%s", c, err, out)
	}
	s.Set(t, map[string]string{
		"wal_level":       "replica",
		"max_wal_senders": "10",
		"fsync":           strconv.FormatBool(o.Fsync),
		"shared_buffers":  "32MB",
	})
	s.Set(t, o.Settings)
}

// command prepares a program of the release to run as who runs PostgreSQL.
func (s *Server) command(name string, args ...string) (*exec.Cmd, error) {
	c := exec.Command(s.Program(name), args...)
	c.Dir = s.SocketDir
	c.Env = append(os.Environ(), "LC_ALL=C", "TZ=UTC", "HOME="+s.SocketDir)
	who, err := account()
	if err != nil {
		return nil, err
	}
	c.SysProcAttr = &syscall.SysProcAttr{Credential: who}
	return c, nil
}

// Set appends settings to postgresql.conf, where the last line wins. A running
// server does not take note of them before Reload or Restart.
func (s *Server) Set(t testing.TB, settings map[string]string) {
	t.Helper()
	names := make([]string, 0, len(settings))
	for n := range settings {
		names = append(names, n)
	}
	slices.Sort(names)
	var b bytes.Buffer
	for _, n := range names {
		fmt.Fprintf(&b, "%s = '%s'\n", n, strings.ReplaceAll(settings[n], "'", "''"))
	}
	f, err := os.OpenFile(filepath.Join(s.DataDir, "postgresql.conf"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatalf("testpg: %v", err)
	}
	_, err = f.Write(b.Bytes())
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatalf("testpg: %v", err)
	}
}

// Start runs a server that was stopped and waits until it takes connections.
func (s *Server) Start(t testing.TB) {
	t.Helper()
	var err error
	// Another process may take the port between our look and the server's.
	for range 3 {
		if err = s.start(); err == nil || !strings.Contains(err.Error(), "ddress already in use") {
			break
		}
	}
	if err != nil {
		t.Fatalf("testpg: start PostgreSQL %d: %v", s.Major, err)
	}
}

func (s *Server) start() error {
	if s.running() {
		return errors.New("it runs already")
	}
	if s.Port == 0 || !portFree(s.Port) {
		port, err := freePort()
		if err != nil {
			return err
		}
		s.Port = port
	}
	before := len(s.log())
	c, err := s.command("postgres", "-D", s.DataDir,
		"-p", strconv.Itoa(s.Port),
		"-c", "listen_addresses=127.0.0.1",
		"-c", "unix_socket_directories="+s.SocketDir,
		"-c", "logging_collector=off",
		"-c", "log_destination=stderr")
	if err != nil {
		return err
	}
	log, err := os.OpenFile(s.logFile, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	c.Stdout, c.Stderr = log, log
	// Should the test process be killed, the server stops at once.
	c.SysProcAttr.Pdeathsig = syscall.SIGQUIT
	if err := startLasting(c); err != nil {
		return err
	}
	s.cmd, s.exited = c, make(chan struct{})
	go func(exited chan struct{}) {
		_ = c.Wait() // how it ended is in its log
		close(exited)
	}(s.exited)
	return s.awaitReady(before)
}

// awaitReady waits until the server takes connections. logStart is where the
// log of this run begins.
func (s *Server) awaitReady(logStart int) error {
	deadline := time.After(startTimeout)
	var last error
	for {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		c, err := pgx.Connect(ctx, s.ConnString("postgres"))
		if err == nil {
			err = c.Close(ctx)
		}
		cancel()
		if err == nil {
			return nil
		}
		last = err
		select {
		case <-s.exited:
			return fmt.Errorf("it ended:\n%s", s.log()[logStart:])
		case <-deadline:
			return fmt.Errorf("no connection after %s: %w\n%s", startTimeout, last, s.log()[logStart:])
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (s *Server) running() bool {
	if s.cmd == nil {
		return false
	}
	select {
	case <-s.exited:
		return false
	default:
		return true
	}
}

// Stop stops the server and waits for its end.
func (s *Server) Stop(t testing.TB, mode StopMode) {
	t.Helper()
	if !s.running() {
		t.Fatalf("testpg: the server does not run")
	}
	s.closeConns()
	if err := s.stop(mode); err != nil {
		t.Fatalf("testpg: %v\n%s", err, s.logTail())
	}
}

func (s *Server) stop(mode StopMode) error {
	if err := s.cmd.Process.Signal(syscall.Signal(mode)); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case <-s.exited:
		return nil
	case <-time.After(startTimeout):
		return errors.Join(fmt.Errorf("the server did not stop in %s", startTimeout), s.kill())
	}
}

// Restart stops the server fast and starts it.
func (s *Server) Restart(t testing.TB) {
	t.Helper()
	s.Stop(t, Fast)
	s.Start(t)
}

// Reload makes the server read its configuration.
func (s *Server) Reload(t testing.TB) {
	t.Helper()
	s.Exec(t, "select pg_reload_conf()")
}

// Kill9 kills the server and its children as a power cut would, and waits until
// all are gone.
func (s *Server) Kill9(t testing.TB) {
	t.Helper()
	s.closeConns()
	if err := s.kill(); err != nil {
		t.Fatalf("testpg: %v", err)
	}
}

func (s *Server) kill() error {
	pid := s.cmd.Process.Pid
	// Stopped, the postmaster cannot make new children while they are counted.
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		return err
	}
	children, err := childrenOf(pid)
	if err != nil {
		return err
	}
	if err := s.cmd.Process.Kill(); err != nil {
		return err
	}
	for _, c := range children {
		if err := syscall.Kill(c, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
			return err
		}
	}
	<-s.exited
	for _, c := range children {
		for range 500 {
			if !alive(c) {
				break
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
	return nil
}

// PID is the process of the postmaster, or 0 when the server does not run.
func (s *Server) PID() int {
	if !s.running() {
		return 0
	}
	return s.cmd.Process.Pid
}

// Log is all that the server has written to its log.
func (s *Server) Log() string { return s.log() }

func (s *Server) log() string {
	b, err := os.ReadFile(s.logFile)
	if err != nil {
		return ""
	}
	return string(b)
}

func (s *Server) logTail() string {
	l := strings.Split(strings.TrimRight(s.log(), "\n"), "\n")
	return strings.Join(l[max(0, len(l)-40):], "\n")
}

func freePort() (int, error) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	port := l.Addr().(*net.TCPAddr).Port
	return port, l.Close()
}

func portFree(port int) bool {
	l, err := net.Listen("tcp4", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		return false
	}
	return l.Close() == nil
}
