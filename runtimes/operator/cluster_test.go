// SPDX-License-Identifier: Apache-2.0

package operator

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	apps "k8s.io/api/apps/v1"
	core "k8s.io/api/core/v1"
	policy "k8s.io/api/policy/v1"
	rbac "k8s.io/api/rbac/v1"
	storage "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/internal/testkube"
	"github.com/kbcli/kbcli/runtimes/operator/specs"
	"github.com/kbcli/kbcli/runtimes/store"
	"github.com/kbcli/kbcli/runtimes/store/kube"
)

// world is an API server with an operator. Nobody else is there: the test does what
// Kubernetes and Patroni would.
type world struct {
	kube    *testkube.Cluster
	client  client.Client
	objects store.Store
}

// newWorld starts an operator, with the rights that it will have and no more.
func newWorld(t *testing.T) *world {
	t.Helper()
	k := testkube.Control(t)
	crds, err := filepath.Glob("../../deploy/helm/crds/*.yaml")
	if err != nil || len(crds) == 0 {
		t.Fatalf("%d definitions, %v", len(crds), err)
	}
	for _, f := range crds {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		k.Apply(t, string(b))
	}
	k.Kubectl(t, "wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")
	for _, r := range specs.ClusterRoles() {
		b, err := yaml.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		k.Apply(t, string(b))
	}
	k.Apply(t, `{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRoleBinding, metadata: {name: the-operator},
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: kubeblocks-operator}, subjects: [{kind: User, name: the-operator}]}`)
	k.Apply(t, `{apiVersion: v1, kind: Namespace, metadata: {name: kb-system}}`)
	admin := &rest.Config{Host: k.Host, BearerToken: k.Token, TLSClientConfig: rest.TLSClientConfig{CAFile: k.CAFile}, QPS: -1}
	config := rest.CopyConfig(admin)
	config.Impersonate = rest.ImpersonationConfig{UserName: "the-operator"}
	log := slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
	objects, err := kube.New(config, log)
	if err != nil {
		t.Fatal(err)
	}
	o := Options{
		Images: specs.Images{PostgreSQL: "postgresql:{major}", Kbcli: "kbcli:1", SnapshotController: "snapshot-controller:1"}, Namespace: "kb-system", Identity: "one",
		Secrets: t.TempDir(), State: t.TempDir(), Metrics: "0", Probes: "0", Objects: objects, Clock: time.Now, Log: log,
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- Run(ctx, config, o) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	scheme, err := newScheme()
	if err != nil {
		t.Fatal(err)
	}
	c, err := client.New(admin, client.Options{Scheme: scheme})
	if err != nil {
		t.Fatal(err)
	}
	return &world{kube: k, client: c, objects: objects}
}

func (w *world) namespace(t *testing.T) string {
	ns := "t" + strings.ToLower(strings.ReplaceAll(t.Name(), "/", "-"))
	w.kube.Kubectl(t, "create", "namespace", ns)
	return ns
}

func (w *world) create(t *testing.T, ns, name string, change func(*v1alpha1.Cluster)) {
	t.Helper()
	c := &v1alpha1.Cluster{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name}}
	if change != nil {
		change(c)
	}
	if err := w.objects.Create(t.Context(), c); err != nil {
		t.Fatal(err)
	}
}

func (w *world) change(t *testing.T, ns, name string, f func(*v1alpha1.Cluster)) {
	t.Helper()
	_, err := store.Mutate(t.Context(), w.objects, ns, name, func(c *v1alpha1.Cluster) error { f(c); return nil })
	if err != nil {
		t.Fatal(err)
	}
}

// until waits for something to be so, and says what it was last.
func until(t *testing.T, what string, f func() (string, bool)) {
	t.Helper()
	last := ""
	for deadline := time.Now().Add(90 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		now, ok := f()
		if ok {
			return
		}
		last = now
		if time.Now().After(deadline) {
			t.Fatalf("%s: at last %s", what, last)
		}
	}
}

func (w *world) phase(t *testing.T, ns, name string, want v1alpha1.ClusterPhase) *v1alpha1.Cluster {
	t.Helper()
	var c *v1alpha1.Cluster
	until(t, "phase "+string(want), func() (string, bool) {
		var err error
		c, err = store.Get[*v1alpha1.Cluster](t.Context(), w.objects, ns, name)
		if err != nil {
			return err.Error(), false
		}
		return fmt.Sprintf("%s %s %s", c.Status.Phase, c.Status.Reason, c.Status.Message), c.Status.Phase == want
	})
	return c
}

func get[T client.Object](t *testing.T, w *world, ns, name string, into T) T {
	t.Helper()
	if err := w.client.Get(t.Context(), client.ObjectKey{Namespace: ns, Name: name}, into); err != nil {
		t.Fatal(err)
	}
	return into
}

// set waits for a StatefulSet with so many replicas.
func (w *world) set(t *testing.T, ns, name string, replicas int32) *apps.StatefulSet {
	t.Helper()
	set := &apps.StatefulSet{}
	until(t, fmt.Sprintf("a StatefulSet of %d", replicas), func() (string, bool) {
		err := w.client.Get(t.Context(), client.ObjectKey{Namespace: ns, Name: specs.StatefulSetName(name)}, set)
		if err != nil {
			return err.Error(), false
		}
		return fmt.Sprint(*set.Spec.Replicas), *set.Spec.Replicas == replicas
	})
	return set
}

// play does what Kubernetes does: it makes the pods and volumes of a StatefulSet, of the
// present revision, and removes what is too many; and what Patroni does: the first pod
// there is leads, unless somebody is asked to.
func (w *world) play(t *testing.T, ns, name string) {
	t.Helper()
	ctx := t.Context()
	set := &apps.StatefulSet{}
	if err := w.client.Get(ctx, client.ObjectKey{Namespace: ns, Name: specs.StatefulSetName(name)}, set); err != nil {
		return
	}
	text, _ := json.Marshal(set.Spec.Template)
	revision := fmt.Sprintf("r%d", len(text))
	for n := range 5 {
		pod := &core.Pod{}
		err := w.client.Get(ctx, client.ObjectKey{Namespace: ns, Name: specs.PodName(name, n)}, pod)
		if n >= int(*set.Spec.Replicas) {
			if err == nil {
				_ = w.client.Delete(ctx, pod, client.GracePeriodSeconds(0))
			}
			continue
		}
		if err == nil && pod.DeletionTimestamp != nil { // no kubelet lets it go
			_ = w.client.Delete(ctx, pod, client.GracePeriodSeconds(0))
			continue
		}
		if !apierrors.IsNotFound(err) {
			continue
		}
		claim := set.Spec.VolumeClaimTemplates[0].DeepCopy()
		claim.Namespace, claim.Name, claim.Labels = ns, "data-"+specs.PodName(name, n), specs.Labels(name)
		claim.Finalizers = nil
		if err := w.client.Create(ctx, claim); err == nil {
			claim.Status.Phase = core.ClaimBound
			_ = w.client.Status().Update(ctx, claim)
		}
		pod = &core.Pod{ObjectMeta: *set.Spec.Template.ObjectMeta.DeepCopy(), Spec: *set.Spec.Template.Spec.DeepCopy()}
		pod.Namespace, pod.Name = ns, specs.PodName(name, n)
		pod.Labels[apps.ControllerRevisionHashLabelKey] = revision
		pod.Spec.ServiceAccountName = ""
		pod.Spec.Volumes = append(pod.Spec.Volumes, core.Volume{Name: "data", VolumeSource: core.VolumeSource{PersistentVolumeClaim: &core.PersistentVolumeClaimVolumeSource{ClaimName: claim.Name}}})
		pod.Annotations["status"] = `{"state":"running","timeline":1,"xlog_location":100}`
		if err := w.client.Create(ctx, pod); err != nil {
			t.Error(err)
			continue
		}
		pod.Status.Conditions = []core.PodCondition{{Type: core.PodReady, Status: core.ConditionTrue}}
		if err := w.client.Status().Update(ctx, pod); err != nil {
			t.Error(err)
		}
	}
	set.Status = apps.StatefulSetStatus{ObservedGeneration: set.Generation, UpdateRevision: revision, Replicas: *set.Spec.Replicas}
	_ = w.client.Status().Update(ctx, set)
	w.playPatroni(t, ns, name, *set.Spec.Replicas > 0)
}

func (w *world) playPatroni(t *testing.T, ns, name string, serves bool) {
	ctx := t.Context()
	write := func(object string, notes map[string]string) {
		e := &core.Endpoints{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: object}} //nolint:staticcheck // Patroni's
		if err := w.client.Get(ctx, client.ObjectKeyFromObject(e), e); apierrors.IsNotFound(err) {
			e.Labels, e.Annotations = specs.Selector(name), notes
			_ = w.client.Create(ctx, e)
			return
		}
		if e.Annotations == nil {
			e.Annotations = map[string]string{}
		}
		for k, v := range notes {
			if e.Annotations[k] == "" {
				e.Annotations[k] = v
			}
		}
		_ = w.client.Update(ctx, e)
	}
	if !serves {
		return
	}
	leader := specs.PodName(name, 0)
	wish := &core.Endpoints{} //nolint:staticcheck // Patroni's
	if err := w.client.Get(ctx, client.ObjectKey{Namespace: ns, Name: specs.FailoverEndpoints(name)}, wish); err == nil && wish.Annotations["member"] != "" {
		leader = wish.Annotations["member"]
		e := &core.Endpoints{} //nolint:staticcheck // Patroni's
		if w.client.Get(ctx, client.ObjectKey{Namespace: ns, Name: specs.PrimaryService(name)}, e) == nil {
			e.Annotations["leader"] = leader
			_ = w.client.Update(ctx, e)
			_ = w.client.Delete(ctx, wish)
		}
	}
	write(specs.PrimaryService(name), map[string]string{"leader": leader})
	write(specs.ConfigEndpoints(name), map[string]string{"initialize": "7000", "config": "{}"})
}

// playing plays until the test ends.
func (w *world) playing(t *testing.T, ns, name string) {
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		for ctx.Err() == nil {
			w.play(t, ns, name)
			time.Sleep(200 * time.Millisecond)
		}
	})
	t.Cleanup(func() { cancel(); wg.Wait() })
}

func TestCluster(t *testing.T) {
	w := newWorld(t)
	t.Run("Life", w.testLife)
	t.Run("Restart", w.testRestart)
	t.Run("Refused", w.testRefused)
	t.Run("Restore", w.testRestore)
	t.Run("InTheWay", w.testInTheWay)
	t.Run("UnknownSource", w.testUnknownSource)
	t.Run("Volumes", w.testVolumes)
	t.Run("Delete", w.testDelete)
	t.Run("Keys", w.testKeys)
}

func (w *world) testLife(t *testing.T) {
	ns := w.namespace(t)
	w.create(t, ns, "c", nil)
	w.phase(t, ns, "c", v1alpha1.ClusterCreating)
	w.set(t, ns, "c", 1)
	password := get(t, w, ns, specs.SuperuserSecret("c"), &core.Secret{}).Data["password"]
	if len(password) != 32 {
		t.Errorf("the password has %d characters", len(password))
	}
	w.playing(t, ns, "c")
	c := w.phase(t, ns, "c", v1alpha1.ClusterRunning)
	if c.Spec.ClusterVersionRef != "postgresql-15" || c.Status.Port != 5432 || c.Status.ObservedGeneration != c.Generation || !slices.Contains(c.Finalizers, clusterFinalizer) {
		t.Errorf("the cluster: %+v", c)
	}
	// settings reach Patroni
	w.change(t, ns, "c", func(c *v1alpha1.Cluster) { c.Spec.Settings = map[string]string{"work_mem": "64MB"} })
	until(t, "Patroni's settings", func() (string, bool) {
		e := endpointsMeta()
		_ = w.client.Get(t.Context(), client.ObjectKey{Namespace: ns, Name: specs.ConfigEndpoints("c")}, e)
		text := e.Annotations["config"]
		return text, strings.Contains(text, `"work_mem":"64MB"`) && strings.Contains(text, `"ignore_slots"`) && e.Annotations["initialize"] == "7000"
	})
	// more servers, a budget for drains, then fewer
	w.change(t, ns, "c", func(c *v1alpha1.Cluster) { c.Spec.Replicas = 3 })
	w.set(t, ns, "c", 3)
	w.phase(t, ns, "c", v1alpha1.ClusterRunning)
	until(t, "a budget", func() (string, bool) {
		b := &policy.PodDisruptionBudget{}
		err := w.client.Get(t.Context(), client.ObjectKey{Namespace: ns, Name: specs.StatefulSetName("c")}, b)
		return fmt.Sprint(err), err == nil && b.Spec.MinAvailable.IntValue() == 2
	})
	// stopped, the data stay; and started
	w.change(t, ns, "c", func(c *v1alpha1.Cluster) { c.Spec.Stopped = true })
	w.phase(t, ns, "c", v1alpha1.ClusterStopped)
	var claims core.PersistentVolumeClaimList
	if err := w.client.List(t.Context(), &claims, client.InNamespace(ns)); err != nil || len(claims.Items) != 3 {
		t.Errorf("%d volumes, %v", len(claims.Items), err)
	}
	w.change(t, ns, "c", func(c *v1alpha1.Cluster) { c.Spec.Stopped = false })
	w.phase(t, ns, "c", v1alpha1.ClusterRunning)
	if now := get(t, w, ns, specs.SuperuserSecret("c"), &core.Secret{}).Data["password"]; string(now) != string(password) {
		t.Error("the password was changed")
	}
	until(t, "a policy", func() (string, bool) {
		_, err := store.Get[*v1alpha1.BackupPolicy](t.Context(), w.objects, ns, v1alpha1.DefaultBackupPolicyName("c"))
		return fmt.Sprint(err), err == nil
	})
	// what somebody else broke is mended
	if err := w.client.Delete(t.Context(), get(t, w, ns, specs.ReplicasService("c"), &core.Service{})); err != nil {
		t.Fatal(err)
	}
	until(t, "the Service again", func() (string, bool) {
		err := w.client.Get(t.Context(), client.ObjectKey{Namespace: ns, Name: specs.ReplicasService("c")}, &core.Service{})
		return fmt.Sprint(err), err == nil
	})
}

func (w *world) testRestart(t *testing.T) {
	ns := w.namespace(t)
	w.create(t, ns, "c", func(c *v1alpha1.Cluster) { c.Spec.Replicas = 2 })
	w.playing(t, ns, "c")
	w.phase(t, ns, "c", v1alpha1.ClusterRunning)
	before := map[int]string{}
	for n := range 2 {
		before[n] = string(get(t, w, ns, specs.PodName("c", n), &core.Pod{}).UID)
	}
	w.change(t, ns, "c", func(c *v1alpha1.Cluster) {
		c.Annotations = map[string]string{v1alpha1.AnnotationRestart: "2026-01-02T03:04:05.678Z"}
	})
	until(t, "restarted", func() (string, bool) {
		c, err := store.Get[*v1alpha1.Cluster](t.Context(), w.objects, ns, "c")
		if err != nil {
			return err.Error(), false
		}
		return fmt.Sprintf("%s %s", c.Status.Phase, c.Status.RestartedAt), c.Status.RestartedAt == "2026-01-02T03:04:05.678Z" && c.Status.Phase == v1alpha1.ClusterRunning
	})
	for n := range 2 {
		if now := string(get(t, w, ns, specs.PodName("c", n), &core.Pod{}).UID); now == before[n] {
			t.Errorf("pod %d was not made anew", n)
		}
	}
	e := endpointsMeta()
	if err := w.client.Get(t.Context(), client.ObjectKey{Namespace: ns, Name: specs.PrimaryService("c")}, e); err != nil || e.Annotations["leader"] != "c-postgresql-1" {
		t.Errorf("the primary was ended without having handed over: %v %v", e.Annotations, err)
	}
}

func (w *world) testRefused(t *testing.T) {
	ns := w.namespace(t)
	w.create(t, ns, "c", func(c *v1alpha1.Cluster) {
		c.Spec.Local = &v1alpha1.LocalSpec{Attached: true, Connect: "host=/tmp"}
	})
	c := w.phase(t, ns, "c", v1alpha1.ClusterFailed)
	if c.Status.Reason != "NotHere" {
		t.Errorf("the reason is %s", c.Status.Reason)
	}
}

func (w *world) testRestore(t *testing.T) {
	ns := w.namespace(t)
	w.create(t, ns, "c", func(c *v1alpha1.Cluster) {
		c.Spec.Replicas, c.Spec.Restore = 3, &v1alpha1.RestoreSpec{SourceCluster: "old", Latest: true}
	})
	w.planned(t, ns, "c")
	w.set(t, ns, "c", 1)
	w.phase(t, ns, "c", v1alpha1.ClusterRestoring)
	if text := get(t, w, ns, specs.StatefulSetName("c"), &core.ConfigMap{}).Data["patroni.yml"]; strings.Contains(text, "initdb") {
		t.Error("a restored cluster may be made empty")
	}
	tell := func(phase v1alpha1.RestorePhase) {
		_, err := store.MutateStatus(t.Context(), w.objects, ns, "c", func(c *v1alpha1.Cluster) error {
			c.Status.Restore = &v1alpha1.RestoreStatus{Phase: phase, Message: "the target is outside"}
			if phase == v1alpha1.RestoreFailed {
				c.Status.Reason = "OutsideWindow"
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	tell(v1alpha1.RestoreCompleted)
	w.playing(t, ns, "c")
	w.phase(t, ns, "c", v1alpha1.ClusterRunning)
	w.set(t, ns, "c", 3)
	tell(v1alpha1.RestoreFailed)
	c := w.phase(t, ns, "c", v1alpha1.ClusterFailed)
	if c.Status.Reason != "OutsideWindow" || c.Status.Message != "the target is outside" {
		t.Errorf("it says %s: %s", c.Status.Reason, c.Status.Message)
	}
	w.set(t, ns, "c", 0)
}

func (w *world) testVolumes(t *testing.T) {
	ns := w.namespace(t)
	yes := true
	if err := w.client.Create(t.Context(), &storage.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: "grows"}, Provisioner: "test", AllowVolumeExpansion: &yes}); err != nil {
		t.Fatal(err)
	}
	if err := w.client.Create(t.Context(), &storage.StorageClass{ObjectMeta: metav1.ObjectMeta{Name: "stays"}, Provisioner: "test"}); err != nil {
		t.Fatal(err)
	}
	size := func(name string) string {
		q := get(t, w, ns, "data-"+specs.PodName(name, 0), &core.PersistentVolumeClaim{}).Spec.Resources.Requests[core.ResourceStorage]
		return q.String()
	}
	for _, name := range []string{"grows", "stays"} {
		w.create(t, ns, name, func(c *v1alpha1.Cluster) { c.Spec.StorageClassName = name })
		w.playing(t, ns, name)
		w.phase(t, ns, name, v1alpha1.ClusterRunning)
		w.change(t, ns, name, func(c *v1alpha1.Cluster) { c.Spec.Storage = resource.MustParse("40Gi") })
	}
	until(t, "a larger volume", func() (string, bool) { return size("grows"), size("grows") == "40Gi" })
	until(t, "why it stays", func() (string, bool) {
		c, err := store.Get[*v1alpha1.Cluster](t.Context(), w.objects, ns, "stays")
		if err != nil {
			return err.Error(), false
		}
		return c.Status.Message, strings.Contains(c.Status.Message, "storage class stays does not let volumes grow")
	})
	if got := size("stays"); got != "20Gi" {
		t.Errorf("the volume that stays has %s", got)
	}
}

func (w *world) testDelete(t *testing.T) {
	ns := w.namespace(t)
	for _, test := range []struct {
		name   string
		policy v1alpha1.TerminationPolicy
		claims int
	}{{"halted", v1alpha1.TerminationHalt, 1}, {"deleted", v1alpha1.TerminationDelete, 0}, {"kept", v1alpha1.TerminationDoNotTerminate, 1}} {
		w.create(t, ns, test.name, func(c *v1alpha1.Cluster) { c.Spec.TerminationPolicy = test.policy })
		w.playing(t, ns, test.name)
		w.phase(t, ns, test.name, v1alpha1.ClusterRunning)
		if err := w.objects.Delete(t.Context(), v1alpha1.KindCluster, ns, test.name, store.Preconditions{}); err != nil {
			t.Fatal(err)
		}
		if test.policy == v1alpha1.TerminationDoNotTerminate {
			until(t, "a refusal", func() (string, bool) {
				c, err := store.Get[*v1alpha1.Cluster](t.Context(), w.objects, ns, test.name)
				return fmt.Sprint(err), err == nil && c.Status.Reason == "DoNotTerminate"
			})
			w.set(t, ns, test.name, 1)
			w.change(t, ns, test.name, func(c *v1alpha1.Cluster) { c.Spec.TerminationPolicy = v1alpha1.TerminationDelete })
			test.claims = 0
		}
		until(t, test.name+" is gone", func() (string, bool) {
			c, err := store.Get[*v1alpha1.Cluster](t.Context(), w.objects, ns, test.name)
			if err == nil {
				return fmt.Sprintf("%s %s %s", c.Status.Phase, c.Status.Reason, c.Status.Message), false
			}
			return err.Error(), apierrors.IsNotFound(err)
		})
		var claims core.PersistentVolumeClaimList
		if err := w.client.List(t.Context(), &claims, client.InNamespace(ns), client.MatchingLabels(specs.Selector(test.name))); err != nil {
			t.Fatal(err)
		}
		if n := len(slices.DeleteFunc(claims.Items, func(c core.PersistentVolumeClaim) bool { return c.DeletionTimestamp != nil })); n != test.claims {
			t.Errorf("%s: %d volumes are left", test.name, n)
		}
		err := w.client.Get(t.Context(), client.ObjectKey{Name: specs.AgentBinding(ns, test.name)}, &rbac.ClusterRoleBinding{})
		if !apierrors.IsNotFound(err) {
			t.Errorf("%s: its ClusterRoleBinding: %v", test.name, err)
		}
	}
}
