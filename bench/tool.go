// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// tool saves the server and brings it back. Its calls come one after the other, and
// name the backups b1, b2, ….
type tool interface {
	name() string
	settings() string // for the report
	// prepare is called before the server archives.
	prepare(ctx context.Context, s *server) error
	// archiveCommand is a line of shell without quotes; empty for none.
	archiveCommand() string
	// begin is called when the server archives.
	begin(ctx context.Context) error
	// backup makes one that can be restored; an incremental one builds on the last.
	backup(ctx context.Context, name string, incremental bool) (usage, error)
	// restore brings back a backup, as a server that answers; Wall of it is until its
	// files are there and durable.
	restore(ctx context.Context, name string) (usage, error)
	// drop takes away what was restored.
	drop(ctx context.Context, name string) error
	// forget removes backups, this one and all that it needs.
	forget(ctx context.Context, name string) error
	// end stops what runs and removes everything.
	end(ctx context.Context) error
}

// with prepares the tools for a server, runs work, and ends them.
func (b *bench) with(ctx context.Context, s *server, tools []tool, work func() error) (err error) {
	var commands []string
	for _, t := range tools {
		if err := t.prepare(ctx, s); err != nil {
			return fmt.Errorf("%s: %w", t.name(), err)
		}
		defer func() {
			if e := t.end(context.WithoutCancel(ctx)); e != nil && err == nil {
				err = fmt.Errorf("%s: %w", t.name(), e)
			}
		}()
		if c := t.archiveCommand(); c != "" {
			commands = append(commands, c)
		}
	}
	script := filepath.Join(b.work, "pgbackrest-and-others") // pgBackRest refuses a command without its name
	text := "#!/bin/sh\nset -e\n" + strings.Join(commands, "\n") + "\n"
	if err := errors.Join(os.WriteFile(script, []byte(text), 0o755), os.Chown(script, b.uid, b.gid)); err != nil {
		return err
	}
	if _, err := s.query(ctx, fmt.Sprintf("alter system set archive_command = '%s %%p %%f'", script), "select pg_reload_conf()", "select pg_switch_wal()"); err != nil {
		return err
	}
	for _, t := range tools {
		if err := t.begin(ctx); err != nil {
			return fmt.Errorf("%s: %w", t.name(), err)
		}
	}
	return work()
}

// pick keeps the tools that were asked for.
func (b *bench) pick(all ...tool) []tool {
	var out []tool
	for _, t := range all {
		if b.wants(t.name()) {
			out = append(out, t)
		}
	}
	return out
}

// turn gives the tools in the order of a run: each run begins with another.
func turn(tools []tool, run int) []tool {
	n := run % len(tools)
	return append(append([]tool(nil), tools[n:]...), tools[:n]...)
}

// peer is what the tools have in common that are only commands.
type peer struct {
	b        *bench
	label    string
	s        *server
	restored map[string]*server
}

func (p *peer) name() string                { return p.label }
func (p *peer) archiveCommand() string      { return "" }
func (p *peer) begin(context.Context) error { return nil }
func (p *peer) home() string                { return filepath.Join(p.b.work, "t-"+p.label) }
func (p *peer) into(name string) string     { return filepath.Join(p.b.work, "r-"+p.label+"-"+name) }

func (p *peer) prepare(_ context.Context, s *server) error {
	p.s, p.restored = s, map[string]*server{}
	return p.b.dir(p.home())
}

// measured runs a shell command as the tool.
func (p *peer) measured(ctx context.Context, script string, args ...string) (usage, error) {
	m := &meter{server: p.s}
	return m.measure(func(watch func(int)) error {
		_, err := finish(p.b.command(ctx, false, "bash", append([]string{"-euo", "pipefail", "-c", script, "bash"}, args...)...), watch)
		return err
	})
}

// bring restores with a command, whose last argument is an empty directory, and starts it.
func (p *peer) bring(ctx context.Context, name, script string, args ...string) (usage, error) {
	dir := p.into(name)
	if err := errors.Join(p.b.dir(dir), os.Chmod(dir, 0o700)); err != nil {
		return usage{}, err
	}
	u, err := p.measured(ctx, script, append(args, dir)...)
	if err != nil {
		return u, err
	}
	starting := &meter{}
	su, err := starting.measure(func(func(int)) error {
		s, err := p.b.recovered(ctx, dir)
		p.restored[name] = s
		return err
	})
	u.Serving = u.Wall + su.Wall
	return u, err
}

func (p *peer) drop(_ context.Context, name string) error {
	if s := p.restored[name]; s != nil {
		delete(p.restored, name)
		return s.remove()
	}
	return nil
}

func (p *peer) end(ctx context.Context) error {
	var errs []error
	for name := range p.restored {
		errs = append(errs, p.drop(ctx, name))
	}
	return errors.Join(append(errs, os.RemoveAll(p.home()))...)
}
