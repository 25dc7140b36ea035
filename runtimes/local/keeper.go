// SPDX-License-Identifier: Apache-2.0

package local

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/engine/restore"
	"github.com/kbcli/kbcli/runtimes/agent"
	"github.com/kbcli/kbcli/runtimes/repos"
	"github.com/kbcli/kbcli/runtimes/store"
)

// clusterFinalizer keeps a Cluster until its server and data are gone.
const clusterFinalizer = "apps.kubeblocks.io/server"

// keeper looks after one cluster: it makes its server, keeps it running, protects
// it, and takes it away. It ends when its cluster is gone.
type keeper struct {
	r         *Runtime
	namespace string
	name      string
	uid       types.UID
	wake      chan struct{}
	done      chan struct{}

	protect   func() // stops the Protector; nil while none runs
	protector *agent.Protector

	other other // of a server that somebody else runs
}

func newKeeper(r *Runtime, c *v1alpha1.Cluster) *keeper {
	return &keeper{r: r, namespace: c.Namespace, name: c.Name, uid: c.UID, wake: make(chan struct{}, 1), done: make(chan struct{})}
}

// poke makes the keeper look again.
func (k *keeper) poke() {
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

// errGone says that there is nothing more to keep.
var errGone = errors.New("the cluster is gone")

func (k *keeper) run(ctx context.Context) {
	defer close(k.done)
	defer k.unprotect()
	log := k.r.log.With("cluster", k.namespace+"/"+k.name)
	pause := time.Second
	for {
		err := k.reconcile(ctx)
		switch {
		case ctx.Err() != nil, errors.Is(err, errGone):
			return
		case err != nil:
			log.Error("the cluster is not as it should be", "error", err)
			pause = min(2*pause, 30*time.Second)
		default:
			pause = time.Second
		}
		select {
		case <-ctx.Done():
			return
		case <-k.wake:
		case <-time.After(pause):
		}
	}
}

func (k *keeper) get(ctx context.Context) (*v1alpha1.Cluster, error) {
	c, err := store.Get[*v1alpha1.Cluster](ctx, k.r.objects, k.namespace, k.name)
	if apierrors.IsNotFound(err) || err == nil && c.UID != k.uid {
		return nil, errGone
	}
	return c, err
}

// status changes the cluster's status.
func (k *keeper) status(ctx context.Context, change func(*v1alpha1.ClusterStatus)) error {
	_, err := store.MutateStatus(ctx, k.r.objects, k.namespace, k.name, func(c *v1alpha1.Cluster) error {
		change(&c.Status)
		return nil
	})
	return err
}

func (k *keeper) phase(ctx context.Context, p v1alpha1.ClusterPhase, reason, message string) error {
	c, err := k.get(ctx)
	if err != nil || c.Status.Phase == p && c.Status.Reason == reason && c.Status.Message == message && c.Status.ObservedGeneration == c.Generation {
		return err
	}
	generation, was := c.Generation, c.Status
	err = k.status(ctx, func(s *v1alpha1.ClusterStatus) {
		s.Phase, s.Reason, s.Message, s.ObservedGeneration = p, reason, message, generation
		agent.Ready(s, generation, k.r.clock())
		if p == v1alpha1.ClusterRunning && s.Restore != nil && s.Restore.Phase == v1alpha1.RestoreCompleted {
			s.Restore.Begin(v1alpha1.StepServing, k.r.clock())
		}
	})
	if err == nil {
		k.tellPhase(was, p, reason, message)
	}
	return err
}

func (k *keeper) server(c *v1alpha1.Cluster) (*server, error) {
	inst, err := findInstall(majorOf(c.Spec.ClusterVersionRef))
	if err != nil {
		return nil, err
	}
	acc, err := serverAccount()
	if err != nil {
		return nil, err
	}
	return &server{
		install: inst, account: acc, dir: k.r.cluster(k.namespace, k.name),
		data: k.r.data(k.namespace, k.name), socket: k.r.socket(k.namespace, k.name), superuser: superuserOf(c),
	}, nil
}

func (k *keeper) reconcile(ctx context.Context) error {
	c, err := k.get(ctx)
	if err != nil {
		return err
	}
	if c.DeletionTimestamp != nil {
		return k.remove(ctx, c)
	}
	if attached(c) {
		if err := k.claimAttached(ctx, c); err != nil {
			return err
		}
		return k.keepAttached(ctx, c)
	}
	if c.Status.Phase == v1alpha1.ClusterFailed && c.Status.ObservedGeneration == c.Generation && c.Status.Reason != reasonServer {
		return nil // it does not mend itself
	}
	s, err := k.server(c)
	if err != nil {
		return errors.Join(err, k.phase(ctx, v1alpha1.ClusterFailed, "NoPostgreSQL", err.Error()))
	}
	if err := k.claim(ctx, c, s); err != nil {
		return err
	}
	if c, err = k.get(ctx); err != nil {
		return err
	}
	_, err = os.Stat(s.data)
	if errors.Is(err, fs.ErrNotExist) {
		return k.make(ctx, c, s)
	}
	if err != nil {
		return err
	}
	if c.Spec.Restore != nil && c.Spec.Restore.Delta == s.data && c.Status.Phase == "" {
		// moved away before anything says that the cluster has begun: what is there from
		// then on was restored
		return k.restoreOver(ctx, c, s)
	}
	if c.Spec.Restore != nil && c.Status.Phase == "" {
		// It was here before the restore began: what it holds is something else's.
		err := &restore.NotEmptyError{Dir: s.data}
		return errors.Join(err, k.phase(ctx, v1alpha1.ClusterFailed, "NotEmpty", err.Error()))
	}
	if c.Spec.Stopped {
		return k.halt(ctx, s)
	}
	return k.serve(ctx, c, s)
}

// claim puts the finalizer and the version that was chosen into the object.
func (k *keeper) claim(ctx context.Context, c *v1alpha1.Cluster, s *server) error {
	if slices.Contains(c.Finalizers, clusterFinalizer) && c.Spec.ClusterVersionRef != "" {
		return nil
	}
	_, err := store.Mutate(ctx, k.r.objects, k.namespace, k.name, func(c *v1alpha1.Cluster) error {
		if !slices.Contains(c.Finalizers, clusterFinalizer) {
			c.Finalizers = append(c.Finalizers, clusterFinalizer)
		}
		// a restored cluster has its source's version, which its plan tells
		if c.Spec.ClusterVersionRef == "" && c.Spec.Restore == nil {
			c.Spec.ClusterVersionRef = fmt.Sprintf("postgresql-%d", s.major)
		}
		return nil
	})
	return err
}

// make makes the data directory, new or from another's past.
func (k *keeper) make(ctx context.Context, c *v1alpha1.Cluster, s *server) error {
	for _, dir := range []struct {
		path string
		mode os.FileMode
	}{{s.dir, 0o755}, {s.socket, 0o755}} {
		if err := s.account.dir(dir.path, dir.mode); err != nil {
			return err
		}
	}
	port := int(localPort(c))
	if port == 0 {
		var err error
		if port, err = freePort(); err != nil {
			return err
		}
	}
	if c.Spec.Restore != nil {
		return k.restore(ctx, c, port)
	}
	if err := k.phase(ctx, v1alpha1.ClusterCreating, "", ""); err != nil {
		return err
	}
	if err := s.initdb(ctx, port, settingsOf(c)); err != nil {
		return errors.Join(err, k.phase(ctx, v1alpha1.ClusterFailed, "InitFailed", err.Error()))
	}
	return k.placed(ctx, s, port)
}

// placed notes where a server lies, and starts it.
func (k *keeper) placed(ctx context.Context, s *server, port int) error {
	err := k.status(ctx, func(st *v1alpha1.ClusterStatus) {
		st.Port, st.SocketDirectory, st.DataDirectory, st.Superuser = int32(port), s.socket, s.data, s.superuser
	})
	if err != nil {
		return err
	}
	c, err := k.get(ctx)
	if err != nil {
		return err
	}
	return k.serve(ctx, c, s)
}

// reasonServer marks a failure that is tried again.
const reasonServer = "ServerFailed"

// serve keeps the server running and protected.
func (k *keeper) serve(ctx context.Context, c *v1alpha1.Cluster, s *server) error {
	if c.Status.Port == 0 {
		port, err := readPort(s.data)
		if err != nil {
			return err
		}
		if s.superuser, err = readSuperuser(s.data); err != nil {
			return err
		}
		return k.placed(ctx, s, port)
	}
	if wish := c.Annotations[v1alpha1.AnnotationRestart]; wish != "" && wish != c.Status.RestartedAt {
		return k.restart(ctx, s, wish)
	}
	if s.pid() == 0 {
		k.unprotect()
		if err := s.start(ctx); err != nil {
			return errors.Join(err, k.phase(ctx, v1alpha1.ClusterFailed, reasonServer, err.Error()))
		}
	}
	if port := s.listens(); port != 0 && port != c.Status.Port {
		k.unprotect() // its port was changed: ALTER SYSTEM says more than what is written here
		return k.placed(ctx, s, int(port))
	}
	if k.protect == nil {
		if err := k.ready(ctx, c, s); err != nil {
			return errors.Join(err, k.phase(ctx, v1alpha1.ClusterFailed, reasonServer, err.Error()))
		}
		k.startProtector(ctx, ownConninfo(c, "postgres"), s.data)
	}
	return k.phase(ctx, v1alpha1.ClusterRunning, "", "")
}

// restart stops the server and starts it again, once for each wish: what archives goes
// on beside and connects again. After a crash between the two the server is started
// alone.
func (k *keeper) restart(ctx context.Context, s *server, wish string) error {
	if s.pid() != 0 {
		if err := k.phase(ctx, v1alpha1.ClusterRestarting, "", ""); err != nil {
			return err
		}
		if err := s.stop(ctx); err != nil {
			return err
		}
	}
	if err := s.start(ctx); err != nil {
		return errors.Join(err, k.phase(ctx, v1alpha1.ClusterFailed, reasonServer, err.Error()))
	}
	pid := int64(s.pid())
	err := k.status(ctx, func(st *v1alpha1.ClusterStatus) { st.RestartedAt, st.PID = wish, pid })
	if err != nil {
		return err
	}
	c, err := k.get(ctx)
	if err != nil {
		return err
	}
	return k.serve(ctx, c, s)
}

// halt stops the server and keeps its data.
func (k *keeper) halt(ctx context.Context, s *server) error {
	k.unprotect()
	if s.pid() != 0 {
		if err := k.phase(ctx, v1alpha1.ClusterStopping, "", ""); err != nil {
			return err
		}
		if err := s.stop(ctx); err != nil {
			return err
		}
	}
	return k.phase(ctx, v1alpha1.ClusterStopped, "", "")
}

func (k *keeper) startProtector(ctx context.Context, info, data string) {
	p := agent.New(agent.Config{
		Objects: repos.Wishes{Store: k.r.objects}, Namespace: k.namespace, Cluster: k.name,
		Conninfo:      info,
		DataDirectory: data, Spool: filepath.Join(k.r.cluster(k.namespace, k.name), "spool"),
		OpenRepo: k.r.repos.Named, Former: k.r.repos.FormerWindows, Identity: k.r.identity, Workers: runtime.NumCPU(),
		Snapshots: k.r.snapshotPlaces(k.namespace, k.name, data),
		Event:     k.tell,
		Clock:     k.r.clock, Log: k.r.log.With("cluster", k.namespace+"/"+k.name),
	})
	pctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := p.Run(pctx); err != nil && pctx.Err() == nil {
			k.r.log.Error("the protector ended", "cluster", k.namespace+"/"+k.name, "error", err)
		}
	}()
	k.protector, k.protect = p, func() { cancel(); <-done }
}

func (k *keeper) unprotect() {
	if k.protect != nil {
		k.protect()
		k.protect, k.protector = nil, nil
	}
}

// remove takes a deleted cluster away, as its termination policy says.
func (k *keeper) remove(ctx context.Context, c *v1alpha1.Cluster) error {
	if c.Status.Phase != v1alpha1.ClusterDeleting { // else it may say what it waits for
		if err := k.phase(ctx, v1alpha1.ClusterDeleting, "", ""); err != nil {
			return err
		}
	}
	s := &server{dir: k.r.cluster(k.namespace, k.name), data: k.r.data(k.namespace, k.name), socket: k.r.socket(k.namespace, k.name)}
	var err error
	if attached(c) {
		err = k.leave(ctx, c)
	} else {
		err = k.end(ctx, c, s)
	}
	if err != nil {
		return err
	}
	if err := k.r.repos.EndBackups(ctx, c); err != nil {
		return err
	}
	if c.Spec.TerminationPolicy == v1alpha1.TerminationWipeOut {
		if err := k.r.repos.Wipe(ctx, c); err != nil {
			return err
		}
	}
	if c.Spec.TerminationPolicy != v1alpha1.TerminationHalt {
		for _, dir := range []string{s.dir, s.socket} {
			if err := os.RemoveAll(dir); err != nil {
				return err
			}
		}
	}
	if err := k.r.repos.RemovePolicies(ctx, c); err != nil {
		return err
	}
	_, err = store.Mutate(ctx, k.r.objects, k.namespace, k.name, func(c *v1alpha1.Cluster) error {
		c.Finalizers = without(c.Finalizers, clusterFinalizer)
		return nil
	})
	if err == nil || apierrors.IsNotFound(err) {
		return errGone
	}
	return err
}

// end stops the server of a cluster that is deleted, with the programs of its release if
// they are there.
func (k *keeper) end(ctx context.Context, c *v1alpha1.Cluster, bare *server) error {
	k.unprotect()
	s, err := k.server(c)
	var none *NoPostgresError
	if errors.As(err, &none) {
		s = bare
	} else if err != nil {
		return err
	}
	return s.stop(ctx)
}

// localPort is the port that the cluster's spec asks for; 0 leaves it open.
func localPort(c *v1alpha1.Cluster) int32 {
	if c.Spec.Local == nil {
		return 0
	}
	return c.Spec.Local.Port
}
