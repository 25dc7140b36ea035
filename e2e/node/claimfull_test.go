// SPDX-License-Identifier: Apache-2.0

//go:build long

package main

import (
	"encoding/base64"
	"strings"
	"testing"
	"time"

	"github.com/kbcli/kbcli/engine/blob/served"
	"github.com/kbcli/kbcli/internal/testkube"
)

// TestPodsClaimFull: the volume of a repository gets full, which is said, grows, and what
// waited goes on; what serves it is ended, and goes on too.
func TestPodsClaimFull(t *testing.T) {
	k := testkube.Node(t)
	install(t, k)
	p := newPerson(t, k, "full")
	p.claim("volume", "backups")
	began := time.Now()
	p.match(p.kbcli("backuprepo", "create", "volume", "--provider", "pvc", "--claim", "backups", "--storage-class", testkube.StorageClass, "--capacity", "300Mi", "--default"),
		"^BackupRepo volume created$")
	t.Logf("the repository is ready after %s", time.Since(began))
	p.match(p.kbcli("backuprepo", "list", "-o", "wide"), `^volume +Ready +pvc +Tool +true .* claim kb-system/backups `)

	p.match(p.kbcli("cluster", "create", "my-pg", "--set", small), "^Cluster my-pg created$")
	p.until(`^my-pg .* Running`, "cluster", "list")
	p.kbcli("cluster", "edit-backup-policy", "my-pg-postgresql-backup-policy", "--set", "schedule.logfile.enable=true")
	backup := p.match(p.kbcli("cluster", "backup", "my-pg", "--type", "datafile", "--wait"), `^Backup (backup-full-my-pg-\d{14}) created successfully`)
	p.sql("my-pg", "create table msg as select 'hello' as text")
	moment := p.between()
	p.sql("my-pg", "insert into msg values ('late')")
	p.untilWindow("my-pg", moment)

	// who serves it is ended: WAL waits, and goes on
	k.Kubectl(t, "-n", "kb-system", "delete", "pod", "repository-volume-0", "--grace-period=0", "--force")
	p.sql("my-pg", "insert into msg values ('meanwhile')")
	meanwhile := p.between()
	p.sql("my-pg", "insert into msg values ('after')")
	p.untilWindow("my-pg", meanwhile)

	// full, and larger
	k.Apply(t, `{apiVersion: v1, kind: Pod, metadata: {name: filler, namespace: kb-system}, spec: {restartPolicy: Never, terminationGracePeriodSeconds: 1,
  securityContext: {runAsUser: 65532, runAsGroup: 65532, fsGroup: 65532},
  containers: [{name: filler, image: "`+testkube.PostgreSQLImage+`", command: [sh, -c, "while true; do cat /dev/zero >> /v/filler; sleep 1; done"], volumeMounts: [{name: v, mountPath: /v}]}],
  volumes: [{name: v, persistentVolumeClaim: {claimName: backups}}]}}`)
	t.Cleanup(func() {
		k.Kubectl(t, "-n", "kb-system", "delete", "pod", "filler", "--ignore-not-found", "--wait=false")
	})
	t.Logf("full: %s", p.until(`^volume .*(\d\d %|100 %) of .* are used: kbcli backuprepo update volume --capacity makes it larger`, "backuprepo", "list", "-o", "wide"))
	s := p.try("", "cluster", "backup", "my-pg", "--type", "datafile", "--name", "full", "--wait", "--timeout", "60s")
	if s.code == 0 || !strings.Contains(s.err+s.out, "no space left in storage") {
		t.Errorf("a backup to a full volume: exit code %d: %s%s", s.code, s.out, s.err)
	}
	p.sql("my-pg", "insert into msg values ('full')")
	full := p.between()
	p.sql("my-pg", "insert into msg values ('grown')")
	p.until(`no space left in storage`, "cluster", "describe", "my-pg")
	k.Kubectl(t, "-n", "kb-system", "delete", "pod", "filler", "--wait=false")
	p.match(p.kbcli("backuprepo", "update", "volume", "--capacity", "600Mi"), "^BackupRepo volume updated$")
	began = time.Now()
	p.untilWindow("my-pg", full)
	t.Logf("larger, and archived again after %s", time.Since(began))
	p.match(p.kbcli("backuprepo", "describe", "volume"), `(?s)^Place: +claim kb-system/backups\n.*^Capacity: +600Mi`)
	if s := p.try("", "backuprepo", "update", "volume", "--capacity", "100Mi"); s.code == 0 || !strings.Contains(s.err, "a volume cannot shrink") {
		t.Errorf("smaller: exit code %d: %s", s.code, s.err)
	}

	// the source goes, and its past stays
	p.match(p.kbcli("cluster", "delete", "my-pg", "--auto-approve"), "^Cluster my-pg deleted$")
	p.match(p.kbcli("cluster", "list-backup"), `^`+backup+` +my-pg \(deleted\) +datafile +Completed `)
	for _, at := range []struct{ name, moment, want string }{{"early", moment, "hello"}, {"late", full, "hello\nlate\nmeanwhile\nafter\nfull"}} {
		p.restore(at.name, "my-pg", at.moment)
		if got := p.sql(at.name, "select text from msg"); got != at.want {
			t.Errorf("%s has %q", at.name, got)
		}
	}

	text, err := base64.StdEncoding.DecodeString(k.Kubectl(t, "-n", "kb-system", "get", "secret", "repository-volume", "-o", "jsonpath={.data.access}"))
	access, perr := served.ParseAccess(text)
	if err != nil || perr != nil {
		t.Fatal(err, perr)
	}
	p.quiet(access.Token)
}
