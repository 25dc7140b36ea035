// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// kbcliSurvivor has its repository on the other disk, and all else on the server's: what
// is only in the agent's spool is lost.
type kbcliSurvivor struct {
	kbcli
	label string
	sync  bool // commits wait for the repository
}

func (k *kbcliSurvivor) name() string { return k.label }

func (k *kbcliSurvivor) settings() string {
	if k.sync {
		return "archive.mode=sync: a commit waits until the repository holds it; its spool is lost with the disk"
	}
	return "archive.mode=async, tails each second; its spool is lost with the disk"
}

func (k *kbcliSurvivor) repository() string { return filepath.Join(k.b.work, "other-disk") }

// opens starts an agent that knows the repository.
func (k *kbcliSurvivor) opens(ctx context.Context, s *server) error {
	if err := k.prepare(ctx, s); err != nil {
		return err
	}
	return k.run(ctx, "backuprepo", "create", "other", "--provider", "filesystem", "--path", k.repository(), "--default")
}

func (k *kbcliSurvivor) protects(ctx context.Context, s *server) error {
	if err := k.opens(ctx, s); err != nil {
		return err
	}
	if err := k.begin(ctx); err != nil {
		return err
	}
	if err := k.run(ctx, "cluster", "backup", "src", "--name", "b0", "--type", "datafile", "--wait"); err != nil || !k.sync {
		return err
	}
	if err := k.run(ctx, "cluster", "edit-backup-policy", "src-postgresql-backup-policy", "--set", "archive.mode=sync"); err != nil {
		return err
	}
	for {
		n, err := s.number(ctx, "select count(*) from pg_stat_replication where sync_state in ('sync', 'quorum')")
		if err != nil || n == 1 {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func (k *kbcliSurvivor) there() []int {
	return append([]int{k.agent.Process.Pid}, childrenOf(k.agent.Process.Pid)...)
}

func (k *kbcliSurvivor) state() string { return filepath.Join(k.b.work, "state") }

func (k *kbcliSurvivor) loses() error {
	err := errors.Join(gone(k.exited), k.log.Close())
	k.agent = nil
	return errors.Join(err, os.RemoveAll(k.state()))
}

// latest is another machine, which knows the repository alone.
func (k *kbcliSurvivor) latest(ctx context.Context, query string) (string, error) {
	if err := k.opens(ctx, nil); err != nil {
		return "", err
	}
	if err := k.known(ctx); err != nil {
		return "", err
	}
	if err := k.run(ctx, "cluster", "restore", "r-latest", "--latest", "--source-cluster", "src", "--wait"); err != nil {
		return "", err
	}
	out, err := finish(k.b.command(ctx, true, k.b.kbcli, "cluster", "connect", "r-latest", "--", "-XqtAc", query), nil)
	return out, errors.Join(err, k.run(ctx, "cluster", "delete", "r-latest", "--auto-approve"))
}

// known waits until the new agent has looked into the repository.
func (k *kbcliSurvivor) known(ctx context.Context) error {
	for {
		out, err := finish(k.b.command(ctx, true, k.b.kbcli, "cluster", "list-backup"), nil)
		if err != nil || strings.Contains(out, "b0") {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(200 * time.Millisecond):
		}
	}
}

func (k *kbcliSurvivor) ends(context.Context) error {
	var err error
	if k.agent != nil && k.agent.Process != nil {
		err = errors.Join(k.agent.Process.Signal(syscall.SIGTERM), <-k.exited, k.log.Close())
		k.agent = nil
	}
	return errors.Join(err, os.RemoveAll(k.state()), os.RemoveAll(k.repository()))
}

// pushSurvivor is pgBackRest with archive_timeout, which ends segments by the clock.
type pushSurvivor struct {
	*pgBackRest
	timeout int // seconds
}

func (p *pushSurvivor) settings() string {
	return fmt.Sprintf("%s; archive_timeout=%d; the runs' faults are spread evenly over that time", p.pgBackRest.settings(), p.timeout)
}

func (p *pushSurvivor) protects(ctx context.Context, s *server) error {
	if err := p.prepare(ctx, s); err != nil {
		return err
	}
	if _, err := s.query(ctx, fmt.Sprintf("alter system set archive_command = '%s archive-push %%p'", p.cmd()),
		fmt.Sprintf("alter system set archive_timeout = %d", p.timeout), "select pg_reload_conf()"); err != nil {
		return err
	}
	_, err := p.backup(ctx, "b0", false)
	return err
}

func (p *pushSurvivor) there() []int {
	return processesWith(filepath.Join(p.home(), "conf"))
}

// loses: of what it has on the server's disk a restore needs nothing. There is no server
// any more whose part could be measured.
func (p *pushSurvivor) loses() error {
	p.s = nil
	return nil
}

func (p *pushSurvivor) latest(ctx context.Context, query string) (string, error) {
	if _, err := p.bring(ctx, "latest", p.cmd()+` --pg1-path="$1" --type=default restore`); err != nil {
		return "", err
	}
	return p.restored["latest"].query(ctx, query)
}

func (p *pushSurvivor) ends(ctx context.Context) error { return p.end(ctx) }

// receiveSurvivor is pg_receivewal on another host, with a base backup beside it, and what
// the manual says to restore with.
type receiveSurvivor struct {
	receivewal
	feed *feed
}

func (r *receiveSurvivor) settings() string {
	return "on another host, asynchronous; restored from a plain base backup, the unfinished segment too"
}

func (r *receiveSurvivor) protects(ctx context.Context, s *server) error {
	if err := r.feed.prepare(ctx, s); err != nil {
		return err
	}
	if err := r.starts(ctx, s); err != nil {
		return err
	}
	_, err := r.feed.backup(ctx, "b0", false)
	return err
}

func (r *receiveSurvivor) there() []int { return nil }

// loses: the receiver sees that the server is gone, and would wait for it.
func (r *receiveSurvivor) loses() error {
	r.feed.s = nil
	return r.interrupts()
}

func (r *receiveSurvivor) interrupts() error {
	if r.cmd == nil {
		return nil
	}
	if err := r.cmd.Process.Signal(syscall.SIGINT); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	r.cmd = nil
	return gone(r.exited)
}

func (r *receiveSurvivor) latest(ctx context.Context, query string) (string, error) {
	command := fmt.Sprintf("cp %[1]s/%%f %%p 2>/dev/null || cp %[1]s/%%f.partial %%p 2>/dev/null", r.dir())
	if _, err := r.feed.bring(ctx, "latest", `cp -a "$1/." "$3"; touch "$3/recovery.signal"; echo "restore_command = '$2'" >> "$3/postgresql.auto.conf"`,
		filepath.Join(r.feed.home(), "b0"), command); err != nil {
		return "", err
	}
	return r.feed.restored["latest"].query(ctx, query)
}

func (r *receiveSurvivor) ends(ctx context.Context) error {
	return errors.Join(r.interrupts(), r.feed.end(ctx), os.RemoveAll(r.dir()))
}
