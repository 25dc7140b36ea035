// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/kbcli/kbcli/internal/tests3"
)

// s3: backup and restore of pgbench's data set with an S3 server of this machine.
func (b *bench) s3(ctx context.Context) (err error) {
	dir := filepath.Join(b.work, "s3")
	if err := b.dir(dir); err != nil {
		return err
	}
	store, err := tests3.Up(tests3.Options{Dir: dir, Secure: true, Log: true})
	if err != nil {
		return err
	}
	defer func() { store.Stop(); err = errors.Join(err, os.RemoveAll(dir)) }()
	if err := os.Chmod(store.CAFile, 0o644); err != nil {
		return err
	}
	ours, theirs := &kbcli{b: b}, newPgBackRest(b)
	for _, at := range []**bucket{&ours.s3, &theirs.s3} {
		name, err := store.MakeBucket()
		if err != nil {
			return err
		}
		*at = &bucket{store, name}
	}
	s, err := b.filled(ctx, pgbenchData)
	if err != nil {
		return err
	}
	if err := b.begin("s3", "S3 on this machine (versitygw, TLS): full backup and restore of %s of pgbench", size(s.tree)); err != nil {
		return err
	}
	tools := b.pick(ours, theirs)
	b.settings(tools)
	var backups, restores samples
	err = b.with(ctx, s, tools, func() error {
		for run := range b.runs {
			for _, t := range turn(tools, run) {
				if err := b.s3Run(ctx, store, s, t, fmt.Sprintf("b%d", run), &backups, &restores); err != nil {
					return fmt.Errorf("%s: %w", t.name(), err)
				}
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	requests := column{"requests a GB of the database", func(u usage) float64 { return float64(u.Requests) / float64(s.tree) * 1e9 }, whole}
	b.table(&backups, append([]column{requests}, backupColumns...)...)
	b.table(&restores, append([]column{requests}, restoreColumns...)...)
	const saved, back = "full backup, S3", "restore of a full, S3"
	b.beside(saved, "wall", "s", &backups, wall, 0.7)
	b.beside(back, "until the files are there", "s", &restores, wall, 0.7)
	b.beside(back, "until it serves", "s", &restores, serving, 0.7)
	b.ratio(saved+": kbcli / pgbackrest, requests", backups.get("kbcli").median(requests.by), backups.get("pgbackrest").median(requests.by))
	b.ratio(back+": kbcli / pgbackrest, requests", restores.get("kbcli").median(requests.by), restores.get("pgbackrest").median(requests.by))
	return errors.Join(b.keep(), s.remove())
}

// s3Run is one backup and one restore, with the requests that they made.
func (b *bench) s3Run(ctx context.Context, store *tests3.Server, s *server, t tool, name string, backups, restores *samples) error {
	if err := s.quiet(ctx); err != nil {
		return err
	}
	counted := func(work func() (usage, error)) (usage, error) {
		from, err := store.Requests()
		if err != nil {
			return usage{}, err
		}
		u, err := work()
		if err != nil {
			return u, err
		}
		to, err := store.Requests()
		u.Requests = to - from
		return u, err
	}
	u, err := counted(func() (usage, error) { return t.backup(ctx, name, false) })
	if err != nil {
		return err
	}
	backups.add(t.name(), u)
	if u, err = counted(func() (usage, error) { return t.restore(ctx, name) }); err != nil {
		return err
	}
	restores.add(t.name(), u)
	if err := t.drop(ctx, name); err != nil {
		return err
	}
	return t.forget(ctx, name)
}
