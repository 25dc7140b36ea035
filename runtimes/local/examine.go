// SPDX-License-Identifier: Apache-2.0

package local

import (
	"context"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/engine/checkup"
	"github.com/kbcli/kbcli/runtimes"
	"github.com/kbcli/kbcli/runtimes/examination"
	"github.com/kbcli/kbcli/runtimes/store"
)

var (
	_ runtimes.Doctor   = (*Runtime)(nil)
	_ runtimes.Attended = (*Runtime)(nil)
)

// Attended tells whether the agent runs.
func (r *Runtime) Attended(context.Context) (bool, time.Time, error) {
	running, err := r.agentRuns()
	if err != nil || running {
		return running, time.Time{}, err
	}
	return false, r.lastSign(), nil
}

// lastSign is when there was last a sign of an agent: it writes its log, and the status
// of clusters.
func (r *Runtime) lastSign() time.Time {
	paths := []string{r.layout.log(), r.agentState(), r.pid()}
	files, err := filepath.Glob(filepath.Join(r.layout.objects(), "clusters", "*", "*.yaml"))
	if err == nil {
		paths = append(paths, files...)
	}
	var last time.Time
	for _, path := range paths {
		if info, err := os.Stat(path); err == nil && info.ModTime().After(last) {
			last = info.ModTime()
		}
	}
	return last
}

// scene is what the subjects of an examination have in common.
type scene struct {
	*examination.Scene
	r       *Runtime
	running bool // the agent
	seen    time.Time
	lookErr error
}

// Examine looks at the agent, the repositories and the clusters, all at once.
func (r *Runtime) Examine(ctx context.Context, namespace string, names []string) ([]runtimes.Examined, error) {
	all, err := examination.Look(ctx, r.objects, "", r.clock)
	if err != nil {
		return nil, err
	}
	s := &scene{Scene: all, r: r}
	chosen, err := s.Choose(namespace, names)
	if err != nil {
		return nil, err
	}
	s.running, s.seen, s.lookErr = r.Attended(ctx)
	jobs := []func() runtimes.Examined{s.agent}
	for _, o := range s.Repos {
		jobs = append(jobs, func() runtimes.Examined {
			return s.Repository(ctx, o, examination.Here{Writes: r.ownAgent(), SameDisk: func(path string, c *v1alpha1.Cluster) bool {
				return sameDisk(path, dataOf(r, c))
			}})
		})
	}
	for _, c := range chosen {
		jobs = append(jobs, func() runtimes.Examined { return s.cluster(ctx, c) })
	}
	out := make([]runtimes.Examined, len(jobs))
	var wg sync.WaitGroup
	for i, job := range jobs {
		wg.Go(func() { out[i] = job() })
	}
	wg.Wait()
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	return append(out, s.Unreadable(func(b *store.BrokenObject) string { return "${EDITOR:-vi} " + b.Place })...), nil
}

func (s *scene) agent() runtimes.Examined {
	r := s.r
	a := checkup.Agent{
		Clusters: len(s.Clusters), Own: r.version, Systemd: r.surroundings.booted(),
		Command: r.program + " agent run --state-dir " + r.state,
	}
	a.Runs, a.Seen, a.Err = s.running, s.seen, s.lookErr
	if a.Runs {
		state, err := r.Agent()
		switch {
		case err != nil:
			a.Err = err
		case state != nil:
			a.PID, a.Version, a.Unit = state.PID, state.Version, state.Unit
		}
	}
	return runtimes.Examined{Subject: "agent", Findings: a.Findings()}
}

func (s *scene) cluster(ctx context.Context, c *v1alpha1.Cluster) runtimes.Examined {
	p := s.Cluster(ctx, c, examination.Server{
		Conninfo: func() (string, error) { return s.r.adminConninfo(c, "postgres") }, Attached: attached(c),
		DataDirectory: dataOf(s.r, c), Spool: filepath.Join(s.r.cluster(c.Namespace, c.Name), "spool"), AgentRuns: s.running,
	})
	findings := append(p.Findings, s.machine(c, p).Findings()...)
	return runtimes.Examined{Subject: "cluster " + c.Namespace + "/" + c.Name, Findings: findings}
}

func (s *scene) machine(c *v1alpha1.Cluster, p examination.Patient) *checkup.Machine {
	m := &checkup.Machine{Names: p.Names, Major: majorOf(c.Spec.ClusterVersionRef), Synchronised: synchronised()}
	if p.Asked != nil {
		m.Server, m.Here, m.Need = p.Asked.Clock, p.Asked.Here, p.Asked.Bytes
		m.Major = p.Asked.Major
	}
	if a := c.Status.Archive; a != nil {
		m.Proven = a.ProvenTime.Time
	}
	i, err := findInstall(m.Major)
	m.Programs, m.ProgramsErr = i.bin, err
	m.Room = s.r.state
	m.Free, _, m.RoomErr = examination.Room(m.Room)
	return m
}

// synchronised is what the kernel says of this machine's clock.
func synchronised() *bool {
	state, err := unix.Adjtimex(&unix.Timex{})
	if err != nil {
		return nil
	}
	yes := state != timeError
	return &yes
}

// timeError is TIME_ERROR of adjtimex(2): the clock is not synchronised.
const timeError = 5
