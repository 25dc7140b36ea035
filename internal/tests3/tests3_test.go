// SPDX-License-Identifier: Apache-2.0

package tests3

import (
	"bufio"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestServer(t *testing.T) {
	for name, start := range map[string]func(testing.TB) *Server{"plain": Start, "TLS": StartTLS} {
		t.Run(name, func(t *testing.T) {
			s := start(t)
			if secure := name == "TLS"; secure != (s.CAFile != "") {
				t.Errorf("CAFile is %q", s.CAFile)
			}
			bucket := s.NewBucket(t)
			if other := s.NewBucket(t); other == bucket {
				t.Errorf("two buckets are called %s", bucket)
			}
			pid := s.process.cmd.Process.Pid
			s.Stop()
			s.Stop()
			if err := syscall.Kill(pid, 0); err != syscall.ESRCH {
				t.Errorf("after Stop the process is still there: %v", err)
			}
			if resp, err := s.client.Get(s.Endpoint + s.health); err == nil {
				resp.Body.Close()
				t.Error("a stopped server answers")
			}
			endpoint := s.Endpoint
			s.Restart()
			if s.Endpoint != endpoint {
				t.Errorf("restarted at %s, was %s", s.Endpoint, endpoint)
			}
			resp, err := s.client.Get(s.Endpoint + s.health)
			if err != nil || resp.StatusCode != http.StatusOK {
				t.Fatalf("after a restart: %v, %v", resp, err)
			}
			resp.Body.Close()
			if _, err := os.Stat(filepath.Join(s.Dir, bucket)); err != nil {
				t.Errorf("bucket lost at restart: %v", err)
			}
		})
	}
}

// dies is set in a second run of this test binary, which starts a server and is
// killed before it can stop it.
const dies = "KBCLI_TESTS3_DIES"

func TestServerDiesWithTheTest(t *testing.T) {
	if os.Getenv(dies) != "" {
		s := Start(t)
		fmt.Printf("pid %d\n", s.process.cmd.Process.Pid)
		time.Sleep(time.Minute)
		return
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestServerDiesWithTheTest$")
	cmd.Env = append(os.Environ(), dies+"=1", "TMPDIR="+t.TempDir())
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	pid := 0
	for lines := bufio.NewScanner(out); pid == 0 && lines.Scan(); {
		if line := lines.Text(); strings.HasPrefix(line, "pid ") {
			fmt.Sscanf(line, "pid %d", &pid)
		}
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // it was killed
	if pid == 0 {
		t.Fatal("the second run started no server")
	}
	for range 500 {
		if gone(pid) {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Errorf("server %d outlives its test", pid)
}

// gone says that a process is dead, whether or not its parent has noticed.
func gone(pid int) bool {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	return err != nil || strings.Contains(string(status), "State:\tZ")
}
