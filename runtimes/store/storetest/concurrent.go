// SPDX-License-Identifier: Apache-2.0

package storetest

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/runtimes/store"
)

// Count adds one to the annotation "count" of the Cluster times times, by
// Mutate, and as often to the status. Tests of several processes run it in each.
func Count(ctx context.Context, s store.Store, name string, times int) error {
	for range times {
		if _, err := store.Mutate(ctx, s, Namespace, name, func(c *v1alpha1.Cluster) error {
			n, _ := strconv.Atoi(c.Annotations["count"])
			metav1.SetMetaDataAnnotation(&c.ObjectMeta, "count", strconv.Itoa(n+1))
			return nil
		}); err != nil {
			return err
		}
		if _, err := store.MutateStatus(ctx, s, Namespace, name, func(c *v1alpha1.Cluster) error {
			c.Status.PID++
			return nil
		}); err != nil {
			return err
		}
	}
	return nil
}

func contention(t *testing.T, s store.Store) {
	create(t, s, cluster("my-pg"))
	const writers, times = 6, 8
	together(t, writers, func(int) error { return Count(t.Context(), s, "my-pg", times) })
	c := get(t, s, "my-pg")
	if c.Annotations["count"] != strconv.Itoa(writers*times) || c.Status.PID != writers*times {
		t.Errorf("updates were lost: %q and %d of %d", c.Annotations["count"], c.Status.PID, writers*times)
	}
	// Of those who create one name at once, one does.
	var mu sync.Mutex
	made := 0
	together(t, writers, func(int) error {
		if s.Create(t.Context(), cluster("other")) == nil {
			mu.Lock()
			defer mu.Unlock()
			made++
		}
		return nil
	})
	if made != 1 {
		t.Errorf("%d were told that they had created it", made)
	}
}

func together(t *testing.T, n int, f func(i int) error) {
	t.Helper()
	errs := make(chan error)
	for i := range n {
		go func() { errs <- f(i) }()
	}
	for range n {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
}

// Next receives one event or fails the test.
func Next(t *testing.T, events <-chan store.Event) store.Event {
	t.Helper()
	select {
	case e, ok := <-events:
		if !ok {
			t.Fatal("the watch has ended")
		}
		return e
	case <-time.After(patience):
		t.Fatal("no event")
	}
	panic("unreachable")
}

func start(t *testing.T, s store.Store, kind, namespace string) <-chan store.Event {
	t.Helper()
	events, err := s.Watch(t.Context(), kind, namespace)
	must(t, err)
	return events
}

// want receives one event and compares type and name.
func want(t *testing.T, events <-chan store.Event, typ store.EventType, name string) store.Event {
	t.Helper()
	e := Next(t, events)
	if e.Type != typ || e.Key.Name != name {
		t.Fatalf("got %s %v (%v), want %s %s", e.Type, e.Key, e.Err, typ, name)
	}
	if typ != store.Synced && store.KeyOf(e.Object) != e.Key {
		t.Errorf("the key is %v, the object %v", e.Key, store.KeyOf(e.Object))
	}
	return e
}

func watch(t *testing.T, s store.Store) {
	ctx := t.Context()
	create(t, s, cluster("a"))
	other := cluster("b")
	other.Namespace = OtherNamespace
	create(t, s, other)
	events := start(t, s, v1alpha1.KindCluster, "")
	first := map[string]bool{Next(t, events).Key.String(): true, Next(t, events).Key.String(): true}
	if diff := cmp.Diff(map[string]bool{"Cluster default/a": true, "Cluster kube-public/b": true}, first); diff != "" {
		t.Error(diff)
	}
	want(t, events, store.Synced, "")

	c := create(t, s, cluster("c"))
	if e := want(t, events, store.Added, "c"); cmp.Diff(e.Object, v1alpha1.Object(c)) != "" {
		t.Error(cmp.Diff(e.Object, v1alpha1.Object(c)))
	}
	c.Spec.Stopped = true
	must(t, s.Update(ctx, c))
	if e := want(t, events, store.Modified, "c"); e.Object.GetGeneration() != 2 || !e.Object.(*v1alpha1.Cluster).Spec.Stopped {
		t.Errorf("%+v", e.Object)
	}
	c.Status.Phase = v1alpha1.ClusterStopped
	must(t, s.UpdateStatus(ctx, c))
	if e := want(t, events, store.Modified, "c"); e.Object.(*v1alpha1.Cluster).Status.Phase != v1alpha1.ClusterStopped {
		t.Errorf("%+v", e.Object)
	}
	must(t, s.Delete(ctx, v1alpha1.KindCluster, Namespace, "c", store.Preconditions{}))
	if e := want(t, events, store.Deleted, "c"); e.Object.GetUID() != c.UID {
		t.Errorf("uid %s, want %s", e.Object.GetUID(), c.UID)
	}

	c = cluster("d")
	c.Finalizers = []string{"kubeblocks.io/one"}
	create(t, s, c)
	want(t, events, store.Added, "d")
	must(t, s.Delete(ctx, v1alpha1.KindCluster, Namespace, "d", store.Preconditions{}))
	if e := want(t, events, store.Modified, "d"); e.Object.GetDeletionTimestamp() == nil {
		t.Error("no deletionTimestamp")
	}
	_, err := store.Mutate(ctx, s, Namespace, "d", func(c *v1alpha1.Cluster) error { c.Finalizers = nil; return nil })
	must(t, err)
	want(t, events, store.Deleted, "d")
}

func watchNamespace(t *testing.T, s store.Store) {
	events := start(t, s, v1alpha1.KindCluster, Namespace)
	want(t, events, store.Synced, "")
	other := cluster("other")
	other.Namespace = OtherNamespace
	create(t, s, other)
	create(t, s, cluster("mine"))
	want(t, events, store.Added, "mine")
}

func watchWithoutNamespace(t *testing.T, s store.Store) {
	events := start(t, s, v1alpha1.KindAddon, "ignored")
	want(t, events, store.Synced, "")
	create(t, s, &v1alpha1.Addon{ObjectMeta: metav1.ObjectMeta{Name: "csi-s3"}})
	want(t, events, store.Added, "csi-s3")
}

// A receiver that is slow, while many write, still hears of every end.
func watchLastState(t *testing.T, s store.Store) {
	const objects, times = 4, 6
	for i := range objects {
		create(t, s, cluster(fmt.Sprintf("c%d", i)))
	}
	events := start(t, s, v1alpha1.KindCluster, "")
	together(t, 2*objects, func(i int) error { return Count(t.Context(), s, fmt.Sprintf("c%d", i%objects), times) })
	must(t, s.Delete(t.Context(), v1alpha1.KindCluster, Namespace, "c0", store.Preconditions{}))
	create(t, s, cluster("last"))

	got, wanted := map[string]string{}, map[string]string{"last": "", "c1": "12 12", "c2": "12 12", "c3": "12 12"}
	for !cmp.Equal(got, wanted) {
		e := Next(t, events) // fails when nothing comes any more
		switch c, _ := e.Object.(*v1alpha1.Cluster); {
		case e.Type == store.Deleted:
			delete(got, e.Key.Name)
		case c != nil && c.Status.PID > 0:
			got[e.Key.Name] = fmt.Sprintf("%s %d", c.Annotations["count"], c.Status.PID)
		case c != nil:
			got[e.Key.Name] = ""
		}
	}
}

func watchEnds(t *testing.T, s store.Store) {
	create(t, s, cluster("a"))
	ctx, cancel := context.WithCancel(t.Context())
	events, err := s.Watch(ctx, v1alpha1.KindCluster, "")
	must(t, err)
	cancel()
	deadline := time.After(patience)
	for {
		select {
		case _, ok := <-events:
			if !ok {
				return
			}
		case <-deadline:
			t.Fatal("the channel stays open")
		}
	}
}
