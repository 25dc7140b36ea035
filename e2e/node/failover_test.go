// SPDX-License-Identifier: Apache-2.0

//go:build long

package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/kbcli/kbcli/internal/testkube"
	"github.com/kbcli/kbcli/runtimes/operator/specs"
)

// subject is a cluster that suffers.
type subject struct {
	name   string
	sync   bool // its commits wait for the repository
	ledger *ledger

	old      string // its primary before the disaster
	volume   string // of that one
	timeline int
	began    time.Time
}

// disaster takes primaries away, and gives what undoes it.
type disaster struct {
	name   string
	strike func(p *person, s *subject) (undo func())
	other  bool          // another server must take over
	node   bool          // of the second node, with all that is on it
	lasts  time.Duration // at least
}

func nothing() {}

var (
	// it comes back with what it had, as the primary or not
	killed = disaster{name: "its pod is killed", strike: func(p *person, s *subject) func() {
		p.crash(s.old)
		return nothing
	}}
	// the node dies, and its disk with it
	gone = disaster{name: "its pod and volume are gone", other: true, strike: func(p *person, s *subject) func() {
		p.k.Kubectl(p.t, "-n", p.ns, "delete", "pvc", "data-"+s.old, "--wait=false")
		p.crash(s.old)
		return nothing
	}}
	// it is as good as dead to all others, does not know it, and comes back
	still = disaster{name: "all its processes stand still", other: true, lasts: 2 * time.Minute, strike: func(p *person, s *subject) func() {
		processes := p.processes(s.old)
		p.signal(processes, syscall.SIGSTOP)
		return func() { p.signal(processes, syscall.SIGCONT) }
	}}
	crashed = disaster{name: "its server is killed", strike: func(p *person, s *subject) func() {
		p.k.Kubectl(p.t, "-n", p.ns, "exec", s.old, "-c", "postgresql", "--", "sh", "-c", `kill -9 "$(head -1 "$PGDATA/postmaster.pid")"`)
		return nothing
	}}
	switched = disaster{name: "it is switched over", other: true, strike: func(p *person, s *subject) func() {
		p.switchOver(s.name, s.old, p.standby(s.name, ""))
		return nothing
	}}
	drained = disaster{name: "its node is drained", other: true, node: true, strike: func(p *person, _ *subject) func() {
		out := p.k.Kubectl(p.t, "drain", "node2", "--ignore-daemonsets", "--delete-emptydir-data", "--force", "--timeout=300s")
		p.t.Logf("drained:\n%s", out)
		return func() { p.k.Kubectl(p.t, "uncordon", "node2") }
	}}
	// it runs, has its volume, and reaches nobody; those beside it reach it
	cutOff = disaster{name: "its node is cut off", other: true, node: true, strike: func(p *person, s *subject) func() {
		heal := p.k.Partition(p.t, "node2")
		ctx, cancel := context.WithCancel(p.t.Context())
		ended := make(chan struct{})
		uid := p.uid(s.old)
		go func() {
			defer close(ended)
			for ctx.Err() == nil {
				s.wrongSide(ctx, uid)
			}
		}()
		return func() { cancel(); <-ended; heal() }
	}}
)

// ten failovers.
var ten = []disaster{killed, cutOff, gone, crashed, drained, switched, still, killed, cutOff, gone}

// wrongSide writes a row on the server that was the primary before its node was cut off.
// Its numbers are below zero.
func (s *subject) wrongSide(ctx context.Context, uid string) {
	l := s.ledger
	pid := serverOf(processesOf(uid))
	if pid == "" {
		time.Sleep(time.Second)
		return
	}
	n := -int(time.Now().UnixMilli())
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, "nsenter", "-t", pid, "-m", "-n", "-p", "-S", "999", "-G", "999", "--",
		"psql", "-XAtq", "-h", specs.SocketDirectory, "-U", "postgres", "-d", "postgres", "-v", "ON_ERROR_STOP=1",
		"-c", fmt.Sprintf("insert into ledger values (%d, clock_timestamp())", n))
	out, err := cmd.CombinedOutput()
	if err == nil && !strings.Contains(string(out), "synchronous replication") {
		l.ack(n)
	}
	time.Sleep(300 * time.Millisecond)
}

// serverOf is one of a container's processes that runs PostgreSQL or Patroni; "" if there
// is none.
func serverOf(processes []int) string {
	for _, pid := range processes {
		name, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "comm"))
		if err == nil && strings.HasPrefix(string(name), "postgres") {
			return strconv.Itoa(pid)
		}
	}
	return ""
}

// standby is one that runs and follows, on a node if that is given.
func (p *person) standby(cluster, node string) string {
	p.t.Helper()
	if node == "" {
		node = `node\d`
	}
	return p.until(`^(`+cluster+`-postgresql-\d+) .* Running +standby .* `+node+` `, "cluster", "list-instances", cluster)
}

func (p *person) switchOver(cluster, from, to string) {
	p.t.Helper()
	p.t.Log(p.k.Kubectl(p.t, "-n", p.ns, "exec", from, "-c", "postgresql", "--", "patronictl", "-c", "/etc/patroni/patroni.yml",
		"switchover", specs.StatefulSetName(cluster), "--master", from, "--candidate", to, "--force"))
}

// volume is the one a pod has its data on.
func (p *person) volume(pod string) string {
	return strings.TrimSpace(p.k.Kubectl(p.t, "-n", p.ns, "get", "pvc", "data-"+pod, "-o", "jsonpath={.spec.volumeName}"))
}

func (p *person) nodeOf(pod string) string {
	return strings.TrimSpace(p.k.Kubectl(p.t, "-n", p.ns, "get", "pod", pod, "-o", "jsonpath={.spec.nodeName}"))
}

// leadsFrom has the primary of a cluster on a node, and a standby on the other.
func (p *person) leadsFrom(s *subject, node, other string) {
	p.t.Helper()
	p.spread(s, node, other)
	for range 3 {
		now := p.primary(s.name)
		if p.nodeOf(now) == node {
			break
		}
		p.switchOver(s.name, now, p.standby(s.name, node))
		for deadline := time.Now().Add(time.Minute); p.primary(s.name) == now && time.Now().Before(deadline); {
			time.Sleep(time.Second)
		}
		p.settles(s)
	}
	p.spread(s, other, node)
}

// spread has a standby, or the primary, on a node: one of those that are elsewhere moves.
func (p *person) spread(s *subject, node, from string) {
	p.t.Helper()
	if nodes := p.k.Kubectl(p.t, "-n", p.ns, "get", "pods", "-l", "app.kubernetes.io/instance="+s.name, "-o", "jsonpath={.items[*].spec.nodeName}"); strings.Contains(nodes, node) {
		return
	}
	p.k.Kubectl(p.t, "cordon", from)
	moves := p.standby(s.name, from)
	p.k.Kubectl(p.t, "-n", p.ns, "delete", "pod", moves)
	p.k.Kubectl(p.t, "-n", p.ns, "wait", "--for=condition=Ready", "pod/"+moves, "--timeout=180s")
	p.k.Kubectl(p.t, "uncordon", from)
	p.settles(s)
}

// settles waits until a cluster serves whole, and is archived.
func (p *person) settles(s *subject) {
	p.t.Helper()
	p.until(`^`+s.name+` .* Running `, "cluster", "list")
	began := time.Now()
	for deadline := began.Add(4 * time.Minute); !p.archivedSince(s.name, began.Add(-time.Second)); time.Sleep(time.Second) {
		if time.Now().After(deadline) {
			p.t.Fatalf("%s is not archived: %s", s.name, p.field(s.name, ".status.archive"))
		}
	}
	// whose pods are ready may still be rewound: a disaster now would take the only copy
	for p.sql(s.name, "select count(*) from pg_stat_replication where state = 'streaming' and application_name not like 'kbcli%'") != "2" {
		if time.Since(began) > 4*time.Minute {
			p.t.Fatalf("not all servers follow: %s", p.sql(s.name, "select string_agg(application_name || ' ' || state, ', ') from pg_stat_replication"))
		}
		time.Sleep(time.Second)
	}
}

// suffer lets a disaster come over the primary, and waits until the next is archived and
// all are back.
func (p *person) suffer(s *subject, d disaster) {
	p.t.Helper()
	if d.node {
		p.leadsFrom(s, "node2", "node1")
	}
	s.ledger.goesOn(20)
	s.old = p.primary(s.name)
	s.volume = p.volume(s.old)
	s.timeline = mustAtoi(p.t, p.sql(s.name, "select timeline_id from pg_control_checkpoint()"))
	s.began = time.Now()
	after := func(what string) {
		p.t.Logf("%s: %s: %s after %.0fs", s.old, d.name, what, time.Since(s.began).Seconds())
	}
	undo := d.strike(p, s)
	defer undo()
	s.ledger.goesOn(20)
	after("rows are written again")
	p.archivedAgain(s, d)
	after("the archive goes on, with timeline " + p.field(s.name, ".status.archive.timeline"))
	time.Sleep(time.Until(s.began.Add(d.lasts)))
	undo()
	// who lost its volume may come back with another, follow, and be the next to lead
	if now := p.primary(s.name); d.other && now == s.old && p.volume(now) == s.volume {
		p.t.Errorf("%s is the primary still", s.old)
	}
	p.settles(s)
	after("all serve")
	if s.sync {
		if lost := s.ledger.lost(); len(lost) > 0 {
			p.t.Fatalf("%d acknowledged rows are not there: %v", len(lost), lost)
		}
	}
}

// archivedAgain waits until the archive goes on with the next primary.
func (p *person) archivedAgain(s *subject, d disaster) {
	p.t.Helper()
	for deadline := time.Now().Add(4 * time.Minute); ; time.Sleep(time.Second) {
		now, err := strconv.Atoi(p.field(s.name, ".status.archive.timeline"))
		// a server that only started again goes on where it was
		if err == nil && (now > s.timeline || !d.other) && p.field(s.name, ".status.archive.state") == "Streaming" && p.archivedSince(s.name, s.began) {
			return
		}
		if time.Now().After(deadline) {
			p.t.Fatalf("the archive of %s is on timeline %d, and was on %d before the failover: %s", s.name, now, s.timeline, p.field(s.name, ".status.archive"))
		}
	}
}

// twoNodes is a Kubernetes with two nodes of its own, or the one that is up already.
func twoNodes(t *testing.T) *testkube.Cluster {
	t.Helper()
	if os.Getenv(testkube.EnvNode) != "" {
		return testkube.Node(t)
	}
	c, err := testkube.Up(testkube.Options{Nodes: 2, Progress: os.Stderr})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Down(); err != nil {
			t.Error(err)
		}
	})
	return c
}

// TestPodsFailoverSync: ten times the primary of a cluster whose commits wait for the
// repository is lost while somebody writes, and no acknowledged row is.
func TestPodsFailoverSync(t *testing.T) { failovers(t, &subject{name: "safe", sync: true}) }

// TestPodsFailover is the same with commits that do not wait. Some that were acknowledged
// are lost with a primary; the archive has no hole all the same.
func TestPodsFailover(t *testing.T) { failovers(t, &subject{name: "quick"}) }

// failovers: the archive goes on with each next primary without a gap, and a restore to a
// moment across them has all that survived, and nothing else.
func failovers(t *testing.T, s *subject) {
	k := twoNodes(t)
	install(t, k)
	p := newPerson(t, k, "failover")
	p.repository("failover")
	if s.sync {
		p.protected(s.name, 3, "sync")
	} else {
		p.protected(s.name, 3, "async")
	}
	s.ledger = p.write(s.name)
	for _, d := range ten {
		p.suffer(s, d)
	}
	s.ledger.goesOn(50)
	s.ledger.end()
	lost := s.ledger.lost()
	t.Logf("%d rows were acknowledged, %d of them are not there", s.ledger.count(), len(lost))
	if s.sync && len(lost) > 0 {
		t.Errorf("%v are not there", lost)
	}
	p.exact(s)
}

// exact: the archive has no gap, and gives back what is there, as of a random row and as
// of now.
func (p *person) exact(s *subject) {
	p.t.Helper()
	if gaps := p.field(s.name, ".status.archive.gaps"); gaps != "" {
		p.t.Errorf("the archive of %s has gaps: %s", s.name, gaps)
	}
	// What survived, in the order it was written. Those that were acknowledged by a primary
	// that died before a standby had them are not there, where commits do not wait.
	rows := strings.Split(p.sql(s.name, "select n, to_char(at at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"') from ledger where n > 0 order by n"), "\n")
	pick := 1 + rand.IntN(len(rows)-1)
	n, at, _ := strings.Cut(rows[pick], "|")
	moment, err := time.Parse(time.RFC3339Nano, at)
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Logf("%s is restored to just before row %s of %s", s.name, n, at)
	p.restore("past", s.name, moment.Add(-time.Microsecond).Format(time.RFC3339Nano))
	p.holds("past", s.name, fmt.Sprintf("where n < %s", n))
	p.kbcli("cluster", "delete", "past", "--auto-approve")
	p.restore("present", s.name, "latest")
	p.holds("present", s.name, "")
	p.kbcli("cluster", "delete", "present", "--auto-approve")
}
