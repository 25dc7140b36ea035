// SPDX-License-Identifier: Apache-2.0

package local

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"runtime/debug"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/runtimes"
	"github.com/kbcli/kbcli/runtimes/agent"
	"github.com/kbcli/kbcli/runtimes/repos"
	"github.com/kbcli/kbcli/runtimes/store"
)

// AgentRunsError says that another agent looks after the state directory.
type AgentRunsError struct{ StateDir string }

func (e *AgentRunsError) Error() string {
	return "another agent looks after " + e.StateDir
}

// RunAgent looks after everything under the state directory until ctx ends. There is
// one agent per state directory: a second one is an *AgentRunsError. Servers go on
// running when it ends. When the file of its program is replaced, it lets the new
// program take its place in this process, with the lock; then RunAgent does not return.
func (r *Runtime) RunAgent(ctx context.Context) (err error) {
	lock, err := takeAgentLock(r.lock())
	if err != nil {
		return fmt.Errorf("agent: %w", err)
	}
	if lock == nil {
		return &AgentRunsError{r.state}
	}
	defer lock.release()
	if !lock.inherited {
		// what an agent that was killed left behind is not about this one
		if err := r.retract(); err != nil {
			return fmt.Errorf("agent: %w", err)
		}
	}
	if err := os.Remove(r.agentStopped()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("agent: %w", err)
	}
	log, err := r.openAgentLog()
	if err != nil {
		return fmt.Errorf("agent: %w", err)
	}
	defer log.Close()
	if !sameFile(os.Stderr, log) {
		// `cluster logs` reads that file, wherever else this one's words go
		r.log = slog.New(slog.NewMultiHandler(r.log.Handler(), slog.NewJSONHandler(log, nil)))
		r.repos.Log = r.log
	}
	if r.identity, err = agent.Identify(r.state); err != nil {
		return fmt.Errorf("agent: %w", err)
	}
	r.repos.Identity = r.identity
	r.repos.Listed = func(all []*v1alpha1.BackupRepo) error { return r.keys.sweep(r.secrets(), all, time.Now()) }
	r.repos.Event = func(object string, t runtimes.EventType, reason, message string) {
		r.event("", "", object, t, reason, "%s", message)
	}
	if err := r.sweepTrials(); err != nil {
		r.log.Warn("what a killed verify-backup left", "error", err)
	}
	if err := r.firstRun(ctx); err != nil {
		return err
	}
	if err := r.announce(log); err != nil {
		return fmt.Errorf("agent: %w", err)
	}
	defer func() {
		if !errors.Is(err, errLost) {
			err = errors.Join(err, r.retract())
		}
	}()
	if err := notify("READY=1\nSTATUS=version " + r.version); err != nil {
		r.log.Warn("systemd cannot be told that the agent is ready", "error", err)
	}
	r.log.Info("the agent has started", "version", r.version, "state", r.state, "pid", os.Getpid())
	r.tellStarted(ctx)
	err = r.lookUntilReplaced(ctx, lock)
	r.log.Info("the agent ends")
	r.tellEnded(err)
	return err
}

// firstRun makes the default repository of a new state directory.
func (r *Runtime) firstRun(ctx context.Context) error {
	all, err := store.List[*v1alpha1.BackupRepo](ctx, r.objects, "", nil)
	if err != nil || len(all) > 0 {
		return err
	}
	o := &v1alpha1.BackupRepo{ObjectMeta: metav1.ObjectMeta{Name: defaultRepo}}
	o.Spec.StorageProvider = v1alpha1.ProviderFilesystem
	o.Spec.Default = true
	o.Spec.Filesystem = &v1alpha1.FilesystemRepo{Path: r.repository()}
	if err := r.objects.Create(ctx, o); err != nil && !apierrors.IsAlreadyExists(err) {
		return fmt.Errorf("make the default repository: %w", err)
	}
	return nil
}

// defaultRepo is the BackupRepo that a new state directory begins with.
const defaultRepo = "local"

// lookInterval is how often everything is looked at when nothing reports a change.
const lookInterval = 2 * time.Second

// trimInterval is how often memory that bursts of work left behind is given back: an
// idle agent is small.
const trimInterval = 20 * time.Second

// look keeps a keeper for each cluster, and sees to repositories and deleted backups.
func (r *Runtime) look(ctx context.Context) error {
	var wake []<-chan store.Event
	for _, kind := range []string{v1alpha1.KindCluster, v1alpha1.KindBackup, v1alpha1.KindBackupRepo} {
		ch, err := r.objects.Watch(ctx, kind, "")
		if err != nil {
			return err
		}
		wake = append(wake, ch)
	}
	keepers, repoKeepers := map[string]*keeper{}, repos.Keepers{}
	var wg sync.WaitGroup
	defer wg.Wait()
	tick := time.NewTicker(lookInterval)
	defer tick.Stop()
	trim := time.NewTicker(trimInterval)
	defer trim.Stop()
	for {
		all, err := r.clusters(ctx)
		if err != nil && ctx.Err() == nil {
			r.log.Warn("some clusters cannot be read", "error", err)
		}
		for _, c := range all {
			key := c.Namespace + "/" + c.Name
			if k, ok := keepers[key]; ok && k.uid == c.UID {
				k.poke()
				continue
			} else if ok {
				select {
				case <-k.done:
				default:
					continue // the one before is still going
				}
			}
			k := newKeeper(r, c)
			keepers[key] = k
			wg.Go(func() { k.run(ctx) })
		}
		if err := r.repos.Keep(ctx, repoKeepers, &wg); err != nil && ctx.Err() == nil {
			r.log.Warn("repositories", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		case <-trim.C:
			debug.FreeOSMemory()
		case <-wake[0]:
		case <-wake[1]:
		case <-wake[2]:
		}
	}
}

func without(list []string, s string) []string {
	var out []string
	for _, x := range list {
		if x != s {
			out = append(out, x)
		}
	}
	return out
}
