// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// usage is what a piece of work took.
type usage struct {
	Wall, CPU, Server float64 // seconds; Server is CPU of the PostgreSQL that is saved
	Read, Written     int64   // bytes, of the tool's calls
	Peak              int64   // bytes of anonymous memory, of all its processes
	Stored            int64   // bytes that the repository grew by
	Objects           int
	Serving           float64 // of a restore: seconds until the new server answers
	Requests          int     // to an S3 server
	WAL               int64   // bytes that the server wrote meanwhile; a backup switches segments
	Replayed          float64 // of a restore: seconds that the server's startup process was there
	Waited            float64 // and those of them in which it ran restore_command
	Blocked           float64 // and those in which a disk held it up
	TPS               float64 // that pgbench reached
	Behind            int64   // bytes of WAL that an archiver did not have yet, at the worst
	LostRows          int     // that were acknowledged, with the host
	LostTime          float64 // seconds from the last restored row to the last acknowledged one
}

// meter counts what commands take. What a child and its children read, wrote and
// computed is added to the parent by the kernel when it is waited for, so that it is
// read from this very process; a daemon that works for the tool is looked at besides.
type meter struct {
	server *server // whose CPU is counted apart
	daemon int     // pid; 0 for none
}

type reading struct {
	at            time.Time // work began
	own, daemon   float64
	server        float64
	read, written int64
}

func (m *meter) look() (reading, error) {
	r := reading{}
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_CHILDREN, &u); err != nil {
		return r, err
	}
	r.own = time.Duration(u.Utime.Nano() + u.Stime.Nano()).Seconds()
	for _, pid := range []int{os.Getpid(), m.daemon} {
		if pid == 0 {
			continue
		}
		in, out, err := procIO(pid)
		if err != nil {
			return r, err
		}
		r.read += in
		r.written += out
	}
	if m.daemon != 0 {
		self, _, err := procCPU(m.daemon)
		if err != nil {
			return r, err
		}
		r.daemon = self
	}
	if m.server != nil {
		var err error
		if r.server, err = m.server.cpu(); err != nil {
			return r, err
		}
	}
	return r, nil
}

// wal is how much the server has ever written.
func (m *meter) wal() (int64, error) {
	if m.server == nil {
		return 0, nil
	}
	return m.server.number(context.Background(), "select pg_current_wal_lsn() - '0/0'")
}

// measure runs work, in which commands are started and waited for.
func (m *meter) measure(work func(watch func(pid int)) error) (usage, error) {
	unix.Sync()
	begins, err := m.wal()
	if err != nil {
		return usage{}, err
	}
	from, err := m.look()
	if err != nil {
		return usage{}, err
	}
	from.at = time.Now() // to look takes a while
	var mu sync.Mutex
	root := 0
	stop, stopped := make(chan struct{}), make(chan struct{})
	var peak int64
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			case <-time.After(50 * time.Millisecond):
			}
			mu.Lock()
			pid := root
			mu.Unlock()
			n := anonymous(m.daemon, false)
			if pid != 0 {
				n += anonymous(pid, true)
			}
			peak = max(peak, n)
		}
	}()
	err = work(func(pid int) { mu.Lock(); root = pid; mu.Unlock() })
	took := time.Since(from.at)
	close(stop)
	<-stopped
	if err != nil {
		return usage{}, err
	}
	to, err := m.look()
	if err != nil {
		return usage{}, err
	}
	ends, err := m.wal()
	if err != nil {
		return usage{}, err
	}
	return usage{
		Wall: took.Seconds(), CPU: to.own - from.own + to.daemon - from.daemon, Server: to.server - from.server,
		Read: to.read - from.read, Written: to.written - from.written, Peak: peak, WAL: ends - begins,
	}, nil
}

// command is a program to run as the servers' account, or as root.
func (b *bench) command(ctx context.Context, root bool, name string, args ...string) *exec.Cmd {
	c := exec.CommandContext(ctx, name, args...)
	c.Dir = b.work
	c.Env = append(os.Environ(), "LC_ALL=C.UTF-8", "KBCLI_STATE_DIR="+filepath.Join(b.work, "state"))
	if !root {
		c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(b.uid), Gid: uint32(b.gid)}}
		c.Env = append(c.Env, "HOME="+b.work)
	}
	return c
}

// finish runs a command to its end; what it printed is in the error, if there is one.
func finish(c *exec.Cmd, watch func(pid int)) (string, error) {
	var out, errs bytes.Buffer
	c.Stdout, c.Stderr = &out, &errs
	err := c.Start()
	if err == nil {
		if watch != nil {
			watch(c.Process.Pid)
		}
		err = c.Wait()
	}
	if err != nil {
		return "", fmt.Errorf("%s: %w\n%s%s", strings.Join(c.Args, " "), err, out.Bytes(), errs.Bytes())
	}
	return strings.TrimSpace(out.String()), nil
}

// procIO gives the bytes that a process and its waited-for children read and wrote.
func procIO(pid int) (read, written int64, err error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/io", pid))
	if err != nil {
		return 0, 0, err
	}
	for line := range strings.Lines(string(b)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
		n, err := strconv.ParseInt(value, 10, 64)
		if err != nil {
			return 0, 0, fmt.Errorf("/proc/%d/io: %w", pid, err)
		}
		switch name {
		case "rchar":
			read = n
		case "wchar":
			written = n
		}
	}
	return read, written, nil
}

// procCPU gives the seconds of a process, and those of its children that ended.
func procCPU(pid int) (self, ended float64, err error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, 0, err
	}
	// the second field, the name in brackets, may hold anything
	f := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	if len(f) < 15 {
		return 0, 0, fmt.Errorf("/proc/%d/stat is cut short", pid)
	}
	const ticks = 100 // a second, in what Linux shows to programs
	var n [4]float64
	for i := range n {
		if n[i], err = strconv.ParseFloat(f[11+i], 64); err != nil {
			return 0, 0, fmt.Errorf("/proc/%d/stat: %w", pid, err)
		}
	}
	return (n[0] + n[1]) / ticks, (n[2] + n[3]) / ticks, nil
}

// childrenOf lists the processes that pid started and that run.
func childrenOf(pid int) []int {
	var out []int
	lists, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid)) // the pattern is well formed
	for _, list := range lists {
		b, err := os.ReadFile(list)
		if err != nil {
			continue // it ended
		}
		for _, f := range strings.Fields(string(b)) {
			if n, err := strconv.Atoi(f); err == nil {
				out = append(out, n)
			}
		}
	}
	return out
}

// processesWith lists those that have a text in their arguments.
func processesWith(text string) []int {
	var out []int
	found, _ := filepath.Glob("/proc/[0-9]*/cmdline") // the pattern is well formed
	for _, file := range found {
		if line, err := os.ReadFile(file); err == nil && bytes.Contains(line, []byte(text)) {
			if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(file))); err == nil {
				out = append(out, pid)
			}
		}
	}
	return out
}

// anonymous is the memory of a process, and of what it started, that is not a file's.
// Of one that ended it is 0.
func anonymous(pid int, tree bool) int64 {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		return 0
	}
	var size, resident, shared int64
	if _, err := fmt.Sscan(string(b), &size, &resident, &shared); err != nil {
		return 0
	}
	n := (resident - shared) * int64(os.Getpagesize())
	if tree {
		for _, c := range childrenOf(pid) {
			n += anonymous(c, true)
		}
	}
	return n
}

// sizeOf is how much lies below a directory, and in how many files; nothing if it is not there.
func sizeOf(dir string) (bytes int64, files int, err error) {
	err = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			var info fs.FileInfo
			if info, err = d.Info(); err == nil {
				bytes += info.Size()
				files++
			}
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	})
	return bytes, files, err
}
