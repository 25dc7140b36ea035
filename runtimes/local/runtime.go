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
	"sync"
	"time"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/engine/catalog"
	"github.com/kbcli/kbcli/engine/pg"
	"github.com/kbcli/kbcli/engine/restore"
	"github.com/kbcli/kbcli/internal/atomicfile"
	"github.com/kbcli/kbcli/runtimes"
	"github.com/kbcli/kbcli/runtimes/agent"
	"github.com/kbcli/kbcli/runtimes/repos"
	"github.com/kbcli/kbcli/runtimes/store"
	"github.com/kbcli/kbcli/runtimes/store/files"
)

// Options of Open.
type Options struct {
	StateDir   string // absolute; made when it is missing
	Clock      func() time.Time
	Log        *slog.Logger
	Version    string // of this program
	Supervisor string // who keeps an agent running: "auto" or empty, as the machine has it; "process", nobody
}

// Runtime is this machine, as the command line and the agent see it.
type Runtime struct {
	layout
	objects *files.Store
	repos   *repos.Set
	clock   func() time.Time
	log     *slog.Logger

	learning     sync.Mutex // rates.json
	version      string     // of this program
	program      string     // its path
	supervisor   string
	surroundings surroundings

	keys secretSweep

	// identity is who the agent is; of the agent alone.
	identity *agent.Identity
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
	program, err := Program()
	if err != nil {
		return nil, err
	}
	return &Runtime{
		layout: l, objects: objects, clock: o.Clock, log: o.Log,
		version: o.Version, program: program, supervisor: o.Supervisor, surroundings: ourSurroundings(),
		repos: &repos.Set{Objects: objects, Copies: l.copies(), Clock: o.Clock, Log: o.Log},
	}, nil
}

// Store keeps the objects as files.
func (r *Runtime) Store() store.Store { return r.objects }

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
	if attached(c) {
		return attachedPsql(psql, c, user, database)
	}
	if user == "" {
		user = superuserOf(c)
	}
	return runtimes.Command{
		Path: psql,
		Args: []string{"-h", c.Status.SocketDirectory, "-p", strconv.Itoa(int(c.Status.Port)), "-U", user, "-d", database},
	}, nil
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

// Windows lists what can be reached of a cluster.
func (r *Runtime) Windows(ctx context.Context, src runtimes.Source) ([]catalog.Window, error) {
	return r.repos.Windows(ctx, src)
}

// Clock is the source server's, or this machine's if the server does not run.
func (r *Runtime) Clock(ctx context.Context, src runtimes.Source) (time.Time, error) {
	_, c, err := r.repos.Source(ctx, src)
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

// Plan says what a restore would do.
func (r *Runtime) Plan(ctx context.Context, src runtimes.Source, t catalog.Target) (*restore.Plan, error) {
	fit := func(p *restore.Plan) error {
		p.Weigh(r.readRates())
		return p.Onto(filepath.Join(r.state, "clusters"))
	}
	asked := repos.Asked{At: func(ctx context.Context) (time.Time, error) { return r.Clock(ctx, src) }, Written: r.written}
	return r.repos.Plan(ctx, src, t, fit, asked)
}

// written is how far a cluster's server has written, or has been given.
func (r *Runtime) written(ctx context.Context, c *v1alpha1.Cluster) (pg.LSN, error) {
	conn, err := r.Admin(ctx, c, "postgres")
	if err != nil {
		return 0, err
	}
	defer conn.Close(ctx)
	var at string
	err = conn.QueryRow(ctx, `select case when pg_is_in_recovery()
		then coalesce(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn()) else pg_current_wal_flush_lsn() end::text`).Scan(&at)
	if err != nil {
		return 0, fmt.Errorf("ask the server where it is: %w", err)
	}
	return pg.ParseLSN(at)
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
