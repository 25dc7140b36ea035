// SPDX-License-Identifier: Apache-2.0

package local

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"strconv"
	"sync"
	"time"

	"github.com/gofrs/flock"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/internal/atomicfile"
	"github.com/kbcli/kbcli/runtimes/agent"
	"github.com/kbcli/kbcli/runtimes/store"
)

// AgentRunsError says that another agent looks after the state directory.
type AgentRunsError struct{ StateDir string }

func (e *AgentRunsError) Error() string {
	return "another agent looks after " + e.StateDir
}

// RunAgent looks after everything under the state directory until ctx ends. There is
// one agent per state directory: a second one is an *AgentRunsError. Servers go on
// running when it ends.
func (r *Runtime) RunAgent(ctx context.Context) error {
	lock := flock.New(r.layout.lock())
	ok, err := lock.TryLock()
	if err != nil {
		return fmt.Errorf("agent: %w", err)
	}
	if !ok {
		return &AgentRunsError{r.state}
	}
	defer lock.Close()
	if err := r.firstRun(ctx); err != nil {
		return err
	}
	if err := atomicfile.Write(r.layout.pid(), []byte(strconv.Itoa(os.Getpid())+"\n"), 0o644); err != nil {
		return fmt.Errorf("agent: %w", err)
	}
	defer os.Remove(r.layout.pid())
	r.log.Info("the agent has started", "state", r.state, "pid", os.Getpid())
	err = r.look(ctx)
	r.log.Info("the agent ends")
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
	keepers := map[string]*keeper{}
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
		if err := r.seeToRepos(ctx); err != nil && ctx.Err() == nil {
			r.log.Warn("repositories", "error", err)
		}
		if err := r.seeToDeletedBackups(ctx); err != nil && ctx.Err() == nil {
			r.log.Warn("deleting backups", "error", err)
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

// seeToRepos opens each repository whose object is new or changed, or that this agent
// has not opened yet, brings back the backups that it holds, and says how it stands.
func (r *Runtime) seeToRepos(ctx context.Context) error {
	all, err := store.List[*v1alpha1.BackupRepo](ctx, r.objects, "", nil)
	errs := []error{err}
	for _, o := range all {
		phase, message := o.Status.Phase, o.Status.Message
		if r.attached[o.UID] != o.Generation || phase != v1alpha1.RepoReady {
			phase, message = r.attach(ctx, o)
		}
		errs = append(errs, r.noteRepo(ctx, o, phase, message))
	}
	return errors.Join(errs...)
}

// attach opens a repository, and brings back the backups that it holds.
func (r *Runtime) attach(ctx context.Context, o *v1alpha1.BackupRepo) (v1alpha1.BackupRepoPhase, string) {
	repo, _, err := r.repos.named(ctx, o.Name)
	if err != nil {
		return v1alpha1.RepoFailed, err.Error()
	}
	message, err := r.reattach(ctx, o.Name, repo)
	if err != nil {
		return v1alpha1.RepoFailed, err.Error()
	}
	r.attached[o.UID] = o.Generation
	return v1alpha1.RepoReady, message
}

// noteRepo writes a repository's status, if it changed.
func (r *Runtime) noteRepo(ctx context.Context, o *v1alpha1.BackupRepo, phase v1alpha1.BackupRepoPhase, message string) error {
	known, err := r.knownBackups(ctx)
	if err != nil {
		return err
	}
	want := v1alpha1.BackupRepoStatus{Phase: phase, Message: message, ObservedGeneration: o.Generation}
	want.Backups, want.TotalSize = contents(known, o.Name)
	if o.Status == want {
		return nil
	}
	_, err = store.MutateStatus(ctx, r.objects, "", o.Name, func(o *v1alpha1.BackupRepo) error {
		o.Status = want
		return nil
	})
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

// seeToDeletedBackups removes the bytes of Backups that were deleted, and then lets
// the objects go.
func (r *Runtime) seeToDeletedBackups(ctx context.Context) error {
	all, err := store.List[*v1alpha1.Backup](ctx, r.objects, "", nil)
	errs := []error{err}
	for _, b := range all {
		if b.DeletionTimestamp == nil {
			continue
		}
		if err := r.deleteBackup(ctx, b); err != nil {
			errs = append(errs, fmt.Errorf("backup %s: %w", b.Name, err))
		}
	}
	return errors.Join(errs...)
}

func (r *Runtime) deleteBackup(ctx context.Context, b *v1alpha1.Backup) error {
	if b.Status.Phase != v1alpha1.BackupDeleting {
		_, err := store.MutateStatus(ctx, r.objects, b.Namespace, b.Name, func(b *v1alpha1.Backup) error {
			b.Status.Phase = v1alpha1.BackupDeleting
			return nil
		})
		return err // the next round goes on: whoever takes this backup sees it first
	}
	if b.Status.Lineage != "" {
		repo, _, err := r.repos.named(ctx, b.Status.Repo)
		if err != nil {
			return err
		}
		if err := agent.DeleteBackup(ctx, repo, b); err != nil {
			return err
		}
	}
	_, err := store.Mutate(ctx, r.objects, b.Namespace, b.Name, func(b *v1alpha1.Backup) error {
		b.Finalizers = without(b.Finalizers, agent.BackupFinalizer)
		return nil
	})
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
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
