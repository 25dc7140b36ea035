// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"syscall"
	"time"

	"github.com/kbcli/kbcli/internal/childproc"
)

// archiver takes WAL from the server while it works.
type archiver interface {
	name() string
	// starts begins to archive, from here on.
	starts(ctx context.Context, s *server) error
	// behind is how many bytes of WAL it has not taken yet.
	behind(ctx context.Context, s *server) (int64, error)
	// ends stops it, and gives the CPU seconds that it took.
	ends(ctx context.Context, s *server) (float64, error)
}

var tps = regexp.MustCompile(`tps = ([0-9.]+)`)

// archive: pgbench with four clients while each tool archives, and while none does; and
// how far each falls behind when WAL is made as fast as the server can.
func (b *bench) archive(ctx context.Context) error {
	s, err := b.filled(ctx, pgbenchData)
	if err != nil {
		return err
	}
	seconds := 20
	if b.quick {
		seconds = 6
	}
	all := []archiver{noArchiver{}, &kbcliArchiver{kbcli: kbcli{b: b}}, &receivewal{b: b}, &pushArchiver{pgBackRest: newPgBackRest(b)}}
	b.print("## Archiving: pgbench with 4 clients for %d s, and a bulk load of 640 MB\n", seconds)
	b.print("| | tps (least–most) | of none | CPU s | CPU ms a segment | bulk: behind at the worst | bulk: until it has all, s |\n|---|---|---|---|---|---|---|")
	rows := map[string]*sample{}
	bulk := map[string]*sample{}
	for run := range b.runs {
		for i := range all {
			a := all[(i+run)%len(all)]
			if len(b.only) > 0 && !b.wants(a.name()) {
				continue
			}
			if rows[a.name()] == nil {
				rows[a.name()], bulk[a.name()] = &sample{}, &sample{}
			}
			u, load, err := b.archiveRun(ctx, s, a, seconds)
			if err != nil {
				return fmt.Errorf("%s: %w", a.name(), err)
			}
			say("  %s: %.0f tps, %.2f s CPU, %s behind", a.name(), u.Wall, u.CPU, size(load.Peak))
			rows[a.name()].of = append(rows[a.name()].of, u)
			bulk[a.name()].of = append(bulk[a.name()].of, load)
		}
	}
	none := rows["none"].median(wall)
	for _, a := range all {
		r, l := rows[a.name()], bulk[a.name()]
		if r == nil {
			continue
		}
		b.print("| %s | %s | %.2f | %.2f | %.0f | %s | %.1f |", a.name(), r.spread(wall), r.median(wall)/none, r.median(cpu),
			1000*r.median(func(u usage) float64 { return u.CPU / float64(u.WAL) * (16 << 20) }), size(l.median(peak)), l.median(wall))
	}
	b.print("")
	return s.remove()
}

// archiveRun gives tps as Wall of the first, and of the bulk load what was behind as Peak
// and the seconds until all was taken as Wall.
func (b *bench) archiveRun(ctx context.Context, s *server, a archiver, seconds int) (u, load usage, err error) {
	if _, err := s.query(ctx, "drop table if exists bulk", "vacuum", "checkpoint", "select pg_switch_wal()"); err != nil {
		return u, load, err
	}
	if err := a.starts(ctx, s); err != nil {
		return u, load, err
	}
	m := meter{server: s}
	from, err := m.wal()
	if err != nil {
		return u, load, err
	}
	out, err := s.pgbench(ctx, "-n", "-c", "4", "-j", "2", "-T", strconv.Itoa(seconds))
	if err != nil {
		return u, load, err
	}
	found := tps.FindStringSubmatch(out)
	if found == nil {
		return u, load, fmt.Errorf("pgbench printed no tps: %s", out)
	}
	if u.Wall, err = strconv.ParseFloat(found[1], 64); err != nil {
		return u, load, err
	}
	filled := make(chan error, 1)
	go func() {
		_, err := s.query(ctx, "create table bulk as select g as i, repeat(md5(g::text), 8) as v from generate_series(1, 2000000) g", "select pg_switch_wal()")
		filled <- err
	}()
	var ended time.Time
	for ended.IsZero() || load.Wall == 0 {
		n, err := a.behind(ctx, s)
		if err != nil {
			return u, load, err
		}
		load.Peak = max(load.Peak, n)
		if !ended.IsZero() && n < 16<<20 {
			load.Wall = max(time.Since(ended).Seconds(), 0.001)
		}
		select {
		case err := <-filled:
			if err != nil {
				return u, load, err
			}
			ended = time.Now()
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			return u, load, ctx.Err()
		}
	}
	to, err := m.wal()
	if err != nil {
		return u, load, err
	}
	u.WAL = to - from
	u.CPU, err = a.ends(ctx, s)
	return u, load, err
}

// slotBehind is how much a replication slot keeps.
func slotBehind(ctx context.Context, s *server) (int64, error) {
	return s.number(ctx, "select coalesce(max(pg_current_wal_lsn() - restart_lsn), 0)::bigint from pg_replication_slots")
}

// noArchiver is the server alone.
type noArchiver struct{}

func (noArchiver) name() string                                         { return "none" }
func (noArchiver) starts(context.Context, *server) error                { return nil }
func (noArchiver) behind(context.Context, *server) (int64, error)       { return 0, nil }
func (noArchiver) ends(ctx context.Context, s *server) (float64, error) { return 0, nil }

// kbcliArchiver is an agent; behind it is what is not in its spool yet.
type kbcliArchiver struct{ kbcli }

func (k *kbcliArchiver) starts(ctx context.Context, s *server) error {
	if err := k.prepare(ctx, s); err != nil {
		return err
	}
	return k.begin(ctx)
}

func (k *kbcliArchiver) behind(ctx context.Context, s *server) (int64, error) {
	return slotBehind(ctx, s)
}

// ends detaches, which puts all into the repository first.
func (k *kbcliArchiver) ends(ctx context.Context, _ *server) (float64, error) {
	if err := k.run(ctx, "cluster", "detach", "src", "--auto-approve"); err != nil {
		return 0, err
	}
	self, ended, err := procCPU(k.agent.Process.Pid)
	return self + ended, errors.Join(err, k.agent.Process.Signal(syscall.SIGTERM), <-k.exited, k.log.Close(), os.RemoveAll(filepath.Join(k.b.work, "state")))
}

// receivewal is pg_receivewal, not compressing.
type receivewal struct {
	b      *bench
	cmd    *exec.Cmd
	exited chan error
}

func (r *receivewal) name() string { return "pg_receivewal" }
func (r *receivewal) dir() string  { return filepath.Join(r.b.work, "received") }

func (r *receivewal) starts(ctx context.Context, s *server) error {
	if err := r.b.dir(r.dir()); err != nil {
		return err
	}
	if _, err := s.query(ctx, "select pg_create_physical_replication_slot('received', true)"); err != nil {
		return err
	}
	name, args := s.client("pg_receivewal", "-D", r.dir(), "-S", "received")
	r.cmd = r.b.command(ctx, false, name, args...)
	var err error
	r.exited, err = childproc.Start(r.cmd, syscall.SIGTERM)
	return err
}

func (r *receivewal) behind(ctx context.Context, s *server) (int64, error) {
	return slotBehind(ctx, s)
}

func (r *receivewal) ends(ctx context.Context, s *server) (float64, error) {
	if err := r.cmd.Process.Signal(syscall.SIGINT); err != nil {
		return 0, err
	}
	if err := <-r.exited; err != nil {
		return 0, err
	}
	used := r.cmd.ProcessState.UserTime() + r.cmd.ProcessState.SystemTime()
	_, err := s.query(ctx, "select pg_drop_replication_slot('received')")
	return used.Seconds(), errors.Join(err, os.RemoveAll(r.dir()))
}

// pushArchiver is pgBackRest's archive-push, that the server runs for each segment; its
// CPU is that of the server's archiver process and its children.
type pushArchiver struct {
	*pgBackRest
	from float64
}

func (p *pushArchiver) process(ctx context.Context) (float64, error) {
	pid, err := p.s.number(ctx, "select pid from pg_stat_activity where backend_type = 'archiver'")
	if err != nil {
		return 0, err
	}
	self, ended, err := procCPU(int(pid))
	return self + ended, err
}

func (p *pushArchiver) starts(ctx context.Context, s *server) error {
	if err := p.prepare(ctx, s); err != nil {
		return err
	}
	command := fmt.Sprintf("alter system set archive_command = '%s archive-push %%p'", p.cmd())
	if _, err := s.query(ctx, command, "select pg_reload_conf()"); err != nil {
		return err
	}
	var err error
	p.from, err = p.process(ctx)
	return err
}

func (p *pushArchiver) behind(_ context.Context, s *server) (int64, error) {
	ready, err := filepath.Glob(filepath.Join(s.data, "pg_wal", "archive_status", "*.ready"))
	return int64(len(ready)) << 24, err
}

func (p *pushArchiver) ends(ctx context.Context, s *server) (float64, error) {
	to, err := p.process(ctx)
	if err != nil {
		return 0, err
	}
	_, err = s.query(ctx, "alter system set archive_command = '/bin/true'", "select pg_reload_conf()")
	return to - p.from, errors.Join(err, p.end(ctx))
}
