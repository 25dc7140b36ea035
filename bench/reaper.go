// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// adopt has this program be a reaper: adopt UID GID PROGRAM ARGUMENT….
const adopt = "adopt-orphans"

// reaper starts a command and takes every process below it that loses its parent, until
// none is left. What those used is then in its own figures: pgBackRest's asynchronous
// processes leave the server that started them, and nobody else could count them to the
// end. It prints the command's exit code when that ends.
func reaper(args []string) error {
	if len(args) < 3 {
		return errors.New("a reaper needs an account and a command")
	}
	uid, err := strconv.ParseUint(args[0], 10, 32)
	if err != nil {
		return err
	}
	gid, err := strconv.ParseUint(args[1], 10, 32)
	if err != nil {
		return err
	}
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("adopt orphans: %w", err)
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	first, err := syscall.ForkExec(args[2], args[2:], &syscall.ProcAttr{
		Env: os.Environ(), Files: []uintptr{null.Fd(), null.Fd(), null.Fd()},
		Sys: &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}},
	})
	if err != nil {
		return fmt.Errorf("start %s: %w", args[2], err)
	}
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, 0, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
		case errors.Is(err, syscall.ECHILD):
			return nil
		case err != nil:
			return err
		case pid == first:
			fmt.Println(status.ExitStatus())
		}
	}
}

// adopted starts a stopped server again below a reaper, whose process it gives.
func (s *server) adopted(ctx context.Context) (int, error) {
	self, err := os.Executable()
	if err != nil {
		return 0, err
	}
	c := s.b.command(context.WithoutCancel(ctx), true, self, adopt, strconv.Itoa(s.b.uid), strconv.Itoa(s.b.gid),
		filepath.Join(s.b.bin, "pg_ctl"), "-D", s.data, "-l", filepath.Join(s.b.work, s.name+".log"), "-w", "-t", "600", "-o", fmt.Sprintf("-p %d", s.port), "start")
	out, err := c.StdoutPipe()
	if err != nil {
		return 0, err
	}
	c.Stderr = os.Stderr
	if err := c.Start(); err != nil {
		return 0, err
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		return 0, fmt.Errorf("start server %s below a reaper: %w", s.name, errors.Join(err, c.Wait()))
	}
	go c.Wait() // it ends with the last process below it, of which remove sees
	if code := strings.TrimSpace(line); code != "0" {
		return 0, fmt.Errorf("start server %s: pg_ctl ended with %s", s.name, code)
	}
	return c.Process.Pid, nil
}

// settled waits until a process is the only child of another.
func settled(ctx context.Context, parent, only int) error {
	for {
		if all := childrenOf(parent); len(all) == 1 && all[0] == only {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
}
