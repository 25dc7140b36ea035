// SPDX-License-Identifier: Apache-2.0

package local

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/gofrs/flock"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/engine/blob"
	"github.com/kbcli/kbcli/engine/catalog"
	"github.com/kbcli/kbcli/engine/repository"
	"github.com/kbcli/kbcli/engine/restore"
	"github.com/kbcli/kbcli/internal/childproc"
	"github.com/kbcli/kbcli/runtimes"
	"github.com/kbcli/kbcli/runtimes/repos"
)

var _ runtimes.RestoreVerifier = (*Runtime)(nil)

// VerifyRestore restores a backup to its own end in a directory below the state
// directory, starts it where nobody but this process reaches it, and reads it through.
// Nothing of it is left afterwards; what a killed process leaves, the next call or the
// next agent removes.
func (r *Runtime) VerifyRestore(ctx context.Context, b *v1alpha1.Backup, step func(string)) (*runtimes.RestoreReport, error) {
	began := time.Now()
	l, _, err := r.repos.Stored(ctx, b)
	if err != nil {
		return nil, err
	}
	cat, err := r.repos.Catalog(ctx, l, nil)
	if err != nil {
		return nil, repos.Lost(b, err)
	}
	plan, err := restore.MakePlan(ctx, cat, catalog.Target{Backup: b.Name})
	if err != nil {
		return nil, repos.Lost(b, err)
	}
	t, err := r.newTrial(plan.Major)
	if err != nil {
		return nil, err
	}
	report, err := t.run(ctx, plan, step)
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	err = errors.Join(err, t.remove())
	if err != nil {
		return nil, lostRestoring(b, err)
	}
	report.Backup, report.Seconds = b.Name, time.Since(began).Seconds()
	return report, nil
}

// lostRestoring makes damage of what the repository says, or PostgreSQL found.
func lostRestoring(b *v1alpha1.Backup, err error) error {
	var corrupt *repository.CorruptError
	var recovery *restore.RecoveryError
	var missing *repository.MissingWALError
	var damaged *restore.DamagedError
	switch {
	case errors.As(err, &damaged):
		damaged.Backup = b.Name
		return err
	case errors.Is(err, blob.ErrNotExist), errors.As(err, &corrupt), errors.As(err, &recovery), errors.As(err, &missing):
		return &restore.DamagedError{Backup: b.Name, Damage: []error{err}}
	}
	return fmt.Errorf("verify backup %s: %w", b.Name, err)
}

// trial is a server that is tried out:
//
//	<state>/verify/<random>/
//	  lock           held while somebody tries it
//	  data/          the data directory
//	  tablespaces/
//	  s/             where it recovers, and its socket
//	  server.log
type trial struct {
	*server
	lock    *flock.Flock
	program string // this one
	cmd     *exec.Cmd
	exited  chan error
}

func (r *Runtime) trials() string { return filepath.Join(r.state, "verify") }

// trialSocket is where the server of a trial has its socket: elsewhere if the path to s/
// is too long for one.
func (r *Runtime) trialSocket(dir string) string {
	s := filepath.Join(dir, "s")
	if len(s) > maxSocketDir {
		return r.short("v", s)
	}
	return s
}

// newTrial makes the directory of a trial, after it has removed what others left.
func (r *Runtime) newTrial(major int) (*trial, error) {
	if err := r.sweepTrials(); err != nil {
		return nil, err
	}
	inst, err := findInstall(major)
	if err != nil {
		return nil, err
	}
	acc, err := serverAccount()
	if err != nil {
		return nil, err
	}
	program, err := os.Executable()
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(r.trials(), strings.ToLower(rand.Text()[:8]))
	t := &trial{program: program, server: &server{
		install: inst, account: acc, dir: dir, data: filepath.Join(dir, "data"), socket: r.trialSocket(dir),
	}}
	if err := os.MkdirAll(r.trials(), 0o755); err != nil {
		return nil, err
	}
	// it is locked before it has its name: whoever sweeps sees it locked
	t.lock = flock.New(filepath.Join(r.trials(), filepath.Base(dir)+".lock"))
	if ok, err := t.lock.TryLock(); err != nil || !ok {
		return nil, errors.Join(err, errors.New("a directory to restore into could not be locked"))
	}
	if err := acc.dir(dir, 0o755); err != nil {
		return nil, errors.Join(err, t.remove())
	}
	return t, nil
}

// sweepTrials removes what processes left that were killed while they tried a backup.
func (r *Runtime) sweepTrials() error {
	locks, err := filepath.Glob(filepath.Join(r.trials(), "*.lock"))
	if err != nil {
		return err
	}
	var errs []error
	for _, path := range locks {
		lock := flock.New(path)
		ok, err := lock.TryLock()
		if err != nil {
			errs = append(errs, err)
		}
		if !ok {
			errs = append(errs, lock.Close())
			continue
		}
		dir := strings.TrimSuffix(path, ".lock")
		t := &trial{lock: lock, server: &server{dir: dir, data: filepath.Join(dir, "data"), socket: r.trialSocket(dir)}}
		errs = append(errs, t.remove())
	}
	return errors.Join(errs...)
}

// remove stops the server and removes everything.
func (t *trial) remove() error {
	if t.cmd != nil {
		_ = t.cmd.Process.Signal(syscall.SIGQUIT) // it may have ended by itself
		select {
		case <-t.exited:
		case <-time.After(10 * time.Second):
			_ = t.cmd.Process.Kill()
			<-t.exited
		}
		t.cmd = nil
	}
	if err := t.endLeft(); err != nil {
		return err
	}
	// the lock's file goes last: without it nobody would find the rest
	if err := errors.Join(os.RemoveAll(t.socket), os.RemoveAll(t.dir)); err != nil {
		return fmt.Errorf("remove what was restored to be tried: %w", err)
	}
	return errors.Join(os.Remove(t.lock.Path()), t.lock.Close())
}

// endLeft ends a server that outlived the process which tried it.
func (t *trial) endLeft() error {
	pid := t.pid()
	if pid == 0 {
		return nil
	}
	if err := syscall.Kill(pid, syscall.SIGQUIT); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("end the server that was tried: %w", err)
	}
	for deadline := time.Now().Add(10 * time.Second); t.pid() == pid; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			return fmt.Errorf("the server that was tried does not end, its process is %d", pid)
		}
	}
	return nil
}

func (t *trial) run(ctx context.Context, plan *restore.Plan, step func(string)) (*runtimes.RestoreReport, error) {
	if step == nil {
		step = func(string) {}
	}
	into := restore.Into{
		DataDirectory: t.data, Tablespaces: filepath.Join(t.dir, "tablespaces"), UID: t.uid, GID: t.gid, Jobs: restoreJobs(),
		Progress: func(done, total int64) {
			step(fmt.Sprintf("Fetching %s of %s", v1alpha1.FormatSize(done), v1alpha1.FormatSize(total)))
		},
	}
	if plan.HasTablespaces() {
		if err := t.account.dir(into.Tablespaces, 0o755); err != nil {
			return nil, err
		}
	}
	step("Fetching")
	if err := plan.Fetch(ctx, into); err != nil {
		return nil, err
	}
	step("Recovering")
	recovery := restore.Recovery{
		Into: into, BinDir: t.bin, Program: t.program, Args: []string{AwaitCommand}, Scratch: filepath.Join(t.dir, "s"),
	}
	if t.socket != recovery.Scratch {
		recovery.Sockets = t.socket
	}
	reached, err := plan.Recover(ctx, recovery)
	if err != nil {
		return nil, err
	}
	t.superuser = reached.Superuser
	step("Starting")
	if err := t.start(ctx, plan); err != nil {
		return nil, err
	}
	report, err := t.read(ctx, step)
	if err != nil {
		return nil, err
	}
	report.Reached = reached.LSN.String()
	return report, nil
}

// trialHBA lets in whoever reaches the socket, which is the directory's owner and root.
const trialHBA = "local all all trust\n"

// start runs the server with a socket in a directory that others may not enter, and
// waits until it answers. It ends with this process.
func (t *trial) start(ctx context.Context, plan *restore.Plan) error {
	if err := os.RemoveAll(t.socket); err != nil {
		return err
	}
	if err := t.account.dir(t.socket, 0o700); err != nil {
		return err
	}
	if err := t.adopt(t.data, 5432, nil); err != nil {
		return err
	}
	access := filepath.Join(t.dir, "hba.conf")
	if err := t.account.file(access, trialHBA); err != nil {
		return err
	}
	args := []string{"-D", t.data}
	for _, kv := range [][2]string{
		{"listen_addresses", ""},
		{"unix_socket_directories", t.socket},
		{"unix_socket_permissions", "0700"},
		{"port", "5432"},
		{"hba_file", access},
		{"shared_preload_libraries", ""},
		{"session_preload_libraries", ""},
		{"local_preload_libraries", ""},
		{"archive_mode", "off"},
		{"autovacuum", "off"},
		{"max_logical_replication_workers", "0"},
		{"synchronous_standby_names", ""},
		{"shared_buffers", "128MB"},
		{"huge_pages", "try"},
		{"fsync", "off"},
		{"logging_collector", "off"},
		{"log_destination", "stderr"},
		{"zero_damaged_pages", "off"},
		{"ignore_checksum_failure", "off"},
		{"event_source", "kbcli"},
	} {
		args = append(args, "-c", kv[0]+"="+kv[1])
	}
	path := filepath.Join(t.dir, "server.log")
	log, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(filepath.Join(t.bin, "postgres"), args...)
	cmd.Stdout, cmd.Stderr, cmd.Dir = log, log, t.data
	cmd.Env = []string{"LC_ALL=C", "PATH=/usr/bin:/bin", "TZ=UTC"}
	if t.uid >= 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(t.uid), Gid: uint32(t.gid)}}
	}
	exited, err := childproc.Start(cmd, syscall.SIGQUIT)
	if err != nil {
		return fmt.Errorf("start what was restored: %w", err)
	}
	t.cmd, t.exited = cmd, exited
	for {
		conn, err := t.connect(ctx, "postgres")
		if err == nil {
			return conn.Close(ctx)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case err := <-exited:
			exited <- err
			words, _ := os.ReadFile(path)
			return &restore.RecoveryError{Log: string(words)}
		case <-time.After(50 * time.Millisecond):
		}
	}
}
