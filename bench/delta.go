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
	b.print("## A restore over a directory: %s of pgbench, of which 1 %% of the pages changed since the backup\n", size(s.tree))
	b.settings(tools)
	var all samples
	err = b.with(ctx, s, tools, func() error {
		for run := range b.runs {
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
	b.table(&all, true)
	whole := all.get("kbcli, empty directory")
	for _, how := range []string{"contiguous", "scattered"} {
		ours, theirs := all.get("kbcli, "+how), all.get("pgbackrest, "+how)
		if ours == nil {
			continue
		}
		most := 0.0
		if how == "contiguous" {
			most = 0.05
		}
		// WAL that is fed, and what the new server writes, are the same in both
		beside := whole.median(written) - float64(s.tree)
		b.ratio(how+": kbcli writes of the files, of the database", ours.median(written)-beside, float64(s.tree), most)
		b.ratio(how+": kbcli / its restore into an empty directory, wall", ours.median(wall), whole.median(wall), 0)
		b.ratio(how+": kbcli / its restore into an empty directory, CPU", ours.median(cpu), whole.median(cpu), 0)
		b.ratio(how+": kbcli / pgBackRest, wall", ours.median(wall), theirs.median(wall), 0)
		b.ratio(how+": kbcli / pgBackRest, CPU", ours.median(cpu), theirs.median(cpu), 0)
		b.ratio(how+": kbcli / pgBackRest, written", ours.median(written), theirs.median(written), 0)
	}
	b.print("")
	return s.remove()
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
