// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/engine/pg/client"
	"github.com/kbcli/kbcli/runtimes"
)

type clusterConnect struct {
	user, database string
	example        bool
}

func newClusterConnectCommand(a *app) *cobra.Command {
	var o clusterConnect
	c := &cobra.Command{
		Use: "connect NAME [-- ARGUMENT…]", Short: "Run psql on a cluster",
		Long: `Run psql on a cluster.

With --as-user the password is asked for without echo, unless PGPASSWORD or PGPASSFILE
is set. Where stdin is not a terminal it is taken from those, or from ~/.pgpass, alone.
What follows -- is for psql. The exit code is psql's.`,
		Example: `  kbcli cluster connect my-pg
  kbcli cluster connect my-pg --as-user myuser
  kbcli cluster connect my-pg -- -c 'select now()'`,
		Args: func(c *cobra.Command, args []string) error {
			if n := c.ArgsLenAtDash(); n >= 0 {
				args = args[:n]
			}
			return oneName("cluster")(c, args)
		},
		ValidArgsFunction: a.names(v1alpha1.KindCluster, 1),
		RunE:              func(c *cobra.Command, args []string) error { return o.run(c.Context(), a, args[0], args[1:]) },
	}
	f := c.Flags()
	f.StringVar(&o.user, "as-user", "", "the account to be (default the superuser)")
	f.StringVarP(&o.database, "database", "d", "postgres", "the database")
	f.BoolVar(&o.example, "show-example", false, "print how to connect with other programs instead")
	return c
}

func (o *clusterConnect) run(ctx context.Context, a *app, name string, more []string) error {
	_, c, err := a.cluster(ctx, name)
	if err != nil {
		return err
	}
	if c, err = a.running(ctx, c); err != nil {
		return err
	}
	rt, err := a.runtime(ctx)
	if err != nil {
		return err
	}
	if o.example {
		return o.showExample(a, rt, c)
	}
	psql, err := rt.Psql(ctx, c, o.user, o.database)
	if err != nil {
		return err
	}
	psql.Args = append(psql.Args, more...)
	if o.user != "" && a.env("PGPASSWORD") == "" && a.env("PGPASSFILE") == "" && a.interactive() {
		fmt.Fprint(a.stdio.Err, "password:")
		password, err := a.password(ctx)
		if err != nil {
			return err
		}
		// An empty one would keep psql from looking into ~/.pgpass.
		if password != "" {
			psql.Env = append(psql.Env, "PGPASSWORD="+password)
		}
	}
	return a.launch(ctx, psql)
}

func (o *clusterConnect) showExample(a *app, rt runtimes.Runtime, c *v1alpha1.Cluster) error {
	user := o.user
	if user == "" {
		user = cmp.Or(c.Status.Superuser, "postgres")
	}
	if lister, ok := rt.(runtimes.EndpointLister); ok {
		for _, e := range lister.Endpoints(c) {
			u := url.URL{Scheme: "postgresql", User: url.User(user), Host: fmt.Sprintf("%s:%d", e.Host, e.Port), Path: "/" + o.database}
			a.say("psql '%s'", u.String())
		}
		return nil
	}
	u := url.URL{Scheme: "postgresql", User: url.User(user), Host: fmt.Sprintf("127.0.0.1:%d", c.Status.Port), Path: "/" + o.database}
	a.say("psql '%s'", u.String())
	if c.Status.SocketDirectory != "" && o.user == "" {
		info, err := client.With("", [2]string{"host", c.Status.SocketDirectory}, [2]string{"port", strconv.Itoa(int(c.Status.Port))},
			[2]string{"user", user}, [2]string{"dbname", o.database})
		if err != nil {
			return err
		}
		a.say("psql %s", shellWord(info))
	}
	return nil
}

// replaceProcess runs a program in the place of this one, so that signals, the
// terminal and the exit code are its own. It returns only if that fails, or if the
// program needs this process beside it.
func replaceProcess(ctx context.Context, c runtimes.Command) error {
	if c.Release != nil {
		return runBeside(ctx, c)
	}
	path, err := exec.LookPath(c.Path)
	if errors.Is(err, exec.ErrNotFound) {
		return missing("%s is not installed", c.Path).hints("it is in the package postgresql-client")
	}
	if err != nil {
		return err
	}
	env := os.Environ()
	err = syscall.Exec(path, append([]string{c.Path}, c.Args...), append(env, c.Env...))
	return fmt.Errorf("run %s: %w", path, err)
}

// programEndedError says that the program which was run in this one's stead ended with a
// code of its own, and has said why.
type programEndedError struct{ code int }

func (e *programEndedError) Error() string { return fmt.Sprintf("exit status %d", e.code) }

// runBeside runs a program that has the terminal while this process stays. ^C is for the
// program alone.
func runBeside(_ context.Context, c runtimes.Command) error {
	defer c.Release()
	cmd := exec.Command(c.Path, c.Args...)
	cmd.Env = append(os.Environ(), c.Env...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("run %s: %w", c.Path, err)
	}
	signal.Ignore(os.Interrupt, syscall.SIGQUIT)
	err := cmd.Wait()
	var ended *exec.ExitError
	if errors.As(err, &ended) {
		code := ended.ExitCode()
		if s, ok := ended.Sys().(syscall.WaitStatus); ok && s.Signaled() {
			code = 128 + int(s.Signal())
		}
		return &programEndedError{code}
	}
	return err
}
