// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sys/unix"

	"github.com/kbcli/kbcli/internal/childproc"
)

// survivor is a tool whose repository is on another disk than the server.
type survivor interface {
	name() string
	settings() string
	// protects takes a backup, and archives from then on. What it promises of a commit holds.
	protects(ctx context.Context, s *server) error
	// there are the processes of the tool on the server's host.
	there() []int
	// loses takes away what it had on the server's disk.
	loses() error
	// latest restores all there is, and runs a query on it.
	latest(ctx context.Context, query string) (string, error)
	// ends removes everything; also when something failed on the way.
	ends(ctx context.Context) error
}

// rpo: the host and its disk are lost under a light load; what is then missing in a
// restore of the latest state, of what was acknowledged to its client.
func (b *bench) rpo(ctx context.Context) error {
	timeout := 60
	if b.quick {
		timeout = 10
	}
	theirs := newPgBackRest(b)
	theirs.async = true
	tools := []survivor{
		&kbcliSurvivor{kbcli: kbcli{b: b}, label: "kbcli"},
		&kbcliSurvivor{kbcli: kbcli{b: b}, label: "kbcli, sync", sync: true},
		&pushSurvivor{pgBackRest: theirs, timeout: timeout},
		&receiveSurvivor{receivewal: receivewal{b: b}, feed: newFeed(b, "pg_receivewal", false)},
	}
	if err := b.begin("rpo", "Host and disk lost under a light load (50 rows a second beside pgbench -R 50)"); err != nil {
		return err
	}
	for _, t := range tools {
		b.print("- %s: %s", t.name(), t.settings())
	}
	b.print("")
	var all samples
	for run := range b.runs {
		for i := range tools {
			t := tools[(i+run)%len(tools)]
			name, _, _ := strings.Cut(t.name(), ",")
			if !b.wants(name) {
				continue
			}
			u, err := b.rpoRun(ctx, t, run, timeout)
			if err != nil {
				return fmt.Errorf("%s: %w", t.name(), err)
			}
			say("  %s: %d rows lost, %.3f s", t.name(), u.LostRows, u.LostTime)
			all.put(t.name(), u)
		}
	}
	seconds := func(u usage) float64 { return u.LostTime }
	rows := func(u usage) float64 { return float64(u.LostRows) }
	b.table(&all, column{"lost, s", seconds, three}, column{"acknowledged rows lost", rows, whole})
	const work = "host and disk lost"
	if ours := all.get("kbcli"); ours != nil {
		g := goal{Work: work, What: "commits lost, median", Unit: "s", Kbcli: ours.median(seconds), Bound: 1}
		for _, name := range []string{"pg_receivewal", "pgbackrest"} { // the best, and the one that has a repository
			if other := all.get(name); other != nil {
				g.Other, g.Theirs = name, other.median(seconds)
				b.judge(g)
			}
		}
		if g.Other == "" {
			b.judge(g)
		}
	}
	if ours := all.get("kbcli, sync"); ours != nil {
		v := ours.values(rows)
		b.judge(goal{Work: work + ", sync mode", What: "acknowledged rows lost in all runs, at the worst", Unit: "rows", Kbcli: v[len(v)-1], Bound: 0})
	}
	return b.keep()
}

func (b *bench) rpoRun(ctx context.Context, t survivor, run, timeout int) (u usage, err error) {
	s, err := b.newServer(ctx, "d-rpo")
	if err != nil {
		return u, err
	}
	defer func() { err = errors.Join(err, t.ends(context.WithoutCancel(ctx)), s.remove()) }()
	if _, err := s.pgbench(ctx, "-i", "-q", "-s", "1"); err != nil {
		return u, err
	}
	if _, err := s.query(ctx, "create table ledger (id bigint primary key, at timestamptz default clock_timestamp())"); err != nil {
		return u, err
	}
	if err := t.protects(ctx, s); err != nil {
		return u, err
	}
	// an end by its own is no part of it
	name, args := s.client("pgbench", "-n", "-c", "2", "-R", "50", "-T", "600", "postgres")
	light := b.command(ctx, false, name, args...)
	over, err := childproc.Start(light, syscall.SIGKILL)
	if err != nil {
		return u, err
	}
	acks := make(chan []time.Time, 1)
	conn, err := pgx.Connect(ctx, fmt.Sprintf("host=%s port=%d user=postgres dbname=postgres", s.socket, s.port))
	if err != nil {
		return u, errors.Join(err, light.Process.Kill(), gone(over))
	}
	go func() { acks <- ledger(ctx, conn) }()
	err = b.until(ctx, s, t, run, timeout)
	if err == nil {
		err = s.lose(t.there())
	} else {
		err = errors.Join(err, light.Process.Kill(), s.stop())
	}
	rows := <-acks
	if err = errors.Join(err, gone(over), t.loses()); err != nil {
		return u, err
	}
	out, err := t.latest(ctx, "select count(*), coalesce(max(id), 0) from ledger")
	if err != nil {
		return u, err
	}
	return missing(rows, out)
}

// missing judges what a restored server holds by what its client knows.
func missing(acked []time.Time, restored string) (u usage, err error) {
	var count, last int
	if _, err := fmt.Sscanf(strings.TrimSpace(restored), "%d|%d", &count, &last); err != nil {
		return u, fmt.Errorf("the restored ledger: %q: %w", restored, err)
	}
	if count != last {
		return u, fmt.Errorf("the restored ledger has holes: %d rows up to %d", count, last)
	}
	if last == 0 || len(acked) < 2 {
		return u, fmt.Errorf("of %d acknowledged rows %d were restored: too few to judge by", len(acked), count)
	}
	// one that was on its way may be there and was not acknowledged
	if u.LostRows = len(acked) - last; u.LostRows <= 0 {
		u.LostRows = 0
		return u, nil
	}
	u.LostTime = acked[len(acked)-1].Sub(acked[last-1]).Seconds()
	return u, nil
}

// ledger inserts rows numbered from 1, fifty a second, until the server is gone, and
// gives when each was acknowledged.
func ledger(ctx context.Context, conn *pgx.Conn) []time.Time {
	defer conn.Close(ctx)
	var acked []time.Time
	for {
		began := time.Now()
		if _, err := conn.Exec(ctx, "insert into ledger (id) values ($1)", len(acked)+1); err != nil {
			return acked // that is how it ends
		}
		acked = append(acked, time.Now())
		time.Sleep(max(0, 20*time.Millisecond-time.Since(began)))
	}
}

// until waits for the moment of the fault. Where segments are ended by the clock, the
// moments of all runs are spread evenly between two of its ticks; else they are as
// they come.
func (b *bench) until(ctx context.Context, s *server, t survivor, run, timeout int) error {
	wait := 6*time.Second + time.Duration(run)*230*time.Millisecond
	if b.quick {
		wait = 3 * time.Second
	}
	if _, ok := t.(*pushSurvivor); ok {
		// as the clock would do now, with rows before it
		time.Sleep(2 * time.Second)
		if _, err := s.query(ctx, "select pg_switch_wal()"); err != nil {
			return err
		}
		wait = time.Duration((float64(run) + 0.5) / float64(b.runs) * float64(timeout) * float64(time.Second))
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(wait):
		return nil
	}
}

func gone(exited chan error) error {
	var ended *exec.ExitError
	if err := <-exited; err != nil && !errors.As(err, &ended) {
		return err
	}
	return nil
}

// lose kills processes of its host, the server last, and takes its disk away.
func (s *server) lose(others []int) error {
	pid, err := s.postmaster()
	if err != nil {
		return err
	}
	shared, err := s.sharedMemory()
	if err != nil {
		return err
	}
	all := append(others, pid)
	for _, p := range append(all, childrenOf(pid)...) {
		if err := syscall.Kill(p, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
			return err
		}
	}
	if err := os.RemoveAll(s.data); err != nil {
		return err
	}
	// what a machine that is gone would not have left
	_, err = unix.SysvShmCtl(shared, unix.IPC_RMID, nil)
	locks, gerr := filepath.Glob(filepath.Join(s.socket, fmt.Sprintf(".s.PGSQL.%d*", s.port)))
	for _, path := range locks {
		err = errors.Join(err, os.Remove(path))
	}
	return errors.Join(err, gerr)
}

// sharedMemory is the server's System V segment, of which postmaster.pid tells.
func (s *server) sharedMemory() (int, error) {
	text, err := os.ReadFile(filepath.Join(s.data, "postmaster.pid"))
	if err != nil {
		return 0, err
	}
	lines := strings.Split(string(text), "\n")
	if len(lines) < 7 {
		return 0, errors.New("postmaster.pid names no shared memory")
	}
	words := strings.Fields(lines[6])
	if len(words) != 2 {
		return 0, fmt.Errorf("shared memory %q in postmaster.pid", lines[6])
	}
	return strconv.Atoi(words[1])
}
