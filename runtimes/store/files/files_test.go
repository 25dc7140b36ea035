// SPDX-License-Identifier: Apache-2.0

package files

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/fsnotify/fsnotify"
	"github.com/google/go-cmp/cmp"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/runtimes/store"
	"github.com/kbcli/kbcli/runtimes/store/storetest"
)

func clock() time.Time { return time.Date(2023, 4, 17, 11, 55, 48, 123456789, time.UTC) }

func open(t *testing.T) *Store {
	t.Helper()
	return openIn(t, filepath.Join(t.TempDir(), "state"))
}

func openIn(t *testing.T, dir string) *Store {
	t.Helper()
	s, err := Open(dir, clock)
	must(t, err)
	return s
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestStore(t *testing.T) {
	storetest.Run(t, func(t *testing.T) store.Store { return open(t) })
}

func newPolicy(t *testing.T, s *Store, name string) *v1alpha1.BackupPolicy {
	t.Helper()
	p := &v1alpha1.BackupPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}, Spec: v1alpha1.BackupPolicySpec{ClusterRef: "my-pg"}}
	must(t, s.Create(t.Context(), p))
	return p
}

func policyFile(s *Store, name string) string {
	return filepath.Join(s.dir, "backuppolicies", "default", name+".yaml")
}

// edit is what a person does with sed -i.
func edit(t *testing.T, file, old, new string) {
	t.Helper()
	text, err := os.ReadFile(file)
	must(t, err)
	if !strings.Contains(string(text), old) {
		t.Fatalf("%q is not in:\n%s", old, text)
	}
	must(t, os.WriteFile(file, []byte(strings.Replace(string(text), old, new, 1)), 0o644))
}

func getPolicy(t *testing.T, s *Store, name string) *v1alpha1.BackupPolicy {
	t.Helper()
	p, err := store.Get[*v1alpha1.BackupPolicy](t.Context(), s, "default", name)
	must(t, err)
	return p
}

func TestLayout(t *testing.T) {
	defer syscall.Umask(syscall.Umask(0o077))
	s := open(t)
	newPolicy(t, s, "p")
	file := policyFile(s, "p")
	for path, mode := range map[string]os.FileMode{file: 0o644, filepath.Dir(file): 0o755 | fs.ModeDir, s.dir: 0o755 | fs.ModeDir, filepath.Join(s.dir, lockDir): 0o700 | fs.ModeDir} {
		info, err := os.Stat(path)
		must(t, err)
		if info.Mode() != mode {
			t.Errorf("%s has mode %v, want %v", path, info.Mode(), mode)
		}
	}
	text, err := os.ReadFile(file)
	must(t, err)
	head, rest, _ := strings.Cut(string(text), "\n")
	if !headForm.MatchString(head) || !strings.HasPrefix(rest, "apiVersion: ") || !strings.HasSuffix(rest, "\n...\n") || !strings.Contains(rest, "creationTimestamp: \"2023-04-17T11:55:48Z\"\n") {
		t.Errorf("the file is:\n%s", text)
	}
	locks, err := filepath.Glob(filepath.Join(s.dir, lockDir, "*", "*", "*"))
	if err != nil || len(locks) > 0 {
		t.Errorf("locks are left: %v, %v", locks, err)
	}
}

func TestHandEdit(t *testing.T) {
	s := open(t)
	before := newPolicy(t, s, "p")
	edit(t, policyFile(s, "p"), "    logfile:\n      enable: false", "    logfile:\n      enable: true")

	p := getPolicy(t, s, "p")
	if !p.Spec.Schedule.Logfile.Enable || p.Generation != 2 || p.ResourceVersion == before.ResourceVersion || p.UID != before.UID {
		t.Errorf("enable %v, generation %d, resourceVersion %q was %q", p.Spec.Schedule.Logfile.Enable, p.Generation, p.ResourceVersion, before.ResourceVersion)
	}
	if err := s.UpdateStatus(t.Context(), before); !apierrors.IsConflict(err) {
		t.Errorf("who read before the edit writes over it: %v", err)
	}
	// The agent's status makes it known, and the next edit counts again.
	p.Status.ObservedGeneration = p.Generation
	must(t, s.UpdateStatus(t.Context(), p))
	if p = getPolicy(t, s, "p"); p.Generation != 2 {
		t.Errorf("generation %d after a status", p.Generation)
	}
	edit(t, policyFile(s, "p"), "ttl: 7d", "ttl: 8d")
	if p = getPolicy(t, s, "p"); p.Generation != 3 || p.Status.ObservedGeneration != 2 {
		t.Errorf("generation %d after the second edit", p.Generation)
	}
	// A comment and another order of keys are no change of the spec.
	edit(t, policyFile(s, "p"), "spec:\n", "spec: # mine\n")
	if p = getPolicy(t, s, "p"); p.Generation != 3 {
		t.Errorf("generation %d after a comment", p.Generation)
	}
}

func TestHandMade(t *testing.T) {
	s := open(t)
	must(t, os.MkdirAll(filepath.Join(s.dir, "clusters", "team"), 0o755))
	file := filepath.Join(s.dir, "clusters", "team", "pg.yaml")
	must(t, os.WriteFile(file, []byte("apiVersion: apps.kubeblocks.io/v1alpha1\nkind: Cluster\nspec:\n  replicas: 2\n"), 0o600))
	first, err := store.Get[*v1alpha1.Cluster](t.Context(), s, "team", "pg")
	must(t, err)
	again, err := store.Get[*v1alpha1.Cluster](t.Context(), s, "team", "pg")
	must(t, err)
	if diff := cmp.Diff(first, again); diff != "" {
		t.Errorf("two readings differ:\n%s", diff)
	}
	if first.UID == "" || first.Generation != 1 || first.Spec.Replicas != 2 || first.Spec.Storage.String() != "20Gi" || first.CreationTimestamp.IsZero() {
		t.Errorf("%+v", first)
	}
	first.Status.Phase = v1alpha1.ClusterCreating
	must(t, s.UpdateStatus(t.Context(), first))
	stored, err := store.Get[*v1alpha1.Cluster](t.Context(), s, "team", "pg")
	must(t, err)
	if stored.UID != again.UID || stored.Generation != 1 || stored.Status.Phase != v1alpha1.ClusterCreating {
		t.Errorf("%+v", stored.ObjectMeta)
	}
}

// Cut anywhere, a file is called broken: it never means less than it said.
func TestTruncated(t *testing.T) {
	s := open(t)
	newPolicy(t, s, "p")
	file := policyFile(s, "p")
	text, err := os.ReadFile(file)
	must(t, err)
	for n := range len(text) - len("\n") {
		must(t, os.WriteFile(file, text[:n], 0o644))
		_, err := s.Get(t.Context(), v1alpha1.KindBackupPolicy, "default", "p")
		var b *store.BrokenObject
		if !errors.As(err, &b) || b.Line == 0 || !strings.HasPrefix(err.Error(), file+":") {
			t.Fatalf("cut to %d bytes: %v", n, err)
		}
	}
}

func TestBroken(t *testing.T) {
	for _, c := range []struct{ name, old, new, want string }{
		{"syntax", "spec:\n", "spec: {\n", ":11: did not find expected ',' or '}'"},
		{"unknown key", "enable: false", "enabled: false", `:18: unknown field "spec.schedule.snapshot.enabled" (did you mean "enable"?)`},
		{"invalid", "ttl: 7d", "ttl: 7x", `:14: spec.retention.ttl: "7x" is not a number of days or hours such as 7d or 168h`},
		{"another kind", "", "apiVersion: apps.kubeblocks.io/v1alpha1\nkind: Cluster\n", `:2: kind: "Cluster" is not that of its directory, backuppolicies`},
		{"another name", "name: p", "name: q", `:5: metadata.name: "default/q" is not that of its file, default/p`},
		{"empty", "", "", ":1: the text is empty"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := open(t)
			newPolicy(t, s, "p")
			other := newPolicy(t, s, "other")
			if c.old == "" {
				must(t, os.WriteFile(policyFile(s, "p"), []byte(c.new), 0o644))
			} else {
				edit(t, policyFile(s, "p"), c.old, c.new)
			}
			_, err := s.Get(t.Context(), v1alpha1.KindBackupPolicy, "default", "p")
			if err == nil || !strings.HasPrefix(err.Error(), policyFile(s, "p")) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error is %v, want %s", err, c.want)
			}
			policies, listErr := store.List[*v1alpha1.BackupPolicy](t.Context(), s, "", nil)
			var broken store.BrokenObjects
			if !errors.As(listErr, &broken) || len(broken) != 1 || broken.Error() != err.Error() {
				t.Errorf("List says %v, Get %v", listErr, err)
			}
			if len(policies) != 1 || cmp.Diff(policies[0], other) != "" {
				t.Errorf("a broken file hides another: %v", policies)
			}
			if err := s.Delete(t.Context(), v1alpha1.KindBackupPolicy, "default", "p", store.Preconditions{}); !errors.As(err, new(*store.BrokenObject)) {
				t.Errorf("Delete: %v", err)
			}
		})
	}
}

// What else lies in the directories is nobody's business.
func TestStrangers(t *testing.T) {
	s := open(t)
	newPolicy(t, s, "p")
	dir := filepath.Dir(policyFile(s, "p"))
	for _, name := range []string{"p.yaml~", ".p.yaml.swp", "4913", "README", "p.yaml.orig", ".atomicfile-1.yaml"} {
		must(t, os.WriteFile(filepath.Join(dir, name), []byte("?"), 0o644))
	}
	must(t, os.Mkdir(filepath.Join(dir, "d.yaml"), 0o755))
	must(t, os.Mkdir(filepath.Join(dir, "..", ".git"), 0o755))
	policies, err := store.List[*v1alpha1.BackupPolicy](t.Context(), s, "", nil)
	if err != nil || len(policies) != 1 {
		t.Errorf("%d policies, %v", len(policies), err)
	}
	for _, name := range []string{"../default/p", "..", ".", "", "a/b", "a\x00b", ".p"} {
		if _, err := s.Get(t.Context(), v1alpha1.KindBackupPolicy, "default", name); !apierrors.IsNotFound(err) {
			t.Errorf("Get %q: %v", name, err)
		}
		if _, err := s.Get(t.Context(), v1alpha1.KindBackupPolicy, name, "p"); !apierrors.IsNotFound(err) {
			t.Errorf("Get in %q: %v", name, err)
		}
	}
	// A name that cannot be is said, not passed over.
	must(t, os.WriteFile(filepath.Join(dir, "My_P.yaml"), []byte("apiVersion: dataprotection.kubeblocks.io/v1alpha1\nkind: BackupPolicy\nspec: {clusterRef: x}\n"), 0o644))
	if _, err := store.List[*v1alpha1.BackupPolicy](t.Context(), s, "", nil); err == nil || !strings.Contains(err.Error(), "My_P") {
		t.Errorf("My_P.yaml: %v", err)
	}
}

func TestOpenSweeps(t *testing.T) {
	s := open(t)
	newPolicy(t, s, "p")
	left := filepath.Join(filepath.Dir(policyFile(s, "p")), ".atomicfile-123")
	must(t, os.WriteFile(left, []byte("half"), 0o600))
	openIn(t, s.dir)
	if _, err := os.Stat(left); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%s is still there: %v", left, err)
	}
	if _, err := Open(policyFile(s, "p"), clock); err == nil {
		t.Error("opened a file")
	}
}

func TestWatchHandEdits(t *testing.T) {
	s := open(t)
	p := newPolicy(t, s, "p")
	file := policyFile(s, "p")
	good, err := os.ReadFile(file)
	must(t, err)
	events, err := s.Watch(t.Context(), v1alpha1.KindBackupPolicy, "")
	must(t, err)
	next := func(typ store.EventType) store.Event {
		t.Helper()
		e := storetest.Next(t, events)
		if e.Type != typ {
			t.Fatalf("got %s %v (%v), want %s", e.Type, e.Key, e.Err, typ)
		}
		return e
	}
	next(store.Added)
	next(store.Synced)

	edit(t, file, "ttl: 7d", "ttl: 8d")
	if e := next(store.Modified); e.Object.(*v1alpha1.BackupPolicy).Spec.Retention.TTL != "8d" {
		t.Errorf("%+v", e.Object)
	}
	// As some editors do: the old file is moved away before the new one is written.
	must(t, os.Rename(file, file+"~"))
	time.Sleep(settle / 20)
	must(t, os.WriteFile(file, good[:100], 0o644))
	time.Sleep(settle / 20)
	must(t, os.WriteFile(file, good, 0o644))
	if e := next(store.Modified); e.Object.(*v1alpha1.BackupPolicy).Spec.Retention.TTL != "7d" {
		t.Errorf("%+v", e.Object)
	}
	edit(t, file, "ttl: 7d", "ttl: 7x")
	if e := next(store.Broken); !strings.Contains(e.Err.Error(), "p.yaml:") || e.Key.Name != "p" || e.Object != nil {
		t.Errorf("%+v", e)
	}
	edit(t, file, "ttl: 7x", "ttl: 7d")
	next(store.Modified)
	edit(t, file, "ttl: 7d", "ttl: 7x")
	next(store.Broken)
	must(t, os.Remove(file))
	if e := next(store.Deleted); e.Object.GetUID() != p.UID {
		t.Errorf("%+v", e.Object)
	}
	// Namespaces come and go.
	must(t, os.RemoveAll(filepath.Dir(file)))
	must(t, os.MkdirAll(filepath.Join(s.dir, "backuppolicies", "new"), 0o755))
	must(t, os.WriteFile(filepath.Join(s.dir, "backuppolicies", "new", "q.yaml"), []byte("apiVersion: dataprotection.kubeblocks.io/v1alpha1\nkind: BackupPolicy\nspec: {clusterRef: x}\n"), 0o644))
	if e := next(store.Added); e.Key.String() != "BackupPolicy new/q" {
		t.Errorf("%+v", e)
	}
	newPolicy(t, s, "p")
	next(store.Added)
}

// With a broken file there from the beginning, Synced still comes.
func TestWatchBeginsBroken(t *testing.T) {
	s := open(t)
	newPolicy(t, s, "p")
	newPolicy(t, s, "q")
	must(t, os.WriteFile(policyFile(s, "p"), []byte("?"), 0o644))
	events, err := s.Watch(t.Context(), v1alpha1.KindBackupPolicy, "default")
	must(t, err)
	got := map[store.EventType]string{}
	for range 3 {
		e := storetest.Next(t, events)
		got[e.Type] = e.Key.Name
	}
	want := map[store.EventType]string{store.Broken: "p", store.Added: "q", store.Synced: ""}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	must(t, os.Remove(policyFile(s, "p"))) // it was never told, so nobody hears of its end
	newPolicy(t, s, "r")
	if e := storetest.Next(t, events); e.Type != store.Added || e.Key.Name != "r" {
		t.Errorf("%+v", e)
	}
}

// Without inotify, of which a machine has only so much, changes are found by looking.
func TestWatchAlone(t *testing.T) {
	s := open(t)
	s.notify = func() (*fsnotify.Watcher, error) { return nil, syscall.EMFILE }
	events, err := s.Watch(t.Context(), v1alpha1.KindBackupPolicy, "")
	must(t, err)
	if e := storetest.Next(t, events); e.Type != store.Synced {
		t.Fatalf("%+v", e)
	}
	newPolicy(t, s, "p")
	if e := storetest.Next(t, events); e.Type != store.Added {
		t.Fatalf("%+v", e)
	}
	must(t, os.Remove(policyFile(s, "p")))
	if e := storetest.Next(t, events); e.Type != store.Deleted {
		t.Fatalf("%+v", e)
	}
}

func BenchmarkUpdateStatus(b *testing.B) {
	s, err := Open(b.TempDir(), clock)
	if err != nil {
		b.Fatal(err)
	}
	c := &v1alpha1.Cluster{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "my-pg"}}
	if err := s.Create(b.Context(), c); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		c.Status.PID++
		if err := s.UpdateStatus(b.Context(), c); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkList1000(b *testing.B) {
	s, err := Open(b.TempDir(), clock)
	if err != nil {
		b.Fatal(err)
	}
	for i := range 1000 {
		o := &v1alpha1.Backup{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: fmt.Sprintf("b%d", i)}, Spec: v1alpha1.BackupSpec{ClusterRef: "my-pg"}}
		if err := s.Create(b.Context(), o); err != nil {
			b.Fatal(err)
		}
	}
	for b.Loop() {
		if l, err := s.List(b.Context(), v1alpha1.KindBackup, "", nil); err != nil || len(l) != 1000 {
			b.Fatal(len(l), err)
		}
	}
}
