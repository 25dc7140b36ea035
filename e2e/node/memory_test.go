// SPDX-License-Identifier: Apache-2.0

//go:build long

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// commandLine is that of a process; empty when it has ended.
func commandLine(pid int) string {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil {
		return ""
	}
	return strings.ReplaceAll(string(text), "\x00", " ")
}

// memoryGroup is the directory of the cgroup of memory that a process is in.
func (p *person) memoryGroup(pid int) string {
	p.t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil {
		p.t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(f) == 3 && f[1] == "memory" {
			// what this process calls /x may be below the group of the container that the tests are in
			for _, root := range []string{"/sys/fs/cgroup/memory", "/sys/fs/cgroup"} {
				for at := f[2]; at != "/" && at != "."; {
					if dir := filepath.Join(root, at); exists(filepath.Join(dir, "memory.limit_in_bytes")) {
						return dir
					}
					_, rest, ok := strings.Cut(strings.TrimPrefix(at, "/"), "/")
					if !ok {
						break
					}
					at = "/" + rest
				}
			}
		}
	}
	p.t.Fatalf("process %d is in no cgroup of memory:\n%s", pid, text)
	return ""
}

func exists(name string) bool { _, err := os.Stat(name); return err == nil }

// peak is the most memory that the agent's container has had, in bytes, with the page cache.
func (p *person) peak(pod string) int {
	p.t.Helper()
	text, err := os.ReadFile(filepath.Join(p.memoryGroup(p.programs(pod, "agent pod")[0]), "memory.max_usage_in_bytes"))
	if err != nil {
		p.t.Fatal(err)
	}
	return mustAtoi(p.t, string(text))
}

// squeeze gives the agent's container little more memory than it has now: the kernel ends
// it when it works. The next container has what its pod says.
func (p *person) squeeze(pod string) {
	p.t.Helper()
	group := p.memoryGroup(p.programs(pod, "agent pod")[0])
	stat, err := os.ReadFile(filepath.Join(group, "memory.stat"))
	if err != nil {
		p.t.Fatal(err)
	}
	rss := mustAtoi(p.t, p.match(string(stat), `^total_rss (\d+)$`))
	if err := os.WriteFile(filepath.Join(group, "memory.limit_in_bytes"), fmt.Append(nil, rss+4<<20), 0); err != nil {
		p.t.Fatal(err)
	}
	p.t.Logf("the agent uses %d MB, and may have 4 more", rss>>20)
}
