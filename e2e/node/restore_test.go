// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/kbcli/kbcli/internal/testkube"
)

// TestRestoreElsewhere: a restore into another namespace, with another shape than its source
// has; what cannot be is refused before anything is made, typed or applied.
func TestRestoreElsewhere(t *testing.T) {
	p := archived(t, "origin", small)
	k := p.k
	p.kbcli("cluster", "backup", "my-pg", "--type", "datafile", "--wait")
	password := p.match(p.kbcli("cluster", "create-account", "my-pg", "--username", "myuser"), `with password: ([A-Za-z0-9]{10}) `)
	p.sql("my-pg", "create table t as select 1 as n; grant select on t to public")
	p.sql("my-pg", "select pg_create_restore_point('here')")
	p.sql("my-pg", "alter role myuser password 'another'; drop table t")

	there := newPerson(t, k, "elsewhere")
	there.tries("my-pg", []attempt{
		{"--latest --set storage=100Mi", `latest: true`, 5, "storage 100Mi is too small: the restore needs [0-9]+Mi", "100Mi", ""},
		{"--latest --set storageClass=nowhere", `latest: true`, 5, `there is no storage class "?nowhere`, "400Mi", "nowhere"},
		{"--restore-to-time 2023-04-17T11:56:40Z", `time: "2023-04-17T11:56:40Z"`, 20, "restore-to-time is out of time range|lies in no recoverable window", "", ""},
		{"--restore-to-lsn FFFF/28", `lsn: FFFF/28`, 20, "FFFF/28", "", ""},
		{"--restore-to-xid 4000000", `xid: "4000000"`, 20, "4000000", "", ""},
		{"--restore-to-name nowhere", `name: nowhere`, 20, "nowhere", "", ""},
		{"--latest --timeline 99", `latest: true, timeline: 99`, 20, "timeline 99", "", ""},
	})
	began := time.Now()
	there.kbcli("cluster", "restore", "copy", "--restore-to-name", "here", "--source-cluster", "my-pg", "--source-namespace", "origin",
		"--set", "storage=500Mi,replicas=2,cpu=300m,memory=300Mi", "--wait", "--timeout", "5m")
	t.Logf("serves after %s: %s", time.Since(began), there.match(there.kbcli("cluster", "describe", "copy"), `^Took: +(.*)$`))
	if got := there.jsonpath("pvc", "data-copy-postgresql-0", "{.spec.resources.requests.storage} {.spec.storageClassName}"); got != "500Mi "+testkube.StorageClass {
		t.Errorf("the volume is %q", got)
	}
	if got := there.jsonpath("pod", "copy-postgresql-0", "{.spec.containers[0].resources.limits.cpu} {.spec.containers[0].resources.limits.memory}"); got != "300m 300Mi" {
		t.Errorf("the server has %q", got)
	}
	// the source's accounts have the passwords of that moment, the superuser that of the Secret
	user := there.with("PGPASSWORD=" + password)
	if got := strings.TrimSpace(user.kbcli("cluster", "connect", "copy", "--as-user", "myuser", "--", "-XAtc", "select n from t")); got != "1" {
		t.Errorf("the restored cluster has %q", got)
	}
	if got := there.sql("copy", "select current_user, pg_is_in_recovery()"); got != "postgres|f" {
		t.Errorf("the superuser is %q", got)
	}
	there.until(`^copy-postgresql-1 .* standby +Readonly`, "cluster", "list-instances", "copy")
	there.untilInPod("copy", 1, "select n, pg_is_in_recovery() from t", "1|t")
}

// attempt is a restore that cannot be: what is typed, the target of an object, the exit
// code, and what is said of it.
type attempt struct {
	flags, target string
	code          int
	words         string
	storage       string
	class         string
}

// tries has each attempt refused where it is typed, with nothing made; and where an object
// asks for it, the object says why.
func (p *person) tries(source string, all []attempt) {
	p.t.Helper()
	for i, a := range all {
		words := append([]string{"cluster", "restore", "never", "--source-cluster", source, "--source-namespace", "origin"}, strings.Fields(a.flags)...)
		s := p.try("", words...)
		if s.code != a.code {
			p.t.Errorf("%s: exit code %d, want %d\n%s", a.flags, s.code, a.code, s.err)
		}
		p.match(s.err, a.words)
		storage, class := a.storage, a.class
		if storage == "" {
			storage = "400Mi"
		}
		if class == "" {
			class = testkube.StorageClass
		}
		p.k.Apply(p.t, fmt.Sprintf(`{apiVersion: apps.kubeblocks.io/v1alpha1, kind: Cluster, metadata: {name: never-%d, namespace: %s},
spec: {storage: %s, storageClassName: %s, restore: {sourceCluster: %s, sourceNamespace: origin, %s}}}`, i, p.ns, storage, class, source, a.target))
	}
	began := time.Now()
	for i, a := range all {
		name := fmt.Sprintf("never-%d", i)
		p.until(`^`+name+` .* Failed `, "cluster", "list")
		p.match(p.kbcli("cluster", "describe", name), "^Message: +.*("+a.words+")")
	}
	p.t.Logf("%d objects have Failed %s after the last was applied", len(all), time.Since(began))
	if got := p.k.Kubectl(p.t, "-n", p.ns, "get", "statefulsets,pods,pvc,secrets", "-o", "name"); got != "" {
		p.t.Errorf("there is\n%s", got)
	}
	p.k.Kubectl(p.t, "-n", p.ns, "delete", "clusters", "--all")
}

// untilInPod waits until a query gives the rows in the n-th pod.
func (p *person) untilInPod(cluster string, n int, query, want string) {
	p.t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(500 * time.Millisecond) {
		got, err := p.inPod(cluster, n, query)
		if got == want {
			return
		}
		if time.Now().After(deadline) {
			p.t.Fatalf("server %d of %s says %q, %v", n, cluster, got, err)
		}
	}
}
