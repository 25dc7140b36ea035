// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
)

// incremental: a full backup, one page in a hundred changed, an incremental backup; by
// each tool that knows incremental ones, of the same changes.
func (b *bench) incremental(ctx context.Context) error {
	s, err := b.filled(ctx, pgbenchData)
	if err != nil {
		return err
	}
	tools := b.pick(&kbcli{b: b}, newPgBackRest(b))
	if err := b.begin("incremental", "Incremental: %s of pgbench, 1 %% of the pages changed", size(s.tree)); err != nil {
		return err
	}
	b.settings(tools)
	var all samples
	err = b.with(ctx, s, tools, func() error {
		for run := range b.runs {
			for _, scattered := range []bool{false, true} {
				if err := b.incrementalRun(ctx, s, turn(tools, run), run, scattered, &all); err != nil {
					return err
				}
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	b.table(&all, backupColumns...)
	for _, how := range []string{"contiguous", "scattered"} {
		b.incrementalGoals(&all, how, float64(s.tree))
	}
	return errors.Join(b.keep(), s.remove())
}

func (b *bench) incrementalGoals(all *samples, how string, tree float64) {
	work := "incremental of 1 %, " + how
	these := all.of(" incremental, " + how)
	ours, theirs, full := these.get("kbcli"), these.get("pgbackrest"), all.get("kbcli full")
	if ours == nil {
		return
	}
	b.beside(work, "wall", "s", these, wall, 0.2)
	// the two segments that a backup makes the server end are received, spooled and read
	// from the spool, as all WAL is: that is archiving
	for _, x := range []struct {
		what string
		by   func(usage) float64
	}{
		{"bytes read without the WAL that is archived meanwhile", func(u usage) float64 { return float64(u.Read - 2*u.WAL) }},
		{"bytes written without that WAL", func(u usage) float64 { return float64(u.Written - u.WAL) }},
	} {
		b.judge(goal{Work: work, What: x.what, Unit: "bytes", Kbcli: ours.median(x.by), Other: "the database", Theirs: tree, Ratio: true, Bound: 0.02})
	}
	if how == "contiguous" {
		b.aside(work, "wall, of a full one's", ours.median(wall), full.median(wall), 0.1)
		b.aside(work, "CPU, of a full one's", ours.median(cpu), full.median(cpu), 0.1)
	} else {
		b.ratio(work+": kbcli / its full, wall", ours.median(wall), full.median(wall))
		b.ratio(work+": kbcli / its full, CPU", ours.median(cpu), full.median(cpu))
	}
	b.ratio(work+": kbcli / pgbackrest, CPU", ours.median(cpu), theirs.median(cpu))
	b.ratio(work+": kbcli / pgbackrest, stored", ours.median(stored), theirs.median(stored))
}

func (b *bench) incrementalRun(ctx context.Context, s *server, tools []tool, run int, scattered bool, all *samples) error {
	how := map[bool]string{false: "contiguous", true: "scattered"}[scattered]
	full, incr := fmt.Sprintf("f%d-%s", run, how), fmt.Sprintf("i%d-%s", run, how)
	each := func(name, label string, incremental bool) error {
		for _, t := range tools {
			if err := s.quiet(ctx); err != nil {
				return err
			}
			u, err := t.backup(ctx, name, incremental)
			if err != nil {
				return fmt.Errorf("%s: %w", t.name(), err)
			}
			all.add(t.name()+" "+label, u)
		}
		return nil
	}
	if err := each(full, "full", false); err != nil {
		return err
	}
	pages, err := s.change(ctx, 20*run+7, scattered)
	if err != nil {
		return err
	}
	say("%d pages changed, %s", pages, how)
	if err := each(incr, "incremental, "+how, true); err != nil {
		return err
	}
	for _, t := range tools {
		for _, name := range []string{incr, full} {
			if err := t.forget(ctx, name); err != nil {
				return fmt.Errorf("%s: %w", t.name(), err)
			}
		}
	}
	return nil
}
