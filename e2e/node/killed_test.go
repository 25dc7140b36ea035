// SPDX-License-Identifier: Apache-2.0

//go:build long

package main

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"filippo.io/age"

	"github.com/kbcli/kbcli/internal/testkube"
	"github.com/kbcli/kbcli/runtimes/operator/specs"
)

// killSoon takes pods away as a node's death would, some time within the next seconds.
func (p *person) killSoon(namespace string, what ...string) {
	p.t.Helper()
	pause := time.Duration(rand.Int64N(int64(5 * time.Second)))
	time.Sleep(pause)
	args := append([]string{"-n", namespace, "delete", "pod", "--grace-period=0", "--force", "--ignore-not-found"}, what...)
	p.t.Logf("after %s: %s%s", pause, args, p.k.Kubectl(p.t, args...))
}

func (p *person) killOperator() {
	p.t.Helper()
	p.killSoon("kb-system", "-l", "app.kubernetes.io/name=kubeblocks")
}

// TestPodsOperatorKilled: an operator that is killed while a cluster is made, restored or
// taken away, and a pod that is while it restores, cost time and nothing else.
func TestPodsOperatorKilled(t *testing.T) {
	k := testkube.Node(t)
	install(t, k)
	p := newPerson(t, k, "killed")
	// a sealed one: the identity is a secret that the pods need besides
	identity, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	key := filepath.Join(t.TempDir(), "backup.key")
	if err := os.WriteFile(key, []byte(identity.String()+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	p.repository("killed", "--identity-file", key)
	p.kbcli("cluster", "create", "my-pg", "--set", small)
	p.killOperator()
	p.until(`^my-pg .* Running `, "cluster", "list")
	p.kbcli("cluster", "edit-backup-policy", "my-pg-postgresql-backup-policy", "--set", "schedule.logfile.enable=true")
	p.kbcli("cluster", "backup", "my-pg", "--type", "datafile", "--wait")
	p.sql("my-pg", "create table t as select generate_series(1, 10000) as n")
	p.sql("my-pg", "select pg_create_restore_point('here')")
	p.sql("my-pg", "drop table t")
	// what was made a moment ago is on its way to the repository, and waited for
	p.kbcli("cluster", "restore", "new", "--restore-to-name", "here", "--source-cluster", "my-pg", "--dry-run")
	// as kubectl has it: what the target means is found in the pod
	p.k.Apply(t, `{apiVersion: apps.kubeblocks.io/v1alpha1, kind: Cluster, metadata: {name: new, namespace: `+p.ns+`},
spec: {storage: 400Mi, storageClassName: `+testkube.StorageClass+`, restore: {sourceCluster: my-pg, name: here}}}`)
	p.killOperator()
	p.killSoon(p.ns, specs.PodName("new", 0))
	p.until(`^new .* Running `, "cluster", "list")
	if got := p.sql("new", "select count(*) from t"); got != "10000" {
		t.Errorf("there are %s rows", got)
	}
	p.k.Kubectl(t, "-n", p.ns, "delete", "cluster", "new", "--wait=false")
	p.killOperator()
	p.k.Kubectl(t, "-n", p.ns, "wait", "--for=delete", "cluster/new", "--timeout=180s")
	left := p.k.Kubectl(t, "-n", p.ns, "get", "pods,pvc,secrets,services,endpoints,configmaps,roles", "-o", "name", "-l", "app.kubernetes.io/instance=new")
	for line := range strings.Lines(left) {
		if strings.Contains(line, "/new-") || strings.Contains(line, "/data-new-") {
			t.Errorf("it is gone, and there is still %s", line)
		}
	}
}
