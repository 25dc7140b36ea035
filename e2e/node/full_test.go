// SPDX-License-Identifier: Apache-2.0

//go:build long

package main

import (
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/kbcli/kbcli/runtimes/operator/specs"
)

// inServer runs a shell command in the container of a cluster's first server.
func (p *person) inServer(cluster, command string) (string, error) {
	out, err := p.k.Try("", "-n", p.ns, "exec", specs.PodName(cluster, 0), "-c", "postgresql", "--", "bash", "-c", command)
	return strings.TrimSpace(out), err
}

// TestPodsVolumeFull: a volume fills up. The status says so before it is full, with what to
// type; when it is full PostgreSQL is what stops and not the data what is lost; and when the
// volume has grown all goes on by itself.
func TestPodsVolumeFull(t *testing.T) {
	p := archived(t, "full", small)
	k := p.k
	p.kbcli("cluster", "backup", "my-pg", "--type", "datafile", "--wait")
	l := p.write("my-pg")
	l.goesOn(50)
	df := func() string {
		out, err := p.inServer("my-pg", "df -k --output=pcent,avail "+specs.VolumeDirectory+" | tail -1")
		if err != nil {
			return err.Error()
		}
		return out
	}
	t.Logf("at first: %s", df())
	if got := p.field("my-pg", ".status.reason"); got != "" {
		t.Errorf("the status has the reason %s", got)
	}

	// somebody's data
	if out, err := p.inServer("my-pg", fmt.Sprintf(`free=$(df -k --output=avail %[1]s | tail -1); head -c $(( (free - 45000) * 1024 )) /dev/zero > %[1]s/ballast`, specs.VolumeDirectory)); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	took := p.untilField("my-pg", ".status.reason", is("VolumeAlmostFull"), time.Minute)
	t.Logf("%s, said after %s: %s", df(), took, p.field("my-pg", ".status.message"))
	p.until(`VolumeAlmostFull`, "cluster", "list-events", "my-pg")
	p.match(p.kbcli("cluster", "describe", "my-pg"), `^Message: .*next: kubectl`)

	// to the last byte, and then the server has to write
	_, err := p.inServer("my-pg", "cat /dev/zero > "+specs.VolumeDirectory+"/ballast2")
	if err == nil {
		t.Fatal("there is no end of room")
	}
	took = p.untilField("my-pg", ".status.reason", is("VolumeFull"), time.Minute)
	t.Logf("%s, said after %s: %s", df(), took, p.field("my-pg", ".status.message"))
	for n := range 20 {
		if _, err := p.inPod("my-pg", 0, "create table if not exists much (t text); insert into much select repeat(md5(n::text), 30) from generate_series(1, 20000) n"); err != nil {
			t.Logf("the %d. time PostgreSQL says: %s", n+1, firstLine(err.Error()))
			break
		}
	}
	for range 8 {
		_, _ = p.inPod("my-pg", 0, "select pg_switch_wal()") // each takes a segment, until there is none
		_, _ = p.inPod("my-pg", 0, "insert into ledger select -1 where false; select txid_current()")
	}
	time.Sleep(20 * time.Second)
	t.Logf("full for a while: %s: phase %s: %s: %s", df(), p.field("my-pg", ".status.phase"), p.field("my-pg", ".status.reason"), p.field("my-pg", ".status.message"))
	t.Logf("the archive: %s: %s", p.field("my-pg", archivingIs("reason")), p.field("my-pg", archivingIs("message")))
	if got := p.field("my-pg", ".status.reason"); got != "VolumeFull" {
		t.Errorf("the reason is %s", got)
	}

	// what the message says
	_, command, ok := strings.Cut(p.field("my-pg", ".status.message"), "next: ")
	if !ok {
		t.Fatal("it does not say what to do")
	}
	command, _, _ = strings.Cut(command, "}}'")
	cmd := exec.Command("sh", "-c", strings.Replace(command+"}}'", "kubectl", k.KubectlProgram(), 1))
	cmd.Env = p.env
	began := time.Now()
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", command, err, out)
	}
	p.untilField("my-pg", ".status.reason", is(""), 6*time.Minute)
	p.untilField("my-pg", ".status.phase", is("Running"), 6*time.Minute)
	t.Logf("the volume grew, and has room after %s: %s", time.Since(began), df())
	// Patroni, which could not promote the server that had crashed, is started again when it
	// has not moved for two minutes
	for want := l.count() + 50; l.count() < want; time.Sleep(100 * time.Millisecond) {
		if time.Since(began) > 6*time.Minute {
			t.Fatalf("%d rows were written and no more", l.count())
		}
	}
	t.Logf("rows are written again after %s", time.Since(began))
	p.untilField("my-pg", archivingIs("status"), is("True"), 3*time.Minute)
	t.Logf("the archive goes on after %s", time.Since(began))
	if gaps := p.field("my-pg", ".status.archive.gaps"); gaps != "" {
		t.Errorf("the archive has gaps: %s", gaps)
	}
	p.completed("my-pg", p.backsUp("my-pg", "incremental"))
	l.end()
	if got := p.sql("my-pg", fmt.Sprintf("select count(*) >= %d from ledger", l.count())); got != "t" {
		t.Errorf("of %d rows that were acknowledged some are missing", l.count())
	}
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(s), "\n")
	return line
}
