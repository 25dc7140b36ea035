// SPDX-License-Identifier: Apache-2.0

package storetest

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/runtimes/store"
)

// The namespaces that the tests use.
const (
	Namespace      = "default"
	OtherNamespace = "kube-public"
)

// patience is for a loaded machine; nothing takes nearly as long.
const patience = 30 * time.Second

// Run runs every test against a store that newStore makes, empty, for it.
func Run(t *testing.T, newStore func(t *testing.T) store.Store) {
	for _, c := range []struct {
		name string
		test func(*testing.T, store.Store)
	}{
		{"create and get", createAndGet},
		{"create refuses", createRefuses},
		{"missing", missing},
		{"list", list},
		{"update", update},
		{"update refuses", updateRefuses},
		{"status", status},
		{"conflict", conflict},
		{"update of the spec", updateSpec},
		{"nothing changed", nothingChanged},
		{"finalizers", finalizers},
		{"preconditions", preconditions},
		{"deleted and made anew", anew},
		{"without a namespace", withoutNamespace},
		{"returned objects are the caller's", ownership},
		{"mutate under contention", contention},
		{"watch", watch},
		{"watch one namespace", watchNamespace},
		{"watch without a namespace", watchWithoutNamespace},
		{"watch keeps the last state", watchLastState},
		{"watch ends with its context", watchEnds},
		{"cancelled", cancelled},
	} {
		t.Run(c.name, func(t *testing.T) { c.test(t, newStore(t)) })
	}
}

func cluster(name string) *v1alpha1.Cluster {
	return &v1alpha1.Cluster{ObjectMeta: metav1.ObjectMeta{Namespace: Namespace, Name: name}}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func create[T v1alpha1.Object](t *testing.T, s store.Store, o T) T {
	t.Helper()
	must(t, s.Create(t.Context(), o))
	return o
}

func get(t *testing.T, s store.Store, name string) *v1alpha1.Cluster {
	t.Helper()
	c, err := store.Get[*v1alpha1.Cluster](t.Context(), s, Namespace, name)
	must(t, err)
	return c
}

// wantError wants is to know err, and the words.
func wantError(t *testing.T, err error, is func(error) bool, words string) {
	t.Helper()
	if !is(err) {
		t.Fatalf("another error than wanted: %T %v", err, err)
	}
	if words != "" && err.Error() != words {
		t.Errorf("-want +got:\n%s", cmp.Diff(words, err.Error()))
	}
}

func createAndGet(t *testing.T, s store.Store) {
	c := cluster("my-pg")
	c.Labels = map[string]string{"team": "blue"}
	c.Spec.Settings = map[string]string{"work_mem": "64MB"}
	c.Status.Phase = v1alpha1.ClusterRunning
	create(t, s, c)
	if c.UID == "" || c.ResourceVersion == "" || c.Generation != 1 || c.CreationTimestamp.IsZero() {
		t.Errorf("uid %q, resourceVersion %q, generation %d, created %v", c.UID, c.ResourceVersion, c.Generation, c.CreationTimestamp)
	}
	if c.Spec.Replicas != 1 || c.Spec.TerminationPolicy != v1alpha1.TerminationDelete {
		t.Errorf("no defaults: %+v", c.Spec)
	}
	if c.Status.Phase != "" {
		t.Errorf("a new object has the status %q", c.Status.Phase)
	}
	got := get(t, s, "my-pg")
	if diff := cmp.Diff(c, got); diff != "" {
		t.Errorf("created is not what is got (-created +got):\n%s", diff)
	}
}

func createRefuses(t *testing.T, s store.Store) {
	create(t, s, cluster("my-pg"))
	wantError(t, s.Create(t.Context(), cluster("my-pg")), apierrors.IsAlreadyExists, `clusters.apps.kubeblocks.io "my-pg" already exists`)

	bad := cluster("bad")
	bad.Spec.TerminationPolicy = "Never"
	bad.Spec.ClusterVersionRef = "mysql"
	err := s.Create(t.Context(), bad)
	wantError(t, err, apierrors.IsInvalid, `Cluster.apps.kubeblocks.io "bad" is invalid: spec.clusterVersionRef: "mysql" is not one of postgresql-13 to postgresql-18; spec.terminationPolicy: "Never" is not one of Delete, DoNotTerminate, Halt, WipeOut`)
	var fields v1alpha1.FieldErrors
	if !errors.As(err, &fields) || len(fields) != 2 {
		t.Errorf("the fields are lost: %v", fields)
	}
	_, err = s.Get(t.Context(), v1alpha1.KindCluster, Namespace, "bad")
	wantError(t, err, apierrors.IsNotFound, "")

	for _, name := range []string{"", "../my-pg", ".hidden", "A", "a/b"} {
		if err := s.Create(t.Context(), cluster(name)); !apierrors.IsInvalid(err) {
			t.Errorf("name %q: %v", name, err)
		}
	}
	old := cluster("old")
	old.ResourceVersion = "1"
	if err := s.Create(t.Context(), old); err == nil {
		t.Error("created an object that has a resourceVersion")
	}
}

func missing(t *testing.T, s store.Store) {
	ctx := t.Context()
	words := `clusters.apps.kubeblocks.io "x" not found`
	_, err := s.Get(ctx, v1alpha1.KindCluster, Namespace, "x")
	wantError(t, err, apierrors.IsNotFound, words)
	wantError(t, s.Delete(ctx, v1alpha1.KindCluster, Namespace, "x", store.Preconditions{}), apierrors.IsNotFound, words)
	c := create(t, s, cluster("x"))
	must(t, s.Delete(ctx, v1alpha1.KindCluster, Namespace, "x", store.Preconditions{}))
	wantError(t, s.Update(ctx, c), apierrors.IsNotFound, words)
	wantError(t, s.UpdateStatus(ctx, c), apierrors.IsNotFound, words)
	if _, err := s.Get(ctx, "Pod", Namespace, "x"); err == nil {
		t.Error("got a Pod")
	}
	objects, err := s.List(ctx, v1alpha1.KindBackup, "", nil)
	if err != nil || len(objects) != 0 {
		t.Errorf("an empty list is %v, %v", objects, err)
	}
}

func list(t *testing.T, s store.Store) {
	for _, o := range []struct{ namespace, name, team string }{
		{OtherNamespace, "a", "blue"}, {Namespace, "b", "blue"}, {Namespace, "a-b", ""}, {Namespace, "a", "red"},
	} {
		c := cluster(o.name)
		c.Namespace, c.Labels = o.namespace, map[string]string{"team": o.team, "all": "yes"}
		create(t, s, c)
	}
	for _, c := range []struct {
		name, namespace string
		selector        map[string]string
		want            []string
	}{
		{"all", "", nil, []string{"default/a", "default/a-b", "default/b", "kube-public/a"}},
		{"one namespace", Namespace, nil, []string{"default/a", "default/a-b", "default/b"}},
		{"label", "", map[string]string{"team": "blue"}, []string{"default/b", "kube-public/a"}},
		{"two labels", Namespace, map[string]string{"team": "red", "all": "yes"}, []string{"default/a"}},
		{"empty label", "", map[string]string{"team": ""}, []string{"default/a-b"}},
		{"no such label", "", map[string]string{"colour": ""}, nil},
		{"no such namespace", "nowhere", nil, nil},
	} {
		clusters, err := store.List[*v1alpha1.Cluster](t.Context(), s, c.namespace, c.selector)
		must(t, err)
		var got []string
		for _, o := range clusters {
			got = append(got, o.Namespace+"/"+o.Name)
		}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.name, diff)
		}
	}
}

func update(t *testing.T, s store.Store) {
	c := create(t, s, cluster("my-pg"))
	c.Status.Phase = v1alpha1.ClusterRunning
	must(t, s.UpdateStatus(t.Context(), c))
	uid, created, version := c.UID, c.CreationTimestamp, c.ResourceVersion

	c.Spec.Replicas = 3
	c.Status.Phase = v1alpha1.ClusterFailed
	c.Generation, c.CreationTimestamp = 77, metav1.Time{}
	must(t, s.Update(t.Context(), c))
	if diff := cmp.Diff(get(t, s, "my-pg"), c); diff != "" {
		t.Errorf("the caller's object is not what is stored (-stored +caller's):\n%s", diff)
	}
	if c.Status.Phase != v1alpha1.ClusterRunning {
		t.Errorf("Update wrote the status %q", c.Status.Phase)
	}
	if c.Generation != 2 || c.UID != uid || !c.CreationTimestamp.Equal(&created) || c.ResourceVersion == version || c.Spec.Replicas != 3 {
		t.Errorf("generation %d, uid %q, created %v, resourceVersion %q, replicas %d", c.Generation, c.UID, c.CreationTimestamp, c.ResourceVersion, c.Spec.Replicas)
	}
	version = c.ResourceVersion
	c.Labels = map[string]string{"team": "blue"}
	must(t, s.Update(t.Context(), c))
	if c.Generation != 2 || c.ResourceVersion == version {
		t.Errorf("after a change of labels: generation %d, resourceVersion %q was %q", c.Generation, c.ResourceVersion, version)
	}
	got := get(t, s, "my-pg")
	if got.Labels["team"] != "blue" {
		t.Errorf("labels %v", got.Labels)
	}
}

func updateRefuses(t *testing.T, s store.Store) {
	c := create(t, s, cluster("my-pg"))
	bad := get(t, s, "my-pg")
	bad.Spec.Settings = map[string]string{"port": "1"}
	wantError(t, s.Update(t.Context(), bad), apierrors.IsInvalid, `Cluster.apps.kubeblocks.io "my-pg" is invalid: spec.settings.port: is spec.local.port`)
	bad = get(t, s, "my-pg")
	bad.Spec.StorageClassName = "fast"
	wantError(t, s.Update(t.Context(), bad), apierrors.IsInvalid, `Cluster.apps.kubeblocks.io "my-pg" is invalid: spec.storageClassName: cannot be changed, it is ""`)
	blind := cluster("my-pg")
	if err := s.Update(t.Context(), blind); err == nil {
		t.Error("updated without a resourceVersion")
	}
	if diff := cmp.Diff(c, get(t, s, "my-pg")); diff != "" {
		t.Errorf("a refused update left something (-want +got):\n%s", diff)
	}
}

func status(t *testing.T, s store.Store) {
	c := create(t, s, cluster("my-pg"))
	proven, err := v1alpha1.ParseMicroTime("2023-04-17T11:57:01.000001Z")
	must(t, err)
	c.Status = v1alpha1.ClusterStatus{Phase: v1alpha1.ClusterRunning, ObservedGeneration: 1, Archive: &v1alpha1.ArchiveStatus{ProvenTime: proven}}
	c.Spec.Replicas = 5
	c.Labels = map[string]string{"team": "blue"}
	version := c.ResourceVersion
	must(t, s.UpdateStatus(t.Context(), c))
	if c.Spec.Replicas != 1 || c.Labels["team"] != "" || c.Generation != 1 || c.ResourceVersion == version {
		t.Errorf("UpdateStatus: replicas %d, labels %v, generation %d, resourceVersion %q", c.Spec.Replicas, c.Labels, c.Generation, c.ResourceVersion)
	}
	got := get(t, s, "my-pg")
	if diff := cmp.Diff(c, got); diff != "" {
		t.Errorf("-caller's +stored:\n%s", diff)
	}
	if !got.Status.Archive.ProvenTime.Equal(proven.Time) {
		t.Errorf("proven at %v", got.Status.Archive.ProvenTime)
	}
}

func updateSpec(t *testing.T, s store.Store) {
	create(t, s, cluster("my-pg"))
	one, two, three := get(t, s, "my-pg"), get(t, s, "my-pg"), get(t, s, "my-pg")
	one.Status.Phase = v1alpha1.ClusterRunning
	must(t, s.UpdateStatus(t.Context(), one))
	two.Spec.Replicas = 2
	must(t, store.UpdateSpec(t.Context(), s, two))
	if got := get(t, s, "my-pg"); got.Spec.Replicas != 2 || got.Status.Phase != v1alpha1.ClusterRunning || two.ResourceVersion != got.ResourceVersion {
		t.Errorf("after an update of the spec: %+v", got)
	}
	three.Spec.Replicas = 3
	if err := store.UpdateSpec(t.Context(), s, three); !apierrors.IsConflict(err) {
		t.Errorf("over another's change: %v", err)
	}
}

func conflict(t *testing.T, s store.Store) {
	create(t, s, cluster("my-pg"))
	one, two := get(t, s, "my-pg"), get(t, s, "my-pg")
	one.Spec.Stopped = true
	must(t, s.Update(t.Context(), one))
	words := `Operation cannot be fulfilled on clusters.apps.kubeblocks.io "my-pg": the object has been modified; please apply your changes to the latest version and try again`
	two.Spec.Replicas = 2
	wantError(t, s.Update(t.Context(), two), apierrors.IsConflict, words)
	wantError(t, s.UpdateStatus(t.Context(), two), apierrors.IsConflict, words)
	if got := get(t, s, "my-pg"); got.Spec.Replicas != 1 || !got.Spec.Stopped {
		t.Errorf("after a conflict: %+v", got.Spec)
	}
	two = get(t, s, "my-pg")
	one.Status.Phase = v1alpha1.ClusterStopped
	must(t, s.UpdateStatus(t.Context(), one))
	two.Spec.Replicas = 2
	wantError(t, s.Update(t.Context(), two), apierrors.IsConflict, words)
}

func nothingChanged(t *testing.T, s store.Store) {
	c := create(t, s, cluster("my-pg"))
	version := c.ResourceVersion
	must(t, s.Update(t.Context(), c))
	must(t, s.UpdateStatus(t.Context(), c))
	if c.ResourceVersion != version {
		t.Errorf("resourceVersion went from %q to %q", version, c.ResourceVersion)
	}
}

func finalizers(t *testing.T, s store.Store) {
	ctx := t.Context()
	c := cluster("my-pg")
	c.Finalizers = []string{"kubeblocks.io/one", "kubeblocks.io/two"}
	create(t, s, c)
	for range 2 { // the second deletion does nothing
		must(t, s.Delete(ctx, v1alpha1.KindCluster, Namespace, "my-pg", store.Preconditions{}))
	}
	c = get(t, s, "my-pg")
	if c.DeletionTimestamp == nil {
		t.Fatal("no deletionTimestamp")
	}
	c.Finalizers = append(c.Finalizers, "kubeblocks.io/three")
	wantError(t, s.Update(ctx, c), apierrors.IsInvalid, "")
	wantError(t, s.Create(ctx, cluster("my-pg")), apierrors.IsAlreadyExists, "")

	c = get(t, s, "my-pg")
	marked := c.DeletionTimestamp
	c.Finalizers = c.Finalizers[:1]
	c.DeletionTimestamp = nil
	must(t, s.Update(ctx, c))
	if c = get(t, s, "my-pg"); !c.DeletionTimestamp.Equal(marked) {
		t.Errorf("deletionTimestamp went from %v to %v", marked, c.DeletionTimestamp)
	}
	c.Status.Phase = v1alpha1.ClusterDeleting
	must(t, s.UpdateStatus(ctx, c))
	c.Finalizers = nil
	must(t, s.Update(ctx, c))
	_, err := s.Get(ctx, v1alpha1.KindCluster, Namespace, "my-pg")
	wantError(t, err, apierrors.IsNotFound, "")
	create(t, s, cluster("my-pg"))
}

func preconditions(t *testing.T, s store.Store) {
	ctx := t.Context()
	c := create(t, s, cluster("my-pg"))
	for _, pre := range []store.Preconditions{{UID: "1"}, {ResourceVersion: "1000000"}, {UID: string(c.UID), ResourceVersion: "1000000"}} {
		wantError(t, s.Delete(ctx, v1alpha1.KindCluster, Namespace, "my-pg", pre), apierrors.IsConflict, "")
	}
	must(t, s.Delete(ctx, v1alpha1.KindCluster, Namespace, "my-pg", store.Preconditions{UID: string(c.UID), ResourceVersion: c.ResourceVersion}))
}

func anew(t *testing.T, s store.Store) {
	ctx := t.Context()
	old := create(t, s, cluster("my-pg"))
	must(t, s.Delete(ctx, v1alpha1.KindCluster, Namespace, "my-pg", store.Preconditions{}))
	c := create(t, s, cluster("my-pg"))
	if c.UID == old.UID {
		t.Error("two objects have one uid")
	}
	old.Spec.Stopped = true
	wantError(t, s.Update(ctx, old), apierrors.IsConflict, "")
	wantError(t, s.UpdateStatus(ctx, old), apierrors.IsConflict, "")
}

func withoutNamespace(t *testing.T, s store.Store) {
	ctx := t.Context()
	r := &v1alpha1.BackupRepo{ObjectMeta: metav1.ObjectMeta{Name: "local"}}
	r.Spec.Filesystem = &v1alpha1.FilesystemRepo{Path: "/srv/backups"}
	create(t, s, r)
	got, err := store.Get[*v1alpha1.BackupRepo](ctx, s, "ignored", "local")
	must(t, err)
	if diff := cmp.Diff(r, got); diff != "" {
		t.Error(diff)
	}
	repos, err := store.List[*v1alpha1.BackupRepo](ctx, s, "ignored", nil)
	if err != nil || len(repos) != 1 {
		t.Errorf("%d repositories, %v", len(repos), err)
	}
	must(t, s.Delete(ctx, v1alpha1.KindBackupRepo, "ignored", "local", store.Preconditions{}))
	_, err = store.Get[*v1alpha1.BackupRepo](ctx, s, "", "local")
	wantError(t, err, apierrors.IsNotFound, `backuprepos.dataprotection.kubeblocks.io "local" not found`)
}

func ownership(t *testing.T, s store.Store) {
	c := cluster("my-pg")
	c.Spec.Settings = map[string]string{"work_mem": "64MB"}
	c.Labels = map[string]string{"team": "blue"}
	create(t, s, c)
	for range 2 {
		got := get(t, s, "my-pg")
		if got.Spec.Settings["work_mem"] != "64MB" || got.Labels["team"] != "blue" {
			t.Errorf("settings %v, labels %v", got.Spec.Settings, got.Labels)
		}
		got.Spec.Settings["work_mem"], got.Labels["team"] = "1GB", "red"
		c.Spec.Settings["work_mem"], c.Labels["team"] = "2GB", "green"
	}
}

func cancelled(t *testing.T, s store.Store) {
	create(t, s, cluster("my-pg"))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Get(ctx, v1alpha1.KindCluster, Namespace, "my-pg"); !errors.Is(err, context.Canceled) {
		t.Errorf("Get: %v", err)
	}
	if _, err := s.List(ctx, v1alpha1.KindCluster, Namespace, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("List: %v", err)
	}
	if err := s.Create(ctx, cluster("other")); !errors.Is(err, context.Canceled) {
		t.Errorf("Create: %v", err)
	}
}
