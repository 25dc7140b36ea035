// SPDX-License-Identifier: Apache-2.0

package atomicfile

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The tests below run a part of themselves in a child: one that can be killed,
// is not root, has little room, or has mounts of its own.
const (
	childVar = "ATOMICFILE_TEST_CHILD"
	dirVar   = "ATOMICFILE_TEST_DIR"
)

const nobody = 65534

func TestMain(m *testing.M) {
	if name := os.Getenv(childVar); name != "" {
		if err := children[name](os.Getenv(dirVar)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

var children = map[string]func(dir string) error{
	"write-forever":   writeForever,
	"write-forbidden": writeForbidden,
	"write-limited":   writeLimited,
}

func child(t *testing.T, name, dir string) *exec.Cmd {
	t.Helper()
	// A copy, since another user may not be able to read where go test builds.
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	binary, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	home, err := os.MkdirTemp("", "atomicfile-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(home) })
	program := filepath.Join(home, "child")
	if err := errors.Join(os.Chmod(home, 0o755), os.WriteFile(program, binary, 0o755)); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program)
	cmd.Env = append(os.Environ(), childVar+"="+name, dirVar+"="+dir)
	cmd.Stderr = new(strings.Builder)
	cmd.SysProcAttr = &syscall.SysProcAttr{}
	return cmd
}

func run(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	if err := cmd.Run(); err != nil {
		t.Fatalf("child: %v\n%s", err, cmd.Stderr)
	}
}

// A version is its number and enough bytes after it that a torn write shows.
const versionSize = 256 << 10

func version(n int) []byte {
	line := fmt.Sprintf("%015d\n", n)
	return bytes.Repeat([]byte(line), versionSize/len(line))
}

func checkVersion(data []byte) error {
	if len(data) != versionSize {
		return fmt.Errorf("%d bytes, want %d", len(data), versionSize)
	}
	if n := len(data) / 16; !bytes.Equal(data, bytes.Repeat(data[:16], n)) {
		return errors.New("parts of two versions")
	}
	return nil
}

func writeForever(dir string) error {
	path := filepath.Join(dir, "f")
	for n := 0; ; n++ {
		if err := Write(path, version(n), 0o644); err != nil {
			return err
		}
	}
}

// Killed at any moment, the writer leaves a whole version, and whoever reads
// meanwhile sees nothing else.
func TestKilledWriterLeavesAWholeVersion(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	if err := Write(path, version(0), 0o644); err != nil {
		t.Fatal(err)
	}
	reads := 0
	for round := range 20 {
		cmd := child(t, "write-forever", dir)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		until := time.Now().Add(time.Duration(20+7*round) * time.Millisecond)
		for time.Now().Before(until) {
			data, err := os.ReadFile(path)
			if err == nil {
				err = checkVersion(data)
			}
			if err != nil {
				t.Errorf("while it is written: %v", err)
				break
			}
			reads++
		}
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Wait(); err == nil || cmd.ProcessState.ExitCode() != -1 {
			t.Fatalf("the writer ended by itself: %v\n%s", err, cmd.Stderr)
		}
		data, err := os.ReadFile(path)
		if err == nil {
			err = checkVersion(data)
		}
		if err != nil {
			t.Fatalf("after the kill: %v", err)
		}
	}
	if reads < 20 {
		t.Errorf("only %d reads", reads)
	}
	if err := RemoveTemp(dir); err != nil {
		t.Fatal(err)
	}
	checkDir(t, dir, "f")
}

// writeForbidden runs as somebody who may write in dir/open and not in dir/shut.
func writeForbidden(dir string) error {
	shut := filepath.Join(dir, "shut", "f")
	given := filepath.Join(dir, "open", "f")
	for name, err := range map[string]error{
		"Write":    Write(shut, []byte("x"), 0o644),
		"WriteNew": WriteNew(shut+"2", []byte("x"), 0o644),
	} {
		if !errors.Is(err, fs.ErrPermission) {
			return fmt.Errorf("%s in a directory that is shut: %v", name, err)
		}
	}
	for name, err := range map[string]error{
		"Write":    Write(given, []byte("x"), 0o644, Owner(0, 0)),
		"WriteNew": WriteNew(given, []byte("x"), 0o644, Owner(0, 0)),
	} {
		if !errors.Is(err, fs.ErrPermission) {
			return fmt.Errorf("%s of a file given away: %v", name, err)
		}
	}
	return Write(filepath.Join(dir, "open", "mine"), []byte("x"), 0o644, Owner(-1, -1))
}

func TestPermissionErrorsLeaveNothing(t *testing.T) {
	dir, err := os.MkdirTemp("", "atomicfile-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	shut, open := filepath.Join(dir, "shut"), filepath.Join(dir, "open")
	if err := errors.Join(os.Chmod(dir, 0o755), os.Mkdir(shut, 0o755), os.Mkdir(open, 0o755)); err != nil {
		t.Fatal(err)
	}
	if err := Write(filepath.Join(shut, "f"), []byte("kept"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Chmod(shut, 0o555), os.Chmod(open, 0o777)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Chmod(shut, 0o755) })
	cmd := child(t, "write-forbidden", dir)
	if os.Geteuid() == 0 {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: nobody, Gid: nobody}
	}
	run(t, cmd)
	checkDir(t, shut, "f")
	checkFile(t, filepath.Join(shut, "f"), "kept", 0o600)
	checkDir(t, open, "mine")
}

func TestOwner(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	uid, gid := os.Geteuid(), os.Getegid()
	if uid == 0 {
		uid, gid = nobody, nobody
	}
	if err := Write(path, []byte("x"), 0o640, Owner(uid, gid)); err != nil {
		t.Fatal(err)
	}
	checkFile(t, path, "x", 0o640)
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if st := info.Sys().(*syscall.Stat_t); int(st.Uid) != uid || int(st.Gid) != gid {
		t.Errorf("owner %d:%d, want %d:%d", st.Uid, st.Gid, uid, gid)
	}
}

// room is more than the file that stands in the tests below and less than the
// one that they try to write.
const room = 64 << 10

// writeTooMuch expects want from writes that do not fit.
func writeTooMuch(dir string, want error) error {
	path := filepath.Join(dir, "f")
	if err := Write(path, []byte("kept"), 0o644); err != nil {
		return err
	}
	tooMuch := make([]byte, 2*room)
	for name, err := range map[string]error{
		"Write":    Write(path, tooMuch, 0o644),
		"WriteNew": WriteNew(path+"2", tooMuch, 0o644),
	} {
		if !errors.Is(err, want) {
			return fmt.Errorf("%s: %v, want %w", name, err, want)
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	got, err := os.ReadFile(path)
	if err != nil || len(entries) != 1 || string(got) != "kept" {
		return fmt.Errorf("left %v, %q, %v", entries, got, err)
	}
	// What failed left room: the next write fits again.
	return Write(path, make([]byte, room/4), 0o644)
}

func writeLimited(dir string) error {
	signal.Ignore(syscall.SIGXFSZ)
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: room, Max: room}); err != nil {
		return err
	}
	return writeTooMuch(dir, syscall.EFBIG)
}

func TestWriteBeyondTheFileSizeLimit(t *testing.T) {
	run(t, child(t, "write-limited", t.TempDir()))
}
