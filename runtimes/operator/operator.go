// SPDX-License-Identifier: Apache-2.0

package operator

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/go-logr/logr"
	apps "k8s.io/api/apps/v1"
	core "k8s.io/api/core/v1"
	policy "k8s.io/api/policy/v1"
	rbac "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	kruntime "k8s.io/apimachinery/pkg/runtime"
	clientscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/events"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/cache"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	"sigs.k8s.io/controller-runtime/pkg/healthz"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	"sigs.k8s.io/controller-runtime/pkg/metrics/server"
	"sigs.k8s.io/controller-runtime/pkg/predicate"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/internal/atomicfile"
	"github.com/kbcli/kbcli/runtimes"
	"github.com/kbcli/kbcli/runtimes/agent"
	"github.com/kbcli/kbcli/runtimes/operator/specs"
	"github.com/kbcli/kbcli/runtimes/operator/volumesnapshots"
	"github.com/kbcli/kbcli/runtimes/repos"
	"github.com/kbcli/kbcli/runtimes/store"
)

// Options of Run.
type Options struct {
	Images    specs.Images
	Namespace string // that the operator is in
	Identity  string // of this process among others: the pod's name
	// Secrets is the directory that stands for specs.SecretsDirectory: the operator writes
	// the credentials of repositories there, for itself.
	Secrets string
	// State is a directory that survives a restart of the process, though not its pod: who
	// holds a lock in a repository is known by it.
	State string

	Metrics string // an address such as ":8080"; "0" is none
	Probes  string // the same, for /healthz and /readyz
	Elect   bool   // wait until no other operator acts

	Objects store.Store // our own nouns
	Clock   func() time.Time
	Log     *slog.Logger
}

// Run acts upon the objects until ctx ends. With Elect it waits first until it is the
// one that does, and ends with an error when it no longer is: whoever runs it starts it
// again.
func Run(ctx context.Context, config *rest.Config, o Options) error {
	m, err := newManager(config, o)
	if err != nil {
		return err
	}
	if err := m.Start(ctx); err != nil {
		return fmt.Errorf("operator: %w", err)
	}
	return nil
}

func newManager(config *rest.Config, o Options) (manager.Manager, error) {
	scheme, err := newScheme()
	if err != nil {
		return nil, err
	}
	ctrl.SetLogger(logr.FromSlogHandler(o.Log.Handler()))
	m, err := ctrl.NewManager(config, ctrl.Options{
		Scheme: scheme, Logger: logr.FromSlogHandler(o.Log.Handler()),
		Cache:                  ours(),
		Metrics:                server.Options{BindAddress: o.Metrics},
		HealthProbeBindAddress: o.Probes,
		LeaderElection:         o.Elect, LeaderElectionID: specs.LeaderLease, LeaderElectionNamespace: o.Namespace,
		LeaderElectionReleaseOnCancel: true, // nothing goes on after Start has returned
	})
	if err != nil {
		return nil, fmt.Errorf("operator: %w", err)
	}
	if err := errors.Join(m.AddHealthzCheck("ping", healthz.Ping), m.AddReadyzCheck("ping", healthz.Ping)); err != nil {
		return nil, err
	}
	identity, err := agent.Identify(o.State)
	if err != nil {
		return nil, err
	}
	teller := &teller{recorder: m.GetEventRecorder("kubeblocks"), client: m.GetClient()}
	volumes, err := volumesnapshots.New(config)
	if err != nil {
		return nil, err
	}
	set := &repos.Set{Objects: o.Objects, Clock: o.Clock, Log: o.Log, Identity: identity, Event: teller.repository, Volumes: volumes}
	l := &clusterLoop{
		client: m.GetClient(), live: m.GetAPIReader(), objects: o.Objects, images: o.Images, own: o.Namespace,
		clock: o.Clock, log: o.Log, event: teller.cluster, repos: set, volumes: volumes, applier: applier{client: m.GetClient()},
	}
	if err := l.watch(m); err != nil {
		return nil, fmt.Errorf("operator: %w", err)
	}
	claims := &claimLoop{client: m.GetClient(), live: m.GetAPIReader(), objects: o.Objects, images: o.Images, own: o.Namespace, clock: o.Clock, log: o.Log}
	r := &repoLoop{repos: set, objects: o.Objects, live: m.GetAPIReader(), own: o.Namespace, secrets: o.Secrets, log: o.Log}
	addons := &addonLoop{client: m.GetClient(), live: m.GetAPIReader(), objects: o.Objects, images: o.Images, own: o.Namespace, log: o.Log}
	return m, errors.Join(m.Add(r), m.Add(claims), m.Add(addons))
}

// newScheme is the types of Kubernetes and ours.
func newScheme() (*kruntime.Scheme, error) {
	s := kruntime.NewScheme()
	return s, errors.Join(clientscheme.AddToScheme(s), v1alpha1.AddToScheme(s))
}

// ours keeps in memory what belongs to clusters, and not all that a Kubernetes has.
func ours() cache.Options {
	scoped, err := labels.Parse(specs.LabelScope)
	if err != nil {
		panic(err) // a constant
	}
	by := cache.ByObject{Label: scoped}
	return cache.Options{
		ByObject: map[client.Object]cache.ByObject{
			&apps.StatefulSet{}: by, &core.Pod{}: by, &core.PersistentVolumeClaim{}: by, &core.Service{}: by, &core.ConfigMap{}: by,
			&core.Secret{}: by, &core.ServiceAccount{}: by, endpointsMeta(): by, &policy.PodDisruptionBudget{}: by,
			&rbac.Role{}: by, &rbac.RoleBinding{}: by, &rbac.ClusterRoleBinding{}: by,
		},
		DefaultTransform: cache.TransformStripManagedFields(),
	}
}

// watch has the loop look at a cluster when it or something of it changes. The status is
// no reason: agents write it every second.
func (l *clusterLoop) watch(m manager.Manager) error {
	asked := predicate.Or(predicate.GenerationChangedPredicate{}, predicate.AnnotationChangedPredicate{}, predicate.NewPredicateFuncs(func(o client.Object) bool {
		return o.GetDeletionTimestamp() != nil
	}))
	ofCluster := handler.EnqueueRequestsFromMapFunc(func(_ context.Context, o client.Object) []reconcile.Request {
		name := o.GetLabels()[v1alpha1.LabelCluster]
		if name == "" {
			return nil
		}
		return []reconcile.Request{{NamespacedName: client.ObjectKey{Namespace: o.GetNamespace(), Name: name}}}
	})
	again := true // a process may run an operator after another, as tests do
	b := ctrl.NewControllerManagedBy(m).Named("cluster").For(&v1alpha1.Cluster{}, builder.WithPredicates(asked)).
		Owns(&apps.StatefulSet{}).
		Watches(&core.Pod{}, ofCluster).
		Watches(&core.PersistentVolumeClaim{}, ofCluster).
		WatchesMetadata(endpointsMeta(), ofCluster).
		Watches(&v1alpha1.BackupPolicy{}, ofCluster, builder.WithPredicates(predicate.GenerationChangedPredicate{})).
		Watches(&v1alpha1.BackupRepo{}, handler.EnqueueRequestsFromMapFunc(l.everyCluster), builder.WithPredicates(predicate.GenerationChangedPredicate{})).
		WithOptions(controller.Options{MaxConcurrentReconciles: 4, SkipNameValidation: &again})
	for _, o := range []client.Object{&core.Service{}, &core.ConfigMap{}, &core.Secret{}, &core.ServiceAccount{}, &rbac.Role{}, &rbac.RoleBinding{}, &policy.PodDisruptionBudget{}} {
		b = b.Owns(o, builder.OnlyMetadata)
	}
	return b.Complete(l)
}

// everyCluster is all of them: a repository changed, and any may use it.
func (l *clusterLoop) everyCluster(ctx context.Context, _ client.Object) []reconcile.Request {
	all, err := store.List[*v1alpha1.Cluster](ctx, l.objects, "", nil)
	if err != nil {
		l.log.Warn("clusters cannot be listed: they hear of a repository later", "error", err)
	}
	var out []reconcile.Request
	for _, c := range all {
		out = append(out, reconcile.Request{NamespacedName: client.ObjectKey{Namespace: c.Namespace, Name: c.Name}})
	}
	return out
}

// teller writes events. Those of a repository, which has no namespace, stand in "default".
type teller struct {
	recorder events.EventRecorder
	client   client.Client
}

func (t *teller) cluster(o v1alpha1.Object, kind runtimes.EventType, reason, message string) {
	if about, ok := o.(client.Object); ok {
		t.recorder.Eventf(about, nil, string(kind), reason, "Reconcile", "%s", Shorten(message))
	}
}

func (t *teller) repository(object string, kind runtimes.EventType, reason, message string) {
	o := &v1alpha1.BackupRepo{ObjectMeta: metav1.ObjectMeta{Name: filepath.Base(object)}}
	o.SetGroupVersionKind(o.GroupVersionKind())
	t.recorder.Eventf(o, nil, string(kind), reason, "Reconcile", "%s", Shorten(message))
}

// Shorten cuts what an event has no room for: it takes 1,024 bytes.
func Shorten(s string) string {
	if len(s) <= 1000 {
		return s
	}
	return s[:1000] + "…"
}

// repoLoop looks after the repositories, one goroutine each.
type repoLoop struct {
	repos   *repos.Set
	objects store.Store
	live    client.Reader
	own     string
	secrets string
	log     *slog.Logger
}

// NeedLeaderElection says that one operator of several does this.
func (r *repoLoop) NeedLeaderElection() bool { return true }

// repoInterval is how often repositories are looked at when nothing reports a change.
const repoInterval = 2 * time.Second

// Start looks after repositories until ctx ends.
func (r *repoLoop) Start(ctx context.Context) error {
	keepers := repos.Keepers{}
	var wg sync.WaitGroup
	defer wg.Wait()
	var wake []<-chan store.Event
	for _, kind := range []string{v1alpha1.KindBackupRepo, v1alpha1.KindBackup} {
		ch, err := r.objects.Watch(ctx, kind, "")
		if err != nil {
			return err
		}
		wake = append(wake, ch)
	}
	tick := time.NewTicker(repoInterval)
	defer tick.Stop()
	was := ""
	for {
		err := errors.Join(r.writeSecrets(ctx), r.repos.Keep(ctx, keepers, &wg))
		switch {
		case err == nil:
			was = ""
		case err.Error() != was && ctx.Err() == nil: // what stands for long is said once
			was = err.Error()
			r.log.Warn("repositories", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		case <-wake[0]:
		case <-wake[1]:
		}
	}
}

// writeSecrets puts the credentials of repositories where BackupRepos say that they are.
func (r *repoLoop) writeSecrets(ctx context.Context) error {
	var all core.Secret
	err := r.live.Get(ctx, client.ObjectKey{Namespace: r.own, Name: specs.InstallationSecret}, &all)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read the credentials of repositories: %w", err)
	}
	for key, data := range all.Data {
		path := filepath.Join(r.secrets, filepath.Base(key))
		if have, err := os.ReadFile(path); err == nil && string(have) == string(data) {
			continue
		}
		if err := atomicfile.Write(path, data, 0o600); err != nil {
			return fmt.Errorf("keep the credentials of a repository: %w", err)
		}
	}
	return nil
}
