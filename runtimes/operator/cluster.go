// SPDX-License-Identifier: Apache-2.0

package operator

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"slices"
	"time"

	apps "k8s.io/api/apps/v1"
	core "k8s.io/api/core/v1"
	policy "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/runtimes"
	"github.com/kbcli/kbcli/runtimes/agent"
	"github.com/kbcli/kbcli/runtimes/operator/specs"
	"github.com/kbcli/kbcli/runtimes/operator/volumesnapshots"
	"github.com/kbcli/kbcli/runtimes/repos"
	"github.com/kbcli/kbcli/runtimes/store"
)

// clusterFinalizer keeps a Cluster until what it was made of is gone.
const clusterFinalizer = "apps.kubeblocks.io/server"

const (
	busyInterval = 2 * time.Second        // while something is under way
	idleInterval = 30 * time.Second       // what no watch tells: secrets of repositories, classes
	lendInterval = 300 * time.Millisecond // no watch tells of VolumeSnapshots
	policyDelay  = 10 * time.Second       // how long whoever makes a Cluster has for making its policy
)

// clusterLoop brings Clusters into line. It is used from many goroutines, one a cluster.
type clusterLoop struct {
	client  client.Client
	live    client.Reader // the API server itself, not what is remembered of it
	objects store.Store   // our own nouns
	images  specs.Images
	own     string // the namespace that the operator is in
	clock   func() time.Time
	log     *slog.Logger
	event   func(o v1alpha1.Object, t runtimes.EventType, reason, message string)
	repos   *repos.Set
	volumes *volumesnapshots.Set
	applier applier
	endings endings
}

// Reconcile looks at one cluster and does what is next.
func (l *clusterLoop) Reconcile(ctx context.Context, req reconcile.Request) (reconcile.Result, error) {
	c, err := store.Get[*v1alpha1.Cluster](ctx, l.objects, req.Namespace, req.Name)
	if apierrors.IsNotFound(err) {
		return reconcile.Result{}, nil
	}
	var broken *store.BrokenObject
	if errors.As(err, &broken) { // somebody else's release wrote it: it changes when they write again
		l.log.Error("a cluster cannot be read", "cluster", req.String(), "error", err)
		return reconcile.Result{RequeueAfter: idleInterval}, nil
	}
	if err != nil {
		return reconcile.Result{}, err
	}
	if c.DeletionTimestamp != nil {
		return l.remove(ctx, c)
	}
	if why := refuses(c); why != "" {
		return reconcile.Result{}, l.say(ctx, c, state{v1alpha1.ClusterFailed, "NotHere", why})
	}
	if c, err = l.claim(ctx, c); err != nil {
		return reconcile.Result{}, err
	}
	return l.bring(ctx, c)
}

// refuses says why a cluster cannot be had on Kubernetes.
func refuses(c *v1alpha1.Cluster) string {
	if err := c.Validate(); err != nil {
		return err.Error()
	}
	if c.Spec.Local != nil && c.Spec.Local.Attached {
		return "an attached server is for one machine: Kubernetes runs its own"
	}
	return ""
}

// claim puts the finalizer and the version that was chosen into the object. A restored
// cluster has its source's version, which its plan tells.
func (l *clusterLoop) claim(ctx context.Context, c *v1alpha1.Cluster) (*v1alpha1.Cluster, error) {
	if slices.Contains(c.Finalizers, clusterFinalizer) && (c.Spec.ClusterVersionRef != "" || c.Spec.Restore != nil) {
		return c, nil
	}
	return store.Mutate(ctx, l.objects, c.Namespace, c.Name, func(c *v1alpha1.Cluster) error {
		if !slices.Contains(c.Finalizers, clusterFinalizer) {
			c.Finalizers = append(c.Finalizers, clusterFinalizer)
		}
		if c.Spec.ClusterVersionRef == "" && c.Spec.Restore == nil {
			c.Spec.ClusterVersionRef = specs.VersionRef(specs.DefaultMajor)
		}
		return nil
	})
}

// bring makes what the cluster is made of, one after the other, and says how it stands.
func (l *clusterLoop) bring(ctx context.Context, c *v1alpha1.Cluster) (reconcile.Result, error) {
	s, err := l.look(ctx, c)
	if err != nil {
		return reconcile.Result{}, err
	}
	l.tellEndings(c, s.pods)
	wait, err := l.bringRestored(ctx, s)
	if err != nil {
		return l.failed(ctx, c, err)
	}
	if err := l.giveBack(ctx, s); err != nil {
		return reconcile.Result{}, err
	}
	c = s.cluster
	if wait != "" {
		again := busyInterval
		if c.Annotations[annotationLent] != "" {
			again = lendInterval
		}
		return reconcile.Result{RequeueAfter: again}, l.say(ctx, c, state{v1alpha1.ClusterRestoring, "Planning", wait})
	}
	if s.restoreFailed() && s.set == nil {
		return reconcile.Result{}, l.say(ctx, c, s.judge()) // nothing was made, and nothing is
	}
	if err := l.bringParts(ctx, c); err != nil {
		return l.failed(ctx, c, err)
	}
	if err := l.handKeys(ctx, s); err != nil {
		return reconcile.Result{}, err
	}
	trouble, err := l.growVolumes(ctx, s)
	if err != nil {
		return l.failed(ctx, c, err)
	}
	if err := l.bringSet(ctx, s); err != nil {
		return l.failed(ctx, c, err)
	}
	if err := l.bringSettings(ctx, s); err != nil {
		return reconcile.Result{}, err
	}
	if err := l.takeStep(ctx, s); err != nil {
		return reconcile.Result{}, err
	}
	if err := l.bringPolicy(ctx, c); err != nil {
		return reconcile.Result{}, err
	}
	if err := l.serves(ctx, s); err != nil {
		return reconcile.Result{}, err
	}
	c = s.cluster
	st := s.judge()
	if trouble != "" {
		if st.message != "" {
			trouble = st.message + "; " + trouble
		}
		st.reason, st.message = nonEmpty(st.reason, "VolumeNotGrown"), trouble
	}
	if err := l.say(ctx, c, st); err != nil {
		return reconcile.Result{}, err
	}
	switch st.phase {
	case v1alpha1.ClusterRunning, v1alpha1.ClusterStopped, v1alpha1.ClusterFailed:
		if l.clock().Sub(c.CreationTimestamp.Time) < policyDelay {
			return reconcile.Result{RequeueAfter: policyDelay}, nil
		}
		return reconcile.Result{RequeueAfter: idleInterval}, nil
	}
	return reconcile.Result{RequeueAfter: busyInterval}, nil
}

// failed tells what the API server refuses, which people have to mend, in the cluster;
// all other errors are tried again and told in the log.
func (l *clusterLoop) failed(ctx context.Context, c *v1alpha1.Cluster, err error) (reconcile.Result, error) {
	if !apierrors.IsInvalid(err) && !apierrors.IsForbidden(err) && !apierrors.IsBadRequest(err) {
		return reconcile.Result{}, err
	}
	phase := c.Status.Phase
	if phase == "" {
		phase = v1alpha1.ClusterCreating
	}
	return reconcile.Result{}, errors.Join(err, l.say(ctx, c, state{phase, "Refused", err.Error()}))
}

// bringParts makes everything but the pods.
func (l *clusterLoop) bringParts(ctx context.Context, c *v1alpha1.Cluster) error {
	if err := l.bringPasswords(ctx, c); err != nil {
		return err
	}
	config, err := specs.ConfigMap(c, agent.SlotName(c.Namespace, c.Name))
	if err != nil {
		return err
	}
	files, err := l.repositoryFiles(ctx, c)
	if err != nil {
		return err
	}
	parts := []client.Object{config, specs.Repositories(c, files), specs.ServiceAccount(c), specs.Role(c), specs.RoleBinding(c)}
	for _, s := range specs.Services(c) {
		parts = append(parts, s)
	}
	budget := specs.DisruptionBudget(c)
	if budget != nil {
		parts = append(parts, budget)
	}
	for _, o := range parts {
		if err := l.applier.apply(ctx, c, o, true); err != nil {
			return err
		}
	}
	if err := l.applier.apply(ctx, c, specs.ClusterRoleBinding(c), false); err != nil {
		return err
	}
	if budget == nil {
		old := &policy.PodDisruptionBudget{ObjectMeta: metav1.ObjectMeta{Namespace: c.Namespace, Name: specs.StatefulSetName(c.Name)}}
		return l.drop(ctx, old)
	}
	return nil
}

// drop deletes an object; one that is not there is deleted.
func (l *clusterLoop) drop(ctx context.Context, o client.Object) error {
	if err := l.client.Delete(ctx, o); !apierrors.IsNotFound(err) {
		return err
	}
	return nil
}

// bringPasswords makes the Secrets that are not there. One that is stays as it is: the
// server has that password.
func (l *clusterLoop) bringPasswords(ctx context.Context, c *v1alpha1.Cluster) error {
	for _, s := range specs.Passwords(c, randomPassword) {
		err := l.live.Get(ctx, client.ObjectKeyFromObject(s), &core.Secret{})
		if err == nil {
			continue
		}
		if !apierrors.IsNotFound(err) {
			return fmt.Errorf("read Secret %s: %w", s.Name, err)
		}
		yes := true
		s.OwnerReferences = []metav1.OwnerReference{{
			APIVersion: c.GroupVersionKind().GroupVersion().String(), Kind: v1alpha1.KindCluster, Name: c.Name, UID: c.UID, Controller: &yes,
		}}
		if err := l.client.Create(ctx, s); err != nil && !apierrors.IsAlreadyExists(err) {
			return fmt.Errorf("make Secret %s: %w", s.Name, err)
		}
	}
	return nil
}

const passwordLetters = "ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz23456789"

// randomPassword has about 186 bits, and nothing that has to be quoted anywhere.
func randomPassword() string {
	b := make([]byte, 32)
	for i := range b {
		n, err := rand.Int(rand.Reader, big.NewInt(int64(len(passwordLetters))))
		if err != nil {
			panic(err) // never: the kernel's generator does not fail
		}
		b[i] = passwordLetters[n.Int64()]
	}
	return string(b)
}

// bringSet makes the StatefulSet, with as many pods as there should be now.
func (l *clusterLoop) bringSet(ctx context.Context, s *seen) error {
	set := specs.StatefulSet(s.cluster, l.images, s.size())
	if s.set != nil { // what cannot change stays as it was made
		set.Spec.VolumeClaimTemplates = nil
		for _, t := range s.set.Spec.VolumeClaimTemplates {
			t.Status = core.PersistentVolumeClaimStatus{}
			set.Spec.VolumeClaimTemplates = append(set.Spec.VolumeClaimTemplates, t)
		}
	}
	if err := l.applier.apply(ctx, s.cluster, set, true); err != nil {
		return err
	}
	// what is remembered of it may be from before: pods would seem to be of the new template
	now := &apps.StatefulSet{}
	if err := l.live.Get(ctx, client.ObjectKeyFromObject(set), now); err != nil {
		return fmt.Errorf("read StatefulSet %s: %w", set.Name, err)
	}
	s.set = now
	return nil
}

// bringPolicy makes the default policy of a cluster that was made without one, as by
// kubectl. Whoever makes one with the cluster is given the time to.
func (l *clusterLoop) bringPolicy(ctx context.Context, c *v1alpha1.Cluster) error {
	if l.clock().Sub(c.CreationTimestamp.Time) < policyDelay {
		return nil
	}
	_, err := store.Get[*v1alpha1.BackupPolicy](ctx, l.objects, c.Namespace, v1alpha1.DefaultBackupPolicyName(c.Name))
	if !apierrors.IsNotFound(err) {
		return err
	}
	if err := l.objects.Create(ctx, runtimes.FirstPolicy(c)); !apierrors.IsAlreadyExists(err) {
		return err
	}
	return nil
}

// say writes a state into the cluster's status, and tells of it if it is new.
func (l *clusterLoop) say(ctx context.Context, c *v1alpha1.Cluster, st state) error {
	wish := c.Annotations[v1alpha1.AnnotationRestart]
	restarted := st.phase == v1alpha1.ClusterRunning && wish != c.Status.RestartedAt
	was := c.Status
	if was.Phase == st.phase && was.Reason == st.reason && was.Message == st.message && was.ObservedGeneration == c.Generation && !restarted && was.Port == specs.Port {
		return nil
	}
	_, err := store.MutateStatus(ctx, l.objects, c.Namespace, c.Name, func(now *v1alpha1.Cluster) error {
		s := &now.Status
		s.Phase, s.Reason, s.Message, s.ObservedGeneration = st.phase, st.reason, st.message, c.Generation
		s.Port, s.SocketDirectory, s.DataDirectory, s.Superuser = specs.Port, specs.SocketDirectory, specs.DataDirectory, specs.Superuser
		if restarted {
			s.RestartedAt = wish
		}
		agent.Ready(s, c.Generation, l.clock())
		return nil
	})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err == nil && (was.Phase != st.phase || was.Reason != st.reason || was.Message != st.message) {
		if was.Phase == v1alpha1.ClusterRunning && st.phase == was.Phase {
			l.tellRunning(c, was.Reason, st)
		} else if t, word, text, ok := agent.PhaseEvent(was.Phase, st.phase, st.reason, st.message); ok {
			l.event(c, t, word, text)
		}
	}
	return err
}

// tellRunning tells of what befalls a cluster that serves all the while.
func (l *clusterLoop) tellRunning(c *v1alpha1.Cluster, was string, st state) {
	switch {
	case st.reason == was: // another number of bytes
	case st.reason != "":
		l.event(c, runtimes.EventWarning, st.reason, st.message)
	default:
		l.event(c, runtimes.EventNormal, "Eased", "it is over: "+was)
	}
}
