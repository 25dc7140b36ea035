// SPDX-License-Identifier: Apache-2.0

package atomicfile

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// names lists dir, and so shows what was left behind.
func names(t testing.TB, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range entries {
		got = append(got, e.Name())
	}
	return got
}

func checkDir(t testing.TB, dir string, want ...string) {
	t.Helper()
	if diff := cmp.Diff(want, names(t, dir)); diff != "" {
		t.Errorf("in %s (-want +got)\n%s", dir, diff)
	}
}

func checkFile(t testing.TB, path, want string, mode os.FileMode) {
	t.Helper()
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != want || info.Mode() != mode {
		t.Errorf("%s holds %q with mode %v, want %q with %v", path, got, info.Mode(), want, mode)
	}
}

func TestWrite(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "object.yaml")
	for _, step := range []struct {
		data string
		mode os.FileMode
	}{
		{"first", 0o644},
		{"", 0o600},
		{"third, and with a mode that an umask would cut", 0o666},
	} {
		if err := Write(path, []byte(step.data), step.mode); err != nil {
			t.Fatal(err)
		}
		checkFile(t, path, step.data, step.mode)
	}
	checkDir(t, dir, "object.yaml")
}

func TestWriteLeavesReadersTheirFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	if err := Write(path, []byte("old"), 0o644); err != nil {
		t.Fatal(err)
	}
	reader, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	if err := Write(path, []byte("new"), 0o644); err != nil {
		t.Fatal(err)
	}
	var got bytes.Buffer
	if _, err := got.ReadFrom(reader); err != nil || got.String() != "old" {
		t.Errorf("the open file now reads %q, %v", got.String(), err)
	}
	checkFile(t, path, "new", 0o644)
}

func TestWriteReplacesALinkNotItsTarget(t *testing.T) {
	dir := t.TempDir()
	target, link := filepath.Join(dir, "target"), filepath.Join(dir, "link")
	if err := os.WriteFile(target, []byte("kept"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(target, link); err != nil {
		t.Fatal(err)
	}
	if err := WriteNew(link, []byte("x"), 0o644); !errors.Is(err, fs.ErrExist) {
		t.Errorf("WriteNew over a link: %v, want ErrExist", err)
	}
	if err := Write(link, []byte("written"), 0o644); err != nil {
		t.Fatal(err)
	}
	checkFile(t, target, "kept", 0o600)
	checkFile(t, link, "written", 0o644)
}

func TestWriteWithTheLongestName(t *testing.T) {
	dir := t.TempDir()
	name := string(bytes.Repeat([]byte("n"), 255))
	if err := Write(filepath.Join(dir, name), []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	checkDir(t, dir, name)
}

func TestWriteInTheCurrentDirectory(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	if err := Write("plain", []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := WriteNew("other", []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	checkDir(t, dir, "other", "plain")
}

func TestWriteNew(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	if err := WriteNew(path, []byte("first"), 0o640); err != nil {
		t.Fatal(err)
	}
	if err := WriteNew(path, []byte("second"), 0o644); !errors.Is(err, fs.ErrExist) {
		t.Errorf("second WriteNew: %v, want ErrExist", err)
	}
	checkFile(t, path, "first", 0o640)

	dangling := filepath.Join(dir, "dangling")
	if err := os.Symlink("nowhere", dangling); err != nil {
		t.Fatal(err)
	}
	if err := WriteNew(dangling, []byte("x"), 0o644); !errors.Is(err, fs.ErrExist) {
		t.Errorf("WriteNew over a dangling link: %v, want ErrExist", err)
	}
	checkDir(t, dir, "dangling", "f")
}

func TestOneWriteNewWins(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	var wins atomic.Int32
	var winner atomic.Value
	var wg sync.WaitGroup
	for i := range 32 {
		wg.Go(func() {
			data := fmt.Sprintf("writer %d", i)
			switch err := WriteNew(path, []byte(data), 0o644); {
			case err == nil:
				wins.Add(1)
				winner.Store(data)
			case !errors.Is(err, fs.ErrExist):
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if wins.Load() != 1 {
		t.Fatalf("%d writers succeeded, want 1", wins.Load())
	}
	checkFile(t, path, winner.Load().(string), 0o644)
	checkDir(t, dir, "f")
}

func TestFailuresLeaveNothing(t *testing.T) {
	dir := t.TempDir()
	full := filepath.Join(dir, "full")
	if err := os.MkdirAll(filepath.Join(full, "child"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name string
		err  error
		want error
	}{
		{"over a directory", Write(full, []byte("x"), 0o644), syscall.EEXIST},
		{"new over a directory", WriteNew(full, []byte("x"), 0o644), fs.ErrExist},
		{"in no directory", Write(filepath.Join(dir, "no", "f"), []byte("x"), 0o644), fs.ErrNotExist},
		{"new in no directory", WriteNew(filepath.Join(dir, "no", "f"), []byte("x"), 0o644), fs.ErrNotExist},
		{"name too long", Write(filepath.Join(dir, string(bytes.Repeat([]byte("n"), 256))), []byte("x"), 0o644), syscall.ENAMETOOLONG},
		{"new name too long", WriteNew(filepath.Join(dir, string(bytes.Repeat([]byte("n"), 256))), []byte("x"), 0o644), syscall.ENAMETOOLONG},
		{"sync of no directory", SyncDir(filepath.Join(dir, "no")), fs.ErrNotExist},
		{"clearing no directory", RemoveTemp(filepath.Join(dir, "no")), fs.ErrNotExist},
	} {
		if !errors.Is(test.err, test.want) {
			t.Errorf("%s: %v, want %v", test.name, test.err, test.want)
		}
	}
	checkDir(t, dir, "full")
}

func TestRemoveTemp(t *testing.T) {
	dir := t.TempDir()
	left, err := os.CreateTemp(dir, tempPrefix+"*")
	if err != nil {
		t.Fatal(err)
	}
	left.Close()
	if !IsTemp(filepath.Base(left.Name())) || IsTemp("object.yaml") {
		t.Error("IsTemp does not know its own")
	}
	if err := Write(filepath.Join(dir, "kept"), []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := RemoveTemp(dir); err != nil {
		t.Fatal(err)
	}
	checkDir(t, dir, "kept")
}
