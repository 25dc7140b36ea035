// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/runtimes"
	"github.com/kbcli/kbcli/runtimes/store"
)

// looking is a runtime that knows what happened, and what runs.
type looking struct {
	*fakeRuntime
	past []runtimes.Event
}

func (l *looking) Events(_ context.Context, namespace, cluster string) ([]runtimes.Event, error) {
	var out []runtimes.Event
	for _, e := range l.past {
		if (namespace == "" || namespace == e.Namespace) && (cluster == "" || cluster == e.Cluster) {
			out = append(out, e)
		}
	}
	return out, nil
}

func (l *looking) Instances(_ context.Context, c *v1alpha1.Cluster) ([]runtimes.Instance, error) {
	return []runtimes.Instance{{Name: c.Name + "-postgresql-0", Namespace: c.Namespace, Cluster: c.Name, Component: "postgresql", Status: "Running", Role: "primary", AccessMode: "ReadWrite", Storage: "39.8 MB / 120 GB", Node: "db1", Created: pageNow}}, nil
}

func (l *looking) Logs(_ context.Context, c *v1alpha1.Cluster, o runtimes.LogOptions, w io.Writer) error {
	if c.Name == "old" {
		return &runtimes.LogElsewhereError{Whose: "cluster old", Command: "journalctl -u postgresql@15-main.service"}
	}
	_, err := fmt.Fprintf(w, "agent %v, tail %d\n", o.Agent, o.Tail)
	return err
}

func (l *looking) Admit(c *v1alpha1.Cluster) error {
	if c.Spec.Replicas > 1 {
		return fmt.Errorf("replicas=%d: there is one machine", c.Spec.Replicas)
	}
	return nil
}

func (l *looking) Unenforced() []string { return []string{"storage", "storageClass", "cpu", "memory"} }

func TestLook(t *testing.T) {
	b := newBench(t)
	b.cluster("my-pg", nil)
	b.cluster("old", nil)
	event := func(cluster, object, kind, reason, message string, count int) runtimes.Event {
		return runtimes.Event{Namespace: "default", Cluster: cluster, Object: object, Type: runtimes.EventType(kind), Reason: reason, Message: message, Count: count, First: pageNow, Last: pageNow}
	}
	rt := &looking{b.fakeRuntime, []runtimes.Event{
		event("my-pg", "Cluster/my-pg", "Normal", "Started", "the server serves", 1),
		event("gone", "Backup/b1", "Warning", "BackupFailed", "the disk\nis full", 3),
	}}
	want := func(stdout, stderr string, code int, args ...string) {
		t.Helper()
		var out, errs bytes.Buffer
		a := newApp(Stdio{In: strings.NewReader(""), Out: &out, Err: &errs})
		a.env = func(string) string { return "" }
		a.clock, a.zone = func() time.Time { return pageNow }, shanghai
		a.interactive = func() bool { return false }
		a.open = func(context.Context, *app) (runtimes.Runtime, error) { return rt, nil }
		got := a.run(t.Context(), args)
		if diff := cmp.Diff([]string{stdout, stderr}, []string{out.String(), errs.String()}); diff != "" || got != code {
			t.Errorf("kbcli %s: code %d, want %d\n-want +got:\n%s", strings.Join(args, " "), got, code, diff)
		}
	}
	want(`NAMESPACE   TIME                            TYPE      REASON         OBJECT          COUNT   MESSAGE
default     Apr 17,2023 19:59:40 UTC+0800   Normal    Started        Cluster/my-pg   1       the server serves
default     Apr 17,2023 19:59:40 UTC+0800   Warning   BackupFailed   Backup/b1       3       the disk is full
`, "", 0, "cluster", "list-events")
	want(`NAMESPACE   TIME                            TYPE     REASON    OBJECT          COUNT   MESSAGE             FIRST-TIME                      CLUSTER
default     Apr 17,2023 19:59:40 UTC+0800   Normal   Started   Cluster/my-pg   1       the server serves   Apr 17,2023 19:59:40 UTC+0800   my-pg
`, "", 0, "cluster", "list-events", "my-pg", "-o", "wide")
	want("Backup/b1\n", "", 0, "cluster", "list-events", "gone", "-o", "name")
	want("", "No events found in default namespace.\n", 0, "cluster", "list-events", "old")
	want("", "Error from server (NotFound): clusters.apps.kubeblocks.io \"x\" not found\n", exitNotFound, "cluster", "list-events", "x")
	want("items: []\n", "", 0, "cluster", "list-events", "old", "-o", "yaml")
	want(`NAME                 NAMESPACE   CLUSTER   COMPONENT    STATUS    ROLE      ACCESSMODE   AZ       CPU(REQUEST/LIMIT)   MEMORY(REQUEST/LIMIT)   STORAGE            NODE   CREATED-TIME
my-pg-postgresql-0   default     my-pg     postgresql   Running   primary   ReadWrite    <none>   <none>               <none>                  39.8 MB / 120 GB   db1    Apr 17,2023 19:59 UTC+0800
`, "", 0, "cluster", "list-instances", "my-pg")
	want("agent true, tail 5\n", "", 0, "cluster", "logs", "my-pg", "--agent", "--tail", "5")
	want("", "error: the log of cluster old is not in a file\nnext: journalctl -u postgresql@15-main.service\n", exitNotFound, "cluster", "logs", "old")
	want("", "error: replicas=2: there is one machine\n", exitUsage, "cluster", "create", "c", "--set", "replicas=2")
	want("Cluster c created\n", "note: storage and memory are recorded, and not enforced on this machine\n", 0, "cluster", "create", "c", "--set", "replicas=1,memory=4Gi,storage=1Gi")
	want("Cluster d created\n", "", 0, "cluster", "create", "d")
}

func TestRestart(t *testing.T) {
	b := newBench(t)
	b.cluster("my-pg", nil)
	b.want("", "Error from server (NotFound): clusters.apps.kubeblocks.io \"x\" not found\n", exitNotFound, "cluster", "restart", "x")
	b.want("Cluster my-pg is restarting\n", "", 0, "cluster", "restart", "my-pg")
	c, err := store.Get[*v1alpha1.Cluster](t.Context(), b.objects, "default", "my-pg")
	const stamp = "2023-04-17T11:59:40Z"
	if err != nil || c.Annotations[v1alpha1.AnnotationRestart] != stamp {
		t.Fatalf("%v, %v", c.Annotations, err)
	}
	for _, x := range []struct {
		name   string
		change func(*v1alpha1.Cluster)
		want   string
	}{
		{"nobody has looked", func(*v1alpha1.Cluster) {}, "waiting for the agent"},
		{"on the way", func(c *v1alpha1.Cluster) { c.Status.RestartedAt, c.Status.Phase = stamp, v1alpha1.ClusterRestarting }, "Restarting"},
		{"done", func(c *v1alpha1.Cluster) { c.Status.RestartedAt = stamp }, "done"},
		{"failed", func(c *v1alpha1.Cluster) { c.Status.Phase, c.Status.Message = v1alpha1.ClusterFailed, "no" }, `cluster "my-pg" failed: no`},
		{"somebody asked again", func(c *v1alpha1.Cluster) { c.Annotations[v1alpha1.AnnotationRestart] = "later" }, "done"},
	} {
		o, err := store.Get[*v1alpha1.Cluster](t.Context(), b.objects, "default", "my-pg")
		if err != nil {
			t.Fatal(err)
		}
		x.change(o)
		got := judgeRestart(o, true, stamp)
		text := got.line
		switch {
		case got.err != nil:
			text = got.err.Error()
		case got.done:
			text = "done"
		}
		if text != x.want {
			t.Errorf("%s: %q, want %q", x.name, text, x.want)
		}
	}
	for _, x := range []struct {
		change func(*v1alpha1.Cluster)
		want   string
	}{
		{func(c *v1alpha1.Cluster) { c.Spec.Stopped = true }, "error: cluster \"my-pg\" is stopped\nnext: kbcli cluster start my-pg -n default\n"},
		{func(c *v1alpha1.Cluster) {
			c.Spec.Local = &v1alpha1.LocalSpec{Attached: true, Connect: "host=/tmp"}
		}, "error: cluster \"my-pg\" is attached: who runs its server restarts it\n"},
	} {
		o, err := store.Get[*v1alpha1.Cluster](t.Context(), b.objects, "default", "my-pg")
		if err != nil {
			t.Fatal(err)
		}
		x.change(o)
		var said bytes.Buffer
		explain(restartable(o)).write(&said)
		if said.String() != x.want {
			t.Errorf("%q, want %q", said.String(), x.want)
		}
	}
}
