// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// server is a PostgreSQL on a Unix socket.
type server struct {
	b      *bench
	name   string
	data   string
	port   int
	socket string
	tree   int64 // bytes of its data directory when it was filled, without pg_wal
}

const basePort = 6500

// serverConf is what all servers here have.
const serverConf = `
listen_addresses = ''
shared_buffers = 512MB
max_wal_size = 8GB
checkpoint_timeout = 30min
wal_level = replica
max_wal_senders = 10
max_replication_slots = 10
autovacuum = off
archive_mode = on
archive_command = '/bin/true'
`

// newServer makes an empty server and starts it.
func (b *bench) newServer(ctx context.Context, name string) (*server, error) {
	s := &server{b: b, name: name, data: filepath.Join(b.work, name), port: basePort, socket: filepath.Join(b.work, "sock")}
	if err := b.dir(s.socket); err != nil {
		return nil, err
	}
	if _, err := finish(b.command(ctx, false, filepath.Join(b.bin, "initdb"), "-k", "-N", "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "-D", s.data), nil); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(s.data, "postgresql.conf"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return nil, err
	}
	if _, err := fmt.Fprintf(f, "%sunix_socket_directories = '%s'\n", serverConf, s.socket); err != nil {
		return nil, err
	}
	if err := f.Close(); err != nil {
		return nil, err
	}
	b.servers = append(b.servers, s)
	return s, s.start(ctx, "")
}

// start starts it; extra are options of the postmaster.
func (s *server) start(ctx context.Context, extra string) error {
	c := s.b.command(ctx, false, filepath.Join(s.b.bin, "pg_ctl"), "-D", s.data, "-l", filepath.Join(s.b.work, s.name+".log"), "-w", "-t", "600",
		"-o", fmt.Sprintf("-p %d %s", s.port, extra), "start")
	// not finish: the server would hold the pipe open
	if err := c.Run(); err != nil {
		log, _ := os.ReadFile(filepath.Join(s.b.work, s.name+".log")) // more words, if there are any
		return fmt.Errorf("start server %s: %w\n%s", s.name, err, log)
	}
	return nil
}

// stop stops it at once; there is nothing to be kept.
func (s *server) stop() error {
	_, err := finish(s.b.command(context.Background(), false, filepath.Join(s.b.bin, "pg_ctl"), "-D", s.data, "-w", "-m", "immediate", "stop"), nil)
	return err
}

// remove stops it, if it runs, and takes its files away.
func (s *server) remove() error {
	if _, err := s.postmaster(); err == nil {
		if err := s.stop(); err != nil {
			return err
		}
	}
	return os.RemoveAll(s.data)
}

func (s *server) client(program string, args ...string) (string, []string) {
	return filepath.Join(s.b.bin, program), append([]string{"-h", s.socket, "-p", strconv.Itoa(s.port), "-U", "postgres"}, args...)
}

// query runs statements, one transaction each, and gives what they print.
func (s *server) query(ctx context.Context, statements ...string) (string, error) {
	name, args := s.client("psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-d", "postgres")
	for _, q := range statements {
		args = append(args, "-c", q)
	}
	return finish(s.b.command(ctx, false, name, args...), nil)
}

// number runs a query that gives one number.
func (s *server) number(ctx context.Context, q string) (int64, error) {
	out, err := s.query(ctx, q)
	if err != nil {
		return 0, err
	}
	return strconv.ParseInt(out, 10, 64)
}

func (s *server) pgbench(ctx context.Context, args ...string) (string, error) {
	name, all := s.client("pgbench", append(args, "postgres")...)
	return finish(s.b.command(ctx, false, name, all...), nil)
}

func (s *server) postmaster() (int, error) {
	b, err := os.ReadFile(filepath.Join(s.data, "postmaster.pid"))
	if err != nil {
		return 0, err
	}
	line, _, _ := strings.Cut(string(b), "\n")
	return strconv.Atoi(line)
}

// cpu is what all its processes used so far.
func (s *server) cpu() (float64, error) {
	pid, err := s.postmaster()
	if err != nil {
		return 0, err
	}
	self, ended, err := procCPU(pid)
	if err != nil {
		return 0, err
	}
	sum := self + ended
	for _, c := range childrenOf(pid) {
		if self, ended, err := procCPU(c); err == nil { // else it just ended
			sum += self + ended
		}
	}
	return sum, nil
}

// recovered starts a restored data directory and waits until it is no longer in recovery.
func (b *bench) recovered(ctx context.Context, dir string) (*server, error) {
	s := &server{b: b, name: filepath.Base(dir), data: dir, port: basePort + 1, socket: filepath.Join(b.work, "sock")}
	b.servers = append(b.servers, s)
	if err := s.start(ctx, "-c archive_mode=off -c synchronous_standby_names=''"); err != nil {
		return nil, err
	}
	for {
		out, err := s.query(ctx, "select pg_is_in_recovery()")
		if err != nil {
			return s, err
		}
		if out == "f" {
			return s, nil
		}
		select {
		case <-ctx.Done():
			return s, ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// quiet has the server write what it holds, and waits until it archived all it has.
func (s *server) quiet(ctx context.Context) error {
	if _, err := s.query(ctx, "checkpoint"); err != nil {
		return err
	}
	for {
		ready, err := filepath.Glob(filepath.Join(s.data, "pg_wal", "archive_status", "*.ready"))
		if err != nil || len(ready) == 0 {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
}
