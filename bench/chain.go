// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
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
	if err := b.begin("chain "+how, "Ten incrementals of 1 %% of the pages each, %s; %s of pgbench", how, size(s.tree)); err != nil {
		return err
	}
	b.settings(tools)
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
				if run >= 2 && t.name() != "kbcli" {
					continue // what is judged is kbcli beside itself
				}
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
	b.table(&backups, backupColumns...)
	b.table(&restores, restoreColumns...)
	work := "restore of the tenth incremental, " + how
	for _, t := range tools {
		name := t.name()
		first, tenth := restores.get(name+" first"), restores.get(name+" last")
		if name == "kbcli" {
			b.judge(goal{
				Work: work, What: "until the files are there", Unit: "s", Kbcli: tenth.median(wall),
				Other: "kbcli's first full one", Theirs: first.median(wall), Ratio: true, Bound: 1.2,
			})
			b.aside(work, "bytes read, of the full one's", tenth.median(read), first.median(read), 1.2)
		} else {
			b.ratio(work+": "+name+" / its first full one, until the files are there", tenth.median(wall), first.median(wall))
			b.ratio(work+": "+name+" / its first full one, bytes read", tenth.median(read), first.median(read))
		}
		b.ratio(work+": "+name+" / its first full one, CPU", tenth.median(cpu), first.median(cpu))
	}
	return errors.Join(b.keep(), s.remove())
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
