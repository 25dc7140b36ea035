// SPDX-License-Identifier: Apache-2.0

//go:build long

package main

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/kbcli/kbcli/internal/testkube"
	"github.com/kbcli/kbcli/runtimes/operator/specs"
)

// stalls watches a ledger, until the function it returns is called: that gives the longest
// time in which no row was acknowledged, and how many were.
func (l *ledger) stalls() func() (time.Duration, int) {
	ctx, cancel := context.WithCancel(l.p.t.Context())
	ended := make(chan struct{})
	first := l.count()
	var most time.Duration
	go func() {
		defer close(ended)
		last, at := first, time.Now()
		for ctx.Err() == nil {
			if n := l.count(); n != last {
				last, at = n, time.Now()
			}
			most = max(most, time.Since(at))
			time.Sleep(50 * time.Millisecond)
		}
	}()
	return func() (time.Duration, int) {
		cancel()
		<-ended
		return most, l.count() - first
	}
}

// backsUp asks for a backup and does not wait.
func (p *person) backsUp(cluster, kind string) string {
	p.t.Helper()
	return p.match(p.kbcli("cluster", "backup", cluster, "--type", kind), `^Backup (backup-\S+) created successfully`)
}

// completed waits for a backup to end well.
func (p *person) completed(cluster, backup string) {
	p.t.Helper()
	if got := p.until(`^`+backup+` .* (Completed|Failed) `, "cluster", "list-backup", cluster); got != "Completed" {
		p.t.Fatalf("backup %s is %s\n%s", backup, got, p.kbcli("cluster", "describe-backup", backup))
	}
}

// TestPodsAPIServerAway: the API server is killed, and once it is away for a minute, while a
// backup is taken and a restore runs. PostgreSQL goes on serving under the same primary, and
// both come to their end.
func TestPodsAPIServerAway(t *testing.T) {
	p := archived(t, "apiaway", "storage=1Gi,replicas=2,storageClass="+testkube.StorageClass)
	// enough for a backup to take a while
	p.sql("my-pg", "create table big as select n, md5(n::text) || md5((-n)::text) as pad from generate_series(1, 1500000) n")
	first := p.backsUp("my-pg", "datafile")
	p.k.StopAPIServer(t)()
	p.completed("my-pg", first)
	t.Log("a backup outlived an API server that was killed")

	l := p.write("my-pg")
	l.goesOn(50)
	primary := p.primary("my-pg")
	timeline := p.sql("my-pg", "select timeline_id from pg_control_checkpoint()")
	p.k.Apply(t, `{apiVersion: apps.kubeblocks.io/v1alpha1, kind: Cluster, metadata: {name: new, namespace: `+p.ns+`},
spec: {storage: 1Gi, storageClassName: `+testkube.StorageClass+`, restore: {sourceCluster: my-pg, latest: true}}}`)
	p.untilField("new", ".status.restore.phase", func(s string) bool { return s != "" }, 2*time.Minute)
	second := p.backsUp("my-pg", "datafile")
	t.Logf("the restore is %s", p.field("new", ".status.restore.phase"))
	stalled := l.stalls()
	began := time.Now()
	back := p.k.StopAPIServer(t)
	time.Sleep(time.Minute)
	back()
	away := time.Since(began)
	p.completed("my-pg", second)
	t.Logf("the API server was away for %s; the backup is told of %s after it went", away, time.Since(began))
	p.until(`^new .* Running `, "cluster", "list")
	t.Logf("the restored cluster serves %s after it went", time.Since(began))
	p.until(`^my-pg .* Running `, "cluster", "list")
	most, rows := stalled()
	t.Logf("%d rows were written meanwhile; the longest that none was is %s", rows, most)
	if most > 10*time.Second {
		t.Errorf("PostgreSQL did not serve for %s", most)
	}
	if now := p.primary("my-pg"); now != primary {
		t.Errorf("the primary was %s, and is %s", primary, now)
	}
	if now := p.sql("my-pg", "select timeline_id from pg_control_checkpoint()"); now != timeline {
		t.Errorf("the timeline was %s, and is %s", timeline, now)
	}
	for n := range 2 {
		if got := p.restarts(specs.PodName("my-pg", n)); got != "0 0" {
			t.Errorf("containers of %s started again: %s", specs.PodName("my-pg", n), got)
		}
	}
	at := time.Now()
	p.untilField("my-pg", ".status.archive.provenTime", func(s string) bool {
		proven, err := time.Parse(time.RFC3339Nano, s)
		return err == nil && proven.After(at)
	}, 2*time.Minute)
	if gaps := p.field("my-pg", ".status.archive.gaps"); gaps != "" {
		t.Errorf("the archive has gaps: %s", gaps)
	}
	// the operator acts again
	began = time.Now()
	p.k.Kubectl(t, "-n", p.ns, "patch", "cluster", "new", "--type=merge", "-p", `{"spec":{"stopped":true}}`)
	p.until(`^new .* Stopped `, "cluster", "list")
	t.Logf("the operator stopped a cluster within %s", time.Since(began))
	l.end()
	if got := strings.TrimSpace(p.sql("my-pg", fmt.Sprintf("select count(*) >= %d from ledger", l.count()))); got != "t" {
		t.Errorf("of %d rows that were acknowledged some are missing", l.count())
	}
}
