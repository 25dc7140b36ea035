// SPDX-License-Identifier: Apache-2.0

package testkube

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

const startedEnv = "KBCLI_TESTKUBE_STARTED"

// TestMain: the test binary is also a process that starts a cluster, says where it is,
// and is killed.
func TestMain(m *testing.M) {
	start := map[string]func() (*Cluster, error){
		"control": control,
		"node":    func() (*Cluster, error) { return Up(Options{Bare: true, Progress: os.Stderr}) },
	}[os.Getenv(startedEnv)]
	if start == nil {
		os.Exit(m.Run())
	}
	c, err := start()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(c.dir)
	time.Sleep(time.Hour)
}

// started is a process that has started a cluster, and the cluster's directory.
func started(t *testing.T, what string) (parent *exec.Cmd, dir string) {
	t.Helper()
	parent = exec.Command(os.Args[0])
	parent.Env = append(os.Environ(), startedEnv+"="+what)
	parent.Stderr = os.Stderr
	out, err := parent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return parent, strings.TrimSpace(line)
}

func kill(t *testing.T, parent *exec.Cmd) {
	t.Helper()
	if err := parent.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = parent.Wait() // it was killed
}

func untilNothingIsLeft(t *testing.T, dir string) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(100 * time.Millisecond) {
		left, err := Leftovers(dir)
		if err != nil {
			t.Fatal(err)
		}
		if len(left) == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("there are still\n%s", strings.Join(left, "\n"))
		}
	}
}

func TestControlEndsWithKilledParent(t *testing.T) {
	parent, dir := started(t, "control")
	kill(t, parent)
	untilNothingIsLeft(t, dir)
}

func TestNodeEndsWithKilledParent(t *testing.T) {
	parent, dir := started(t, "node")
	kill(t, parent)
	untilNothingIsLeft(t, dir)
}

// TestDownAfterKilledKeeper: the one who should tidy up was killed, and Down does.
func TestDownAfterKilledKeeper(t *testing.T) {
	parent, dir := started(t, "node")
	defer kill(t, parent)
	c, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	plan, err := c.plan()
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(plan.Keeper, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := c.Down(); err != nil {
		t.Fatal(err)
	}
	untilNothingIsLeft(t, dir)
}
