// SPDX-License-Identifier: Apache-2.0

//go:build long

package main

import (
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/kbcli/kbcli/internal/testkube"
	"github.com/kbcli/kbcli/runtimes/operator/specs"
)

// killAgent ends the agent of a pod as the kernel does for want of memory.
func (p *person) killAgent(pod string) {
	p.t.Helper()
	p.signal(p.programs(pod, "agent pod"), syscall.SIGKILL)
}

// programs are the processes of a pod with these words in their command line.
func (p *person) programs(pod, words string) []int {
	p.t.Helper()
	var out []int
	for _, pid := range p.processes(pod) {
		if strings.Contains(commandLine(pid), words) {
			out = append(out, pid)
		}
	}
	if len(out) == 0 {
		p.t.Fatalf("pod %s runs no %q", pod, words)
	}
	return out
}

// TestPodsAgentKilled: the agent is killed as for want of memory, while it archives and in
// the middle of a backup; once the kernel does it. PostgreSQL goes on, the archive has no
// gap, and the backup is taken.
func TestPodsAgentKilled(t *testing.T) {
	p := archived(t, "agentkilled", "storage=1Gi,storageClass="+testkube.StorageClass)
	p.sql("my-pg", "create table big as select n, md5(n::text) || md5((-n)::text) as pad from generate_series(1, 1500000) n")
	l := p.write("my-pg")
	l.goesOn(20)
	pod := specs.PodName("my-pg", 0)
	stalled := l.stalls()
	first := p.backsUp("my-pg", "datafile")
	p.untilBackup(first, "{.status.phase}", is("InProgress"))
	p.killAgent(pod)
	t.Logf("killed while the backup was %s", p.jsonpath("backup", first, "{.status.phase} {.status.progress.phase}"))
	p.completed("my-pg", first)
	p.match(p.kbcli("cluster", "describe-backup", first), "Completed")
	t.Logf("the agent of a backup has had %d MB at most", p.peak(pod)>>20)
	// the kernel's own way: there is less memory than a backup takes
	p.squeeze(pod)
	second := p.backsUp("my-pg", "datafile")
	const ended = `{range .status.containerStatuses[?(@.name=="kbcli")]}{.restartCount} {.lastState.terminated.reason} {.lastState.terminated.exitCode}{end}`
	for deadline := time.Now().Add(2 * time.Minute); p.jsonpath("pod", pod, ended) != "2 OOMKilled 137"; time.Sleep(time.Second) {
		if time.Now().After(deadline) {
			t.Fatalf("the kernel did not end it: %s", p.jsonpath("pod", pod, ended))
		}
	}
	p.until("AgentEnded .*used all of its memory", "cluster", "list-events", "my-pg")
	p.completed("my-pg", second)
	t.Log("the second backup was taken all the same")
	p.untilField("my-pg", archivingIs("status"), is("True"), 2*time.Minute)
	most, rows := stalled()
	t.Logf("%d rows were written meanwhile; the longest that none was is %s", rows, most)
	if most > 10*time.Second {
		t.Errorf("PostgreSQL did not serve for %s", most)
	}
	if gaps := p.field("my-pg", ".status.archive.gaps"); gaps != "" {
		t.Errorf("the archive has gaps: %s", gaps)
	}
	l.end()
	p.restore("present", "my-pg", "latest")
	p.holds("present", "my-pg", "")
}

// untilBackup waits for a value of a Backup.
func (p *person) untilBackup(backup, path string, fits func(string) bool) {
	p.t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(50 * time.Millisecond) {
		got := p.jsonpath("backup", backup, path)
		if fits(got) {
			return
		}
		if time.Now().After(deadline) {
			p.t.Fatalf("%s of backup %s is %q", path, backup, got)
		}
	}
}

// TestPodsStorageAwayForLong: the store is away for five minutes. WAL gathers in the spool
// up to its limit, then in the server's slot; the server serves, and nothing is missing
// afterwards.
func TestPodsStorageAwayForLong(t *testing.T) {
	p := archived(t, "fiveminutes", "storage=1Gi,storageClass="+testkube.StorageClass)
	p.kbcli("cluster", "backup", "my-pg", "--type", "datafile", "--wait")
	p.sql("my-pg", "create table filler (pad text)")
	l := p.write("my-pg")
	l.goesOn(50)
	stalled := l.stalls()
	began := time.Now()
	p.door.Refuse()
	took := p.untilField("my-pg", archivingIs("status"), is("False"), time.Minute)
	t.Logf("said after %s: %s", took, p.field("my-pg", archivingIs("message")))
	// about 300 MB of WAL: more than the spool may take on this volume
	for range 4 {
		p.sql("my-pg", "insert into filler select repeat(md5(n::text), 30) from generate_series(1, 70000) n; truncate filler; checkpoint")
	}
	p.untilField("my-pg", archivingIs("reason"), func(s string) bool { return s != "" && s != "Streaming" }, time.Minute)
	p.untilField("my-pg", ".status.archive.state", is("Blocked"), 2*time.Minute)
	t.Logf("after %s: spool %s bytes, behind by %s bytes and %s s; %s", time.Since(began), p.field("my-pg", ".status.archive.spoolBytes"),
		p.field("my-pg", ".status.archive.lagBytes"), p.field("my-pg", ".status.archive.lagSeconds"), p.field("my-pg", archivingIs("message")))
	p.door.Hang()
	p.door.Open(t)
	p.door.Hang()
	time.Sleep(5*time.Minute - time.Since(began))
	t.Logf("after %s: spool %s bytes, behind by %s bytes and %s s; %s", time.Since(began), p.field("my-pg", ".status.archive.spoolBytes"),
		p.field("my-pg", ".status.archive.lagBytes"), p.field("my-pg", ".status.archive.lagSeconds"), p.field("my-pg", archivingIs("message")))
	spool := mustAtoi(t, p.field("my-pg", ".status.archive.spoolBytes"))
	if limit := 1<<30/8 + 32<<20; spool > limit {
		t.Errorf("the spool took %d bytes of a volume of 1 GiB", spool)
	}
	most, rows := stalled()
	t.Logf("%d rows were written meanwhile; the longest that none was is %s", rows, most)
	if most > 10*time.Second {
		t.Errorf("PostgreSQL did not serve for %s", most)
	}
	p.door.Open(t)
	at := time.Now()
	healed := p.untilField("my-pg", archivingIs("status"), is("True"), 3*time.Minute)
	l.goesOn(20)
	p.untilField("my-pg", ".status.archive.provenTime", func(s string) bool {
		proven, err := time.Parse(time.RFC3339Nano, s)
		return err == nil && proven.After(at)
	}, 3*time.Minute)
	t.Logf("healed after %s, has caught up after %s", healed, time.Since(at))
	if gaps := p.field("my-pg", ".status.archive.gaps"); gaps != "" {
		t.Errorf("the archive has gaps: %s", gaps)
	}
	if got := p.restarts(specs.PodName("my-pg", 0)); got != "0 0" {
		t.Errorf("containers started again: %s", got)
	}
	l.end()
	p.restore("present", "my-pg", "latest")
	p.holds("present", "my-pg", "")
}
