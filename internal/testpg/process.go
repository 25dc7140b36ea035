// SPDX-License-Identifier: Apache-2.0

package testpg

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
)

var (
	starterOnce sync.Once
	starterWork = make(chan func())
)

// startLasting starts a process that dies with this one. A parent-death signal
// is sent when the thread that started the child ends, not the process, and Go
// may end threads: so one goroutine that keeps its thread for good starts them all.
func startLasting(c *exec.Cmd) error {
	starterOnce.Do(func() {
		go func() {
			runtime.LockOSThread()
			for f := range starterWork {
				f()
			}
		}()
	})
	done := make(chan error)
	starterWork <- func() { done <- c.Start() }
	return <-done
}

// childrenOf lists the processes whose parent is pid.
func childrenOf(pid int) ([]int, error) {
	all, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	var children []int
	for _, e := range all {
		p, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if parent, _, err := procStat(p); err == nil && parent == pid {
			children = append(children, p)
		}
	}
	return children, nil
}

// alive tells whether pid runs; one that nobody has waited for yet does not.
func alive(pid int) bool {
	_, state, err := procStat(pid)
	return err == nil && state != "Z"
}

func procStat(pid int) (parent int, state string, err error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, "", err
	}
	// The second field, the name in brackets, may hold anything.
	f := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
	if len(f) < 2 {
		return 0, "", fmt.Errorf("/proc/%d/stat is cut short", pid)
	}
	parent, err = strconv.Atoi(f[1])
	return parent, f[0], err
}
