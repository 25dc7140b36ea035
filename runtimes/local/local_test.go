// SPDX-License-Identifier: Apache-2.0

package local

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/engine/archive"
	"github.com/kbcli/kbcli/engine/catalog"
	"github.com/kbcli/kbcli/runtimes"
	"github.com/kbcli/kbcli/runtimes/store"
)

// The test binary is also the program that restore_command asks for WAL.
func TestMain(m *testing.M) {
	if len(os.Args) == 5 && os.Args[1] == AwaitCommand {
		code, err := archive.Await(context.Background(), os.Args[2], os.Args[3], os.Args[4])
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
		os.Exit(code)
	}
	os.Exit(m.Run())
}

// machine is a state directory with an agent inside the test.
type machine struct {
	*Runtime
	stop    context.CancelFunc
	done    chan error
	clockOf func() time.Time // of the agent; nil is time.Now
}

type logTo struct{ t *testing.T }

func (w logTo) Write(b []byte) (int, error) {
	w.t.Log(strings.TrimSpace(string(b)))
	return len(b), nil
}

func newMachine(t *testing.T) *machine {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "kbl")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	m := &machine{}
	m.open(t, dir)
	t.Cleanup(func() {
		m.stop()
		<-m.done
		m.killServers(t)
	})
	return m
}

func (m *machine) open(t *testing.T, dir string) {
	t.Helper()
	clock := m.clockOf
	if clock == nil {
		clock = time.Now
	}
	rt, err := Open(t.Context(), Options{StateDir: dir, Clock: clock, Log: slog.New(slog.NewTextHandler(logTo{t}, nil))})
	if err != nil {
		t.Fatal(err)
	}
	m.Runtime = rt
	ctx, cancel := context.WithCancel(context.Background())
	m.stop, m.done = cancel, make(chan error, 2)
	done := m.done
	go func() {
		err := rt.RunAgent(ctx)
		done <- err
		done <- err
	}()
}

func (m *machine) killServers(t *testing.T) {
	all, err := filepath.Glob(filepath.Join(m.state, "clusters", "*", "*", "data"))
	if err != nil {
		t.Error(err)
	}
	for _, data := range all {
		s := &server{data: data}
		if pid := s.pid(); pid != 0 {
			p, err := os.FindProcess(pid)
			if err == nil {
				err = p.Kill()
			}
			if err != nil {
				t.Error(err)
			}
		}
	}
}

func (m *machine) create(t *testing.T, o v1alpha1.Object) {
	t.Helper()
	if err := m.objects.Create(t.Context(), o); err != nil {
		t.Fatal(err)
	}
}

// until waits until the object is as wanted.
func until[T v1alpha1.Object](t *testing.T, m *machine, ns, name string, ok func(T) bool) T {
	t.Helper()
	deadline := time.Now().Add(60 * time.Second)
	for {
		o, err := store.Get[T](t.Context(), m.objects, ns, name)
		if err == nil && ok(o) {
			return o
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s/%s: %v\n%+v", ns, name, err, o)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func (m *machine) running(t *testing.T, name string) *v1alpha1.Cluster {
	t.Helper()
	c := until(t, m, "default", name, func(c *v1alpha1.Cluster) bool {
		return c.Status.Phase == v1alpha1.ClusterRunning || c.Status.Phase == v1alpha1.ClusterFailed
	})
	if c.Status.Phase != v1alpha1.ClusterRunning {
		t.Fatalf("cluster %s: %s %s", name, c.Status.Reason, c.Status.Message)
	}
	return c
}

func (m *machine) newCluster(t *testing.T, name string) *v1alpha1.Cluster {
	t.Helper()
	m.create(t, &v1alpha1.Cluster{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}})
	p := &v1alpha1.BackupPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: v1alpha1.DefaultBackupPolicyName(name)}}
	p.Spec.ClusterRef = name
	p.Spec.Schedule.Logfile.Enable = true
	m.create(t, p)
	return m.running(t, name)
}

func (m *machine) sql(t *testing.T, c *v1alpha1.Cluster, sql string, dest ...any) {
	t.Helper()
	conn, err := m.Admin(t.Context(), c, "postgres")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	if len(dest) > 0 {
		err = conn.QueryRow(t.Context(), sql).Scan(dest...)
	} else {
		_, err = conn.Exec(t.Context(), sql)
	}
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

func (m *machine) backup(t *testing.T, cluster, name string) *v1alpha1.Backup {
	t.Helper()
	b := &v1alpha1.Backup{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}}
	b.Spec.ClusterRef = cluster
	m.create(t, b)
	b = until(t, m, "default", name, func(b *v1alpha1.Backup) bool {
		return b.Status.Phase == v1alpha1.BackupCompleted || b.Status.Phase == v1alpha1.BackupFailed
	})
	if b.Status.Phase != v1alpha1.BackupCompleted {
		t.Fatalf("backup %s: %s", name, b.Status.FailureReason)
	}
	return b
}

func (m *machine) restoreTo(t *testing.T, name, source string, at time.Time) *v1alpha1.Cluster {
	t.Helper()
	p, err := m.Plan(t.Context(), runtimes.Source{Namespace: "default", Cluster: source}, catalog.Target{Time: at})
	if err != nil {
		t.Fatal(err)
	}
	mt := v1alpha1.MicroTimeOf(at)
	c := &v1alpha1.Cluster{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}}
	c.Spec.Restore = &v1alpha1.RestoreSpec{
		SourceCluster: source, SourceNamespace: "default", Time: &mt,
		Resolved: &v1alpha1.ResolvedTarget{
			Timeline: int64(p.Timeline), StopLSN: p.StopLSN.String(), StopInclusive: p.Inclusive,
			Immediate: p.Immediate, EndLSN: p.EndLSN.String(), BackupName: p.Backup,
		},
	}
	m.create(t, c)
	return m.running(t, name)
}

func TestMachine(t *testing.T) {
	m := newMachine(t)
	c := m.newCluster(t, "my-pg")
	b := m.backup(t, "my-pg", "b1")
	if b.Status.TotalSize == 0 || b.Status.StopLSN == "" || !b.Status.Manual {
		t.Errorf("backup status %+v", b.Status)
	}
	m.sql(t, c, "create table t (id int)")
	m.sql(t, c, "insert into t values (1)")
	var at time.Time
	m.sql(t, c, "select clock_timestamp()", &at)
	m.sql(t, c, "insert into t values (2)")
	n := m.restoreTo(t, "new-pg", "my-pg", at)
	var rows int
	m.sql(t, n, "select count(*) from t", &rows)
	if rows != 1 {
		t.Errorf("restored %d rows", rows)
	}
	if r := n.Status.Restore; r == nil || r.Phase != v1alpha1.RestoreCompleted || r.PlannedLSN == "" {
		t.Errorf("restore status %+v", r)
	}
	m.sql(t, c, "select count(*) from t", &rows)
	if rows != 2 {
		t.Errorf("the source has %d rows", rows)
	}
	// the agent ends and another finds the servers
	pid := until(t, m, "default", "my-pg", func(c *v1alpha1.Cluster) bool { return c.Status.PID != 0 }).Status.PID
	m.stop()
	if err := <-m.done; err != nil {
		t.Fatal(err)
	}
	m.open(t, m.state)
	m.sql(t, c, "insert into t values (3)")
	m.sql(t, c, "select clock_timestamp()", &at)
	again := m.running(t, "my-pg")
	if again.Status.PID != pid {
		t.Errorf("the server was %d and is %d", pid, again.Status.PID)
	}
	x := m.restoreTo(t, "third", "my-pg", at)
	m.sql(t, x, "select count(*) from t", &rows)
	if rows != 3 {
		t.Errorf("restored %d rows", rows)
	}
	for _, name := range []string{"my-pg", "new-pg"} {
		if err := m.objects.Delete(t.Context(), v1alpha1.KindCluster, "default", name, store.Preconditions{}); err != nil {
			t.Fatal(err)
		}
		deadline := time.Now().Add(30 * time.Second)
		for {
			_, err := m.objects.Get(t.Context(), v1alpha1.KindCluster, "default", name)
			if apierrors.IsNotFound(err) {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("%s is still there: %v", name, err)
			}
			time.Sleep(50 * time.Millisecond)
		}
	}
	// the source is gone, its past is not
	y := m.restoreTo(t, "fourth", "my-pg", at)
	m.sql(t, y, "select count(*) from t", &rows)
	if rows != 3 {
		t.Errorf("restored %d rows after the source was deleted", rows)
	}
}
