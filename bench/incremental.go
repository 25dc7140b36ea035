// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
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
	b.print("## Incremental: %s of pgbench, 1 %% of the pages changed\n", size(s.tree))
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
	b.table(&all, false)
	full := all.get("kbcli full")
	for _, how := range []string{"contiguous", "scattered"} {
		ours, theirs := all.get("kbcli incremental, "+how), all.get("pgbackrest incremental, "+how)
		if ours == nil {
			continue
		}
		most := 0.0
		if how == "contiguous" {
			most = 0.1
			// the two segments that a backup makes the server end are received, spooled
			// and read from the spool, as all WAL is: that is archiving
			b.ratio("kbcli reads, without the WAL that it archives meanwhile, of the database", ours.median(func(u usage) float64 { return float64(u.Read - 2*u.WAL) }), float64(s.tree), 0.02)
			b.ratio("kbcli writes, without that WAL, of the database", ours.median(func(u usage) float64 { return float64(u.Written - u.WAL) }), float64(s.tree), 0.02)
		}
		b.ratio(how+": kbcli incremental / its full, wall", ours.median(wall), full.median(wall), most)
		b.ratio(how+": kbcli incremental / its full, CPU", ours.median(cpu), full.median(cpu), most)
		b.ratio(how+": kbcli / pgBackRest, wall", ours.median(wall), theirs.median(wall), 0)
		b.ratio(how+": kbcli / pgBackRest, CPU", ours.median(cpu), theirs.median(cpu), 0)
		b.ratio(how+": kbcli / pgBackRest, stored", ours.median(stored), theirs.median(stored), 0)
	}
	b.print("")
	return s.remove()
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
