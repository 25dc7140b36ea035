// SPDX-License-Identifier: Apache-2.0

package volumesnapshots

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"

	"github.com/kbcli/kbcli/engine/repository"
	"github.com/kbcli/kbcli/internal/testkube"
	"github.com/kbcli/kbcli/runtimes/agent"
)

func TestChoose(t *testing.T) {
	for name, test := range map[string]struct {
		all           []Class
		class, reason string
	}{
		"the only one":           {[]Class{{"a", "d", false}, {"b", "other", true}}, "a", ""},
		"the default":            {[]Class{{"a", "d", false}, {"b", "d", true}}, "b", ""},
		"none":                   {[]Class{{"b", "other", true}}, "", "there is no VolumeSnapshotClass for the driver d: if the storage can, make one"},
		"several":                {[]Class{{"b", "d", false}, {"a", "d", false}}, "", "the driver d has the VolumeSnapshotClasses a, b, and not one of them is the default"},
		"several that are meant": {[]Class{{"b", "d", true}, {"a", "d", true}}, "", "the driver d has the VolumeSnapshotClasses a, b, and not one of them is the default"},
	} {
		class, reason := Choose(test.all, "d")
		if class != test.class || !strings.HasPrefix(reason, test.reason) || test.reason == "" && reason != "" {
			t.Errorf("%s: %q, %q", name, class, reason)
		}
	}
}

// desk is an API server with the definitions of VolumeSnapshots, and nobody who makes any:
// the test does what their makers would.
type desk struct {
	t    *testing.T
	kube *testkube.Cluster
	set  *Set
}

func newDesk(t *testing.T) *desk {
	t.Helper()
	k := testkube.Control(t)
	crds, err := k.SnapshotDefinitions()
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range crds {
		k.Apply(t, text)
	}
	k.Kubectl(t, "wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")
	set, err := New(&rest.Config{Host: k.Host, BearerToken: k.Token, TLSClientConfig: rest.TLSClientConfig{CAFile: k.CAFile}})
	if err != nil {
		t.Fatal(err)
	}
	d := &desk{t, k, set}
	k.Apply(t, `{apiVersion: v1, kind: Namespace, metadata: {name: shop}}`)
	k.Apply(t, `{apiVersion: snapshot.storage.k8s.io/v1, kind: VolumeSnapshotClass, metadata: {name: quick}, driver: disk.example, deletionPolicy: Delete}`)
	k.Apply(t, claimOf("data", `{volume.kubernetes.io/storage-provisioner: disk.example}`))
	return d
}

func claimOf(name, notes string) string {
	return `{apiVersion: v1, kind: PersistentVolumeClaim, metadata: {name: ` + name + `, namespace: shop, annotations: ` + notes + `},
spec: {accessModes: [ReadWriteOnce], storageClassName: fast, resources: {requests: {storage: 1Gi}}}}`
}

// becomes has a VolumeSnapshot say something, as soon as it is there.
func (d *desk) becomes(name, status string) {
	d.t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		_, err := d.kube.Try("", "-n", "shop", "patch", "volumesnapshot", name, "--subresource=status", "--type=merge", "-p", `{"status":`+status+`}`)
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			d.t.Fatal(err)
		}
	}
}

func (d *desk) volume() *volume {
	d.t.Helper()
	v, err := d.set.Volume(d.t.Context(), "shop", "my-pg", "data", "/var/lib/postgresql")
	if err != nil {
		d.t.Fatal(err)
	}
	one := v.(*volume)
	one.limits = limits{10 * time.Millisecond, time.Minute, time.Minute, time.Minute, time.Minute, time.Minute}
	return one
}

// TestVolume: what is asked for, what is waited for, and what is said when it does not come.
func TestVolume(t *testing.T) {
	d := newDesk(t)
	ctx := t.Context()
	v := d.volume()
	if v.class != "quick" || v.driver != "disk.example" || v.storage != "fast" || v.Root() != "/var/lib/postgresql" {
		t.Errorf("the volume is %+v", v)
	}
	if err := v.Clear(ctx, "l-1", "b1"); err != nil {
		t.Errorf("nothing is there: %v", err)
	}
	cut := make(chan error, 1)
	var at repository.Snapshot
	go func() {
		var err error
		at, err = v.Cut(ctx, "l-1", "b1", "0123")
		cut <- err
	}()
	d.becomes("b1", `{"readyToUse": false, "error": {"message": "the array is busy"}}`)
	select {
	case err := <-cut:
		t.Fatalf("it is not cut: %v", err)
	case <-time.After(100 * time.Millisecond):
	}
	d.becomes("b1", `{"readyToUse": false, "creationTime": "2026-01-01T00:00:00Z", "restoreSize": "2Gi", "error": null}`)
	if err := <-cut; err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(repository.Snapshot{VolumeSnapshot: "shop/b1", ID: "0123"}, at); diff != "" {
		t.Error(diff)
	}
	m := &repository.Manifest{Name: "b1", Snapshot: &at}
	reach := func(s *Set, want string) {
		t.Helper()
		got := ""
		if err := s.Reach(m); err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("reached: %q, want %q", got, want)
		}
	}
	reach(d.set, "it is not ready to use")
	d.becomes("b1", `{"readyToUse": true}`)
	if err := v.Settle(ctx, at); err != nil {
		t.Error(err)
	}
	reach(d.set, "")
	source, err := d.set.Source(ctx, "shop/b1")
	if err != nil || source.Place != "shop/b1" || source.Size.String() != "2Gi" || source.StorageClass != "fast" || source.Driver != "disk.example" {
		t.Errorf("source %+v, %v", source, err)
	}

	// another's stays, and is not overwritten
	var other *OtherSnapshotError
	if err := v.Clear(ctx, "l-2", "b1"); !errors.As(err, &other) {
		t.Errorf("another lineage's: %v", err)
	}
	if err := d.set.Remove(ctx, "l-2", m); err != nil {
		t.Errorf("nothing of that backup is here: %v", err)
	}
	reach(d.set, "")
	m.Snapshot = &repository.Snapshot{VolumeSnapshot: "shop/b1", ID: "4567"}
	reach(d.set, "that VolumeSnapshot is another snapshot")
	m.Snapshot = &at
	for range 2 {
		if err := d.set.Remove(ctx, "l-1", m); err != nil {
			t.Error(err)
		}
	}
	reach(d.set, "there is no such VolumeSnapshot in this Kubernetes")
}

// TestLend: what stands for a snapshot in another namespace leads to the same one of the
// storage, retains it, and goes when it is given back; another's is let alone.
func TestLend(t *testing.T) {
	d := newDesk(t)
	ctx := t.Context()
	d.kube.Apply(t, `{apiVersion: v1, kind: Namespace, metadata: {name: staging}}`)
	d.kube.Apply(t, `{apiVersion: v1, kind: ConfigMap, metadata: {name: owner, namespace: staging}}`)
	uid := d.kube.Kubectl(t, "-n", "staging", "get", "configmap", "owner", "-o", "jsonpath={.metadata.uid}")
	to := Loan{
		Namespace: "staging", Name: "new-restore", Content: "lent-1", Cluster: "new",
		Owner: metav1.OwnerReference{APIVersion: "v1", Kind: "ConfigMap", Name: "owner", UID: types.UID(uid)},
	}
	d.kube.Apply(t, `{apiVersion: snapshot.storage.k8s.io/v1, kind: VolumeSnapshot, metadata: {name: b1, namespace: shop}, spec: {volumeSnapshotClassName: quick, source: {persistentVolumeClaimName: data}}}`)
	d.kube.Apply(t, `{apiVersion: snapshot.storage.k8s.io/v1, kind: VolumeSnapshotContent, metadata: {name: made},
spec: {deletionPolicy: Delete, driver: disk.example, volumeSnapshotClassName: quick, sourceVolumeMode: Filesystem, source: {volumeHandle: v1}, volumeSnapshotRef: {namespace: shop, name: b1}}}`)
	if _, err := d.set.Lend(ctx, "shop/b1", to); err == nil || !strings.Contains(err.Error(), "it is bound to no VolumeSnapshotContent") {
		t.Errorf("before it was made: %v", err)
	}
	d.becomes("b1", `{"readyToUse": true, "boundVolumeSnapshotContentName": "made"}`)
	if _, err := d.set.Lend(ctx, "shop/b1", to); err == nil || !strings.Contains(err.Error(), "does not say which snapshot of the storage it is") {
		t.Errorf("before the storage told: %v", err)
	}
	d.kube.Kubectl(t, "patch", "volumesnapshotcontent", "made", "--subresource=status", "--type=merge", "-p", `{"status":{"snapshotHandle":"array-7","readyToUse":true}}`)
	for range 2 {
		if ready, err := d.set.Lend(ctx, "shop/b1", to); err != nil || ready {
			t.Fatalf("ready %t, %v", ready, err)
		}
	}
	got := d.kube.Kubectl(t, "get", "volumesnapshotcontent", "lent-1", "-o", "jsonpath={.spec.deletionPolicy} {.spec.driver} {.spec.source.snapshotHandle} {.spec.volumeSnapshotRef.namespace}/{.spec.volumeSnapshotRef.name} {.spec.volumeSnapshotClassName} {.spec.sourceVolumeMode}")
	if want := "Retain disk.example array-7 staging/new-restore quick Filesystem"; got != want {
		t.Errorf("lent is %q, want %q", got, want)
	}
	d.kube.Kubectl(t, "-n", "staging", "patch", "volumesnapshot", "new-restore", "--subresource=status", "--type=merge", "-p", `{"status":{"readyToUse":true,"boundVolumeSnapshotContentName":"lent-1"}}`)
	if ready, err := d.set.Lend(ctx, "shop/b1", to); err != nil || !ready {
		t.Errorf("ready %t, %v", ready, err)
	}
	other := to
	other.Cluster = "neighbour"
	var taken *OtherSnapshotError
	if _, err := d.set.Lend(ctx, "shop/b1", other); !errors.As(err, &taken) {
		t.Errorf("another's: %v", err)
	}
	if err := d.set.Return(ctx, other); err != nil {
		t.Error(err)
	}
	d.kube.Kubectl(t, "get", "volumesnapshotcontent", "lent-1")
	for range 2 {
		if err := d.set.Return(ctx, to); err != nil {
			t.Error(err)
		}
	}
	left := d.kube.Kubectl(t, "get", "volumesnapshots,volumesnapshotcontents", "-A", "-o", "name")
	if want := "volumesnapshot.snapshot.storage.k8s.io/b1\nvolumesnapshotcontent.snapshot.storage.k8s.io/made\n"; left != want {
		t.Errorf("left is %q", left)
	}
}

// TestVolumeFails: each way in which no snapshot comes has words.
func TestVolumeFails(t *testing.T) {
	d := newDesk(t)
	fails := func(name, want string, change func(*limits), status string) {
		t.Helper()
		v := d.volume()
		change(&v.limits)
		done := make(chan error, 1)
		go func() {
			_, err := v.Cut(t.Context(), "l-1", name, "0123")
			done <- err
		}()
		if status != "" {
			d.becomes(name, status)
		}
		if err := <-done; err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", name, err, want)
		}
	}
	fails("nobody", "nobody makes VolumeSnapshot shop/nobody: does the snapshot-controller run?", func(l *limits) { l.begin = 50 * time.Millisecond }, "")
	fails("broken", "VolumeSnapshot shop/broken fails: the array is full", func(l *limits) { l.trouble = 50 * time.Millisecond }, `{"error": {"message": "the array is full"}}`)
	fails("slow", "VolumeSnapshot shop/slow is not ready after", func(l *limits) { l.cut = 3 * time.Second }, `{"readyToUse": false}`)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := d.volume().Settle(ctx, repository.Snapshot{VolumeSnapshot: "shop/slow", ID: "0123"}); !errors.Is(err, context.Canceled) {
		t.Errorf("ended: %v", err)
	}
	if err := d.volume().Settle(t.Context(), repository.Snapshot{VolumeSnapshot: "shop/slow", ID: "4567"}); err == nil || !strings.Contains(err.Error(), "was deleted while it was made") {
		t.Errorf("another came in its place: %v", err)
	}

	d.kube.Apply(t, claimOf("by-hand", "{}"))
	d.kube.Apply(t, claimOf("other", `{volume.kubernetes.io/storage-provisioner: tape.example}`))
	for claim, want := range map[string]string{
		"by-hand": "a snapshot cannot be made here: the volume by-hand was made by hand, and not by a driver that could snapshot it: use --type datafile",
		"other":   "a snapshot cannot be made here: there is no VolumeSnapshotClass for the driver tape.example: if the storage can, make one: use --type datafile",
	} {
		_, err := d.set.Volume(t.Context(), "shop", "my-pg", claim, "/")
		var no *agent.NoSnapshotError
		if !errors.As(err, &no) || err.Error() != want {
			t.Errorf("%s: %v", claim, err)
		}
	}
}
