// SPDX-License-Identifier: Apache-2.0

package local

import (
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kbcli/kbcli/api/v1alpha1"
)

func TestAgentLock(t *testing.T) {
	path := filepath.Join(t.TempDir(), "agent.lock")
	held := func(want bool) {
		t.Helper()
		if got, err := lockHeld(path); err != nil || got != want {
			t.Errorf("held %t, want %t: %v", got, want, err)
		}
	}
	held(false)
	lock, err := takeAgentLock(path)
	if err != nil || lock == nil {
		t.Fatal(lock, err)
	}
	held(true)
	if second, err := takeAgentLock(path); second != nil || err != nil {
		t.Errorf("taken twice: %v, %v", second, err)
	}
	if !lock.is(path) {
		t.Error("it is not at its place")
	}

	// a program that is given it has it, and this one's end does not let it go
	pass, err := lock.passOn()
	if err != nil {
		t.Fatal(err)
	}
	child := exec.Command("sleep", "60")
	child.Env = []string{pass}
	child.ExtraFiles = []*os.File{lock.f}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = child.Process.Kill(); _ = child.Wait() })
	if err := lock.release(); err != nil {
		t.Fatal(err)
	}
	held(true)
	if err := child.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = child.Wait()
	held(false)

	if err := os.Rename(path, path+".moved"); err != nil {
		t.Fatal(err)
	}
	if lock, err = takeAgentLock(path); err != nil {
		t.Fatal(err)
	}
	defer lock.release()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if lock.is(path) {
		t.Error("what was removed is still its place")
	}
}

func TestInheritedLock(t *testing.T) {
	path := filepath.Join(t.TempDir(), "agent.lock")
	lock, err := takeAgentLock(path)
	if err != nil {
		t.Fatal(err)
	}
	fd, err := syscall.Dup(int(lock.f.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	if err := lock.release(); err != nil {
		t.Fatal(err)
	}
	t.Setenv(lockFDEnv, strconv.Itoa(fd))
	again, err := takeAgentLock(path)
	if err != nil || again == nil || !again.inherited {
		t.Fatalf("%+v, %v", again, err)
	}
	defer again.release()
	if _, ok := os.LookupEnv(lockFDEnv); ok {
		t.Error("children are told of it")
	}

	// a number that means something else now is not believed
	other, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	t.Setenv(lockFDEnv, strconv.Itoa(int(other.Fd())))
	if f := inheritedLock(path); f != nil {
		t.Error("taken for the lock")
	}
}

// An agent does not change its version while something would have to be begun again.
func TestBusy(t *testing.T) {
	r, err := Open(t.Context(), Options{StateDir: t.TempDir(), Clock: time.Now, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	check := func(want string) {
		t.Helper()
		if got, err := r.busy(t.Context()); err != nil || got != want {
			t.Errorf("busy with %q, want %q: %v", got, want, err)
		}
	}
	check("")
	c := &v1alpha1.Cluster{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "c"}}
	if err := r.objects.Create(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	c.Status.Phase = v1alpha1.ClusterRestoring
	if err := r.objects.UpdateStatus(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	check("cluster default/c, restoring")
	c.Status.Phase = v1alpha1.ClusterRunning
	if err := r.objects.UpdateStatus(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	check("")
	b := &v1alpha1.Backup{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "b"}}
	b.Spec.ClusterRef = "c"
	b.Spec.BackupPolicyName = "c-postgresql-backup-policy"
	if err := r.objects.Create(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	check("")
	b.Status.Phase = v1alpha1.BackupInProgress
	if err := r.objects.UpdateStatus(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	check("backup default/b")
}

// Lock files of a server that is gone are cleared, and only those.
func TestClearStale(t *testing.T) {
	dir := t.TempDir()
	s := &server{account: account{uid: -1, gid: -1}, dir: dir, data: filepath.Join(dir, "data"), socket: filepath.Join(dir, "run")}
	for _, d := range []string{s.data, s.socket} {
		if err := os.Mkdir(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if os.Geteuid() == 0 { // not root's, who has processes that nobody may look at
		if err := os.Chown(s.data, 65534, 65534); err != nil {
			t.Fatal(err)
		}
	}
	files := []string{filepath.Join(s.data, "postmaster.pid"), filepath.Join(s.socket, ".s.PGSQL.5432"), filepath.Join(s.socket, ".s.PGSQL.5432.lock")}
	for _, path := range files {
		// this process is alive, and is no server in that directory
		if err := os.WriteFile(path, []byte(strconv.Itoa(os.Getpid())+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	left := func() (n int) {
		for _, path := range files {
			if _, err := os.Lstat(path); err == nil {
				n++
			}
		}
		return n
	}
	backend := exec.Command("sleep", "60")
	backend.Dir = s.data
	if err := backend.Start(); err != nil {
		t.Fatal(err)
	}
	if err := s.clearStale(); err != nil || left() != len(files) {
		t.Errorf("a backend is left, and %d of %d files: %v", left(), len(files), err)
	}
	if err := backend.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = backend.Wait()
	if err := s.clearStale(); err != nil || left() != 0 {
		t.Errorf("nobody is left, and %d files: %v", left(), err)
	}
	if err := s.clearStale(); err != nil {
		t.Error(err)
	}
}

func TestTryProgram(t *testing.T) {
	dir := t.TempDir()
	for _, test := range []struct{ text, want string }{
		{"#!/bin/sh\necho kbcli: v2\n", ""},
		{"#!/bin/sh\necho no such flag >&2; exit 2\n", "no such flag"},
		{"nonsense", "exec format error"},
	} {
		program := filepath.Join(dir, strconv.Itoa(len(test.text)))
		if err := os.WriteFile(program, []byte(test.text), 0o755); err != nil {
			t.Fatal(err)
		}
		err := (&Runtime{program: program}).tryProgram(t.Context())
		if (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
			t.Errorf("%q: %v, want %q", test.text, err, test.want)
		}
	}
}
