// SPDX-License-Identifier: Apache-2.0

//go:build long

package main

import (
	"strings"
	"testing"
	"time"

	"github.com/kbcli/kbcli/internal/testkube"
	"github.com/kbcli/kbcli/runtimes/operator/specs"
)

// TestOperator: a cluster of one comes up, takes writes, grows to three, and its pods pass
// the pod security standard "restricted".
func TestOperator(t *testing.T) {
	k := testkube.Node(t)
	install(t, k)
	const ns = "operator"
	k.Apply(t, "{apiVersion: v1, kind: Namespace, metadata: {name: "+ns+", labels: {pod-security.kubernetes.io/enforce: restricted}}}")
	t.Cleanup(func() { k.Kubectl(t, "delete", "namespace", ns, "--wait=false") })
	k.Apply(t, `{apiVersion: apps.kubeblocks.io/v1alpha1, kind: Cluster, metadata: {name: my-pg, namespace: `+ns+`}, spec: {storage: 400Mi, storageClassName: `+testkube.StorageClass+`}}`)
	began := time.Now()
	runs(t, k, ns, "my-pg")
	t.Logf("Running after %s", time.Since(began))
	sql := func(pod int, sql string) string {
		t.Helper()
		return strings.TrimSpace(k.Kubectl(t, "-n", ns, "exec", specs.PodName("my-pg", pod), "-c", "postgresql", "--", "psql", "-XAtqU", "postgres", "-c", sql))
	}
	sql(0, "create table t as select 1 as n")
	k.Kubectl(t, "-n", ns, "patch", "cluster", "my-pg", "--type=merge", "-p", `{"spec":{"replicas":3}}`)
	began = time.Now()
	k.Kubectl(t, "-n", ns, "wait", "--for=jsonpath={.status.phase}=Updating", "cluster/my-pg", "--timeout=60s")
	runs(t, k, ns, "my-pg")
	t.Logf("three after %s", time.Since(began))
	if got := sql(2, "select n, pg_is_in_recovery() from t"); got != "1|t" {
		t.Errorf("the third server says %q", got)
	}
}
