// SPDX-License-Identifier: Apache-2.0

package guide

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// somebodysServer is a PostgreSQL that kbcli did not make, in a directory of its own.
func somebodysServer(t *testing.T, data string) string {
	t.Helper()
	if err := os.Mkdir(data, 0o700); err != nil {
		t.Fatal(err)
	}
	as := func(program string, args ...string) {
		t.Helper()
		cmd := exec.Command("runuser", append([]string{"-u", "postgres", "--", "/usr/lib/postgresql/15/bin/" + program}, args...)...)
		cmd.Dir = "/"
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", program, err, out)
		}
	}
	if out, err := exec.Command("chown", "postgres:postgres", data).CombinedOutput(); err != nil {
		t.Fatalf("chown: %v\n%s", err, out)
	}
	as("initdb", "-D", data, "-A", "peer", "--data-checksums")
	conf, err := os.OpenFile(filepath.Join(data, "postgresql.conf"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conf.WriteString("listen_addresses = ''\nunix_socket_directories = '" + data + "'\n"); err != nil {
		t.Fatal(err)
	}
	if err := conf.Close(); err != nil {
		t.Fatal(err)
	}
	as("pg_ctl", "start", "-w", "-s", "-D", data, "-l", filepath.Join(data, "log"))
	return data
}

// endAll ends every process that was started on something below dir.
func endAll(t *testing.T, dir string) {
	t.Helper()
	for range 50 {
		left := below(dir)
		if len(left) == 0 {
			return
		}
		for _, pid := range left {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		time.Sleep(100 * time.Millisecond)
	}
	t.Errorf("processes on %s do not end: %v", dir, below(dir))
}

// below lists processes that stand in dir, or run a program in it.
func below(dir string) []int {
	var all []int
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		for _, link := range []string{"cwd", "exe"} {
			at, err := os.Readlink(filepath.Join("/proc", e.Name(), link))
			if err == nil && strings.HasPrefix(at, dir+"/") {
				all = append(all, pid)
				break
			}
		}
	}
	return all
}
