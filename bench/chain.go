// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
)

// links is how many incremental backups the chain has.
const links = 10

// chain: a full backup and ten incremental ones of 1 % each; then the first and the last
// are restored in turn. What is read for the last shows whether restores decay.
func (b *bench) chain(ctx context.Context) error {
	for _, scattered := range []bool{false, true} {
		if err := b.chainOf(ctx, scattered); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) chainOf(ctx context.Context, scattered bool) error {
	how := map[bool]string{false: "contiguous", true: "scattered"}[scattered]
	s, err := b.filled(ctx, pgbenchData)
	if err != nil {
		return err
	}
	tools := b.pick(&kbcli{b: b}, newPgBackRest(b))
	b.print("## Ten incrementals of 1 %% of the pages each, %s; %s of pgbench\n", how, size(s.tree))
	var backups, restores samples
	last := fmt.Sprintf("i%d", links)
	err = b.with(ctx, s, tools, func() error {
		for n := range links + 1 {
			name := fmt.Sprintf("i%d", n)
			if n > 0 {
				if _, err := s.change(ctx, 9*n, scattered); err != nil {
					return err
				}
			}
			for _, t := range turn(tools, n) {
				if err := s.quiet(ctx); err != nil {
					return err
				}
				u, err := t.backup(ctx, name, n > 0)
				if err != nil {
					return fmt.Errorf("%s: %w", t.name(), err)
				}
				label := t.name() + " full"
				if n > 0 {
					label = t.name() + " incrementals"
				}
				backups.add(label, u)
			}
		}
		for run := range b.runs {
			for _, t := range turn(tools, run) {
				for _, name := range []string{"i0", last} {
					u, err := b.restoreAndLook(ctx, s, t, name)
					if err != nil {
						return fmt.Errorf("%s: %w", t.name(), err)
					}
					restores.add(t.name()+" "+map[bool]string{true: "first", false: "last"}[name == "i0"], u)
				}
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	b.table(&backups, false)
	b.table(&restores, true)
	for _, name := range []string{"kbcli", "pgbackrest"} {
		most := 0.0
		if name == "kbcli" {
			most = 1.2
		}
		first, tenth := restores.get(name+" first"), restores.get(name+" last")
		b.ratio(name+": restore of the tenth incremental / of the full, bytes read", tenth.median(read), first.median(read), most)
		b.ratio(name+": the same, wall until the files are there", tenth.median(wall), first.median(wall), most)
		b.ratio(name+": the same, CPU", tenth.median(cpu), first.median(cpu), 0)
	}
	b.print("")
	return s.remove()
}

// restoreAndLook restores a backup and takes the new server away again. That a server
// answers which is no longer in recovery is the look.
func (b *bench) restoreAndLook(ctx context.Context, s *server, t tool, name string) (usage, error) {
	u, err := t.restore(ctx, name)
	if err != nil {
		return u, err
	}
	return u, t.drop(ctx, name)
}
