// SPDX-License-Identifier: Apache-2.0

package kubernetes

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/rest"

	"github.com/kbcli/kbcli/internal/testkube"
	"github.com/kbcli/kbcli/runtimes"
)

// open is a Runtime at an API server with which nobody acts.
func openControl(t *testing.T, version string) (*testkube.Cluster, *Runtime) {
	t.Helper()
	k := testkube.Control(t)
	config := &rest.Config{Host: k.Host, BearerToken: k.Token, TLSClientConfig: rest.TLSClientConfig{CAFile: k.CAFile}}
	r, err := open(config, Options{Clock: time.Now, Log: slog.New(slog.NewTextHandler(t.Output(), nil)), Version: version})
	if err != nil {
		t.Fatal(err)
	}
	return k, r
}

// TestInstall is one story: there is one installation in a Kubernetes.
func TestInstall(t *testing.T) {
	k, r := openControl(t, "v1.2.3")
	ctx := t.Context()
	var steps []string
	step := func(s string) { steps = append(steps, s) }

	if x, err := r.Installed(ctx); err != nil || x != nil {
		t.Fatalf("before: %+v, %v", x, err)
	}
	var none *OperatorError
	if err := r.Configure(ctx, runtimes.Installation{Namespace: "kb-system", Step: step}); !errors.As(err, &none) || none.Namespace != "" {
		t.Fatalf("configure before install: %v", err)
	}
	if _, err := r.KeepSecret(ctx, "csi-s3", []byte("x")); !errors.As(err, &none) {
		t.Fatalf("a secret was kept where there is no operator: %v", err)
	}

	i := runtimes.Installation{
		Namespace: "kb-system", Timeout: 2 * time.Minute, Step: step,
		Values: map[string]any{"replicas": int64(1), "image": map[string]any{"repository": "reg/kbcli"}},
	}
	bad := i
	bad.Values = map[string]any{"replicas": "one"}
	var refused *SettingsError
	if err := r.Install(ctx, bad); !errors.As(err, &refused) || !strings.Contains(refused.Reason, "/replicas") {
		t.Fatalf("install with a wrong setting: %v", err)
	}
	if err := r.Install(ctx, i); err != nil {
		t.Fatal(err)
	}
	if image := k.Kubectl(t, "-n", "kb-system", "get", "deployment", "kubeblocks", "-o", "jsonpath={.spec.template.spec.containers[0].image}"); image != "reg/kbcli:v1.2.3" {
		t.Errorf("the operator's image is %s", image)
	}
	if level := k.Kubectl(t, "get", "namespace", "kb-system", "-o", `jsonpath={.metadata.labels.pod-security\.kubernetes\.io/enforce}`); level != "restricted" {
		t.Errorf("pods of kb-system are held to %q", level)
	}
	k.Kubectl(t, "get", "clusters.apps.kubeblocks.io,backups.dataprotection.kubeblocks.io,addons.extensions.kubeblocks.io", "-A")

	x, err := r.Installed(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if x.Version != "v1.2.3" || x.Place != "in namespace kb-system" || !strings.HasPrefix(x.State, "No operator runs") {
		t.Errorf("installed: %+v", x)
	}
	for key, want := range map[string]string{"replicas": "1", "image.repository": "reg/kbcli", "dataProtection.enableVolumeSnapshot": "false", "metrics.port": "8080"} {
		if x.Settings[key] != want {
			t.Errorf("%s is %q, not %q", key, x.Settings[key], want)
		}
	}

	// nobody runs pods here: it is said who is waited for
	waiting := i
	waiting.Wait, waiting.Timeout = true, 5*time.Second
	if err := r.Install(ctx, waiting); !errors.As(err, &none) || !none.TimedOut {
		t.Errorf("with nobody who runs pods: %v", err)
	}
	var elsewhere *InstalledElsewhereError
	other := i
	other.Namespace = "other"
	if err := r.Install(ctx, other); !errors.As(err, &elsewhere) || elsewhere.Namespace != "kb-system" {
		t.Errorf("a second installation: %v", err)
	}

	// a later release: what was set stays, what is set is added
	_, later := openControl(t, "v1.3.0")
	steps = nil
	i.Values = map[string]any{"dataProtection": map[string]any{"backupPVCName": "backup-data", "backupPVCStorageClassName": "csi-s3"}}
	if err := later.Configure(ctx, i); err != nil {
		t.Fatal(err)
	}
	want := []string{"Look for the installation", "Apply the definitions of clusters and backups", "Apply the chart of release v1.3.0"}
	if diff := cmp.Diff(want, steps); diff != "" {
		t.Error(diff)
	}
	if x, err = later.Installed(ctx); err != nil {
		t.Fatal(err)
	}
	if x.Version != "v1.3.0" || x.Settings["image.repository"] != "reg/kbcli" || x.Settings["dataProtection.backupPVCName"] != "backup-data" {
		t.Errorf("after the upgrade: %+v", x)
	}
	if name := k.Kubectl(t, "-n", "kb-system", "get", "configmap", "kubeblocks-settings", "-o", `jsonpath={.data.dataProtection\.backupPVCStorageClassName}`); name != "csi-s3" {
		t.Errorf("the operator is told of class %q", name)
	}

	testKeepSecret(t, k, later)
	testRemoval(t, k, later)
}

func testKeepSecret(t *testing.T, k *testkube.Cluster, r *Runtime) {
	for _, name := range []string{"csi-s3", "second", "csi-s3"} {
		path, err := r.KeepSecret(t.Context(), name, []byte("keys of "+name))
		if err != nil || path != "/run/kubeblocks/secrets/"+name {
			t.Fatalf("%s, %v", path, err)
		}
	}
	var s corev1.Secret
	if err := json.Unmarshal([]byte(k.Kubectl(t, "-n", "kb-system", "get", "secret", "kubeblocks-repositories", "-o", "json")), &s); err != nil {
		t.Fatal(err)
	}
	want := map[string][]byte{"csi-s3": []byte("keys of csi-s3"), "second": []byte("keys of second")}
	if diff := cmp.Diff(want, s.Data); diff != "" {
		t.Error(diff)
	}
}

// servesVolume is what the operator makes for a repository on a volume, its lease, and a
// StatefulSet of somebody else.
const servesVolume = `
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: repository-left, namespace: kb-system, labels: {app.kubernetes.io/name: repository, app.kubernetes.io/managed-by: kbcli}}
spec: {selector: {matchLabels: {a: b}}, template: {metadata: {labels: {a: b}}, spec: {containers: [{name: c, image: none}]}}}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: repository-theirs, namespace: kb-system, labels: {app.kubernetes.io/name: repository}}
spec: {selector: {matchLabels: {a: b}}, template: {metadata: {labels: {a: b}}, spec: {containers: [{name: c, image: none}]}}}
---
apiVersion: v1
kind: Service
metadata: {name: repository-left, namespace: kb-system, labels: {app.kubernetes.io/name: repository, app.kubernetes.io/managed-by: kbcli}}
spec: {ports: [{port: 8443}]}
---
apiVersion: v1
kind: Secret
metadata: {name: repository-left, namespace: kb-system, labels: {app.kubernetes.io/name: repository, app.kubernetes.io/managed-by: kbcli}}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: backup-data, namespace: kb-system, labels: {app.kubernetes.io/name: repository, app.kubernetes.io/managed-by: kbcli}}
spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}
---
apiVersion: coordination.k8s.io/v1
kind: Lease
metadata: {name: kubeblocks-operator, namespace: kb-system}
`

func testRemoval(t *testing.T, k *testkube.Cluster, r *Runtime) {
	k.Apply(t, `{apiVersion: dataprotection.kubeblocks.io/v1alpha1, kind: BackupRepo, metadata: {name: left, finalizers: [dataprotection.kubeblocks.io/bytes]}, spec: {filesystem: {path: /x}}}`)
	k.Apply(t, servesVolume)
	step := func(string) {}
	if err := r.Uninstall(t.Context(), runtimes.Uninstallation{Timeout: time.Minute, Step: step}); err != nil {
		t.Fatal(err)
	}
	// somebody else's stays, and so do the volume and the keys
	want := "statefulset.apps/repository-theirs persistentvolumeclaim/backup-data secret/repository-left"
	got := k.Kubectl(t, "-n", "kb-system", "get", "statefulsets,services,leases,pvc", "-o", "name") + k.Kubectl(t, "-n", "kb-system", "get", "secret/repository-left", "-o", "name")
	if got = strings.Join(strings.Fields(got), " "); got != want {
		t.Errorf("after uninstall there is %s, want %s", got, want)
	}
	if got := k.Kubectl(t, "get", "deployments,configmaps,services", "-n", "kb-system", "-o", "name"); strings.Contains(got, "kubeblocks") {
		t.Errorf("after uninstall there are %s", got)
	}
	k.Kubectl(t, "get", "backuprepo", "left") // the kinds stay, and their objects
	if x, err := r.Installed(t.Context()); err != nil || x != nil {
		t.Errorf("after uninstall: %+v, %v", x, err)
	}

	i := runtimes.Installation{Namespace: "kb-system", Timeout: time.Minute, Step: step, Values: map[string]any{}}
	if err := r.Install(t.Context(), i); err != nil {
		t.Fatal(err)
	}
	if err := r.Uninstall(t.Context(), runtimes.Uninstallation{Timeout: time.Minute, Step: step, Definitions: true}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for {
		left, err := k.Try("", "get", "crd", "-o", "name")
		if err == nil && !strings.Contains(left, "kubeblocks.io") {
			break
		}
		select {
		case <-ctx.Done():
			t.Fatalf("the kinds are still there: %s, %v", left, err)
		case <-time.After(200 * time.Millisecond):
		}
	}
}
