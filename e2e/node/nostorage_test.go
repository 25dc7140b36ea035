// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/kbcli/kbcli/runtimes/operator/specs"
)

// untilField waits until a value of a cluster is as asked, and gives how long that took.
func (p *person) untilField(cluster, path string, fits func(string) bool, limit time.Duration) time.Duration {
	p.t.Helper()
	began := time.Now()
	for {
		got, err := p.k.Try("", "-n", p.ns, "get", "cluster", cluster, "-o", "jsonpath={"+path+"}")
		if err == nil && fits(got) {
			return time.Since(began)
		}
		if time.Since(began) > limit {
			p.t.Fatalf("after %s %s of %s is %q, %v", limit, path, cluster, got, err)
		}
		time.Sleep(500 * time.Millisecond)
	}
}

func is(want string) func(string) bool { return func(got string) bool { return got == want } }

// archivingIs is the path of the condition's field.
func archivingIs(field string) string {
	return `.status.conditions[?(@.type=="Archiving")].` + field
}

// writes has a cluster commit for a while, once about every second, and gives how often.
func (p *person) writes(cluster string, d time.Duration) int {
	p.t.Helper()
	n := 0
	for began := time.Now(); time.Since(began) < d; time.Sleep(500 * time.Millisecond) {
		at := time.Now()
		if _, err := p.inPod(cluster, 0, "insert into away (at) values (clock_timestamp())"); err != nil {
			p.t.Fatalf("the server does not serve: %v", err)
		}
		if took := time.Since(at); took > 15*time.Second {
			p.t.Errorf("a commit took %s", took)
		}
		n++
	}
	return n
}

// restarts is how often the containers of a pod have started again.
func (p *person) restarts(pod string) string {
	p.t.Helper()
	return strings.TrimSpace(p.k.Kubectl(p.t, "-n", p.ns, "get", "pod", pod, "-o", "jsonpath={.status.containerStatuses[*].restartCount}"))
}

// TestPodsStorageAway: the store hangs, then refuses, then is back. The server serves, the
// object says in the store's own words what is wrong, and the archive goes on without a gap.
func TestPodsStorageAway(t *testing.T) {
	p := archived(t, "storageaway", small)
	p.kbcli("cluster", "backup", "my-pg", "--type", "datafile", "--wait")
	p.sql("my-pg", "create table away (n serial primary key, at timestamptz not null)")
	p.untilField("my-pg", archivingIs("status"), is("True"), time.Minute)

	began := time.Now()
	p.door.Hang()
	n := p.writes("my-pg", 3*time.Second)
	took := p.untilField("my-pg", archivingIs("status"), is("False"), time.Minute)
	t.Logf("hanging for %s: %s: %s", time.Since(began), p.field("my-pg", archivingIs("reason")), p.field("my-pg", archivingIs("message")))
	if took > 40*time.Second {
		t.Errorf("that was said %s late", took)
	}
	p.match(p.kbcli("cluster", "describe", "my-pg"), `(?s)Archive:.*the storage has not answered yet`)
	n += p.writes("my-pg", 3*time.Second)
	p.door.Refuse()
	p.untilField("my-pg", archivingIs("message"), func(s string) bool { return strings.Contains(s, "connection refused") }, time.Minute)
	t.Logf("refusing: %s: %s", p.field("my-pg", archivingIs("reason")), p.field("my-pg", archivingIs("message")))
	moment := p.between()
	n += p.writes("my-pg", 3*time.Second)
	p.untilField("my-pg", ".status.archive.lagSeconds", func(s string) bool { return len(s) > 1 }, time.Minute) // ten at least
	t.Logf("away for %s, %d commits, behind by %s s and %s bytes", time.Since(began), n,
		p.field("my-pg", ".status.archive.lagSeconds"), p.field("my-pg", ".status.archive.lagBytes"))
	p.door.Open(t)
	took = p.untilField("my-pg", archivingIs("status"), is("True"), 2*time.Minute)
	t.Logf("healed after %s", took)
	p.untilWindow("my-pg", moment)
	if gaps := p.field("my-pg", ".status.archive.gaps"); gaps != "" {
		t.Errorf("the archive has gaps: %s", gaps)
	}
	p.kbcli("cluster", "restore", "then", "--restore-to-time", moment, "--source-cluster", "my-pg", "--dry-run")
	if got := p.sql("my-pg", "select count(*) from away"); got != fmt.Sprint(n) {
		t.Errorf("%s rows are there of %d", got, n)
	}
	if got := p.restarts(specs.PodName("my-pg", 0)); got != "0 0" {
		t.Errorf("containers started again: %s", got)
	}
}
