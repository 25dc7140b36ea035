// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/runtimes"
	"github.com/kbcli/kbcli/runtimes/store"
)

// version is set by the linker.
var version = "devel"

// Stdio is where a person is. Prompts without echo and the question whether
// somebody is there at all need In and Err to be *os.File.
type Stdio struct {
	In       io.Reader
	Out, Err io.Writer
}

// Interrupted is the cause with which the context of Main ends when a signal came.
type Interrupted struct{ Signal syscall.Signal }

func (e Interrupted) Error() string { return "interrupted" }

// Main runs one command line, without the program's name, and returns the exit
// code. It may be called once at a time.
func Main(ctx context.Context, args []string, stdio Stdio) int {
	return newApp(stdio).run(ctx, args)
}

// app is one run: where the person is, and what the flags said.
type app struct {
	stdio Stdio
	lines *bufio.Reader

	env         func(string) string
	clock       func() time.Time
	zone        *time.Location
	interactive func() bool // somebody can be asked
	password    func(ctx context.Context) (string, error)
	launch      func(ctx context.Context, c runtimes.Command) error // psql, in this process's place
	edit        func(ctx context.Context, path string) error
	open        func(ctx context.Context, a *app) (runtimes.Runtime, error)

	context    string
	kubeconfig string
	stateDir   string
	namespace  string

	rt     runtimes.Runtime
	warned bool

	versionNoted bool // that the agent's differs
	completing   bool // the shell asks, not a person
	quiet        bool // an interruption is how this ends
}

func newApp(stdio Stdio) *app {
	a := &app{
		stdio: stdio, lines: bufio.NewReader(stdio.In),
		env: os.Getenv, clock: time.Now, zone: time.Local,
		open: openRuntime, launch: replaceProcess,
	}
	a.interactive = func() bool { return isTerminal(stdio.In) }
	a.password = a.readPassword
	a.edit = a.runEditor
	return a
}

func isTerminal(stream any) bool {
	f, ok := stream.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

func (a *app) run(ctx context.Context, args []string) int {
	out := &checkedWriter{w: a.stdio.Out}
	a.stdio.Out = out
	root := newRoot(a)
	a.completing = len(args) > 0 && strings.HasPrefix(args[0], cobra.ShellCompRequestCmd)
	root.SetArgs(args)
	root.SetIn(a.stdio.In)
	root.SetOut(out)
	root.SetErr(a.stdio.Err)
	err := root.ExecuteContext(ctx)
	if err == nil {
		err = out.err
	}
	var interrupted Interrupted
	var left *leftError
	if err != nil && errors.As(context.Cause(ctx), &interrupted) && !errors.As(err, &left) {
		err = interrupted
	}
	if a.quiet && errors.As(err, &interrupted) {
		return explain(err).code
	}
	var ended *programEndedError
	if errors.As(err, &ended) {
		return ended.code
	}
	if err != nil {
		s := explain(err)
		s.write(a.stdio.Err)
		return s.code
	}
	if a.warned {
		return exitWarned
	}
	return 0
}

// checkedWriter remembers that an answer could not be written: a full disk must
// not look like an empty list.
type checkedWriter struct {
	w   io.Writer
	err error
}

func (c *checkedWriter) Write(b []byte) (int, error) {
	n, err := c.w.Write(b)
	if err != nil && c.err == nil {
		c.err = fmt.Errorf("write the answer: %w", err)
	}
	return n, err
}

// runtime is the runtime of --context, opened at the first call.
func (a *app) runtime(ctx context.Context) (runtimes.Runtime, error) {
	if a.rt == nil {
		rt, err := a.open(ctx, a)
		if err != nil {
			return nil, err
		}
		a.rt = rt
	}
	return a.rt, nil
}

func openRuntime(ctx context.Context, a *app) (runtimes.Runtime, error) {
	k, err := a.currentContext()
	if err != nil {
		return nil, err
	}
	log := slog.New(slog.NewTextHandler(a.stdio.Err, &slog.HandlerOptions{Level: slog.LevelWarn}))
	if k.name != localContext {
		return openKubernetes(a, k, log)
	}
	if a.kubeconfig != "" {
		// Somebody who names a kubeconfig does not mean this machine, and must not change it.
		return nil, usage("--kubeconfig was given, and the context is local, which is this machine").
			hints("say which of its contexts with --context").then("kbcli context list --kubeconfig %s", shellWord(a.kubeconfig))
	}
	dir, err := a.stateDirectory()
	if err != nil {
		return nil, err
	}
	return openLocal(ctx, a, dir, log)
}

// stateDirectory is --state-dir, KBCLI_STATE_DIR, /var/lib/kubeblocks for root,
// else a directory in the user's own data.
func (a *app) stateDirectory() (string, error) {
	dir := a.stateDir
	if dir == "" {
		dir = a.env("KBCLI_STATE_DIR")
	}
	switch {
	case dir != "":
	case os.Geteuid() == 0:
		return "/var/lib/kubeblocks", nil
	case filepath.IsAbs(a.env("XDG_DATA_HOME")):
		return filepath.Join(a.env("XDG_DATA_HOME"), "kubeblocks"), nil
	case a.env("HOME") == "":
		return "", usage("there is no home directory: give --state-dir")
	default:
		return filepath.Join(a.env("HOME"), ".local", "share", "kubeblocks"), nil
	}
	return filepath.Abs(dir)
}

// objects is the store, for verbs that only read.
func (a *app) objects(ctx context.Context) (store.Store, error) {
	rt, err := a.runtime(ctx)
	if err != nil {
		return nil, err
	}
	if err := a.revive(ctx); err != nil {
		return nil, err
	}
	return rt.Store(), nil
}

// cluster is the cluster of a name in the namespace, and the store that it is in, for verbs
// that look before they ask for anything.
func (a *app) cluster(ctx context.Context, name string) (store.Store, *v1alpha1.Cluster, error) {
	s, err := a.objects(ctx)
	if err != nil {
		return nil, nil, err
	}
	c, err := store.Get[*v1alpha1.Cluster](ctx, s, a.namespace, name)
	return s, c, err
}

// ready is the store, with somebody there who acts upon what is written.
func (a *app) ready(ctx context.Context) (store.Store, error) {
	rt, err := a.runtime(ctx)
	if err != nil {
		return nil, err
	}
	if err := rt.Ready(ctx); err != nil {
		return nil, err
	}
	a.meetAgent()
	return rt.Store(), nil
}

// say prints a line of the answer.
func (a *app) say(format string, args ...any) { fmt.Fprintf(a.stdio.Out, format+"\n", args...) }

// note prints a line that is not the answer.
func (a *app) note(format string, args ...any) { fmt.Fprintf(a.stdio.Err, format+"\n", args...) }

// warn prints a warning and makes the exit code of a success 3.
func (a *app) warn(format string, args ...any) {
	a.warned = true
	a.note("warning: "+format, args...)
}
