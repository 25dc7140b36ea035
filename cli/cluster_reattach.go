// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/engine/checkup"
	"github.com/kbcli/kbcli/runtimes"
	"github.com/kbcli/kbcli/runtimes/store"
)

// again looks whether a cluster that is there can be attached once more: one that is
// attached can, to say how its server is reached now.
func (o *clusterAttach) again(was *v1alpha1.Cluster) error {
	taken := conflict("there is a cluster %q already", was.Name).then("kbcli cluster describe %s -n %s", was.Name, was.Namespace)
	switch {
	case !isAttached(was):
		return taken
	case was.DeletionTimestamp != nil:
		return conflict("cluster %q is being deleted", was.Name)
	case o.directory == "" && o.connect == "":
		return taken.hints("it is attached: with --connect or --data-directory that can be said anew")
	case o.archive:
		return usage("cluster %q is attached already: --enable-archiving is for a new one", was.Name).
			then("kbcli cluster edit-backup-policy %s --set schedule.logfile.enable=true -n %s", v1alpha1.DefaultBackupPolicyName(was.Name), was.Namespace)
	case o.directory != "" && was.Spec.Local.DataDirectory != "" && !sameDirectory(o.directory, was.Spec.Local.DataDirectory):
		return conflict("the data directory of cluster %q is %s, and stays so", was.Name, was.Spec.Local.DataDirectory).
			hints("a server that has moved is detached, and attached again").then("kbcli cluster detach %s -n %s", was.Name, was.Namespace)
	}
	return nil
}

// reattach says how the server of an attached cluster is reached now, and prints that.
func (o *clusterAttach) reattach(ctx context.Context, a *app, was, c *v1alpha1.Cluster, answer attachment) error {
	news, err := o.move(ctx, a, was, c)
	if err != nil {
		return err
	}
	answer.Attached = true
	switch {
	case o.output != "":
		return o.print(a, answer)
	case news:
		a.say("Cluster %s attached", c.Name)
		a.note("it is reached with: %s", c.Spec.Local.Connect)
	default:
		a.say("Cluster %s attached (no change)", c.Name)
	}
	return nil
}

// move makes an attached cluster's server be reached as c says. It tells whether that
// is news.
func (o *clusterAttach) move(ctx context.Context, a *app, was, c *v1alpha1.Cluster) (bool, error) {
	want := c.Spec.Local
	follows := o.follows()
	same := was.Spec.Local.Connect == want.Connect && was.Annotations[runtimes.AnnotationConnect] == follows &&
		(was.Spec.Local.DataDirectory != "" || want.DataDirectory == "")
	if same {
		return false, nil
	}
	s, err := a.ready(ctx)
	if err != nil {
		return false, err
	}
	moved, err := store.Mutate(ctx, s, c.Namespace, c.Name, func(x *v1alpha1.Cluster) error {
		if x.UID != was.UID || x.DeletionTimestamp != nil {
			return conflict("cluster %q was detached meanwhile", c.Name)
		}
		x.Spec.Local.Connect = want.Connect
		if x.Spec.Local.DataDirectory == "" {
			x.Spec.Local.DataDirectory = want.DataDirectory
		}
		if x.Annotations == nil {
			x.Annotations = map[string]string{}
		}
		if x.Annotations[runtimes.AnnotationConnect] = follows; follows == "" {
			delete(x.Annotations, runtimes.AnnotationConnect)
		}
		return nil
	})
	if err != nil {
		return false, err
	}
	_, err = follow(ctx, a, c.Namespace, c.Name, o.timeout, func(x *v1alpha1.Cluster, exists bool) step {
		if exists && x.Status.ObservedGeneration < moved.Generation {
			return step{line: "waiting for the agent"}
		}
		return judgeRunning(x, exists)
	})
	return err == nil, err
}

// follows is the value of AnnotationConnect for how the server was named.
func (o *clusterAttach) follows() string {
	if o.connect == "" {
		return runtimes.ConnectFollows
	}
	return ""
}

// otherServer tells whether the findings say that it is another server than the
// cluster's.
func otherServer(findings []checkup.Finding) bool {
	return slices.ContainsFunc(findings, func(f checkup.Finding) bool { return f.Check == runtimes.CheckSameServer && f.Level == checkup.Fail })
}

// notTheSame is the error of such findings.
func notTheSame(name, namespace string, findings []checkup.Finding) error {
	err := refusedBy(name, findings)
	var p *problem
	if errors.As(err, &p) && otherServer(findings) {
		p.code = exitConflict
		p.words = fmt.Sprintf("cluster %q is of another server, and nothing was changed", name)
		p.then("kbcli cluster describe %s -n %s", name, namespace)
	}
	return err
}

// sameDirectory tells whether two paths are of one directory, however they are spelled.
func sameDirectory(a, b string) bool {
	x, err := os.Stat(a)
	if err != nil {
		return filepath.Clean(a) == filepath.Clean(b)
	}
	y, err := os.Stat(b)
	return err == nil && os.SameFile(x, y)
}
