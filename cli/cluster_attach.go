// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/engine/checkup"
	"github.com/kbcli/kbcli/runtimes"
	"github.com/kbcli/kbcli/runtimes/store"
)

type clusterAttach struct {
	directory, connect string
	dryRun, archive    bool
	output             string
	timeout            time.Duration
}

func newClusterAttachCommand(a *app) *cobra.Command {
	var o clusterAttach
	c := &cobra.Command{
		Use: "attach NAME", Short: "Protect a PostgreSQL that somebody else runs on this machine", Args: oneName("cluster"),
		Long: `Protect a PostgreSQL that somebody else runs on this machine: Debian's packages, systemd,
or a hand that ran initdb. Nothing on it is changed: what is in the way is told, with the
line that mends it, and then nothing is written. It stays theirs: kbcli never starts, stops
or removes it. On the server there will be one replication slot, which detach takes away.

Either of --data-directory and --connect may be left out, and is found out by the other.
A password is read from ~/.pgpass of the account that runs kbcli's agent, or from a file
that passfile= names. Root is let in over a socket as the account that runs the server.

A server that comes back on another port or socket is found again by its data directory,
unless --connect was given. Attach it again under its name to say how it is reached now:
it must be the same server.`,
		Example: `  kbcli cluster attach main-15 --data-directory /var/lib/postgresql/15/main
  kbcli cluster attach main-15 --connect 'host=/var/run/postgresql port=5432 user=postgres' --enable-archiving
  kbcli cluster attach main-15 --data-directory /var/lib/postgresql/15/main --dry-run
  kbcli cluster attach main-15 --connect 'host=/var/run/postgresql port=5433 user=postgres'`,
		RunE: func(c *cobra.Command, args []string) error { return o.run(c.Context(), a, args[0]) },
	}
	f := c.Flags()
	f.StringVar(&o.directory, "data-directory", "", "the server's data directory")
	f.StringVar(&o.connect, "connect", "", "how to connect to it: libpq's keywords or URI, without a password")
	f.BoolVar(&o.dryRun, "dry-run", false, "print the checks and change nothing")
	f.BoolVar(&o.archive, "enable-archiving", false, "archive its WAL from now on")
	f.DurationVar(&o.timeout, "timeout", time.Minute, "how long to wait until it is protected")
	outputFlag(c, &o.output, "json|yaml")
	return c
}

// attachment is what attach answers, in JSON.
type attachment struct {
	Cluster       string            `json:"cluster"`
	Namespace     string            `json:"namespace"`
	Attached      bool              `json:"attached"`
	DataDirectory string            `json:"dataDirectory,omitempty"`
	Connect       string            `json:"connect,omitempty"`
	Findings      []checkup.Finding `json:"findings"`
}

func (o *clusterAttach) run(ctx context.Context, a *app, name string) error {
	if o.output != "" && o.output != "json" && o.output != "yaml" {
		return unknownOutput(o.output, "json|yaml")
	}
	rt, err := a.runtime(ctx)
	if err != nil {
		return err
	}
	at, ok := rt.(runtimes.Attacher)
	if !ok {
		return usage("a server can only be attached on the machine that it runs on")
	}
	c := &v1alpha1.Cluster{ObjectMeta: metav1.ObjectMeta{Namespace: a.namespace, Name: name}}
	if f := o.follows(); f != "" {
		c.Annotations = map[string]string{runtimes.AnnotationConnect: f}
	}
	c.Spec.Local = &v1alpha1.LocalSpec{DataDirectory: o.directory, Connect: o.connect, Attached: true}
	was, err := o.free(ctx, a, c)
	if err != nil {
		return err
	}
	findings, err := at.CheckAttach(ctx, c, was)
	if err != nil {
		return o.which(err, name)
	}
	answer := attachment{
		Cluster: name, Namespace: a.namespace, Findings: findings,
		DataDirectory: c.Spec.Local.DataDirectory, Connect: c.Spec.Local.Connect,
	}
	if o.output == "" {
		writeFindings(a, findings)
	}
	if err := notTheSame(name, a.namespace, findings); err != nil || o.dryRun {
		return errors.Join(o.print(a, answer), err)
	}
	if was != nil {
		return o.reattach(ctx, a, was, c, answer)
	}
	if err := o.create(ctx, a, c); err != nil {
		return err
	}
	if _, err := follow(ctx, a, a.namespace, name, o.timeout, judgeRunning); err != nil {
		return err
	}
	answer.Attached = true
	if o.output != "" {
		return o.print(a, answer)
	}
	a.say("Cluster %s attached", name)
	o.proceed(a, name)
	return nil
}

// free refuses a name that is taken, and what is wrong with the object, before the
// server is asked anything. Its connection may not be known yet. A cluster that is attached
// already is returned: how it is reached may be said anew.
func (o *clusterAttach) free(ctx context.Context, a *app, c *v1alpha1.Cluster) (*v1alpha1.Cluster, error) {
	s, err := a.objects(ctx)
	if err != nil {
		return nil, err
	}
	was, err := store.Get[*v1alpha1.Cluster](ctx, s, c.Namespace, c.Name)
	if err == nil {
		return was, o.again(was)
	}
	if !apierrors.IsNotFound(err) {
		return nil, err
	}
	trial := *c
	local := *c.Spec.Local
	if trial.Spec.Local = &local; local.Connect == "" {
		local.Connect = "host=/"
	}
	if local.DataDirectory != "" && !strings.HasPrefix(local.DataDirectory, "/") {
		local.DataDirectory = "/"
	}
	return nil, store.Admit(&trial, nil)
}

// print answers in JSON or YAML, if that was asked for.
func (o *clusterAttach) print(a *app, answer attachment) error {
	if o.output == "" {
		return nil
	}
	return a.value(o.output, answer)
}

// which shows the servers there are to who named none.
func (o *clusterAttach) which(err error, name string) error {
	var none *runtimes.WhichServerError
	if !errors.As(err, &none) {
		return err
	}
	p := usage("%s", none.Error())
	if len(none.Found) == 0 {
		return p.hints("give --data-directory, --connect or both").then("kbcli cluster attach --help")
	}
	lines := []string{"these run on this machine:"}
	for _, s := range none.Found {
		lines = append(lines, "kbcli cluster attach "+name+" "+s.Flags())
	}
	p.hint = strings.Join(lines, "\n")
	return p.then("kbcli cluster attach %s %s", name, none.Found[0].Flags())
}

// create stores the cluster and its policy: the policy first, so that archiving is
// wanted from the beginning or not at all.
func (o *clusterAttach) create(ctx context.Context, a *app, c *v1alpha1.Cluster) error {
	if err := store.Admit(c, nil); err != nil {
		return err
	}
	s, err := a.ready(ctx)
	if err != nil {
		return err
	}
	p := runtimes.FirstPolicy(c)
	p.Spec.Schedule.Logfile.Enable = o.archive
	err = s.Create(ctx, p)
	if apierrors.IsAlreadyExists(err) {
		a.note("note: backup policy %s was there already, and holds", p.Name)
		err = nil
	}
	if err != nil {
		return err
	}
	return s.Create(ctx, c)
}

// proceed says what comes next.
func (o *clusterAttach) proceed(a *app, name string) {
	if !o.archive {
		a.note("WAL is not archived yet. To be able to go back to any moment from the first backup on:")
		a.note("\tkbcli cluster edit-backup-policy %s --set schedule.logfile.enable=true -n %s", v1alpha1.DefaultBackupPolicyName(name), a.namespace)
	} else {
		a.note("WAL is archived. What can be restored begins with the first backup:")
	}
	a.note("\tkbcli cluster backup %s -n %s", name, a.namespace)
}

// writeFindings prints each check on a line, and below it what mends what is not well.
func writeFindings(a *app, findings []checkup.Finding) {
	words := map[checkup.Level]string{checkup.Pass: "ok", checkup.Warn: "warning", checkup.Fail: "FAIL"}
	width := 0
	for _, f := range findings {
		width = max(width, len(f.Check))
	}
	for _, f := range findings {
		a.say("%-7s   %-*s   %s", words[f.Level], width, f.Check, f.Evidence)
		if f.Level == checkup.Pass {
			continue
		}
		for line := range strings.SplitSeq(f.Next, "\n") {
			if line != "" {
				a.say("%-7s   %-*s     %s", "", width, "", line)
			}
		}
	}
}

// refusedBy is the error of findings that fail; nil for none.
func refusedBy(name string, findings []checkup.Finding) error {
	var bad []string
	var steps []string
	for _, f := range findings {
		if f.Level != checkup.Fail {
			continue
		}
		bad = append(bad, f.Check)
		for line := range strings.SplitSeq(f.Next, "\n") {
			if line == "" {
				continue
			}
			// a restart that several of them need is done once, last
			steps = append(slices.DeleteFunc(steps, func(s string) bool { return s == line }), line)
		}
	}
	if len(bad) == 0 {
		return nil
	}
	code := exitFailed
	if slices.Contains(bad, "connection") {
		code = exitNoPostgreSQL
	}
	p := newProblem(code, "the server cannot be attached as %q yet, and nothing was written: %s", name, strings.Join(bad, ", "))
	if len(bad) > 1 { // one is told already, and how to mend it
		p.hint = "this mends it, each line on the server that it is of:\n" + strings.Join(steps, "\n")
	}
	return p
}
