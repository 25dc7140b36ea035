// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// pgBackRest, at zstd's level 1 like kbcli, with as many processes as the machine has cores.
type pgBackRest struct {
	peer
	labels map[string]string
	s3     *bucket // nil: a directory
	async  bool    // WAL goes and comes by processes that stay for several segments
}

func newPgBackRest(b *bench) *pgBackRest {
	return &pgBackRest{peer: peer{b: b, label: "pgbackrest"}, labels: map[string]string{}}
}

func (p *pgBackRest) settings() string {
	how := "archive-async=n"
	if p.async {
		how = "archive-async=y"
	}
	return "compress-type=zst, compress-level=1, process-max=2, repo1-bundle=y, start-fast=y, " + how
}

func (p *pgBackRest) cmd() string {
	return "pgbackrest --config=" + filepath.Join(p.home(), "conf") + " --stanza=bench"
}

func (p *pgBackRest) archiveCommand() string { return p.cmd() + " archive-push $1" }

func (p *pgBackRest) prepare(ctx context.Context, s *server) error {
	if err := p.peer.prepare(ctx, s); err != nil {
		return err
	}
	h := p.home()
	repo := "repo1-path=" + filepath.Join(h, "repo")
	if p.s3 != nil {
		repo = p.s3.pgBackRest()
	}
	conf := fmt.Sprintf(`[global]
%[5]s
log-path=%[1]s
spool-path=%[1]s
lock-path=%[1]s/lock
log-level-console=warn
log-level-file=off
start-fast=y
process-max=2
compress-type=zst
compress-level=1
repo1-bundle=y
repo1-retention-full=1
expire-auto=n
[bench]
pg1-path=%[2]s
pg1-port=%[3]d
pg1-socket-path=%[4]s
pg1-user=postgres
pg1-database=postgres
`, h, s.data, s.port, s.socket, repo)
	if p.async {
		conf = strings.Replace(conf, "start-fast=y\n", "start-fast=y\narchive-async=y\n", 1)
	}
	if err := os.WriteFile(filepath.Join(h, "conf"), []byte(conf), 0o644); err != nil {
		return err
	}
	_, err := finish(p.b.command(ctx, false, "bash", "-c", p.cmd()+" stanza-create"), nil)
	return err
}

func (p *pgBackRest) backup(ctx context.Context, name string, incremental bool) (usage, error) {
	kind := "full"
	if incremental {
		kind = "incr"
	}
	u, err := p.measured(ctx, p.cmd()+" --type="+kind+" backup")
	if err != nil {
		return u, err
	}
	repo := filepath.Join(p.home(), "repo", "backup", "bench")
	if p.s3 != nil {
		repo = filepath.Join(p.s3.dir(), "backup", "bench")
	}
	last, err := lastBackup(repo)
	if err != nil {
		return u, err
	}
	p.labels[name] = last
	u.Stored, u.Objects, err = sizeOf(filepath.Join(repo, last))
	return u, err
}

// lastBackup is the newest label below a directory: labels begin with their time.
func lastBackup(repo string) (string, error) {
	all, err := filepath.Glob(filepath.Join(repo, "2*"))
	if err != nil || len(all) == 0 {
		return "", fmt.Errorf("backups in %s: %d: %w", repo, len(all), err)
	}
	slices.Sort(all)
	return filepath.Base(all[len(all)-1]), nil
}

func (p *pgBackRest) restore(ctx context.Context, name string) (usage, error) {
	return p.bring(ctx, name, p.cmd()+` --set="$1" --pg1-path="$2" --type=immediate --target-action=promote restore`, p.labels[name])
}

func (p *pgBackRest) restoreTo(ctx context.Context, name, backup, at string) (usage, error) {
	return p.bring(ctx, name, p.cmd()+` --set="$1" --type=time --target="$2" --pg1-path="$3" --target-action=promote restore`, p.labels[backup], at)
}

func (p *pgBackRest) delta(ctx context.Context, name, dir string) (usage, error) {
	if err := os.Rename(dir, p.into(name)); err != nil {
		return usage{}, err
	}
	return p.bring(ctx, name, p.cmd()+` --delta --set="$1" --pg1-path="$2" --type=immediate --target-action=promote restore`, p.labels[name])
}

// forget lets the last full backup stay: pgBackRest keeps one.
func (p *pgBackRest) forget(ctx context.Context, _ string) error {
	_, err := finish(p.b.command(ctx, false, "bash", "-c", p.cmd()+" expire"), nil)
	return err
}

// end waits for the processes that stay a while, which write into the directory.
func (p *pgBackRest) end(ctx context.Context) error {
	for len(processesWith(filepath.Join(p.home(), "conf"))) > 0 {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
	return p.peer.end(ctx)
}

// basebackup is pg_basebackup, compressing at the client.
type basebackup struct{ peer }

func newBasebackup(b *bench) *basebackup { return &basebackup{peer{b: b, label: "pg_basebackup"}} }

func (p *basebackup) settings() string {
	return "-Ft --compress=client-zstd:level=1,workers=2 -X stream --checkpoint=fast; restored by zstd, tar and sync -f"
}

func (p *basebackup) backup(ctx context.Context, name string, _ bool) (usage, error) {
	dir := filepath.Join(p.home(), name)
	u, err := p.measured(ctx, `"$1" -h "$2" -p "$3" -U postgres -D "$4" --checkpoint=fast -X stream -Ft --compress=client-zstd:level=1,workers=2`,
		filepath.Join(p.b.bin, "pg_basebackup"), p.s.socket, fmt.Sprint(p.s.port), dir)
	if err != nil {
		return u, err
	}
	u.Stored, u.Objects, err = sizeOf(dir)
	return u, err
}

func (p *basebackup) restore(ctx context.Context, name string) (usage, error) {
	return p.bring(ctx, name, `zstd -dcq "$1/base.tar.zst" | tar -xf - -C "$2"; tar -xf "$1/pg_wal.tar" -C "$2/pg_wal"; sync -f "$2"`, filepath.Join(p.home(), name))
}

func (p *basebackup) forget(_ context.Context, name string) error {
	return os.RemoveAll(filepath.Join(p.home(), name))
}

// barman takes plain copies through pg_basebackup: 3.4 compresses with gzip alone.
type barman struct {
	peer
	ids map[string]string
}

func newBarman(b *bench) *barman { return &barman{peer{b: b, label: "barman"}, map[string]string{}} }

func (p *barman) settings() string {
	return "backup_method=postgres, not compressed; archiver=on; its commands are followed by sync -f"
}

func (p *barman) conf() string { return filepath.Join(p.home(), "conf") }
func (p *barman) repo() string { return filepath.Join(p.home(), "bench") }

func (p *barman) archiveCommand() string { return "cp $1 " + p.repo() + "/incoming/$2" }

func (p *barman) prepare(ctx context.Context, s *server) error {
	if err := p.peer.prepare(ctx, s); err != nil {
		return err
	}
	h := p.home()
	dirs := []string{"d", "lock", "staging", "bench", "bench/incoming", "bench/streaming", "bench/wals", "bench/errors", "bench/base"}
	for _, d := range dirs {
		if err := p.b.dir(filepath.Join(h, d)); err != nil {
			return err
		}
	}
	conninfo := fmt.Sprintf("host=%s port=%d user=postgres", s.socket, s.port)
	conf := fmt.Sprintf(`[barman]
barman_user = postgres
barman_home = %[1]s
configuration_files_directory = %[1]s/d
log_file = %[1]s/log
barman_lock_directory = %[1]s/lock
[bench]
description = bench
conninfo = %[2]s dbname=postgres
streaming_conninfo = %[2]s
path_prefix = %[3]s
immediate_checkpoint = true
recovery_staging_path = %[1]s/staging
minimum_redundancy = 0
archiver = on
backup_method = postgres
`, h, conninfo, p.b.bin)
	return os.WriteFile(p.conf(), []byte(conf), 0o644)
}

func (p *barman) begin(ctx context.Context) error {
	_, err := finish(p.b.command(ctx, false, "barman", "-q", "-c", p.conf(), "switch-wal", "--force", "--archive", "--archive-timeout", "60", "bench"), nil)
	return err
}

func (p *barman) backup(ctx context.Context, name string, _ bool) (usage, error) {
	u, err := p.measured(ctx, `barman -q -c "$1" backup --wait bench; sync -f "$2"`, p.conf(), p.repo())
	if err != nil {
		return u, err
	}
	list, err := os.ReadDir(filepath.Join(p.repo(), "base"))
	if err != nil || len(list) == 0 {
		return u, errors.Join(err, fmt.Errorf("barman stored %d backups", len(list)))
	}
	p.ids[name] = list[len(list)-1].Name()
	u.Stored, u.Objects, err = sizeOf(filepath.Join(p.repo(), "base", p.ids[name]))
	return u, err
}

func (p *barman) restore(ctx context.Context, name string) (usage, error) {
	return p.bring(ctx, name, `barman -q -c "$1" recover --target-immediate --target-action promote bench "$2" "$3"; sync -f "$3"`, p.conf(), p.ids[name])
}

func (p *barman) forget(ctx context.Context, name string) error {
	_, err := finish(p.b.command(ctx, false, "barman", "-q", "-c", p.conf(), "delete", "bench", p.ids[name]), nil)
	return err
}

// limit is what nothing can beat by much: to copy the bytes, or to compress them.
type limit struct {
	peer
	about, script string
}

func newCopy(b *bench) *limit {
	return &limit{peer{b: b, label: "cp -a"}, "of the data directory without pg_wal, and sync -f; no backup", `mkdir "$2"; cd "$1"; for f in *; do [ "$f" = pg_wal ] || cp -a "$f" "$2/"; done; sync -f "$2"`}
}

func newZstd(b *bench) *limit {
	return &limit{peer{b: b, label: "tar | zstd"}, "zstd -1 -T2, without pg_wal, and sync; no backup", `mkdir "$2"; tar -C "$1" --exclude=./pg_wal -cf - . | zstd -q -1 -T2 -o "$2/tar.zst"; sync -f "$2"`}
}

func (p *limit) settings() string { return p.about }
func (p *limit) home() string     { return filepath.Join(p.b.work, "limit") }

func (p *limit) prepare(_ context.Context, s *server) error {
	p.s, p.restored = s, nil
	return p.b.dir(p.home())
}

func (p *limit) backup(ctx context.Context, _ string, _ bool) (usage, error) {
	dir := filepath.Join(p.home(), strings.Fields(p.label)[0])
	u, err := p.measured(ctx, p.script, p.s.data, dir)
	if err != nil {
		return u, err
	}
	if u.Stored, u.Objects, err = sizeOf(dir); err != nil {
		return u, err
	}
	return u, os.RemoveAll(dir)
}

func (p *limit) restore(context.Context, string) (usage, error) { return usage{}, errNone }
func (p *limit) forget(context.Context, string) error           { return nil }
func (p *limit) end(context.Context) error                      { return os.RemoveAll(p.home()) }

var errNone = errors.New("it cannot restore")
