// SPDX-License-Identifier: Apache-2.0

package main

import (
	"strings"
	"testing"
	"time"

	"github.com/kbcli/kbcli/internal/testkube"
	"github.com/kbcli/kbcli/runtimes/operator/specs"
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
	p.snapshots()

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
	t.Log(p.jsonpath("pod", "new-postgresql-0", `{.metadata.creationTimestamp}{range .status.initContainerStatuses[*]} {.name} {.state.terminated.startedAt} {.state.terminated.finishedAt}{end}{range .status.containerStatuses[*]} {.name} {.state.running.startedAt}{end}{range .status.conditions[*]} {.type} {.lastTransitionTime}{end}`))

	p.away("my-pg", first, moment)

	// one that somebody deletes is not restored from
	second := p.match(p.kbcli("cluster", "backup", "my-pg", "--type", "snapshot", "--wait"), `^Backup (backup-snaps-my-pg-\d{14}) created successfully`)
	k.Kubectl(t, "-n", p.ns, "delete", "volumesnapshot", second)
	p.until(`^`+second+` +my-pg +snapshot +Failed `, "cluster", "list-backup", "my-pg")
	p.match(p.kbcli("cluster", "describe-backup", second), `its snapshot is VolumeSnapshot snaps/`+second+`, and not here: there is no such VolumeSnapshot in this Kubernetes`)

	// a third goes as people let it go
	third := p.match(p.kbcli("cluster", "backup", "my-pg", "--type", "snapshot", "--wait"), `^Backup (backup-snaps-my-pg-\d{14}) created successfully`)
	p.kbcli("cluster", "delete-backup", "my-pg", "--name", third, "--auto-approve")
	k.Kubectl(t, "-n", p.ns, "wait", "--for=delete", "volumesnapshot/"+third, "--timeout=60s")

	p.anew("my-pg", first, moment)
	if got := p.sql("anew", "select count(*), count(*) filter (where pad = 'late') from t"); got != "3000|0" {
		t.Errorf("the cluster whose volume was made twice has rows %q", got)
	}

	p.match(p.kbcli("cluster", "delete", "my-pg", "--auto-approve"), "^Cluster my-pg deleted$")
	k.Kubectl(t, "-n", p.ns, "wait", "--for=delete", "pvc/data-my-pg-postgresql-0", "--timeout=120s")
	p.restore("again", "my-pg", moment)
	if got := p.sql("again", "select count(*), count(*) filter (where pad = 'late') from t"); got != "3000|0" {
		t.Errorf("the cluster restored from a deleted one has rows %q", got)
	}
}

// away: a restore into another namespace has a volume of the same snapshot of the storage,
// which outlives what was lent for it; a volume that cannot hold the snapshot is refused.
func (p *person) away(source, backup, moment string) {
	p.t.Helper()
	there := newPerson(p.t, p.k, "snapsaway")
	p.k.Apply(p.t, `{apiVersion: storage.k8s.io/v1, kind: StorageClass, metadata: {name: tape}, provisioner: tape.example}`)
	p.t.Cleanup(func() { p.k.Kubectl(p.t, "delete", "storageclass", "tape") })
	words := []string{"cluster", "restore", "away", "--restore-to-time", moment, "--source-cluster", source, "--source-namespace", p.ns}
	for set, want := range map[string]string{
		"storage=350Mi":     "^error: storage 350Mi is too small: VolumeSnapshot " + p.ns + "/" + backup + " has 400Mi$",
		"storageClass=tape": "^error: volumes of storage class tape are made by tape.example, and VolumeSnapshot " + p.ns + "/" + backup + " is of ",
	} {
		s := there.try("", append(words, "--set", set)...)
		if s.code != 5 {
			p.t.Errorf("%s: exit code %d", set, s.code)
		}
		p.match(s.err, want)
	}
	began := time.Now()
	there.kbcli(append(words, "--wait", "--timeout", "4m")...)
	p.t.Logf("away serves after %s: %s", time.Since(began), p.match(there.kbcli("cluster", "describe", "away"), `^Took: +(.*)$`))
	if got := there.sql("away", "select count(*), count(*) filter (where pad = 'late') from t"); got != "3000|0" {
		p.t.Errorf("the cluster in another namespace has rows %q", got)
	}
	if got := there.jsonpath("pvc", "data-away-postgresql-0", "{.spec.dataSource.kind} {.spec.dataSource.name}"); got != "VolumeSnapshot away-postgresql-restore" {
		p.t.Errorf("its volume is of %q", got)
	}
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(500 * time.Millisecond) {
		left := p.k.Kubectl(p.t, "get", "volumesnapshots,volumesnapshotcontents", "-A", "-l", "dataprotection.kubeblocks.io/lent-to", "-o", "name")
		if left == "" {
			return
		}
		if time.Now().After(deadline) {
			p.t.Fatalf("what was lent is still there:\n%s", left)
		}
	}
}

// anew: a volume on which recovery was interrupted is made of its snapshot again, with
// the same target.
func (p *person) anew(source, backup, moment string) {
	p.t.Helper()
	at, err := time.Parse(pageTime, moment)
	if err != nil {
		p.t.Fatal(err)
	}
	// its pod finds no node at first, so that nothing else happens to its volume
	p.k.Apply(p.t, `{apiVersion: apps.kubeblocks.io/v1alpha1, kind: Cluster, metadata: {name: anew, namespace: `+p.ns+`},
spec: {storage: 400Mi, storageClassName: `+testkube.StorageClass+`, resources: {cpu: "400"}, restore: {sourceCluster: `+source+`, sourceNamespace: `+p.ns+`, time: "`+at.UTC().Format(time.RFC3339)+`"}}}`)
	p.k.Kubectl(p.t, "-n", p.ns, "wait", "--for=create", "pod/anew-postgresql-0", "--timeout=120s")
	first := p.jsonpath("pvc", "data-anew-postgresql-0", "{.metadata.uid}")
	p.k.Kubectl(p.t, "-n", p.ns, "annotate", "cluster", "anew", specs.AnnotationVolumeUsed+"=anew-postgresql-0")
	for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(200 * time.Millisecond) {
		now, err := p.k.Try("", "-n", p.ns, "get", "pvc", "data-anew-postgresql-0", "-o", "jsonpath={.metadata.uid}{.metadata.deletionTimestamp}")
		if err == nil && now != "" && !strings.HasPrefix(now, first) {
			break
		}
		if time.Now().After(deadline) {
			p.t.Fatalf("the volume is still %s: %v", now, err)
		}
	}
	p.k.Kubectl(p.t, "-n", p.ns, "wait", "--for=create", "pod/anew-postgresql-0", "--timeout=120s")
	if got := p.jsonpath("cluster", "anew", "{.metadata.annotations."+strings.ReplaceAll(specs.AnnotationVolumeUsed, ".", "\\.")+"}"); got != "" {
		p.t.Errorf("the wish for another volume is still there: %q", got)
	}
	second := p.jsonpath("pvc", "data-anew-postgresql-0", "{.metadata.uid} {.spec.dataSource.name}")
	if strings.HasPrefix(second, first) || !strings.HasSuffix(second, " "+backup) {
		p.t.Errorf("the volume was %s, and is %s", first, second)
	}
	p.k.Kubectl(p.t, "-n", p.ns, "patch", "cluster", "anew", "--type=merge", "-p", `{"spec":{"resources":{"cpu":null}}}`)
	p.until(`^anew .* Running `, "cluster", "list")
}

// snapshots turns them on.
func (p *person) snapshots() {
	p.t.Helper()
	p.k.Apply(p.t, `{apiVersion: extensions.kubeblocks.io/v1alpha1, kind: Addon, metadata: {name: snapshot-controller}, spec: {install: {enabled: true}}}`)
	p.t.Cleanup(func() { p.k.Kubectl(p.t, "delete", "addon", "snapshot-controller", "--ignore-not-found") })
}

func (p *person) jsonpath(kind, name, path string) string {
	p.t.Helper()
	return strings.TrimSpace(p.k.Kubectl(p.t, "-n", p.ns, "get", kind, name, "-o", "jsonpath="+path))
}
