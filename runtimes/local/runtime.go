// SPDX-License-Identifier: Apache-2.0

package local

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"time"

	"github.com/gofrs/flock"
	"github.com/jackc/pgx/v5"
	"golang.org/x/sys/unix"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/engine/catalog"
	"github.com/kbcli/kbcli/engine/pg"
	"github.com/kbcli/kbcli/engine/repository"
	"github.com/kbcli/kbcli/engine/restore"
	"github.com/kbcli/kbcli/internal/atomicfile"
	"github.com/kbcli/kbcli/runtimes"
	"github.com/kbcli/kbcli/runtimes/store"
	"github.com/kbcli/kbcli/runtimes/store/files"
)

// Options of Open.
type Options struct {
	StateDir string // absolute; made when it is missing
	Clock    func() time.Time
	Log      *slog.Logger
}

// Runtime is this machine, as the command line and the agent see it.
type Runtime struct {
	layout
	objects *files.Store
	repos   *repos
	clock   func() time.Time
	log     *slog.Logger

	// attached is the generation of each BackupRepo whose backups have objects. Only
	// the agent's own goroutine touches it.
	attached map[types.UID]int64
}

var _ runtimes.Runtime = (*Runtime)(nil)

// Open opens a state directory.
func Open(_ context.Context, o Options) (*Runtime, error) {
	dir, err := filepath.Abs(o.StateDir)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("state directory: %w", err)
	}
	// postmasters are known by the path that the kernel gives their directory
	if dir, err = filepath.EvalSymlinks(dir); err != nil {
		return nil, fmt.Errorf("state directory: %w", err)
	}
	l := layout{dir}
	objects, err := files.Open(l.objects(), o.Clock)
	if err != nil {
		return nil, fmt.Errorf("state directory: %w", err)
	}
	return &Runtime{
		layout: l, objects: objects, clock: o.Clock, log: o.Log, attached: map[types.UID]int64{},
		repos: &repos{objects: objects, clock: o.Clock, log: o.Log},
	}, nil
}

// Store keeps the objects as files.
func (r *Runtime) Store() store.Store { return r.objects }

// Ready starts the agent if none runs, and waits until it has taken its lock.
func (r *Runtime) Ready(ctx context.Context) error {
	running, err := r.agentRuns()
	if err != nil || running {
		return err
	}
	program, err := os.Executable()
	if err != nil {
		return fmt.Errorf("start the agent: %w", err)
	}
	log, err := os.OpenFile(r.layout.log(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("start the agent: %w", err)
	}
	defer log.Close()
	cmd := exec.Command(program, "agent", "run", "--state-dir", r.state)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := startAlone(cmd); err != nil {
		return fmt.Errorf("start the agent: %w", err)
	}
	exited := make(chan error, 1)
	go func() { exited <- cmd.Wait() }()
	for deadline := time.After(15 * time.Second); ; {
		if running, err := r.agentRuns(); err != nil || running {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case err := <-exited:
			if running, rerr := r.agentRuns(); rerr == nil && running {
				return nil // another was quicker
			}
			return fmt.Errorf("the agent ended at once (%v); its log is %s", err, r.layout.log())
		case <-deadline:
			return fmt.Errorf("the agent did not start within 15 s; its log is %s", r.layout.log())
		case <-time.After(20 * time.Millisecond):
		}
	}
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
	if _, err := os.Stat(r.layout.pid()); err != nil {
		return false, nil
	}
	lock := flock.New(r.layout.lock())
	defer lock.Close()
	free, err := lock.TryRLock()
	if err != nil {
		return false, fmt.Errorf("look for the agent: %w", err)
	}
	return !free, nil
}

// Admin connects as the superuser over the cluster's socket.
func (r *Runtime) Admin(ctx context.Context, c *v1alpha1.Cluster, database string) (*pgx.Conn, error) {
	conn, err := pgx.Connect(ctx, conninfo(c.Status.SocketDirectory, c.Status.Port, database)+" application_name=kbcli")
	if err != nil {
		return nil, fmt.Errorf("connect to cluster %s: %w", c.Name, err)
	}
	return conn, nil
}

// Psql runs psql over the cluster's socket.
func (r *Runtime) Psql(_ context.Context, c *v1alpha1.Cluster, user, database string) (runtimes.Command, error) {
	psql, err := exec.LookPath("psql")
	if err != nil {
		inst, ierr := findInstall(majorOf(c.Spec.ClusterVersionRef))
		if ierr != nil {
			return runtimes.Command{}, errors.New("psql is not installed on this machine")
		}
		psql = filepath.Join(inst.bin, "psql")
	}
	if user == "" {
		user = superuser
	}
	return runtimes.Command{
		Path: psql,
		Args: []string{"-h", c.Status.SocketDirectory, "-p", strconv.Itoa(int(c.Status.Port)), "-U", user, "-d", database},
	}, nil
}

// BackupType is datafile: file-system snapshots are not taken on one machine yet.
func (r *Runtime) BackupType(context.Context, *v1alpha1.Cluster) (v1alpha1.BackupType, string) {
	return v1alpha1.BackupDatafile, "snapshots are not available on this machine"
}

// KeepSecret stores data where only this machine's agent reads it.
func (r *Runtime) KeepSecret(_ context.Context, name string, data []byte) (string, error) {
	if name != filepath.Base(name) || name == "." || name == ".." {
		return "", fmt.Errorf("secret name %q is not a file name", name)
	}
	dir := r.secrets()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	path := filepath.Join(dir, name)
	return path, atomicfile.Write(path, data, 0o600)
}

// source finds the lineage of a cluster, and the cluster itself if it is still there.
func (r *Runtime) source(ctx context.Context, src runtimes.Source) (*repository.Lineage, *v1alpha1.Cluster, error) {
	c, err := store.Get[*v1alpha1.Cluster](ctx, r.objects, src.Namespace, src.Cluster)
	if err != nil && !apierrors.IsNotFound(err) {
		return nil, nil, err
	}
	if apierrors.IsNotFound(err) {
		c = nil
	}
	want := src.Lineage
	if want == "" && c != nil {
		want = c.Status.Lineage
	}
	all, err := r.repos.all(ctx)
	var found *repository.Lineage
	for _, repo := range all {
		ls, lerr := repo.Lineages(ctx)
		err = errors.Join(err, lerr)
		for _, l := range ls {
			info := l.Info()
			fits := info.Namespace == src.Namespace && info.Cluster == src.Cluster
			if want != "" {
				fits = info.ID == want
			}
			if fits && (found == nil || info.Created.After(found.Info().Created)) {
				found = l
			}
		}
	}
	switch {
	case found != nil:
		return found, c, nil
	case err != nil:
		return nil, c, err
	case c == nil:
		return nil, nil, &runtimes.SourceNotFoundError{Source: src}
	}
	return nil, c, nil
}

// catalog loads what a source's lineage holds, and what its archive says beside.
func (r *Runtime) catalog(ctx context.Context, l *repository.Lineage, c *v1alpha1.Cluster) (*catalog.Catalog, error) {
	cat, err := catalog.Load(ctx, l)
	if cat == nil {
		return nil, err
	}
	if err != nil {
		r.log.Warn("part of the repository is damaged", "error", err)
	}
	if c == nil || c.Status.Archive == nil || c.Status.Lineage != l.Info().ID {
		return cat, nil
	}
	a := c.Status.Archive
	lsn, err := pg.ParseLSN(a.RepositoryLSN)
	if err == nil && lsn != 0 && a.Timeline > 0 && !a.ProvenTime.IsZero() {
		cat.Grow(pg.TimelineID(a.Timeline), lsn, a.ProvenTime.Time)
	}
	return cat, nil
}

// Windows lists what can be reached of a cluster.
func (r *Runtime) Windows(ctx context.Context, src runtimes.Source) ([]catalog.Window, error) {
	l, c, err := r.source(ctx, src)
	if err != nil || l == nil {
		return nil, err
	}
	cat, err := r.catalog(ctx, l, c)
	if err != nil {
		return nil, err
	}
	return cat.Windows(ctx, 0)
}

// Clock is the source server's, or this machine's if the server does not run.
func (r *Runtime) Clock(ctx context.Context, src runtimes.Source) (time.Time, error) {
	_, c, err := r.source(ctx, src)
	if err != nil {
		return time.Time{}, err
	}
	if c == nil || c.Status.Phase != v1alpha1.ClusterRunning {
		return r.clock().UTC(), nil
	}
	conn, err := r.Admin(ctx, c, "postgres")
	if err != nil {
		return r.clock().UTC(), nil // it is going down, or gone: its machine is this one
	}
	defer conn.Close(ctx)
	var now time.Time
	if err := conn.QueryRow(ctx, "select clock_timestamp()").Scan(&now); err != nil {
		return time.Time{}, fmt.Errorf("ask the source for its clock: %w", err)
	}
	return now.UTC(), nil
}

// catchUp is how long Plan waits for the archive to prove a moment that has passed.
const catchUp = 15 * time.Second

// Plan says what a restore would do.
func (r *Runtime) Plan(ctx context.Context, src runtimes.Source, t catalog.Target) (*restore.Plan, error) {
	deadline := time.Now().Add(catchUp)
	for {
		l, c, err := r.source(ctx, src)
		if err != nil {
			return nil, err
		}
		if l == nil {
			return nil, &catalog.OutsideWindowError{Target: t}
		}
		cat, err := r.catalog(ctx, l, c)
		if err != nil {
			return nil, err
		}
		p, err := restore.MakePlan(ctx, cat, t)
		var outside *catalog.OutsideWindowError
		if !errors.As(err, &outside) || !r.willReach(ctx, src, c, t, outside.Windows) || time.Now().After(deadline) {
			return p, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(250 * time.Millisecond):
		}
	}
}

// willReach tells whether a target lies in the few seconds that an archive is behind
// its server's clock.
func (r *Runtime) willReach(ctx context.Context, src runtimes.Source, c *v1alpha1.Cluster, t catalog.Target, ws []catalog.Window) bool {
	if c == nil || c.Status.Archive == nil || t.Time.IsZero() || len(ws) == 0 {
		return false
	}
	// an agent that has just begun connects before it streams
	if s := c.Status.Archive.State; s != v1alpha1.ArchiveStreaming && s != v1alpha1.ArchiveConnecting {
		return false
	}
	if !t.Time.After(ws[len(ws)-1].To) {
		return false
	}
	now, err := r.Clock(ctx, src)
	return err == nil && !t.Time.After(now)
}

// settingsOf are the lines of postgresql.conf that a cluster's spec asks for.
func settingsOf(c *v1alpha1.Cluster) map[string]string { return c.Spec.Settings }

// clusters lists the clusters there are, oldest first. Those that cannot be read are told
// in the error, beside the others.
func (r *Runtime) clusters(ctx context.Context) ([]*v1alpha1.Cluster, error) {
	all, err := store.List[*v1alpha1.Cluster](ctx, r.objects, "", nil)
	slices.SortFunc(all, func(a, b *v1alpha1.Cluster) int { return a.CreationTimestamp.Compare(b.CreationTimestamp.Time) })
	return all, err
}
