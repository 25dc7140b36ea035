// SPDX-License-Identifier: Apache-2.0

package kubernetes

import (
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/internal/testkube"
	"github.com/kbcli/kbcli/runtimes"
)

func openContext(t *testing.T, c *testkube.Cluster) *Runtime {
	t.Helper()
	name := strings.TrimSpace(c.Kubectl(t, "config", "current-context"))
	r, err := Open(Options{
		Kubeconfig: []string{c.Kubeconfig}, Context: name, Clock: time.Now, Version: "test",
		Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func installKinds(t *testing.T, c *testkube.Cluster) {
	t.Helper()
	names, err := filepath.Glob("../../deploy/helm/crds/*.yaml")
	if err != nil || len(names) == 0 {
		t.Fatal(names, err)
	}
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		c.Apply(t, string(text))
	}
	c.Kubectl(t, "wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")
}

func status(t *testing.T, c *testkube.Cluster, namespace, what, patch string) {
	t.Helper()
	c.Kubectl(t, "-n", namespace, "patch", what, "--subresource=status", "--type=merge", "-p", patch)
}

const deployment = `{apiVersion: apps/v1, kind: Deployment, metadata: {name: kubeblocks, namespace: NAMESPACE, labels: {app.kubernetes.io/name: kubeblocks}},
spec: {selector: {matchLabels: {a: b}}, template: {metadata: {labels: {a: b}}, spec: {containers: [{name: operator, image: x}]}}}}`

// TestReady: what stands in the way of being heard, one after the other.
func TestReady(t *testing.T) {
	c := testkube.Control(t)
	r := openContext(t, c)
	not := func(namespace, words string) {
		t.Helper()
		err := r.Ready(t.Context())
		var op *OperatorError
		if !errors.As(err, &op) || op.Namespace != namespace || !strings.Contains(err.Error(), words) {
			t.Errorf("%T %v, want %q", err, err, words)
		}
	}
	not("", "is not installed in this Kubernetes cluster")
	installKinds(t, c)
	not("", "is not installed in this Kubernetes cluster")
	deploy(t, c, "elsewhere")
	not("elsewhere", "none of its pods is available")
	status(t, c, "elsewhere", "deployment/kubeblocks", `{"status":{"replicas":1,"readyReplicas":1,"availableReplicas":1}}`)
	if err := r.Ready(t.Context()); err != nil {
		t.Errorf("%v", err)
	}
	// That of the usual namespace is the one.
	deploy(t, c, "kb-system")
	c.Kubectl(t, "-n", "kb-system", "scale", "deployment/kubeblocks", "--replicas=0")
	not("kb-system", "it was scaled to 0")
}

// deploy makes an operator's Deployment in a namespace, until the test ends: all tests
// have one API server.
func deploy(t *testing.T, c *testkube.Cluster, namespace string) {
	t.Helper()
	c.Apply(t, "{apiVersion: v1, kind: Namespace, metadata: {name: "+namespace+"}}")
	c.Apply(t, strings.ReplaceAll(deployment, "NAMESPACE", namespace))
	t.Cleanup(func() { c.Kubectl(t, "-n", namespace, "delete", "deployment", "kubeblocks") })
}

const pods = `
{apiVersion: v1, kind: Pod, metadata: {name: my-pg-postgresql-0, namespace: shop, labels: {app.kubernetes.io/instance: my-pg, app.kubernetes.io/name: postgresql, app.kubernetes.io/managed-by: kbcli, kubeblocks.io/role: replica}},
spec: {nodeName: node1, containers: [{name: postgresql, image: x, resources: {requests: {cpu: 500m}, limits: {cpu: "1", memory: 1Gi}}}, {name: kbcli, image: x}], volumes: [{name: data, persistentVolumeClaim: {claimName: data-my-pg-postgresql-0}}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: my-pg-postgresql-1, namespace: shop, labels: {app.kubernetes.io/instance: my-pg, app.kubernetes.io/name: postgresql, app.kubernetes.io/managed-by: kbcli, kubeblocks.io/role: master}},
spec: {nodeName: node1, containers: [{name: postgresql, image: x}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: other-postgresql-0, namespace: shop, labels: {app.kubernetes.io/instance: other, app.kubernetes.io/name: postgresql, app.kubernetes.io/managed-by: kbcli}}, spec: {containers: [{name: postgresql, image: x}]}}
---
{apiVersion: v1, kind: PersistentVolumeClaim, metadata: {name: data-my-pg-postgresql-0, namespace: shop}, spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 20Gi}}}}
---
{apiVersion: v1, kind: Node, metadata: {name: node1, labels: {topology.kubernetes.io/zone: eu-1}}}
---
{apiVersion: v1, kind: Secret, metadata: {name: my-pg-postgresql-superuser, namespace: shop}, stringData: {username: postgres, password: s3cret}}
`

// TestKeepSecret: each secret is a key of the operator's Secret, and none takes another's
// place.
func TestKeepSecret(t *testing.T) {
	c := testkube.Control(t)
	r := openContext(t, c)
	var none *OperatorError
	if _, err := r.KeepSecret(t.Context(), "a", []byte("1")); !errors.As(err, &none) {
		t.Errorf("nothing is installed, and %v", err)
	}
	deploy(t, c, "elsewhere")
	for _, s := range [][2]string{{"a", "1"}, {"b", "2"}, {"a", "3"}} {
		path, err := r.KeepSecret(t.Context(), s[0], []byte(s[1]))
		if err != nil || path != "/run/kubeblocks/secrets/"+s[0] {
			t.Errorf("%s, %v", path, err)
		}
	}
	if got := c.Kubectl(t, "-n", "elsewhere", "get", "secret", "kubeblocks-repositories", "-o", "jsonpath={.data}"); got != `{"a":"Mw==","b":"Mg=="}` {
		t.Errorf("it holds %s", got)
	}
}

// TestLooks: what is told of a cluster's pods and events.
func TestLooks(t *testing.T) {
	c := testkube.Control(t)
	installKinds(t, c)
	r := openContext(t, c)
	c.Kubectl(t, "create", "namespace", "shop")
	c.Apply(t, `{apiVersion: v1, kind: ServiceAccount, metadata: {name: default, namespace: shop}}`)
	c.Apply(t, pods)
	my := &v1alpha1.Cluster{}
	my.Namespace, my.Name = "shop", "my-pg"
	if err := r.Store().Create(t.Context(), my); err != nil {
		t.Fatal(err)
	}
	var none *NoPrimaryError
	if _, err := r.primary(t.Context(), "shop", "my-pg"); !errors.As(err, &none) || none.Pods != 2 {
		t.Errorf("no pod runs, and %v", err)
	}
	status(t, c, "shop", "pod/my-pg-postgresql-1", `{"status":{"phase":"Running"}}`)
	status(t, c, "shop", "pod/my-pg-postgresql-0", `{"status":{"phase":"Running","containerStatuses":[{"name":"postgresql","image":"x","imageID":"","ready":false,"restartCount":3,"state":{"waiting":{"reason":"CrashLoopBackOff"}}}]}}`)
	got, err := r.Instances(t.Context(), my)
	if err != nil {
		t.Fatal(err)
	}
	for i := range got {
		if got[i].Created.IsZero() {
			t.Errorf("%s was created at no time", got[i].Name)
		}
		got[i].Created = time.Time{}
	}
	want := []runtimes.Instance{
		{
			Name: "my-pg-postgresql-0", Namespace: "shop", Cluster: "my-pg", Component: "postgresql", Status: "CrashLoopBackOff", Role: "standby", AccessMode: "Readonly",
			Zone: "eu-1", CPU: "500m / 1", Memory: "1Gi / 1Gi", Storage: "20Gi", Node: "node1",
		},
		{
			Name: "my-pg-postgresql-1", Namespace: "shop", Cluster: "my-pg", Component: "postgresql", Status: "Running", Role: "primary", AccessMode: "ReadWrite",
			Zone: "eu-1", Node: "node1",
		},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if p, err := r.primary(t.Context(), "shop", "my-pg"); err != nil || p.Name != "my-pg-postgresql-1" {
		t.Errorf("the primary is %v, %v", p, err)
	}
	// one that does not know yet that another took over: the lock decides
	c.Kubectl(t, "-n", "shop", "label", "--overwrite", "pod/my-pg-postgresql-0", "kubeblocks.io/role=master")
	c.Apply(t, `{apiVersion: v1, kind: Endpoints, metadata: {name: my-pg-postgresql, namespace: shop, annotations: {leader: my-pg-postgresql-1}}}`)
	if p, err := r.primary(t.Context(), "shop", "my-pg"); err != nil || p.Name != "my-pg-postgresql-1" {
		t.Errorf("of two with the label the primary is %v, %v", p, err)
	}
	user, password, err := r.superuser(t.Context(), my)
	if err != nil || user != "postgres" || password != "s3cret" {
		t.Errorf("%s %s %v", user, password, err)
	}
	gone := &v1alpha1.Cluster{}
	gone.Namespace, gone.Name = "shop", "gone"
	if _, _, err := r.superuser(t.Context(), gone); !apierrors.IsNotFound(err) {
		t.Errorf("%v", err)
	}

	b := &v1alpha1.Backup{}
	b.Namespace, b.Name, b.Spec.ClusterRef = "shop", "b1", "my-pg"
	if err := r.Store().Create(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	for i, about := range []string{
		"{apiVersion: apps.kubeblocks.io/v1alpha1, kind: Cluster, name: my-pg, namespace: shop}",
		"{apiVersion: dataprotection.kubeblocks.io/v1alpha1, kind: Backup, name: b1, namespace: shop}",
		"{apiVersion: v1, kind: Pod, name: my-pg-postgresql-1, namespace: shop}",
		"{apiVersion: v1, kind: Pod, name: web-0, namespace: shop}",
		"{apiVersion: v1, kind: Pod, name: gone-postgresql-0, namespace: shop}",
	} {
		at := time.Date(2026, 4, 17, 12, 0, 10-i, 0, time.UTC).Format(time.RFC3339)
		c.Apply(t, `{apiVersion: v1, kind: Event, metadata: {name: e`+string(rune('0'+i))+`, namespace: shop}, involvedObject: `+about+
			`, type: Warning, reason: Tried, message: again, count: 3, firstTimestamp: "`+at+`", lastTimestamp: "`+at+`"}`)
	}
	objects := func(cluster string) (all []string) {
		t.Helper()
		events, err := r.Events(t.Context(), "shop", cluster)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range events {
			if e.Type != runtimes.EventWarning || e.Count != 3 || e.Reason != "Tried" || e.First.IsZero() {
				t.Errorf("%+v", e)
			}
			all = append(all, e.Cluster+" "+e.Object)
		}
		return all
	}
	if diff := cmp.Diff([]string{"my-pg Pod/my-pg-postgresql-1", "my-pg Backup/b1", "my-pg Cluster/my-pg"}, objects("my-pg")); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if diff := cmp.Diff([]string{"gone Pod/gone-postgresql-0"}, objects("gone")); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}

	if kind, why := r.BackupType(t.Context(), my); kind != v1alpha1.BackupDatafile || why != "the addon snapshot-controller is not enabled" {
		t.Errorf("%s: %s", kind, why)
	}
	a := &v1alpha1.Addon{}
	a.Name, a.Spec.Install.Enabled = snapshotAddon, true
	if err := r.Store().Create(t.Context(), a); err != nil {
		t.Fatal(err)
	}
	if _, why := r.BackupType(t.Context(), my); why != "there is no default storage class" {
		t.Error(why)
	}
	c.Apply(t, `{apiVersion: storage.k8s.io/v1, kind: StorageClass, metadata: {name: fast, annotations: {storageclass.kubernetes.io/is-default-class: "true"}}, provisioner: csi.example}`)
	if _, why := r.BackupType(t.Context(), my); why != "this Kubernetes has no VolumeSnapshots" {
		t.Error(why)
	}
}
