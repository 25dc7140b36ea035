// SPDX-License-Identifier: Apache-2.0

package local

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/runtimes/store"
)

// How an agent looks for a new release of itself: often, for it is one stat, and with
// patience, for a package manager may still be writing.
const (
	programInterval = time.Second
	programSettled  = 3 * time.Second
	programTrial    = 20 * time.Second // how long a new program may take to say its version
)

// errLost ends an agent whose state directory was taken away: another may look after
// what is there now.
var errLost = errors.New("the state directory was removed or replaced")

// replacedError ends an agent's work because its program was replaced.
type replacedError struct{ by os.FileInfo }

func (*replacedError) Error() string { return "the program was replaced" }

// lookUntilReplaced looks after everything. When the program is replaced it puts the new
// one here; if that cannot be run, it goes on as what it is.
func (r *Runtime) lookUntilReplaced(ctx context.Context, lock *agentLock) error {
	running, err := os.Stat("/proc/self/exe")
	if err != nil {
		return fmt.Errorf("agent: %w", err)
	}
	for {
		look, cancel := context.WithCancelCause(ctx)
		watched := make(chan struct{})
		go func() {
			defer close(watched)
			if next, err := r.awaitProgram(look, lock, running); err != nil {
				cancel(err)
			} else if next != nil {
				cancel(&replacedError{next})
			}
		}()
		err := r.look(look)
		var replaced *replacedError
		lost := errors.Is(context.Cause(look), errLost)
		again := errors.As(context.Cause(look), &replaced) && ctx.Err() == nil
		cancel(nil)
		<-watched
		if lost {
			return errLost
		}
		if !again {
			return err
		}
		r.log.Info("a new version takes over", "program", r.program)
		err = r.become(lock)
		// still here: what is there now is not tried again
		r.log.Error("the new program cannot be run, and this one goes on", "program", r.program, "error", err)
		running = replaced.by
	}
}

// awaitProgram waits until another file than running is at the program's place, has been
// for a while, can be run, and nothing is under way that would be lost. It is nil when
// ctx ended. Meanwhile it sees to it that the lock still is the state directory's.
func (r *Runtime) awaitProgram(ctx context.Context, lock *agentLock, running os.FileInfo) (os.FileInfo, error) {
	var seen os.FileInfo
	var since time.Time
	tick := time.NewTicker(programInterval)
	defer tick.Stop()
	told := false
	for {
		select {
		case <-ctx.Done():
			return nil, nil
		case <-tick.C:
		}
		if !lock.is(r.lock()) {
			return nil, errLost
		}
		now, err := os.Stat(r.program)
		switch {
		case err != nil, sameVersionOfFile(now, running):
			seen, told = nil, false // not there at this moment, or as it was
			continue
		case seen == nil || !sameVersionOfFile(now, seen):
			seen, since, told = now, time.Now(), false
			continue
		case time.Since(since) < programSettled:
			continue
		}
		busy, err := r.busy(ctx)
		if err != nil || busy != "" {
			if !told && ctx.Err() == nil {
				r.log.Info("a new version waits", "for", busy, "error", err)
				told = true
			}
			continue
		}
		if err := r.tryProgram(ctx); err != nil {
			if ctx.Err() == nil {
				r.log.Error("the program was replaced by one that cannot be run, and this one goes on", "program", r.program, "error", err)
			}
			running, seen = now, nil
			continue
		}
		return now, nil
	}
}

// sameVersionOfFile tells whether a file was neither replaced nor written to.
func sameVersionOfFile(a, b os.FileInfo) bool {
	return os.SameFile(a, b) && a.ModTime().Equal(b.ModTime()) && a.Size() == b.Size()
}

// tryProgram lets the new program say its version: one that was cut short, or is for
// another machine, is found out while the old one still runs.
func (r *Runtime) tryProgram(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, programTrial)
	defer cancel()
	cmd := exec.CommandContext(ctx, r.program, "version", "--client")
	cmd.Dir = "/"
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s version --client: %w: %s", r.program, err, lastLines(string(out), 3))
	}
	return nil
}

// busy names work that would have to be begun again if the agent ended now.
func (r *Runtime) busy(ctx context.Context) (string, error) {
	backups, err := store.List[*v1alpha1.Backup](ctx, r.objects, "", nil)
	for _, b := range backups {
		if b.Status.Phase == v1alpha1.BackupInProgress {
			return "backup " + b.Namespace + "/" + b.Name, nil
		}
	}
	clusters, cerr := r.clusters(ctx)
	for _, c := range clusters {
		switch c.Status.Phase {
		case v1alpha1.ClusterCreating, v1alpha1.ClusterRestoring:
			return "cluster " + c.Namespace + "/" + c.Name + ", " + strings.ToLower(string(c.Status.Phase)), nil
		}
	}
	// an object that cannot be read says nothing, and must not keep old programs running
	if err := errors.Join(err, cerr); err != nil && ctx.Err() == nil {
		r.log.Warn("some objects cannot be read", "error", err)
	}
	return "", nil
}

// become puts the program that is at this one's place now into this process. The lock
// stays held throughout, so no other agent can come between. It returns on failure only.
func (r *Runtime) become(lock *agentLock) error {
	inherited, err := lock.passOn()
	if err != nil {
		return err
	}
	defer lock.keep()
	args := []string{r.program, "agent", "run", "--state-dir", r.state}
	if err := syscall.Exec(r.program, args, append(os.Environ(), inherited)); err != nil {
		return fmt.Errorf("exec %s: %w", r.program, err)
	}
	return nil
}
