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
	if err := s.stop(); err != nil {
		return err
	}
	orphans, err := s.adopted(ctx)
	if err != nil {
		return err
	}
	seconds := 15
	if b.quick {
		seconds = 6
	}
	theirs := newPgBackRest(b)
	theirs.async = true
	tools := []archiver{noArchiver{}, &kbcliArchiver{kbcli: kbcli{b: b}}, &receivewal{b: b}, &pushArchiver{pgBackRest: theirs, orphans: orphans}}
	if err := b.begin("archive", "Archiving: pgbench with 4 clients for %d s, and a bulk load of 640 MB", seconds); err != nil {
		return err
	}
	b.print("- none: archive_command=/bin/true, as beside those who stream\n- pgbackrest: %s; CPU of the server's archiver and of all that it left behind", theirs.settings())
	b.print("- behind: by the slot of those who stream, which is what is not durable in their hands; else by the segments that are .ready\n")
	var all samples
	for run := range b.runs {
		for i := range tools {
			a := tools[(i+run)%len(tools)]
			if !b.wants(a.name()) {
				continue
			}
			u, err := b.archiveRun(ctx, s, a, seconds)
			if err != nil {
				return fmt.Errorf("%s: %w", a.name(), err)
			}
			say("  %s: %.0f tps, %.2f s CPU, %s behind", a.name(), u.TPS, u.CPU, size(u.Behind))
			all.put(a.name(), u)
		}
	}
	b.archiveGoals(&all)
	return errors.Join(b.keep(), s.remove())
}

func (b *bench) archiveGoals(all *samples) {
	perSegment := func(u usage) float64 { return 1000 * u.CPU / float64(u.WAL) * segment }
	behind := func(u usage) float64 { return float64(u.Behind) / segment }
	rate := func(u usage) float64 { return u.TPS }
	b.table(all, column{"tps", rate, whole}, column{"CPU s", cpu, two}, column{"CPU ms a segment", perSegment, whole},
		column{"bulk: segments behind at the worst", behind, two}, column{"bulk: until it has all, s", wall, two})
	const work = "archiving, pgbench with 4 clients"
	ours, none := all.get("kbcli"), all.get("none")
	if ours == nil {
		return
	}
	if none != nil {
		b.judge(goal{Work: work, What: "tps", Unit: "tps", Kbcli: ours.median(rate), Other: "archiving off", Theirs: none.median(rate), Ratio: true, Bound: 0.97, AtLeast: true})
	}
	if theirs := all.get("pgbackrest"); theirs != nil {
		busy := &samples{}
		for _, name := range []string{"kbcli", "pgbackrest"} { // the others do not compress
			busy.rows = append(busy.rows, all.get(name))
		}
		b.beside(work, "CPU a segment", "ms", busy, perSegment, 0.5)
	}
	v := ours.values(behind)
	b.judge(goal{Work: "bulk load", What: "segments behind at the worst of all runs", Kbcli: v[len(v)-1], Bound: 2})
}

// segment is the bytes of a segment of WAL.
const segment = 16 << 20

// archiveRun gives the tps of pgbench; of the bulk load what was behind at the worst, and
// as Wall the seconds until all was taken; and the CPU of both.
func (b *bench) archiveRun(ctx context.Context, s *server, a archiver, seconds int) (u usage, err error) {
	if _, err := s.query(ctx, "drop table if exists bulk", "vacuum", "checkpoint", "select pg_switch_wal()"); err != nil {
		return u, err
	}
	if err := a.starts(ctx, s); err != nil {
		return u, err
	}
	m := meter{server: s}
	from, err := m.wal()
	if err != nil {
		return u, err
	}
	out, err := s.pgbench(ctx, "-n", "-c", "4", "-j", "2", "-T", strconv.Itoa(seconds))
	if err != nil {
		return u, err
	}
	found := tps.FindStringSubmatch(out)
	if found == nil {
		return u, fmt.Errorf("pgbench printed no tps: %s", out)
	}
	if u.TPS, err = strconv.ParseFloat(found[1], 64); err != nil {
		return u, err
	}
	if err := b.bulk(ctx, s, a, &u); err != nil {
		return u, err
	}
	to, err := m.wal()
	if err != nil {
		return u, err
	}
	u.WAL = to - from
	u.CPU, err = a.ends(ctx, s)
	return u, err
}

// bulk loads a table, and looks how far the archiver is.
func (b *bench) bulk(ctx context.Context, s *server, a archiver, u *usage) error {
	filled := make(chan error, 1)
	go func() {
		_, err := s.query(ctx, "create table bulk as select g as i, repeat(md5(g::text), 8) as v from generate_series(1, 2000000) g", "select pg_switch_wal()")
		filled <- err
	}()
	var ended time.Time
	for ended.IsZero() || u.Wall == 0 {
		n, err := a.behind(ctx, s)
		if err != nil {
			return err
		}
		u.Behind = max(u.Behind, n)
		if !ended.IsZero() && n < segment {
			u.Wall = max(time.Since(ended).Seconds(), 0.001)
		}
		select {
		case err := <-filled:
			if err != nil {
				return err
			}
			ended = time.Now()
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
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
type kbcliArchiver struct {
	kbcli
	from float64
}

func (k *kbcliArchiver) starts(ctx context.Context, s *server) error {
	if err := k.prepare(ctx, s); err != nil {
		return err
	}
	if err := k.begin(ctx); err != nil {
		return err
	}
	self, ended, err := procCPU(k.agent.Process.Pid)
	k.from = self + ended
	return err
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
	return self + ended - k.from, errors.Join(err, k.agent.Process.Signal(syscall.SIGTERM), <-k.exited, k.log.Close(), os.RemoveAll(filepath.Join(k.b.work, "state")))
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
// CPU is that of the server's archiver process and its children, and of the processes that
// left them and work on.
type pushArchiver struct {
	*pgBackRest
	orphans int // the process that takes those
	from    float64
}

// used is the CPU so far. Nothing works on when it is asked for.
func (p *pushArchiver) used(ctx context.Context) (float64, error) {
	postmaster, err := p.s.postmaster()
	if err != nil {
		return 0, err
	}
	if err := settled(ctx, p.orphans, postmaster); err != nil {
		return 0, err
	}
	pid, err := p.s.number(ctx, "select pid from pg_stat_activity where backend_type = 'archiver'")
	if err != nil {
		return 0, err
	}
	self, ended, err := procCPU(int(pid))
	if err != nil {
		return 0, err
	}
	_, left, err := procCPU(p.orphans)
	return self + ended + left, err
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
	p.from, err = p.used(ctx)
	return err
}

func (p *pushArchiver) behind(_ context.Context, s *server) (int64, error) {
	ready, err := filepath.Glob(filepath.Join(s.data, "pg_wal", "archive_status", "*.ready"))
	return int64(len(ready)) * segment, err
}

func (p *pushArchiver) ends(ctx context.Context, s *server) (float64, error) {
	// the segments of the end are on their way, and count
	if err := s.quiet(ctx); err != nil {
		return 0, err
	}
	to, err := p.used(ctx)
	if err != nil {
		return 0, err
	}
	_, err = s.query(ctx, "alter system set archive_command = '/bin/true'", "select pg_reload_conf()")
	return to - p.from, errors.Join(err, p.end(ctx))
}
