// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// bench is one run of the program.
type bench struct {
	work  string // everything it makes lies below
	bin   string // PostgreSQL's programs
	kbcli string
	quick bool
	runs  int
	only  []string // names of tools; empty for all
	data  []string // of data sets of full; empty for all
	uid   int      // of the servers and of the tools that must be them
	gid   int
	out   io.Writer // the report
	json  string    // where the results are kept; empty for nowhere

	versions []string // of all programs
	now      *section // that is measured

	servers []*server // that were made
}

type test struct {
	name, about string
	run         func(*bench, context.Context) error
}

var tests = []test{
	{"incremental", "a full backup, 1 % of the pages changed, an incremental one", (*bench).incremental},
	{"chain", "ten incrementals of 1 % each; the last restores like the first full one", (*bench).chain},
	{"delta", "a restore over a directory of which 1 % of the pages changed", (*bench).delta},
	{"full", "a full backup and a restore, of three data sets", (*bench).full},
	{"s3", "the same of one data set, with an S3 server", (*bench).s3},
	{"pitr", "a moment behind 120 segments of WAL", (*bench).pitr},
	{"archive", "pgbench while WAL is archived, and with archiving off", (*bench).archive},
	{"rpo", "the host and its disk lost under a light load: what is missing in a restore", (*bench).rpo},
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if len(os.Args) > 1 && os.Args[1] == adopt {
		if err := reaper(os.Args[2:]); err != nil {
			fmt.Fprintln(os.Stderr, "error:", err)
			os.Exit(1)
		}
		return
	}
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		stop()
		os.Exit(1)
	}
}

func run(ctx context.Context) (err error) {
	b := &bench{}
	var out, osUser, only, data string
	var keep bool
	flag.StringVar(&b.work, "work", filepath.Join(os.TempDir(), "kbcli-bench"), "an empty directory for everything, with 12 GB of room (2 with -quick)")
	flag.StringVar(&b.bin, "pgbin", "/usr/lib/postgresql/15/bin", "PostgreSQL's programs")
	flag.StringVar(&b.kbcli, "kbcli", "bin/kbcli", "the program that is measured")
	flag.StringVar(&osUser, "user", "postgres", "the account that runs the servers")
	flag.StringVar(&out, "out", "", "append the report to this file too")
	flag.StringVar(&only, "tools", "", "these tools only, with commas between")
	flag.StringVar(&data, "data", "", "these data sets of full only: pgbench, mixed, tables, with commas between")
	flag.StringVar(&b.json, "json", "", "keep goals and medians in this file, in place of those of the same tests")
	flag.BoolVar(&b.quick, "quick", false, "small data sets")
	flag.BoolVar(&keep, "keep", false, "leave the work directory")
	flag.IntVar(&b.runs, "runs", 0, "how often each tool does each thing (default 5, or 1 with -quick)")
	flag.Usage = help
	flag.Parse()
	if done, err := render(flag.Args()); done {
		return err
	}
	if b.runs == 0 {
		b.runs = 5
		if b.quick {
			b.runs = 1
		}
	}
	if os.Geteuid() != 0 {
		return errors.New("it needs root: the servers and tools run as another account")
	}
	chosen, err := choose(flag.Args())
	if err != nil {
		return err
	}
	if only != "" {
		b.only = strings.Split(only, ",")
	}
	if data != "" {
		b.data = strings.Split(data, ",")
	}
	if b.uid, b.gid, err = account(osUser); err != nil {
		return err
	}
	if b.kbcli, err = filepath.Abs(b.kbcli); err != nil {
		return err
	}
	if b.work, err = filepath.Abs(b.work); err != nil {
		return err
	}
	if list, err := os.ReadDir(b.work); err == nil && len(list) > 0 {
		return fmt.Errorf("%s is not empty", b.work)
	}
	if err := b.dir(b.work); err != nil {
		return err
	}
	if !keep {
		defer func() { err = errors.Join(err, os.RemoveAll(b.work)) }()
	}
	defer func() {
		for _, s := range b.servers { // what a failure left behind
			err = errors.Join(err, s.remove())
		}
	}()
	b.out = os.Stdout
	if out != "" {
		f, err := os.OpenFile(out, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, f.Close()) }()
		b.out = io.MultiWriter(os.Stdout, f)
	}
	if err := b.heading(); err != nil {
		return err
	}
	for _, t := range chosen {
		if err := t.run(b, ctx); err != nil {
			return fmt.Errorf("%s: %w", t.name, err)
		}
	}
	return nil
}

func help() {
	w := flag.CommandLine.Output()
	fmt.Fprint(w, "go run ./bench [flags] [test…]\n\ntests, all of them unless some are named:\n")
	for _, t := range tests {
		fmt.Fprintf(w, "  %-12s %s\n", t.name, t.about)
	}
	fmt.Fprint(w, "\nwhat -json kept:\n"+
		"  table FILE           print the README's table\n"+
		"  chart FILE           print the chart, SVG\n"+
		"  report FILE README SVG  put both in their places\n")
	fmt.Fprint(w, "\nflags:\n")
	flag.PrintDefaults()
}

func choose(names []string) ([]test, error) {
	if len(names) == 0 {
		return tests, nil
	}
	var out []test
	for _, n := range names {
		i := slices.IndexFunc(tests, func(t test) bool { return t.name == n })
		if i < 0 {
			return nil, fmt.Errorf("there is no test %q", n)
		}
		out = append(out, tests[i])
	}
	return out, nil
}

func account(name string) (uid, gid int, err error) {
	u, err := user.Lookup(name)
	if err != nil {
		return 0, 0, err
	}
	if uid, err = strconv.Atoi(u.Uid); err != nil {
		return 0, 0, err
	}
	gid, err = strconv.Atoi(u.Gid)
	return uid, gid, err
}

// dir makes a directory of the servers' account.
func (b *bench) dir(path string) error {
	if err := os.MkdirAll(path, 0o755); err != nil {
		return err
	}
	return os.Chown(path, b.uid, b.gid)
}

// wants tells whether a tool takes part.
func (b *bench) wants(name string) bool {
	return len(b.only) == 0 || slices.Contains(b.only, name)
}

// say tells on stderr what goes on.
func say(format string, args ...any) {
	fmt.Fprintf(os.Stderr, time.Now().Format("15:04:05 ")+format+"\n", args...)
}
