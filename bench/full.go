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
	if err := b.begin("full "+d.name, "Full backup and restore: %s (%s), %s in %d files", d.name, d.about, size(s.tree), files); err != nil {
		return err
	}
	tools := b.pick(&kbcli{b: b}, newPgBackRest(b), newBarman(b), newBasebackup(b), newCopy(b), newZstd(b))
	b.settings(tools)
	var backups, restores samples
	err = b.with(ctx, s, tools, func() error {
		for run := range b.runs {
			for _, t := range turn(tools, run) {
				if run >= rounds(d, t) {
					continue
				}
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
	b.table(&backups, backupColumns...)
	b.fullBackups(d, &backups)
	b.print("")
	b.table(&restores, restoreColumns...)
	b.fullRestores(d, &restores, backups.get("cp -a"))
	return errors.Join(b.keep(), s.remove())
}

// rounds is how often a tool takes part at most. With many files some take minutes, and are
// not the ones that count.
func rounds(d dataset, t tool) int {
	if d.name == tablesData.name {
		switch t.name() {
		case "barman":
			return 2
		case "pgbackrest":
			return 3
		}
	}
	return 99
}

// what kbcli's wall time may be, of that of the best other tool
var (
	mostBackup  = map[string]float64{"pgbench": 0.7, "mixed": 0.8, "tables": 0.6}
	mostRestore = map[string]float64{"pgbench": 0.7, "mixed": 0.7, "tables": 0.6}
)

func (b *bench) fullBackups(d dataset, all *samples) {
	work := "full backup, " + d.name
	b.beside(work, "wall", "s", all, wall, mostBackup[d.name])
	ours, compressed := all.get("kbcli"), all.get("tar | zstd")
	if ours == nil {
		return
	}
	switch d.name {
	case pgbenchData.name:
		b.limit(work, "wall", "s", ours, compressed, wall, 1.3)
	default:
		b.ratio(work+": kbcli / tar | zstd -1 -T2, wall", ours.median(wall), compressed.median(wall))
	}
	if d.name == tablesData.name {
		b.judge(goal{Work: work, What: "objects", Kbcli: ours.median(objects), Bound: 200})
	}
	both := func(u usage) float64 { return u.CPU + u.Server }
	name, least := all.best(both, slices.Concat([]string{"kbcli"}, limits, weaker)...)
	b.ratio(work+": kbcli / "+name+", CPU with the server's", ours.median(both), least)
}

func (b *bench) fullRestores(d dataset, all *samples, copied *sample) {
	work := "restore of a full, " + d.name
	b.beside(work, "until the files are there", "s", all, wall, mostRestore[d.name])
	b.beside(work, "until it serves", "s", all, serving, mostRestore[d.name])
	ours := all.get("kbcli")
	if ours == nil {
		return
	}
	if d.name == tablesData.name {
		b.ratio(work+": kbcli / cp -a, until the files are there", ours.median(wall), copied.median(wall))
	} else {
		b.limit(work, "until the files are there", "s", ours, copied, wall, 1.25)
	}
	name, least := all.best(cpu, slices.Concat([]string{"kbcli"}, limits, weaker)...)
	b.ratio(work+": kbcli / "+name+", CPU", ours.median(cpu), least)
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
