// SPDX-License-Identifier: Apache-2.0

package fs

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kbcli/kbcli/engine/blob"
	"github.com/kbcli/kbcli/engine/blob/blobtest"
)

func create(t *testing.T, dir string) *Store {
	t.Helper()
	s, err := Create(dir)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func put(t *testing.T, s blob.Store, key string) {
	t.Helper()
	if err := s.Put(t.Context(), key, strings.NewReader(key)); err != nil {
		t.Fatal(err)
	}
}

// files are all names below the root, folders with a slash.
func files(t *testing.T, s *Store) []string {
	t.Helper()
	var names []string
	err := filepath.WalkDir(s.root, func(path string, d os.DirEntry, err error) error {
		if err != nil || path == s.root {
			return err
		}
		name, _ := filepath.Rel(s.root, path)
		if d.IsDir() {
			name += "/"
		}
		names = append(names, name)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}

func TestConformance(t *testing.T) {
	t.Run("one", func(t *testing.T) {
		blobtest.Run(t, func(t *testing.T) blob.Store { return create(t, filepath.Join(t.TempDir(), "new", "root")) })
	})
	t.Run("opened", func(t *testing.T) {
		blobtest.Run(t, func(t *testing.T) blob.Store {
			s, err := Open(t.TempDir()) // a directory that was made by hand
			if err != nil {
				t.Fatal(err)
			}
			return s
		})
	})
}

func TestOpen(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{filepath.Join(dir, "absent"), file, filepath.Join(file, "below")} {
		if _, err := Open(path); !errors.Is(err, blob.ErrNoBucket) {
			t.Errorf("open %s: got %v, want ErrNoBucket", path, err)
		}
	}
	if _, err := Create(file); err == nil {
		t.Error("created a store in place of a file")
	}
	s := create(t, filepath.Join(dir, "a", "b"))
	put(t, s, "key")
	again := create(t, filepath.Join(dir, "a", "b"))
	if b, err := blob.ReadAll(t.Context(), again, "key", 10); err != nil || string(b) != "key" {
		t.Errorf("created twice: %q, %v", b, err)
	}
	if again.String() != filepath.Join(dir, "a", "b") {
		t.Errorf("calls itself %s", again)
	}
}

func TestCheckPut(t *testing.T) {
	s := create(t, t.TempDir())
	if err := blob.CheckPut(t.Context(), s); err != nil {
		t.Error(err)
	}
	if diff := cmp.Diff([]string{".tmp/"}, files(t, s)); diff != "" {
		t.Errorf("left over (-want +got):\n%s", diff)
	}
}

func TestNothingIsLeft(t *testing.T) {
	s := create(t, t.TempDir())
	put(t, s, "a/b/c")
	put(t, s, "a/d")
	if err := s.Put(t.Context(), "a/d", strings.NewReader("x")); !errors.Is(err, blob.ErrExist) {
		t.Error(err)
	}
	if err := s.Put(t.Context(), "a/d/e", strings.NewReader("x")); err == nil {
		t.Error("put below an object")
	}
	if err := s.Put(t.Context(), "a/b", strings.NewReader("x")); err == nil || errors.Is(err, blob.ErrExist) {
		t.Errorf("put in place of a folder: %v", err)
	}
	if err := s.Replace(t.Context(), "a/b", strings.NewReader("x")); err == nil {
		t.Error("replaced a folder")
	}
	want := []string{".tmp/", "a/", "a/b/", "a/b/c", "a/d"}
	if diff := cmp.Diff(want, files(t, s)); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
	for _, key := range []string{"a/b/c", "a/d"} {
		if err := s.Delete(t.Context(), key); err != nil {
			t.Error(err)
		}
	}
	if diff := cmp.Diff([]string{".tmp/"}, files(t, s)); diff != "" {
		t.Errorf("after all is deleted (-want +got):\n%s", diff)
	}
	// An empty folder, of a Delete that died, does not stand in the way.
	if err := os.MkdirAll(s.path("a/b"), 0o700); err != nil {
		t.Fatal(err)
	}
	put(t, s, "a/b")
	if err := os.MkdirAll(s.path("x/y"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := s.Replace(t.Context(), "x/y", strings.NewReader("z")); err != nil {
		t.Error(err)
	}
}

func TestTmpIsHidden(t *testing.T) {
	s := create(t, t.TempDir())
	if err := os.WriteFile(filepath.Join(s.root, tmpDir, "x"), []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	put(t, s, ".tmpx")
	for _, prefix := range []string{"", ".", ".tmp", ".tmp/", ".tmp/x"} {
		for info, err := range s.List(t.Context(), prefix) {
			if err != nil || info.Key != ".tmpx" {
				t.Errorf("list %q shows %s, %v", prefix, info.Key, err)
			}
		}
	}
	for _, key := range []string{".tmp", ".tmp/x"} {
		if _, err := s.Stat(t.Context(), key); err == nil || errors.Is(err, blob.ErrNotExist) {
			t.Errorf("stat %s: %v", key, err)
		}
		if err := s.Delete(t.Context(), key); err == nil {
			t.Errorf("deleted %s", key)
		}
	}
}

func TestForeignFiles(t *testing.T) {
	s := create(t, t.TempDir())
	put(t, s, "real")
	outside := filepath.Join(t.TempDir(), "outside")
	if err := os.WriteFile(outside, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{
		os.Symlink(outside, s.path("link")),
		syscall.Mkfifo(s.path("pipe"), 0o600),
		os.WriteFile(s.path("not a key"), nil, 0o600),
		os.WriteFile(s.path("~backup"), nil, 0o600),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	var got []string
	for info, err := range s.List(t.Context(), "") {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, info.Key)
	}
	if diff := cmp.Diff([]string{"real"}, got); diff != "" {
		t.Errorf("keys (-want +got):\n%s", diff)
	}
	for _, key := range []string{"link", "pipe"} {
		if _, err := s.Stat(t.Context(), key); !errors.Is(err, blob.ErrNotExist) {
			t.Errorf("stat %s: %v", key, err)
		}
		if _, err := s.Get(t.Context(), key, 0, -1); !errors.Is(err, blob.ErrNotExist) {
			t.Errorf("get %s: %v", key, err)
		}
	}
}

func TestRootThatGoes(t *testing.T) {
	verbs := func(s blob.Store) map[blob.Verb]error {
		ctx := t.Context()
		_, stat := s.Stat(ctx, "a/b")
		_, get := s.Get(ctx, "a/b", 0, -1)
		var list, listBelow error
		for _, list = range s.List(ctx, "") {
			break
		}
		for _, listBelow = range s.List(ctx, "a/b") {
			break
		}
		return map[blob.Verb]error{
			blob.VerbStat: stat, blob.VerbGet: get, blob.VerbList: list, "list below": listBelow,
			blob.VerbPut:     s.Put(ctx, "a/b", strings.NewReader("x")),
			blob.VerbReplace: s.Replace(ctx, "a/b", strings.NewReader("x")),
			blob.VerbDelete:  s.Delete(ctx, "a/b"),
			"sweep":          s.(*Store).Sweep(ctx, time.Time{}),
		}
	}
	for name, instead := range map[string]func(string) error{
		"gone":  func(string) error { return nil },
		"empty": func(root string) error { return os.Mkdir(root, 0o700) }, // as below a mount that is gone
		"file":  func(root string) error { return os.WriteFile(root, nil, 0o600) },
	} {
		t.Run(name, func(t *testing.T) {
			root := filepath.Join(t.TempDir(), "root")
			s := create(t, root)
			put(t, s, "a/b")
			if err := os.Rename(root, root+".away"); err != nil {
				t.Fatal(err)
			}
			if err := instead(root); err != nil {
				t.Fatal(err)
			}
			for verb, err := range verbs(s) {
				if !errors.Is(err, blob.ErrNoBucket) || errors.Is(err, blob.ErrNotExist) {
					t.Errorf("%s: got %v, want ErrNoBucket", verb, err)
				}
			}
			// It comes back, as another mount of the same.
			if err := os.RemoveAll(root); err != nil {
				t.Fatal(err)
			}
			if err := os.CopyFS(root, os.DirFS(root+".away")); err != nil {
				t.Fatal(err)
			}
			for verb, err := range verbs(s) {
				if verb == blob.VerbPut && errors.Is(err, blob.ErrExist) {
					continue
				}
				if err != nil {
					t.Errorf("after it came back: %s: %v", verb, err)
				}
			}
		})
	}
}

func TestSyncThatFails(t *testing.T) {
	broken := errors.New("input/output error")
	for fail := 1; fail <= 4; fail++ { // the file, a/b, a, the root
		for verb, do := range map[blob.Verb]func(*Store) error{
			blob.VerbPut:     func(s *Store) error { return s.Put(t.Context(), "a/b/c", strings.NewReader("x")) },
			blob.VerbReplace: func(s *Store) error { return s.Replace(t.Context(), "a/b/c", strings.NewReader("x")) },
		} {
			s := create(t, t.TempDir())
			n := 0
			s.fsync = func(f *os.File) error {
				if n++; n == fail {
					return broken
				}
				return f.Sync()
			}
			if err := do(s); !errors.Is(err, broken) || errors.Is(err, blob.ErrUnreachable) {
				t.Errorf("%s with sync %d broken: %v", verb, fail, err)
			}
			if n != fail {
				t.Errorf("%s with sync %d broken went on to sync %d", verb, fail, n)
			}
			if _, err := s.Stat(t.Context(), "a/b/c"); verb == blob.VerbPut && !errors.Is(err, blob.ErrNotExist) {
				t.Errorf("put with sync %d broken left the object: %v", fail, err)
			}
			if entries, _ := os.ReadDir(filepath.Join(s.root, tmpDir)); len(entries) > 0 {
				t.Errorf("%s with sync %d broken left %v", verb, fail, entries)
			}
			if err := do(s); err != nil {
				t.Errorf("%s again: %v", verb, err)
			}
		}
	}
}

// What is synced, in which order, is the promise of Put and Delete.
func TestSyncs(t *testing.T) {
	s := create(t, t.TempDir())
	var synced []string
	s.fsync = func(f *os.File) error {
		name, _ := filepath.Rel(s.root, f.Name())
		if strings.HasPrefix(name, tmpDir) {
			name = "file"
		}
		synced = append(synced, name)
		return f.Sync()
	}
	ctx := context.Background()
	for _, test := range []struct {
		name string
		do   func() error
		want []string
	}{
		{"put", func() error { return s.Put(ctx, "a/b/c", strings.NewReader("x")) }, []string{"file", "a/b", "a", "."}},
		{"put what exists", func() error { return s.Put(ctx, "a/b/c", strings.NewReader("x")) }, []string{"a/b", "a", "."}},
		{"replace", func() error { return s.Replace(ctx, "a/b/c", strings.NewReader("x")) }, []string{"file", "a/b", "a", "."}},
		{"put beside", func() error { return s.Put(ctx, "a/d", strings.NewReader("x")) }, []string{"file", "a", "."}},
		{"delete and prune", func() error { return s.Delete(ctx, "a/b/c") }, []string{"a"}},
		{"delete again", func() error { return s.Delete(ctx, "a/b/c") }, []string{"a"}},
		{"delete the last", func() error { return s.Delete(ctx, "a/d") }, []string{"."}},
	} {
		synced = nil
		if err := test.do(); err != nil && !errors.Is(err, blob.ErrExist) {
			t.Errorf("%s: %v", test.name, err)
		}
		if diff := cmp.Diff(test.want, synced); diff != "" {
			t.Errorf("%s synced (-want +got):\n%s", test.name, diff)
		}
	}
}

func TestClassify(t *testing.T) {
	for errno, kind := range map[syscall.Errno]error{
		syscall.ENOSPC: blob.ErrNoSpace, syscall.EDQUOT: blob.ErrNoSpace,
		syscall.EACCES: blob.ErrDenied, syscall.EPERM: blob.ErrDenied, syscall.EROFS: blob.ErrDenied,
		syscall.ESTALE: blob.ErrUnreachable, syscall.ETIMEDOUT: blob.ErrUnreachable,
		syscall.EIO: nil, syscall.EINVAL: nil,
	} {
		err := classify(&os.PathError{Op: "open", Path: "p", Err: errno})
		if !errors.Is(err, errno) {
			t.Errorf("%v is lost in %v", errno, err)
		}
		for _, k := range []error{blob.ErrNoSpace, blob.ErrDenied, blob.ErrUnreachable, blob.ErrNotExist, blob.ErrNoBucket} {
			if errors.Is(err, k) != (k == kind) {
				t.Errorf("%v: %v is %t", err, k, errors.Is(err, k))
			}
		}
	}
}

func TestFullPlace(t *testing.T) {
	// /dev/full is a disk that is full at the first byte.
	s := create(t, t.TempDir())
	f, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := copyBody(t.Context(), f, strings.NewReader("x")); !errors.Is(err, blob.ErrNoSpace) {
		t.Errorf("got %v, want ErrNoSpace", err)
	}
	s.fsync = func(*os.File) error { return &os.PathError{Op: "sync", Path: "p", Err: syscall.EDQUOT} }
	if err := s.Put(t.Context(), "a", strings.NewReader("x")); !errors.Is(err, blob.ErrNoSpace) {
		t.Errorf("got %v, want ErrNoSpace", err)
	}
}

func TestRenameNew(t *testing.T) {
	dir := t.TempDir()
	a, b := filepath.Join(dir, "a"), filepath.Join(dir, "b")
	for _, f := range []string{a, b} {
		if err := os.WriteFile(f, []byte(f), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := renameNew(a, b); !errors.Is(err, os.ErrExist) {
		t.Errorf("over what is there: %v", err)
	}
	if err := renameNew(a, filepath.Join(dir, "c", "d")); !isAbsent(err) {
		t.Errorf("into a folder that is not there: %v", err)
	}
	if err := renameNew(a, filepath.Join(dir, "e")); err != nil {
		t.Error(err)
	}
}

func TestSweep(t *testing.T) {
	s := create(t, t.TempDir())
	put(t, s, "a")
	now := time.Now()
	for name, age := range map[string]time.Duration{"old": 48 * time.Hour, "new": time.Hour} {
		path := filepath.Join(s.root, tmpDir, name)
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, now.Add(-age), now.Add(-age)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chtimes(s.path("a"), time.Unix(0, 0), time.Unix(0, 0)); err != nil {
		t.Fatal(err)
	}
	if err := s.Sweep(t.Context(), now.Add(-24*time.Hour)); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{".tmp/", ".tmp/new", "a"}, files(t, s)); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
	bare, err := Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if err := bare.Sweep(t.Context(), now); err != nil {
		t.Errorf("sweep of a store without %s: %v", tmpDir, err)
	}
}

func TestFileThatShrinks(t *testing.T) {
	s := create(t, t.TempDir())
	put(t, s, "0123456789")
	rc, err := s.Get(t.Context(), "0123456789", 2, -1)
	if err != nil {
		t.Fatal(err)
	}
	defer rc.Close()
	if err := os.Truncate(s.path("0123456789"), 5); err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(rc); string(b) != "234" || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("got %q, %v", b, err)
	}
}
