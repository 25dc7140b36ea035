// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sigs.k8s.io/yaml"

	"github.com/kbcli/kbcli/internal/testkube"
	"github.com/kbcli/kbcli/runtimes/operator/specs"
)

// install puts the definitions, the rights and the operator on a node.
func install(t *testing.T, k *testkube.Cluster) {
	t.Helper()
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
	grant := func(role any) {
		b, err := yaml.Marshal(role)
		if err != nil {
			t.Fatal(err)
		}
		k.Apply(t, string(b))
	}
	k.Apply(t, "{apiVersion: v1, kind: Namespace, metadata: {name: kb-system}}")
	for _, r := range specs.ClusterRoles() {
		grant(r)
	}
	for _, r := range specs.Roles("kb-system") {
		grant(r)
	}
	k.Apply(t, `
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: kubeblocks-operator, namespace: kb-system}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: kubeblocks-operator}
subjects: [{kind: ServiceAccount, name: kubeblocks, namespace: kb-system}]
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: kubeblocks, namespace: kb-system}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: kubeblocks-operator}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: kubeblocks-operator}
subjects: [{kind: ServiceAccount, name: kubeblocks, namespace: kb-system}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: kubeblocks, namespace: kb-system, labels: {app.kubernetes.io/name: kubeblocks}}
spec:
  replicas: 1
  selector: {matchLabels: {app.kubernetes.io/name: kubeblocks}}
  template:
    metadata: {labels: {app.kubernetes.io/name: kubeblocks}}
    spec:
      serviceAccountName: kubeblocks
      securityContext: {runAsNonRoot: true, runAsUser: 65532, runAsGroup: 65532, fsGroup: 65532, seccompProfile: {type: RuntimeDefault}}
      containers:
      - name: operator
        image: `+testkube.KbcliImage+`
        imagePullPolicy: IfNotPresent
        args: [operator, --kbcli-image, `+testkube.KbcliImage+`, --postgresql-image, "`+strings.Replace(testkube.PostgreSQLImage, ":15", ":{major}", 1)+`"]
        env:
        - {name: KBCLI_NAMESPACE, valueFrom: {fieldRef: {fieldPath: metadata.namespace}}}
        - {name: KBCLI_POD, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
        ports: [{name: metrics, containerPort: 8080}, {name: probes, containerPort: 8081}]
        readinessProbe: {httpGet: {path: /readyz, port: probes}, periodSeconds: 2}
        livenessProbe: {httpGet: {path: /healthz, port: probes}, periodSeconds: 10}
        securityContext: {allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: {drop: [ALL]}}
        volumeMounts: [{name: tmp, mountPath: /tmp}, {name: secrets, mountPath: /run/kubeblocks/secrets}]
      volumes: [{name: tmp, emptyDir: {}}, {name: secrets, emptyDir: {medium: Memory}}]
`)
	k.Kubectl(t, "-n", "kb-system", "rollout", "status", "deploy/kubeblocks", "--timeout=180s")
}

// runs waits for a cluster to be Running, and says what stands in the way.
func runs(t *testing.T, k *testkube.Cluster, ns, name string) {
	t.Helper()
	for deadline := time.Now().Add(4 * time.Minute); ; time.Sleep(time.Second) {
		got, err := k.Try("", "-n", ns, "get", "cluster", name, "-o", "jsonpath={.status.phase}")
		if err == nil && got == "Running" {
			return
		}
		if time.Now().After(deadline) {
			for _, args := range [][]string{
				{"-n", ns, "get", "cluster,pods,pvc,endpoints", "-o", "wide"},
				{"-n", ns, "describe", "pods"},
				{"-n", ns, "logs", specs.PodName(name, 0), "--all-containers", "--tail=40"},
				{"-n", "kb-system", "logs", "deploy/kubeblocks", "--tail=40"},
				{"-n", ns, "get", "cluster", name, "-o", "yaml"},
			} {
				out, err := k.Try("", args...)
				t.Logf("%v: %v\n%s", args, err, out)
			}
			t.Fatalf("the cluster is %q, %v", got, err)
		}
	}
}

// archived is a person with an operator, a repository, and the cluster my-pg, made of the
// settings in set, which runs and is archived. Namespace and repository are called ns.
func archived(t *testing.T, ns, set string) *person {
	t.Helper()
	k := testkube.Node(t)
	install(t, k)
	p := newPerson(t, k, ns)
	p.repository(ns)
	p.kbcli("cluster", "create", "my-pg", "--set", set)
	p.until(`^my-pg .* Running `, "cluster", "list")
	p.kbcli("cluster", "edit-backup-policy", "my-pg-postgresql-backup-policy", "--set", "schedule.logfile.enable=true")
	return p
}
