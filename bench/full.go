// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
)

// full: backup and restore of each data set, by every tool.
func (b *bench) full(ctx context.Context) error {
	for _, d := range []dataset{pgbenchData, mixedData, tablesData} {
		if len(b.data) > 0 && !slices.Contains(b.data, d.name) {
			continue
		}
		if err := b.fullOf(ctx, d); err != nil {
			return fmt.Errorf("%s: %w", d.name, err)
		}
	}
	return nil
}

func (b *bench) fullOf(ctx context.Context, d dataset) error {
	s, err := b.filled(ctx, d)
	if err != nil {
		return err
	}
	files, err := s.files()
	if err != nil {
		return err
	}
	b.print("## Full backup and restore: %s (%s), %s in %d files\n", d.name, d.about, size(s.tree), files)
	tools := b.pick(&kbcli{b: b}, newPgBackRest(b), newBarman(b), newBasebackup(b), newCopy(b), newZstd(b))
	b.settings(tools)
	var backups, restores samples
	err = b.with(ctx, s, tools, func() error {
		for run := range b.runs {
			for _, t := range turn(tools, run) {
				if err := b.fullRun(ctx, s, t, fmt.Sprintf("b%d", run), &backups, &restores); err != nil {
					return fmt.Errorf("%s: %w", t.name(), err)
				}
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	limits := []string{"kbcli", "cp -a", "tar | zstd"}
	mostBackup, mostRestore := 0.7, 0.7
	if d.name == tablesData.name {
		mostBackup, mostRestore = 0.6, 0.6
	}
	b.table(&backups, false)
	ours := backups.get("kbcli")
	name, least := backups.best(wall, limits...)
	b.ratio("backup: kbcli / "+name+", wall", ours.median(wall), least, mostBackup)
	name, least = backups.best(func(u usage) float64 { return u.CPU + u.Server }, limits...)
	b.ratio("backup: kbcli / "+name+", CPU with the server's", ours.median(func(u usage) float64 { return u.CPU + u.Server }), least, 0)
	b.ratio("backup: kbcli / zstd -1 -T2, wall", ours.median(wall), backups.get("tar | zstd").median(wall), 0)
	if ours != nil {
		b.print("- objects of a kbcli backup: **%.0f** (at most 200: %s)", ours.median(objects), map[bool]string{true: "held", false: "NOT held"}[ours.median(objects) <= 200])
	}
	b.print("")
	b.table(&restores, true)
	ours = restores.get("kbcli")
	name, least = restores.best(wall, "kbcli")
	b.ratio("restore: kbcli / "+name+", until the files are there", ours.median(wall), least, mostRestore)
	name, least = restores.best(serving, "kbcli")
	b.ratio("restore: kbcli / "+name+", until it serves", ours.median(serving), least, mostRestore)
	name, least = restores.best(cpu, "kbcli")
	b.ratio("restore: kbcli / "+name+", CPU", ours.median(cpu), least, 0)
	b.print("")
	return s.remove()
}

func (b *bench) fullRun(ctx context.Context, s *server, t tool, name string, backups, restores *samples) error {
	if err := s.quiet(ctx); err != nil {
		return err
	}
	u, err := t.backup(ctx, name, false)
	if err != nil {
		return err
	}
	backups.add(t.name(), u)
	u, err = t.restore(ctx, name)
	switch {
	case errors.Is(err, errNone):
		return nil
	case err != nil:
		return err
	}
	restores.add(t.name(), u)
	if err := t.drop(ctx, name); err != nil {
		return err
	}
	return t.forget(ctx, name)
}
