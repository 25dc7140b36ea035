// SPDX-License-Identifier: Apache-2.0

package restore

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
)

// TestCopyProgram runs programs that were just written, while other processes are
// started without a pause.
func TestCopyProgram(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer stop()
	for range 4 {
		wg.Go(func() {
			for ctx.Err() == nil {
				_ = exec.CommandContext(ctx, "/bin/true").Run()
			}
		})
	}
	dir := t.TempDir()
	for i := range 200 {
		from, err := os.Open("/bin/true")
		if err != nil {
			t.Fatal(err)
		}
		to := filepath.Join(dir, fmt.Sprint("program", i))
		if err := copyProgram(to, from); err != nil {
			t.Fatal(err)
		}
		if err := from.Close(); err != nil {
			t.Fatal(err)
		}
		if err := exec.Command(to).Run(); err != nil {
			t.Fatalf("after %d: %v", i, err)
		}
	}
}

// TestMayRun: what mayRun promises the kernel lets that user do.
func TestMayRun(t *testing.T) {
	const uid, gid = 65500, 65501
	dir, err := os.MkdirTemp("", "may-run")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	program, err := os.ReadFile("/bin/true")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "inner", "program")
	if err := os.Mkdir(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, program, 0o755); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(dir, "link")
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		what         string
		outer, inner os.FileMode
		file         os.FileMode
		owner, group int
		want         bool
	}{
		{"everybody may", 0o755, 0o755, 0o755, 0, 0, true},
		{"the file is root's", 0o755, 0o755, 0o700, 0, 0, false},
		{"its directory is", 0o755, 0o700, 0o755, 0, 0, false},
		{"the one above is", 0o700, 0o755, 0o755, 0, 0, false},
		{"it is the user's", 0o755, 0o755, 0o700, uid, 0, true},
		{"the user alone may not", 0o755, 0o755, 0o655, uid, 0, false},
		{"it is the group's", 0o755, 0o755, 0o750, 0, gid, true},
		{"the group may not", 0o755, 0o755, 0o705, 0, gid, false},
	} {
		for at, mode := range map[string]os.FileMode{dir: c.outer, filepath.Dir(path): c.inner, path: c.file} {
			if err := os.Chmod(at, mode); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Chown(path, c.owner, c.group); err != nil {
			t.Fatal(err)
		}
		for _, p := range []string{path, link} {
			if got := mayRun(p, uid, gid); got != c.want {
				t.Errorf("%s: %s: %t", c.what, filepath.Base(p), got)
			}
			cmd := exec.Command(p)
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: gid}}
			if err := cmd.Run(); (err == nil) != c.want {
				t.Errorf("%s: %s: run: %v", c.what, filepath.Base(p), err)
			}
		}
	}
}
