// SPDX-License-Identifier: Apache-2.0

package main

import (
	"strings"
	"testing"
	"time"

	"github.com/kbcli/kbcli/internal/testkube"
)

// TestVolumeSnapshot: backups of type snapshot are VolumeSnapshots, taken while rows are
// written. A moment after one is restored in a volume that is made of it, also when the source
// is gone; one that somebody deletes is no backup any more; and what kbcli deletes is
// deleted.
func TestVolumeSnapshot(t *testing.T) {
	k := testkube.Node(t)
	install(t, k)
	p := newPerson(t, k, "snaps")
	p.repository("snaps")
	k.Apply(t, `{apiVersion: extensions.kubeblocks.io/v1alpha1, kind: Addon, metadata: {name: snapshot-controller}, spec: {install: {enabled: true}}}`)
	t.Cleanup(func() { k.Kubectl(t, "delete", "addon", "snapshot-controller", "--ignore-not-found") })

	p.match(p.kbcli("cluster", "create", "my-pg", "--set", small), "^Cluster my-pg created$")
	p.until(`^my-pg .* Running`, "cluster", "list")
	p.editor(`/logfile:/,/enable:/s/enable: false/enable: true/`).kbcli("cluster", "edit-backup-policy", "my-pg-postgresql-backup-policy")
	p.sql("my-pg", "create table t (n bigserial primary key, pad text)")
	written := make(chan error, 1)
	go func() {
		_, err := k.Try("", "-n", p.ns, "exec", "my-pg-postgresql-0", "-c", "postgresql", "--", "bash", "-c",
			`for i in $(seq 60); do psql -qXU postgres -v ON_ERROR_STOP=1 -c "insert into t (pad) select repeat('x', 100) from generate_series(1, 50)" || exit 1; done`)
		written <- err
	}()
	began := time.Now()
	first := p.match(p.kbcli("cluster", "backup", "my-pg", "--wait"), `^Backup (backup-snaps-my-pg-\d{14}) created successfully`)
	t.Logf("a snapshot after %s", time.Since(began))
	if err := <-written; err != nil {
		t.Fatal(err)
	}
	p.match(p.kbcli("cluster", "list-backup", "my-pg"), `^`+first+` +my-pg +snapshot +Completed `)
	p.match(p.kbcli("cluster", "describe-backup", first), `^Volume Snapshot: +snaps/`+first+`$`)
	if got := p.jsonpath("volumesnapshot", first, "{.status.readyToUse} {.metadata.labels.app\\.kubernetes\\.io/managed-by}"); got != "true kbcli" {
		t.Errorf("the VolumeSnapshot is %q", got)
	}
	moment := p.between()
	p.sql("my-pg", "insert into t (pad) values ('late')")
	p.untilWindow("my-pg", moment)

	p.restore("new", "my-pg", moment)
	if got := p.sql("new", "select count(*), count(*) filter (where pad = 'late') from t"); got != "3000|0" {
		t.Errorf("the restored cluster has rows %q", got)
	}
	if got := p.jsonpath("pvc", "data-new-postgresql-0", "{.spec.dataSource.kind} {.spec.dataSource.name}"); got != "VolumeSnapshot "+first {
		t.Errorf("its volume is of %q", got)
	}
	p.own("new", "my-pg")

	// one that somebody deletes is not restored from
	second := p.match(p.kbcli("cluster", "backup", "my-pg", "--type", "snapshot", "--wait"), `^Backup (backup-snaps-my-pg-\d{14}) created successfully`)
	k.Kubectl(t, "-n", p.ns, "delete", "volumesnapshot", second)
	p.until(`^`+second+` +my-pg +snapshot +Failed `, "cluster", "list-backup", "my-pg")
	p.match(p.kbcli("cluster", "describe-backup", second), `its snapshot is VolumeSnapshot snaps/`+second+`, and not here: there is no such VolumeSnapshot in this Kubernetes`)

	// a third goes as people let it go
	third := p.match(p.kbcli("cluster", "backup", "my-pg", "--type", "snapshot", "--wait"), `^Backup (backup-snaps-my-pg-\d{14}) created successfully`)
	p.kbcli("cluster", "delete-backup", "my-pg", "--name", third, "--auto-approve")
	k.Kubectl(t, "-n", p.ns, "wait", "--for=delete", "volumesnapshot/"+third, "--timeout=60s")

	p.match(p.kbcli("cluster", "delete", "my-pg", "--auto-approve"), "^Cluster my-pg deleted$")
	k.Kubectl(t, "-n", p.ns, "wait", "--for=delete", "pvc/data-my-pg-postgresql-0", "--timeout=120s")
	p.restore("again", "my-pg", moment)
	if got := p.sql("again", "select count(*), count(*) filter (where pad = 'late') from t"); got != "3000|0" {
		t.Errorf("the cluster restored from a deleted one has rows %q", got)
	}
}

func (p *person) jsonpath(kind, name, path string) string {
	p.t.Helper()
	return strings.TrimSpace(p.k.Kubectl(p.t, "-n", p.ns, "get", kind, name, "-o", "jsonpath="+path))
}
