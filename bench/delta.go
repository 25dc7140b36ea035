// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// over is a tool that restores over a directory that holds most of the data.
type over interface {
	tool
	// delta restores a backup over dir, which it may take for its own, and has the
	// server answer, as restore does.
	delta(ctx context.Context, name, dir string) (usage, error)
}

// delta: a full backup, 1 % of the pages changed, and the backup restored over a copy of
// the directory as it is then; beside a restore into an empty one.
func (b *bench) delta(ctx context.Context) error {
	s, err := b.filled(ctx, pgbenchData)
	if err != nil {
		return err
	}
	tools := b.pick(&kbcli{b: b}, newPgBackRest(b))
	if err := b.begin("delta", "A restore over a directory: %s of pgbench, of which 1 %% of the pages changed since the backup", size(s.tree)); err != nil {
		return err
	}
	b.settings(tools)
	var all samples
	err = b.with(ctx, s, tools, func() error {
		for run := range min(b.runs, 3) { // nobody is beaten here
			for _, scattered := range []bool{false, true} {
				if err := b.deltaRun(ctx, s, turn(tools, run), run, scattered, &all); err != nil {
					return err
				}
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	b.table(&all, restoreColumns...)
	empty := all.get("kbcli, empty directory")
	for _, how := range []string{"contiguous", "scattered"} {
		ours, theirs := all.get("kbcli, "+how), all.get("pgbackrest, "+how)
		if ours == nil {
			continue
		}
		work := "restore over a directory, " + how
		// WAL that is fed, and what the new server writes, are the same in both
		wrote := ours.median(written) - (empty.median(written) - float64(s.tree))
		if how == "contiguous" {
			b.aside(work, "written of the files, of the database", wrote, float64(s.tree), 0.05)
		} else {
			b.ratio(work+": kbcli writes of the files, of the database", wrote, float64(s.tree))
		}
		b.ratio(work+": kbcli / its restore into an empty directory, wall", ours.median(wall), empty.median(wall))
		b.ratio(work+": kbcli / its restore into an empty directory, CPU", ours.median(cpu), empty.median(cpu))
		b.ratio(work+": kbcli / pgbackrest, wall", ours.median(wall), theirs.median(wall))
		b.ratio(work+": kbcli / pgbackrest, CPU", ours.median(cpu), theirs.median(cpu))
		b.ratio(work+": kbcli / pgbackrest, written", ours.median(written), theirs.median(written))
	}
	return errors.Join(b.keep(), s.remove())
}

func (b *bench) deltaRun(ctx context.Context, s *server, tools []tool, run int, scattered bool, all *samples) error {
	how := map[bool]string{false: "contiguous", true: "scattered"}[scattered]
	name := fmt.Sprintf("d%d-%s", run, how)
	for _, t := range tools {
		if err := s.quiet(ctx); err != nil {
			return err
		}
		if _, err := t.backup(ctx, name, false); err != nil {
			return fmt.Errorf("%s: %w", t.name(), err)
		}
	}
	pages, err := s.change(ctx, 20*run+7, scattered)
	if err != nil {
		return err
	}
	say("%d pages changed, %s", pages, how)
	dirs := map[string]string{}
	if err := errors.Join(s.quiet(ctx), s.stop()); err != nil {
		return err
	}
	for _, t := range tools {
		dir := filepath.Join(b.work, "over-"+t.name())
		dirs[t.name()] = dir
		if _, err := finish(b.command(ctx, false, "bash", "-c", `cp -a "$1" "$2" && rm -f "$2/postmaster.pid"`, "bash", s.data, dir), nil); err != nil {
			return err
		}
	}
	if err := s.start(ctx, ""); err != nil {
		return err
	}
	for _, t := range tools {
		label := t.name() + ", empty directory"
		u, err := b.restoreAndLook(ctx, s, t, name)
		if err != nil {
			return fmt.Errorf("%s: %w", t.name(), err)
		}
		all.add(label, u)
		if u, err = t.(over).delta(ctx, name, dirs[t.name()]); err != nil {
			return fmt.Errorf("%s: %w", t.name(), err)
		}
		all.add(t.name()+", "+how, u)
		if err := errors.Join(t.drop(ctx, name), os.RemoveAll(dirs[t.name()]), t.forget(ctx, name)); err != nil {
			return fmt.Errorf("%s: %w", t.name(), err)
		}
	}
	return nil
}
