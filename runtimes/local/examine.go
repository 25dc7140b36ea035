// SPDX-License-Identifier: Apache-2.0

package local

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/engine/checkup"
	"github.com/kbcli/kbcli/runtimes"
	"github.com/kbcli/kbcli/runtimes/store"
)

var (
	_ runtimes.Doctor   = (*Runtime)(nil)
	_ runtimes.Attended = (*Runtime)(nil)
)

// lookPatience is how long each thing that is examined may take to answer.
const lookPatience = 5 * time.Second

// within gives f a moment. A directory of a network that hangs cannot be interrupted:
// its goroutine is left behind, and ends with the process at the latest.
func within[T any](ctx context.Context, f func(context.Context) (T, error)) (T, error) {
	ctx, cancel := context.WithTimeout(ctx, lookPatience)
	type answer struct {
		value T
		err   error
	}
	ch := make(chan answer, 1)
	go func() {
		defer cancel()
		v, err := f(ctx)
		ch <- answer{v, err}
	}()
	select {
	case a := <-ch:
		return a.value, a.err
	case <-time.After(lookPatience + time.Second/2):
	}
	var none T
	return none, fmt.Errorf("no answer within %s: %w", lookPatience, context.DeadlineExceeded)
}

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
	r        *Runtime
	now      time.Time
	running  bool // the agent
	seen     time.Time
	lookErr  error
	clusters []*v1alpha1.Cluster
	repos    []*v1alpha1.BackupRepo
	policies []*v1alpha1.BackupPolicy
	backups  []*v1alpha1.Backup
	broken   store.BrokenObjects
}

// Examine looks at the agent, the repositories and the clusters, all at once.
func (r *Runtime) Examine(ctx context.Context, namespace string, names []string) ([]runtimes.Examined, error) {
	s := &scene{r: r, now: r.clock()}
	if err := s.read(ctx); err != nil {
		return nil, err
	}
	chosen, err := s.choose(namespace, names)
	if err != nil {
		return nil, err
	}
	s.running, s.seen, s.lookErr = r.Attended(ctx)
	jobs := []func() runtimes.Examined{s.agent}
	for _, o := range s.repos {
		jobs = append(jobs, func() runtimes.Examined { return s.repository(ctx, o) })
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
	if len(s.broken) > 0 {
		x := runtimes.Examined{Subject: "objects"}
		for _, b := range s.broken {
			x.Findings = append(x.Findings, checkup.Finding{
				Check: "object-readable", Level: checkup.Fail, Evidence: b.Error(),
				Next: "${EDITOR:-vi} " + b.Place,
			})
		}
		out = append(out, x)
	}
	return out, nil
}

// read reads all objects. Those that cannot be read are told beside the others.
func (s *scene) read(ctx context.Context) error {
	keep := func(err error) error {
		var b store.BrokenObjects
		if errors.As(err, &b) {
			s.broken = append(s.broken, b...)
			return nil
		}
		return err
	}
	var errs [4]error
	o := s.r.objects
	s.clusters, errs[0] = store.List[*v1alpha1.Cluster](ctx, o, "", nil)
	s.repos, errs[1] = store.List[*v1alpha1.BackupRepo](ctx, o, "", nil)
	s.policies, errs[2] = store.List[*v1alpha1.BackupPolicy](ctx, o, "", nil)
	s.backups, errs[3] = store.List[*v1alpha1.Backup](ctx, o, "", nil)
	for _, err := range errs {
		if err := keep(err); err != nil {
			return err
		}
	}
	return nil
}

// choose picks the clusters of a namespace, or those that are named.
func (s *scene) choose(namespace string, names []string) ([]*v1alpha1.Cluster, error) {
	var out []*v1alpha1.Cluster
	for _, c := range s.clusters {
		if (namespace == "" || c.Namespace == namespace) && (len(names) == 0 || slices.Contains(names, c.Name)) {
			out = append(out, c)
		}
	}
	for _, name := range names {
		if !slices.ContainsFunc(out, func(c *v1alpha1.Cluster) bool { return c.Name == name }) {
			if b := s.unread(v1alpha1.KindCluster, namespace, name); b != nil {
				return nil, b
			}
			return nil, store.NotFound(v1alpha1.KindFor[*v1alpha1.Cluster](), name)
		}
	}
	slices.SortFunc(out, func(a, b *v1alpha1.Cluster) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
	return out, nil
}

// policy is the one that speaks for a cluster; nil if there is none.
func (s *scene) policy(c *v1alpha1.Cluster) *v1alpha1.BackupPolicy {
	var found *v1alpha1.BackupPolicy
	for _, p := range s.policies {
		if p.Namespace == c.Namespace && p.Spec.ClusterRef == c.Name && p.DeletionTimestamp == nil && (found == nil || p.IsDefault()) {
			found = p
		}
	}
	return found
}

// unread is the object of a name that is there and cannot be read; nil if there is none.
func (s *scene) unread(kind, namespace, name string) *store.BrokenObject {
	for _, b := range s.broken {
		if b.Key.Kind == kind && b.Key.Name == name && (namespace == "" || b.Key.Namespace == namespace) {
			return b
		}
	}
	return nil
}

// repoOf is the name of the repository that a policy means.
func (s *scene) repoOf(p *v1alpha1.BackupPolicy) string {
	if p != nil && p.Spec.BackupRepoName != "" {
		return p.Spec.BackupRepoName
	}
	for _, o := range s.repos {
		if o.Spec.Default {
			return o.Name
		}
	}
	return ""
}

func (s *scene) agent() runtimes.Examined {
	r := s.r
	a := checkup.Agent{
		Clusters: len(s.clusters), Own: r.version, Systemd: r.surroundings.booted(),
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
