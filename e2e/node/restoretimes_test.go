// SPDX-License-Identifier: Apache-2.0

//go:build long

package main

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/kbcli/kbcli/internal/testkube"
)

// TestRestoreTimes measures what a restore of a gigabyte takes until it serves, from a
// VolumeSnapshot and from the repository, part by part.
func TestRestoreTimes(t *testing.T) {
	k := testkube.Node(t)
	install(t, k)
	p := newPerson(t, k, "times")
	p.repository("times")
	p.snapshots()
	p.kbcli("cluster", "create", "my-pg", "--set", "storage=4Gi,storageClass="+testkube.StorageClass, "--wait")
	p.sql("my-pg", "create table t as select g as id, md5(g::text) as a, md5((g * 7)::text) as b, md5((g * 13)::text) as c from generate_series(1, 7000000) g")
	p.sql("my-pg", "checkpoint")
	t.Logf("the database has %s", p.sql("my-pg", "select pg_size_pretty(sum(pg_database_size(oid))) from pg_database"))
	p.kbcli("cluster", "edit-backup-policy", "my-pg-postgresql-backup-policy", "--set", "schedule.logfile.enable=true")
	for _, kind := range []string{"datafile", "snapshot"} {
		p.kbcli("cluster", "backup", "my-pg", "--type", kind, "--wait")
		p.sql("my-pg", "create table after_"+kind+" as select 1 as n")
		p.sql("my-pg", "select pg_create_restore_point('after_"+kind+"')")
		p.sql("my-pg", "select pg_switch_wal()")
		for i := range 3 {
			name := fmt.Sprintf("%s-%d", kind, i)
			load := loadNow(t)
			began := time.Now()
			p.kbcli("cluster", "restore", name, "--restore-to-name", "after_"+kind, "--source-cluster", "my-pg", "--wait", "--timeout", "10m")
			took := time.Since(began)
			t.Logf("%s: %.1f s at load %s\n%s\n%s", name, took.Seconds(), load, p.parts(name), p.kbcli("cluster", "describe", name))
			if got := p.sql(name, "select count(*) from after_"+kind); got != "1" {
				t.Errorf("%s has %q", name, got)
			}
			p.kbcli("cluster", "delete", name, "--auto-approve")
		}
	}
}

func loadNow(t *testing.T) string {
	b, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(strings.Fields(string(b))[:2], " ")
}

// parts are what Kubernetes says when what happened.
func (p *person) parts(name string) string {
	p.t.Helper()
	pod := p.jsonpath("pod", name+"-postgresql-0", `{.metadata.creationTimestamp}{range .status.initContainerStatuses[*]} {.name} {.state.terminated.startedAt} {.state.terminated.finishedAt}{end}{range .status.containerStatuses[*]} {.name} {.state.running.startedAt}{end}{range .status.conditions[*]} {.type} {.lastTransitionTime}{end}`)
	return "cluster " + p.jsonpath("cluster", name, "{.metadata.creationTimestamp}") + " pod " + pod
}
