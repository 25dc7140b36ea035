// SPDX-License-Identifier: Apache-2.0

package main

import (
	"strings"
	"testing"
	"time"

	"github.com/kbcli/kbcli/internal/testkube"
)

// claim sees to it that a repository on a claim, and the claim, go with the test.
func (p *person) claim(repo, claim string) {
	p.t.Cleanup(func() {
		if p.t.Failed() {
			p.t.Log(p.scene(), p.k.Kubectl(p.t, "-n", "kb-system", "describe", "pods,pvc", "-l", "app.kubernetes.io/name=repository"))
		}
		p.k.Kubectl(p.t, "delete", "namespace", p.ns, "--timeout=180s")
		p.k.Kubectl(p.t, "delete", "backuprepo", repo, "--ignore-not-found", "--timeout=60s")
		p.k.Kubectl(p.t, "-n", "kb-system", "delete", "pvc", claim, "--ignore-not-found", "--timeout=60s")
	})
}

// TestPodsClaim: a repository on a claim of a storage class of the driver. A cluster
// archives and backs up to it, goes, and comes back at a moment.
func TestPodsClaim(t *testing.T) {
	k := testkube.Node(t)
	install(t, k)
	p := newPerson(t, k, "claim")
	p.claim("claim", "claim")
	s := p.try("", "backuprepo", "create", "claim", "--provider", "pvc", "--storage-class", testkube.StorageClass, "--create-policy", "Never")
	if s.code != 31 || !strings.Contains(s.err, "there is no claim claim in namespace kb-system, and createPolicy is Never") {
		t.Errorf("exit code %d: %s", s.code, s.err)
	}
	began := time.Now()
	p.match(p.kbcli("backuprepo", "create", "claim", "--provider", "pvc", "--storage-class", testkube.StorageClass, "--capacity", "300Mi", "--default"), "^BackupRepo claim created$")
	t.Logf("the repository is ready after %s", time.Since(began))
	p.match(p.kbcli("backuprepo", "list", "-o", "wide"), `^claim +Ready +pvc +Tool +true .* claim kb-system/claim `)

	p.kbcli("cluster", "create", "my-pg", "--set", small)
	p.until(`^my-pg .* Running`, "cluster", "list")
	p.kbcli("cluster", "edit-backup-policy", "my-pg-postgresql-backup-policy", "--set", "schedule.logfile.enable=true")
	p.kbcli("cluster", "backup", "my-pg", "--type", "datafile", "--name", "first", "--wait")
	p.sql("my-pg", "create table msg as select 'hello' as text")
	moment := p.between()
	p.sql("my-pg", "insert into msg values ('late')")
	p.untilWindow("my-pg", moment)
	p.match(p.kbcli("cluster", "delete", "my-pg", "--auto-approve"), "^Cluster my-pg deleted$")
	p.match(p.kbcli("cluster", "list-backup"), `^first +my-pg \(deleted\) +datafile +Completed `)
	p.restore("again", "my-pg", moment)
	if got := p.sql("again", "select text from msg"); got != "hello" {
		t.Errorf("it has %q", got)
	}
}
