// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
)

// traveller is a tool that goes to a moment.
type traveller interface {
	tool
	// restoreTo brings a server back as it was at a moment, from a backup of its own, under
	// a name.
	restoreTo(ctx context.Context, name, backup, at string) (usage, error)
}

// feed is a plain copy of a data directory beside a directory of WAL, which restores as
// PostgreSQL's manual says: by a command, or with everything in pg_wal already. That is the
// limit: what recovery takes when it never waits.
type feed struct {
	basebackup
	ready bool // everything is in pg_wal
}

func newFeed(b *bench, label string, ready bool) *feed {
	return &feed{basebackup{peer{b: b, label: label}}, ready}
}

func (p *feed) settings() string {
	if p.ready {
		return "a plain copy, all WAL in pg_wal before the server starts: the limit"
	}
	return "a plain copy, restore_command = cp"
}

func (p *feed) archive() string        { return filepath.Join(p.home(), "wal") }
func (p *feed) archiveCommand() string { return "cp $1 " + p.archive() + "/$2" }

func (p *feed) prepare(ctx context.Context, s *server) error {
	if err := p.peer.prepare(ctx, s); err != nil {
		return err
	}
	return p.b.dir(p.archive())
}

func (p *feed) backup(ctx context.Context, name string, _ bool) (usage, error) {
	return p.measured(ctx, `"$1" -h "$2" -p "$3" -U postgres -D "$4" --checkpoint=fast -X none`,
		filepath.Join(p.b.bin, "pg_basebackup"), p.s.socket, strconv.Itoa(p.s.port), filepath.Join(p.home(), name))
}

func (p *feed) restoreTo(ctx context.Context, name, backup, at string) (usage, error) {
	command, wal := "cp "+p.archive()+"/%f %p", ":"
	if p.ready {
		command, wal = "false", `cp "$2"/* "$5/pg_wal/"`
	}
	return p.bring(ctx, name, `cp -a "$1/." "$5"; `+wal+`; sync -f "$5"; touch "$5/recovery.signal"
		printf "restore_command = '%s'\nrecovery_target_time = '%s'\nrecovery_target_action = promote\n" "$4" "$3" >> "$5/postgresql.auto.conf"`,
		filepath.Join(p.home(), backup), p.archive(), at, command)
}

func (p *feed) end(ctx context.Context) error { return p.peer.end(ctx) }

// pitr: a backup, then WAL, then a moment at its end, restored by each tool. What counts is
// from the files to the server that answers, which is replay, and the whole.
func (b *bench) pitr(ctx context.Context) error {
	s, err := b.newServer(ctx, "d-pitr")
	if err != nil {
		return err
	}
	rows, segments := "20", int64(120)
	if b.quick {
		rows, segments = "5", 20
	}
	say("filling pgbench, and %d segments of WAL", segments)
	if _, err := s.pgbench(ctx, "-i", "-q", "-s", rows); err != nil {
		return err
	}
	theirs := newPgBackRest(b)
	theirs.async = true
	tools := []traveller{&kbcli{b: b}, theirs, newFeed(b, "cp", false), newFeed(b, "in-pg_wal", true)}
	var all []tool
	for _, t := range tools {
		all = append(all, t)
	}
	var restores samples
	err = b.with(ctx, s, all, func() error {
		for _, t := range tools {
			if err := s.quiet(ctx); err != nil {
				return err
			}
			if _, err := t.backup(ctx, "b0", false); err != nil {
				return fmt.Errorf("%s: %w", t.name(), err)
			}
		}
		at, n, err := b.write(ctx, s, segments)
		if err != nil {
			return err
		}
		if err := b.begin("pitr", "A moment behind %d segments of WAL of pgbench", n); err != nil {
			return err
		}
		b.settings(all)
		for run := range b.runs {
			for i := range tools {
				t := tools[(i+run)%len(tools)]
				name := fmt.Sprintf("p%d", run)
				u, err := b.travel(ctx, t, name, at)
				if err != nil {
					return fmt.Errorf("%s: %w", t.name(), err)
				}
				restores.add(t.name(), u)
				if err := t.drop(ctx, name); err != nil {
					return fmt.Errorf("%s: %w", t.name(), err)
				}
			}
		}
		replay := func(u usage) float64 { return u.Serving - u.Wall }
		replayed := func(u usage) float64 { return u.Replayed }
		waited := func(u usage) float64 { return u.Waited }
		b.table(&restores, append([]column{
			{"files to serving, s", replay, two},
			{"startup process, s", replayed, two},
			{"of it in restore_command, s", waited, two},
			{"of it held up by the disk, s", func(u usage) float64 { return u.Blocked }, two},
		}, restoreColumns...)...)
		work := fmt.Sprintf("a moment behind %d segments", segments)
		b.beside(work, "until it serves", "s", &restores, serving, 0.8)
		ours, limit := restores.get("kbcli"), restores.get("in-pg_wal")
		b.limit(work, "replay", "s", ours, limit, replay, 1.1)
		b.judge(goal{
			Work: work, What: "share of replay in restore_command, beyond one that does nothing", Bound: 0.02,
			Kbcli: max(0, ours.median(waited)-limit.median(waited)) / ours.median(replayed),
		})
		b.ratio(work+": kbcli, share of replay in restore_command, with all that is PostgreSQL's own", ours.median(waited), ours.median(replayed))
		for _, name := range []string{"pgbackrest", "cp"} {
			b.ratio(work+": kbcli / "+name+", replay", ours.median(replay), restores.get(name).median(replay))
		}
		return b.keep()
	})
	return errors.Join(err, s.remove())
}

// travel restores a moment, and watches the server replay.
func (b *bench) travel(ctx context.Context, t traveller, name, at string) (usage, error) {
	w := b.watchReplay()
	u, err := t.restoreTo(ctx, name, "b0", at)
	err = errors.Join(err, w.seen(&u))
	return u, err
}

// write has pgbench make so many segments of WAL, and gives a moment at their end.
func (b *bench) write(ctx context.Context, s *server, segments int64) (at string, n int64, err error) {
	m := meter{server: s}
	from, err := m.wal()
	if err != nil {
		return "", 0, err
	}
	for n < segments {
		// a checkpoint before each round has whole pages written, as on a server with more data
		if _, err := s.query(ctx, "checkpoint"); err != nil {
			return "", 0, err
		}
		if _, err := s.pgbench(ctx, "-n", "-c", "4", "-j", "2", "-T", "2"); err != nil {
			return "", 0, err
		}
		to, err := m.wal()
		if err != nil {
			return "", 0, err
		}
		n = (to - from) >> 24
	}
	if at, err = s.query(ctx, "select to_char(clock_timestamp() at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SS.US+00')"); err != nil {
		return "", 0, err
	}
	// a commit behind the moment, in a segment that everybody has
	if _, err := s.query(ctx, "create table after_it ()", "select pg_switch_wal()", "create table behind_it ()"); err != nil {
		return "", 0, err
	}
	return at, n, s.quiet(ctx)
}
