// SPDX-License-Identifier: Apache-2.0

//go:build long

package main

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/kbcli/kbcli/internal/testkube"
	"github.com/kbcli/kbcli/runtimes/operator/specs"
)

// ledger writes numbered rows through the primary's Service, one a transaction, and goes
// on with the next primary when one goes.
type ledger struct {
	p      *person
	config *pgx.ConnConfig
	stop   context.CancelFunc
	done   sync.WaitGroup

	mu    sync.Mutex
	acked int // rows that were acknowledged
}

// write begins a ledger in a new table of a cluster.
func (p *person) write(cluster string) *ledger {
	p.t.Helper()
	get := func(path ...string) string { return p.k.Kubectl(p.t, append([]string{"-n", p.ns, "get"}, path...)...) }
	password, err := base64.StdEncoding.DecodeString(get("secret", specs.SuperuserSecret(cluster), "-o", "jsonpath={.data.password}"))
	if err != nil {
		p.t.Fatal(err)
	}
	config, err := pgx.ParseConfig("user=postgres dbname=postgres sslmode=disable connect_timeout=3")
	if err != nil {
		p.t.Fatal(err)
	}
	config.Password = string(password)
	config.DialFunc = func(ctx context.Context, _, address string) (net.Conn, error) { return p.k.Dial(ctx, address) }
	config.Host = strings.TrimSpace(get("service", specs.PrimaryService(cluster), "-o", "jsonpath={.spec.clusterIP}"))
	config.Port = specs.Port
	config.Fallbacks = nil
	p.sql(cluster, "create table ledger (n bigint primary key, at timestamptz not null)")
	ctx, cancel := context.WithCancel(p.t.Context())
	l := &ledger{p: p, config: config, stop: cancel}
	l.done.Go(func() { l.run(ctx) })
	p.t.Cleanup(l.end)
	return l
}

func (l *ledger) end() { l.stop(); l.done.Wait() }

func (l *ledger) run(ctx context.Context) {
	for n := 1; ctx.Err() == nil; {
		n = l.session(ctx, n)
		time.Sleep(200 * time.Millisecond)
	}
}

// session writes from row n on while one connection lasts. A row whose fate is not known
// is followed by the next number: it may be there or not.
func (l *ledger) session(ctx context.Context, n int) int {
	cctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	conn, err := pgx.ConnectConfig(cctx, l.config)
	if err != nil {
		return n
	}
	defer conn.Close(context.WithoutCancel(ctx))
	for ctx.Err() == nil {
		wctx, cancel := context.WithTimeout(ctx, 5*time.Second)
		_, err := conn.Exec(wctx, "insert into ledger values ($1, clock_timestamp())", n)
		cancel()
		n++
		if err != nil {
			return n
		}
		l.mu.Lock()
		l.acked++
		l.mu.Unlock()
		time.Sleep(20 * time.Millisecond)
	}
	return n
}

// count is how many rows were acknowledged.
func (l *ledger) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.acked
}

// goesOn waits for more rows.
func (l *ledger) goesOn(more int) {
	l.p.t.Helper()
	want := l.count() + more
	for deadline := time.Now().Add(2 * time.Minute); l.count() < want; time.Sleep(100 * time.Millisecond) {
		if time.Now().After(deadline) {
			l.p.t.Fatalf("%d rows were written and no more", l.count())
		}
	}
}

// field is a value of a cluster.
func (p *person) field(cluster, path string) string {
	p.t.Helper()
	return strings.TrimSpace(p.k.Kubectl(p.t, "-n", p.ns, "get", "cluster", cluster, "-o", "jsonpath={"+path+"}"))
}

// primary is the pod whose server takes writes.
func (p *person) primary(cluster string) string {
	p.t.Helper()
	return p.until(`^(`+cluster+`-postgresql-\d+) .* Running +primary `, "cluster", "list-instances", cluster)
}

// disaster takes a primary away, and gives what undoes it.
type disaster struct {
	name   string
	strike func(p *person, pod string) (undo func())
	other  bool // another server must take over
}

var disasters = []disaster{
	// the node dies, and its disk with it
	{"its pod and volume are gone", func(p *person, pod string) func() {
		p.k.Kubectl(p.t, "-n", p.ns, "delete", "pvc", "data-"+pod, "--wait=false")
		p.crash(pod)
		return func() {}
	}, true},
	// it is as good as dead to all others, does not know it, and comes back
	{"all its processes stand still", func(p *person, pod string) func() {
		processes := p.processes(pod)
		p.signal(processes, syscall.SIGSTOP)
		return func() { p.signal(processes, syscall.SIGCONT) }
	}, true},
	// it comes back with what it had, as the primary or not
	{"its pod is killed", func(p *person, pod string) func() {
		p.crash(pod)
		return func() {}
	}, false},
	{"its server is killed", func(p *person, pod string) func() {
		p.k.Kubectl(p.t, "-n", p.ns, "exec", pod, "-c", "postgresql", "--", "sh", "-c", `kill -9 "$(head -1 "$PGDATA/postmaster.pid")"`)
		return func() {}
	}, false},
}

// crash ends a pod as the death of its node would: nobody in it hears of it. The kubelet
// would ask them to end, and they would hand over.
func (p *person) crash(pod string) {
	p.t.Helper()
	p.signal(p.processes(pod), syscall.SIGKILL)
	p.k.Kubectl(p.t, "-n", p.ns, "delete", "pod", pod, "--grace-period=0", "--force")
}

// processes are those of a pod's containers, as this machine counts.
func (p *person) processes(pod string) []int {
	p.t.Helper()
	uid := strings.TrimSpace(p.k.Kubectl(p.t, "-n", p.ns, "get", "pod", pod, "-o", "jsonpath={.metadata.uid}"))
	all, err := filepath.Glob("/proc/[0-9]*/cgroup")
	if err != nil {
		p.t.Fatal(err)
	}
	var out []int
	for _, name := range all {
		groups, err := os.ReadFile(name)
		if err != nil || !strings.Contains(string(groups), "pod"+uid) {
			continue // it has ended, or is another's
		}
		out = append(out, mustAtoi(p.t, filepath.Base(filepath.Dir(name))))
	}
	if len(out) == 0 {
		p.t.Fatalf("pod %s has no processes", pod)
	}
	return out
}

func (p *person) signal(processes []int, s syscall.Signal) {
	for _, pid := range processes {
		if err := syscall.Kill(pid, s); err != nil && !errors.Is(err, syscall.ESRCH) {
			p.t.Error(err)
		}
	}
}

// suffer lets a disaster come over the primary, and waits until the next is archived and
// all are back.
func (p *person) suffer(cluster string, l *ledger, d disaster) {
	p.t.Helper()
	old := p.primary(cluster)
	timeline := mustAtoi(p.t, p.sql(cluster, "select timeline_id from pg_control_checkpoint()"))
	began := time.Now()
	undo := d.strike(p, old)
	defer undo()
	l.goesOn(20)
	p.t.Logf("%s: %s; rows are written again after %s", old, d.name, time.Since(began))
	for deadline := time.Now().Add(4 * time.Minute); ; time.Sleep(time.Second) {
		now, err := strconv.Atoi(p.field(cluster, ".status.archive.timeline"))
		// a server that only started again goes on where it was
		if err == nil && (now > timeline || !d.other) && p.field(cluster, ".status.archive.state") == "Streaming" && p.archivedSince(cluster, began) {
			break
		}
		if time.Now().After(deadline) {
			p.t.Fatalf("the archive is on timeline %d, and was on %d before the failover: %s", now, timeline, p.field(cluster, ".status.archive"))
		}
	}
	p.t.Logf("timeline %s is archived after %s", p.field(cluster, ".status.archive.timeline"), time.Since(began))
	undo()
	if now := p.primary(cluster); d.other && now == old {
		p.t.Errorf("%s is the primary still", old)
	}
	p.until(`^`+cluster+` .* Running `, "cluster", "list")
	p.t.Logf("all serve after %s", time.Since(began))
}

// archivedSince tells whether the repository holds all of a moment that came later.
func (p *person) archivedSince(cluster string, began time.Time) bool {
	at, err := time.Parse(time.RFC3339Nano, p.field(cluster, ".status.archive.provenTime"))
	return err == nil && at.After(began.Add(time.Second))
}

// TestPodsFailover: primaries are lost while somebody writes. The archive goes on with
// each next one without a gap, and a restore to a moment across the failovers has all that
// survived them, and nothing else.
func TestPodsFailover(t *testing.T) {
	k := testkube.Node(t)
	install(t, k)
	p := newPerson(t, k, "failover")
	p.repository("failover")
	p.kbcli("cluster", "create", "my-pg", "--set", small+",replicas=3")
	p.until(`^my-pg .* Running `, "cluster", "list")
	p.kbcli("cluster", "edit-backup-policy", "my-pg-postgresql-backup-policy", "--set", "schedule.logfile.enable=true")
	p.kbcli("cluster", "backup", "my-pg", "--type", "datafile", "--wait")
	l := p.write("my-pg")
	l.goesOn(50)
	coming := disasters[:2]
	if os.Getenv("KBCLI_LONG_TESTS") != "" {
		coming = append(slices.Repeat(disasters, 3)[:9:9], disasters[rand.IntN(len(disasters))])
	}
	for _, d := range coming {
		p.suffer("my-pg", l, d)
		l.goesOn(50)
	}
	l.end()
	if gaps := p.field("my-pg", ".status.archive.gaps"); gaps != "" {
		t.Errorf("the archive has gaps: %s", gaps)
	}
	// What survived, in the order it was written. Those that were acknowledged by a primary
	// that died before a standby had them are not there, as PostgreSQL has it.
	rows := strings.Split(p.sql("my-pg", "select n, to_char(at at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"') from ledger order by n"), "\n")
	t.Logf("%d rows were acknowledged, %d are there", l.count(), len(rows))
	pick := 1 + rand.IntN(len(rows)-1)
	n, at, _ := strings.Cut(rows[pick], "|")
	moment, err := time.Parse(time.RFC3339Nano, at)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("restored to just before row %s of %s", n, at)
	p.restore("past", "my-pg", moment.Add(-time.Microsecond).Format(time.RFC3339Nano))
	p.holds("past", "my-pg", fmt.Sprintf("where n < %s", n))
	p.kbcli("cluster", "delete", "past", "--auto-approve")
	p.restore("present", "my-pg", "latest")
	p.holds("present", "my-pg", "")
}

// holds: a cluster has the rows of another's ledger that are asked for.
func (p *person) holds(cluster, source, which string) {
	p.t.Helper()
	const sum = "select count(*), coalesce(min(n), 0), coalesce(max(n), 0), md5(coalesce(string_agg(n::text || at::text, ',' order by n), '')) from ledger "
	if got, want := p.sql(cluster, sum), p.sql(source, sum+which); got != want {
		p.t.Errorf("%s holds %s, and of %s %s was wanted", cluster, got, source, want)
	}
}
