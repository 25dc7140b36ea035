// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/kbcli/kbcli/runtimes/operator/specs"
)

// ledger writes numbered rows through the primary's Service, one a transaction, and goes
// on with the next primary when one goes.
type ledger struct {
	p       *person
	cluster string
	config  *pgx.ConnConfig
	stop    context.CancelFunc
	done    sync.WaitGroup
	unsure  atomic.Bool // the server said that a commit did not wait for the repository

	mu    sync.Mutex
	acked []int // rows that were acknowledged
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
	l := &ledger{p: p, cluster: cluster, config: config}
	config.Password = string(password)
	config.DialFunc = func(ctx context.Context, _, address string) (net.Conn, error) { return p.k.Dial(ctx, address) }
	config.Host = strings.TrimSpace(get("service", specs.PrimaryService(cluster), "-o", "jsonpath={.spec.clusterIP}"))
	config.Port = specs.Port
	config.Fallbacks = nil
	config.OnNotice = func(_ *pgconn.PgConn, n *pgconn.Notice) {
		if strings.Contains(n.Message, "synchronous replication") {
			l.unsure.Store(true)
		}
	}
	p.sql(cluster, "create table ledger (n bigint primary key, at timestamptz not null)")
	ctx, cancel := context.WithCancel(p.t.Context())
	l.stop = cancel
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
		if !l.unsure.Swap(false) {
			l.ack(n - 1)
		}
		time.Sleep(20 * time.Millisecond)
	}
	return n
}

func (l *ledger) ack(n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.acked = append(l.acked, n)
}

// count is how many rows were acknowledged.
func (l *ledger) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.acked)
}

// lost are the acknowledged rows that are not there.
func (l *ledger) lost() (lost []int) {
	l.p.t.Helper()
	l.mu.Lock()
	acked := slices.Clone(l.acked) // before it is looked what there is: more come meanwhile
	l.mu.Unlock()
	there := map[string]bool{}
	for _, n := range strings.Fields(l.p.sql(l.cluster, "select n from ledger")) {
		there[n] = true
	}
	for _, n := range acked {
		if !there[strconv.Itoa(n)] {
			lost = append(lost, n)
		}
	}
	return lost
}

// goesOn waits for more rows.
func (l *ledger) goesOn(more int) {
	l.p.t.Helper()
	want := l.count() + more
	for deadline := time.Now().Add(4 * time.Minute); l.count() < want; time.Sleep(100 * time.Millisecond) {
		if time.Now().After(deadline) {
			l.p.t.Fatalf("%s: %d rows were written and no more", l.cluster, l.count())
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
	out := processesOf(p.uid(pod))
	if len(out) == 0 {
		p.t.Fatalf("pod %s has no processes", pod)
	}
	return out
}

func (p *person) uid(pod string) string {
	p.t.Helper()
	return strings.TrimSpace(p.k.Kubectl(p.t, "-n", p.ns, "get", "pod", pod, "-o", "jsonpath={.metadata.uid}"))
}

// processesOf are those of the pod with that uid.
func processesOf(uid string) (out []int) {
	all, err := filepath.Glob("/proc/[0-9]*/cgroup")
	if err != nil {
		panic(err) // the pattern is sound
	}
	for _, name := range all {
		groups, err := os.ReadFile(name)
		if err != nil || !strings.Contains(string(groups), "pod"+uid) {
			continue // it has ended, or is another's
		}
		if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(name))); err == nil {
			out = append(out, pid)
		}
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

// protected makes a cluster with standbys that is archived and has a backup.
func (p *person) protected(cluster string, replicas int, mode string) {
	p.t.Helper()
	p.kbcli("cluster", "create", cluster, "--set", fmt.Sprintf("%s,replicas=%d", small, replicas))
	p.until(`^`+cluster+` .* Running `, "cluster", "list")
	p.kbcli("cluster", "edit-backup-policy", cluster+"-postgresql-backup-policy", "--set", "schedule.logfile.enable=true", "--set", "archive.mode="+mode)
	p.kbcli("cluster", "backup", cluster, "--type", "datafile", "--wait")
	if mode == "sync" {
		p.insists(cluster)
	}
}

// insists waits until commits wait for the repository.
func (p *person) insists(cluster string) {
	p.t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(time.Second) {
		if p.sql(cluster, "select count(*) from pg_stat_replication where sync_state = 'sync' and application_name like 'kbcli%'") == "1" {
			return
		}
		if time.Now().After(deadline) {
			p.t.Fatalf("commits of %s do not wait for the repository", cluster)
		}
	}
}

// archivedSince tells whether the repository holds all of a moment that came later.
func (p *person) archivedSince(cluster string, began time.Time) bool {
	at, err := time.Parse(time.RFC3339Nano, p.field(cluster, ".status.archive.provenTime"))
	return err == nil && at.After(began.Add(time.Second))
}

// holds: a cluster has the rows of another's ledger that are asked for.
func (p *person) holds(cluster, source, which string) {
	p.t.Helper()
	const sum = "select count(*), coalesce(min(n), 0), coalesce(max(n), 0), md5(coalesce(string_agg(n::text || at::text, ',' order by n), '')) from ledger "
	if got, want := p.sql(cluster, sum), p.sql(source, sum+which); got != want {
		p.t.Errorf("%s holds %s, and of %s %s was wanted", cluster, got, source, want)
	}
}
