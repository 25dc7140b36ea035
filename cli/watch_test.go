// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/runtimes"
	"github.com/kbcli/kbcli/runtimes/store"
)

// growing is an output that can be looked at while it is written.
type growing struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (g *growing) Write(b []byte) (int, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.b.Write(b)
}

func (g *growing) String() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.b.String()
}

// begin types a command that ends with ^C.
func (b *bench) begin(args ...string) (out, errs *growing, end func() int) {
	out, errs = &growing{}, &growing{}
	a := newApp(Stdio{In: strings.NewReader(""), Out: out, Err: errs})
	a.env = func(k string) string { return b.env[k] }
	a.clock, a.zone = func() time.Time { return pageNow }, shanghai
	a.interactive = func() bool { return false }
	a.open = func(context.Context, *app) (runtimes.Runtime, error) { return b.fakeRuntime, nil }
	ctx, cancel := context.WithCancelCause(b.t.Context())
	code := make(chan int, 1)
	go func() { code <- a.run(ctx, args) }()
	return out, errs, func() int {
		cancel(Interrupted{syscall.SIGINT})
		return <-code
	}
}

func until(t *testing.T, what func() string, want string) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); what() != want; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("-want +got:\n%s", cmp.Diff(want, what()))
		}
	}
}

func TestWatch(t *testing.T) {
	b := newBench(t)
	b.cluster("my-pg", nil)
	out, errs, end := b.begin("cluster", "list", "-w")
	head := "NAME    NAMESPACE   CLUSTER-DEFINITION   VERSION         TERMINATION-POLICY   STATUS    CREATED-TIME\n"
	row := func(status string) string {
		return "my-pg   default     postgresql           postgresql-15   Delete               " + status + "   Apr 17,2023 19:59 UTC+0800\n"
	}
	until(t, out.String, head+row("Running"))
	set := func(change func(*v1alpha1.ClusterStatus)) {
		t.Helper()
		_, err := store.MutateStatus(t.Context(), b.objects, "default", "my-pg", func(c *v1alpha1.Cluster) error { change(&c.Status); return nil })
		if err != nil {
			t.Fatal(err)
		}
	}
	// what no column shows is no row
	set(func(s *v1alpha1.ClusterStatus) { s.Message = "nothing" })
	set(func(s *v1alpha1.ClusterStatus) { s.Phase = v1alpha1.ClusterStopped })
	until(t, out.String, head+row("Running")+row("Stopped"))
	b.cluster("a-longer-name", nil)
	until(t, func() string {
		lines := strings.Split(strings.TrimSpace(out.String()), "\n")
		return strings.Join(strings.Fields(lines[len(lines)-1]), " ")
	}, "a-longer-name default postgresql postgresql-15 Delete Running Apr 17,2023 19:59 UTC+0800")
	if code := end(); code != 130 || errs.String() != "" {
		t.Errorf("code %d, %q", code, errs.String())
	}

	out, _, end = b.begin("cluster", "list-backup", "-w", "-o", "json")
	b.backup("b1", "my-pg", v1alpha1.BackupStatus{Phase: v1alpha1.BackupInProgress})
	b.backup("b2", "my-pg", v1alpha1.BackupStatus{Phase: v1alpha1.BackupCompleted})
	until(t, func() string {
		last := map[string]string{}
		for d := json.NewDecoder(strings.NewReader(out.String())); d.More(); {
			var o v1alpha1.Backup
			if err := d.Decode(&o); err != nil {
				return err.Error()
			}
			last[o.Name] = string(o.Status.Phase)
		}
		return last["b1"] + " " + last["b2"]
	}, "InProgress Completed")
	if code := end(); code != 130 {
		t.Errorf("code %d", code)
	}
}

// TestLeave: who stops waiting is told that it goes on, and how to look.
func TestLeave(t *testing.T) {
	b := newBench(t)
	out, errs, end := b.begin("cluster", "create", "my-pg", "--wait")
	until(t, out.String, "Cluster my-pg created\n")
	time.Sleep(50 * time.Millisecond)
	code := end()
	want := "error: interrupted\nhint: what was asked for goes on without this command\nnext: kbcli cluster describe my-pg -n default\n"
	if code != 130 || errs.String() != want {
		t.Errorf("code %d, %q", code, errs.String())
	}
	b.want("Cluster late created\n", "error: cluster \"late\" was not done after 600ms\nhint: it was at: Creating\nnext: kbcli cluster describe late -n default\n", exitTimedOut,
		"cluster", "create", "late", "--wait", "--timeout", "600ms")
}

func TestSelector(t *testing.T) {
	b := newBench(t)
	for name, labels := range map[string]map[string]string{
		"a": {"tier": "gold", "team": "x"}, "b": {"tier": "silver"}, "c": nil,
	} {
		c := &v1alpha1.Cluster{}
		c.Namespace, c.Name, c.Labels = "default", name, labels
		b.create(c)
	}
	for selector, want := range map[string]string{
		"tier=gold": "a", "tier==gold": "a", "tier!=gold": "b c", "tier": "a b", "!tier": "c",
		"tier in (gold,silver)": "a b", "tier notin (gold)": "b c", "tier=gold,team=x": "a", "tier=gold,team=y": "",
	} {
		out, _, code := b.run("cluster", "list", "-o", "name", "-l", selector)
		got := strings.Fields(strings.ReplaceAll(out, "cluster.apps.kubeblocks.io/", ""))
		if strings.Join(got, " ") != want || code != 0 {
			t.Errorf("%s: code %d, %q", selector, code, got)
		}
	}
	_, errs, code := b.run("cluster", "list", "-l", "tier in gold")
	if code != exitUsage || !strings.HasPrefix(errs, `error: selector "tier in gold": `) {
		t.Errorf("code %d, %q", code, errs)
	}
}
