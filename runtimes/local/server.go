// SPDX-License-Identifier: Apache-2.0

package local

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/engine/restore"
)

// server is a PostgreSQL that this machine runs.
type server struct {
	install
	account
	dir    string // of the cluster: data, server.log
	data   string
	socket string

	superuser string // whom it is looked after as
}

// run runs one of PostgreSQL's programs as the servers' account.
func (s *server) run(ctx context.Context, program string, args ...string) error {
	cmd := exec.CommandContext(ctx, filepath.Join(s.bin, program), args...)
	cmd.Dir = s.dir
	cmd.Env = []string{"LC_ALL=C.UTF-8", "PATH=/usr/bin:/bin", "TZ=UTC"}
	if s.uid >= 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(s.uid), Gid: uint32(s.gid)}}
	}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w: %s", program, err, lastLines(out.String(), 3))
	}
	return nil
}

func lastLines(s string, n int) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "; ")
}

// initdb makes a new data directory beside its place and moves it there.
func (s *server) initdb(ctx context.Context, port int, settings map[string]string) error {
	tmp := s.data + ".new"
	if err := os.RemoveAll(tmp); err != nil {
		return err
	}
	err := s.run(ctx, "initdb", "-D", tmp, "-U", s.superuser, "--data-checksums", "--encoding=UTF8", "--locale=C.UTF-8", "--auth-local=peer", "--auth-host=scram-sha-256")
	if err != nil {
		return err
	}
	if err := s.configure(tmp, port, settings); err != nil {
		return err
	}
	return os.Rename(tmp, s.data)
}

// ownConf is the file with the settings that this machine needs.
const ownConf = "kbcli.conf"

// configure writes the settings that make a data directory this machine's.
func (s *server) configure(data string, port int, settings map[string]string) error {
	if strings.ContainsAny(s.superuser, "\r\n") {
		return fmt.Errorf("superuser %q: pg_hba.conf cannot have a name with a line break", s.superuser)
	}
	lines := [][2]string{
		{"listen_addresses", "127.0.0.1"},
		{"port", strconv.Itoa(port)},
		{"unix_socket_directories", s.socket},
		{"hba_file", filepath.Join(s.data, "pg_hba.conf")},
		{"ident_file", filepath.Join(s.data, "pg_ident.conf")},
		{"ssl", "off"},
		{"password_encryption", "scram-sha-256"},
		{"wal_level", "replica"},
		{"max_wal_senders", "10"},
		{"max_replication_slots", "10"},
		{"archive_mode", "off"},
		{"logging_collector", "off"},
		{"log_destination", "stderr"},
		{"cluster_name", filepath.Base(s.dir)},
	}
	for _, k := range slices.Sorted(maps.Keys(settings)) {
		lines = append(lines, [2]string{k, settings[k]})
	}
	conf := "# written by kbcli: changes here are lost, use `kbcli cluster` or ALTER SYSTEM\n" +
		superuserLine + strconv.Quote(s.superuser) + "\n" + restore.Isolate("", lines)
	if err := s.file(filepath.Join(data, ownConf), conf); err != nil {
		return err
	}
	if err := s.include(filepath.Join(data, "postgresql.conf")); err != nil {
		return err
	}
	if err := s.file(filepath.Join(data, "pg_hba.conf"), s.hba()); err != nil {
		return err
	}
	return s.file(filepath.Join(data, "pg_ident.conf"), s.ident())
}

// ident lets the superuser in over the socket for the account that servers run as,
// and for root.
func (s *server) ident() string {
	var b strings.Builder
	b.WriteString("# written by kbcli\n")
	for _, name := range slices.Compact(slices.Sorted(slices.Values([]string{"root", "postgres", s.name}))) {
		fmt.Fprintf(&b, "kbcli  %s  %s\n", strconv.Quote(name), roleWord(s.superuser, s.major))
	}
	return b.String()
}

func (s *server) include(path string) error {
	b, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	line := "include '" + ownConf + "'"
	for have := range strings.Lines(string(b)) {
		if strings.TrimSpace(have) == line {
			return nil
		}
	}
	if len(b) > 0 && !bytes.HasSuffix(b, []byte("\n")) {
		b = append(b, '\n')
	}
	return s.file(path, string(b)+line+"\n")
}

// adopt makes a recovered data directory this machine's: nothing of its source's
// surroundings stays.
func (s *server) adopt(data string, port int, settings map[string]string) error {
	auto := filepath.Join(data, "postgresql.auto.conf")
	b, err := os.ReadFile(auto)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := s.file(auto, restore.Isolate(string(b), nil)); err != nil {
		return err
	}
	return s.configure(data, port, settings)
}

// pid is the running postmaster's; 0 if none runs. A number that the kernel gave
// to another process since is not taken for it.
func (s *server) pid() int {
	b, err := os.ReadFile(filepath.Join(s.data, "postmaster.pid"))
	if err != nil {
		return 0
	}
	line, _, _ := strings.Cut(string(b), "\n")
	pid, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil || pid <= 0 {
		return 0
	}
	// by what it is, not by its name, which another mount namespace may have otherwise
	at, err := os.Stat(fmt.Sprintf("/proc/%d/cwd", pid))
	if err != nil {
		return 0
	}
	data, err := os.Stat(s.data)
	if err != nil || !os.SameFile(at, data) {
		return 0
	}
	return pid
}

// start starts the server and waits until it takes connections.
func (s *server) start(ctx context.Context) error {
	if err := s.account.dir(s.socket, 0o755); err != nil {
		return err
	}
	if err := s.clearStale(); err != nil {
		return err
	}
	log := filepath.Join(s.dir, "server.log")
	before := 0
	if info, err := os.Stat(log); err == nil {
		before = int(info.Size())
	}
	err := s.run(ctx, "pg_ctl", "start", "-D", s.data, "-l", log, "-w", "-t", "60", "-s")
	if err == nil {
		return nil
	}
	if text, terr := os.ReadFile(log); terr == nil {
		return fmt.Errorf("start the server: %w: %s", err, whyNot(string(text[min(before, len(text)):])))
	}
	return fmt.Errorf("start the server: %w", err)
}

// stop ends the server in order; one that does not run is stopped.
func (s *server) stop(ctx context.Context) error {
	if s.pid() == 0 {
		return nil
	}
	if err := s.run(ctx, "pg_ctl", "stop", "-D", s.data, "-m", "fast", "-w", "-t", "120", "-s"); err != nil {
		return fmt.Errorf("stop the server: %w", err)
	}
	return nil
}

// conninfo connects a role over the socket.
func conninfo(socket string, port int32, user, database string) string {
	quote := strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace
	return fmt.Sprintf("host='%s' port=%d user='%s' dbname='%s' sslmode=disable connect_timeout=10",
		quote(socket), port, quote(user), quote(database))
}

// ownConninfo connects the superuser of a server that this machine runs.
func ownConninfo(c *v1alpha1.Cluster, database string) string {
	return conninfo(c.Status.SocketDirectory, c.Status.Port, superuserOf(c), database)
}

// freePort asks the kernel for a port that nobody listens on.
func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, fmt.Errorf("find a free port: %w", err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

// settleDown is how long a server that was just started may take to be asked.
const settleDown = 30 * time.Second
