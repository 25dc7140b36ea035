// SPDX-License-Identifier: Apache-2.0

package local

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/gofrs/flock"
	"golang.org/x/sys/unix"
)

// startTimeout is how long an agent may take until it is ready.
const startTimeout = 30 * time.Second

// Ready starts the agent if none runs, and waits until it acts. Of many that find
// none at once, one starts it: as a unit where systemd is, else as a process of
// its own. An agent that `agent stop` ended is started too: somebody needs it.
func (r *Runtime) Ready(ctx context.Context) error {
	running, err := r.agentRuns()
	if err != nil || running {
		return err
	}
	turn := flock.New(r.agentStart())
	defer turn.Close()
	if _, err := turn.TryLockContext(ctx, 20*time.Millisecond); err != nil {
		return fmt.Errorf("start the agent: %w", err)
	}
	if running, err := r.agentRuns(); err != nil || running {
		return err // another was quicker
	}
	how, err := chooseSupervisor(r.supervisor, r.surroundings)
	if err != nil {
		return err
	}
	if how == byProcess {
		err = r.startProcess(ctx)
	} else {
		err = r.startUnit(ctx, how)
	}
	if err != nil {
		return fmt.Errorf("start the agent: %w", err)
	}
	return nil
}

// Revive starts the agent if it should be running and is not: there are clusters, and
// nobody stopped it, so that the machine was restarted or the agent was killed. It
// tells whether it did. Where systemd starts agents, that is systemd's.
func (r *Runtime) Revive(ctx context.Context) (bool, error) {
	running, err := r.agentRuns()
	if err != nil || running {
		return false, err
	}
	if _, err := os.Lstat(r.agentStopped()); err == nil {
		return false, nil
	}
	if all, _ := r.clusters(ctx); len(all) == 0 {
		return false, nil
	}
	how, err := chooseSupervisor(r.supervisor, r.surroundings)
	if err != nil || how != byProcess {
		return false, err
	}
	return true, r.Ready(ctx)
}

// startProcess starts the agent as a process that lives on when this one and its
// session end.
func (r *Runtime) startProcess(ctx context.Context) error {
	log, err := r.openAgentLog()
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(r.program, "agent", "run", "--state-dir", r.state)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Dir = "/"
	cmd.Env = agentEnviron(os.Environ())
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := startAlone(cmd); err != nil {
		return err
	}
	exited := make(chan error, 1)
	go func() { exited <- cmd.Wait() }()
	return r.awaitAgent(ctx, func() error {
		select {
		case err := <-exited:
			if held, herr := lockHeld(r.lock()); herr != nil || held {
				return herr // somebody's `agent run` was quicker, and is about to be ready
			}
			return fmt.Errorf("it ended at once (%v); its log is %s", err, r.layout.log())
		default:
			return nil
		}
	})
}

// awaitAgent waits until an agent is ready. An error of failed ends it early.
func (r *Runtime) awaitAgent(ctx context.Context, failed func() error) error {
	for deadline := time.After(startTimeout); ; {
		// in this order: what failed may have given way to one that runs
		err := failed()
		if running, rerr := r.agentRuns(); rerr != nil || running {
			return rerr
		}
		if err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-deadline:
			return fmt.Errorf("it is not ready after %s; its log is %s", startTimeout, r.layout.log())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// agentEnviron is what of an environment an agent is started with. Whoever's
// shell happened to start it must not decide which server it connects to, nor does
// its password belong there.
func agentEnviron(environ []string) []string {
	var out []string
	for _, entry := range environ {
		name, _, _ := strings.Cut(entry, "=")
		switch {
		case strings.HasPrefix(name, "PG"), strings.HasPrefix(name, "LISTEN_"), strings.HasPrefix(name, "WATCHDOG_"):
		case name == notifyEnv, name == "INVOCATION_ID", name == "JOURNAL_STREAM", name == lockFDEnv:
		default:
			out = append(out, entry)
		}
	}
	return out
}

// agentLogLimit is how big the agent's log grows before it makes room for a new one. It
// is looked at when an agent starts. The log before is kept as agent.log.1.
const agentLogLimit = 32 << 20

// openAgentLog opens the agent's log at its end.
func (r *Runtime) openAgentLog() (*os.File, error) {
	path := r.layout.log()
	if info, err := os.Stat(path); err == nil && info.Size() > agentLogLimit {
		if err := os.Rename(path, path+".1"); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	return os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
}

// startAlone starts a program that inherits no file of whoever started this process:
// it lives on, and would keep their pipes and terminals open.
func startAlone(cmd *exec.Cmd) error {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return err
	}
	for _, e := range entries {
		fd, err := strconv.Atoi(e.Name())
		if err != nil || fd < 3 {
			continue
		}
		flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
		if err != nil || flags&unix.FD_CLOEXEC != 0 {
			continue // closed meanwhile, or our own
		}
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETFD, flags|unix.FD_CLOEXEC); err != nil {
			return err
		}
		// this process may still hand it to psql
		defer unix.FcntlInt(uintptr(fd), unix.F_SETFD, flags)
	}
	return cmd.Start()
}

// agentRuns tells whether some process holds the agent's lock and has begun to act.
func (r *Runtime) agentRuns() (bool, error) {
	held, err := lockHeld(r.lock())
	if err != nil {
		return false, fmt.Errorf("look for the agent: %w", err)
	}
	if !held {
		return false, nil
	}
	_, err = os.Stat(r.pid())
	return err == nil, nil
}

// Program is the file that this process runs, by the name it was started with if
// that is a path: a link that is moved to a new release leads there.
func Program() (string, error) {
	real, err := os.Executable()
	if err != nil {
		return "", err
	}
	if named := os.Args[0]; filepath.IsAbs(named) {
		a, aerr := os.Stat(named)
		b, berr := os.Stat("/proc/self/exe")
		if aerr == nil && berr == nil && os.SameFile(a, b) {
			return named, nil
		}
	}
	return real, nil
}
