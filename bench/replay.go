// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// replayWatch looks every two milliseconds what a recovering server's startup process
// does. While it has a child it runs restore_command, and replays nothing: that is the
// time that it waits for WAL, whatever the tool, and the same for all of them. It is
// counted by looking, so that a share of some seconds is right to a few thousandths.
type replayWatch struct {
	stop, stopped chan struct{}

	looks, waits int
}

// watchReplay watches every server that recovers below the work directory.
func (b *bench) watchReplay() *replayWatch {
	w := &replayWatch{stop: make(chan struct{}), stopped: make(chan struct{})}
	go func() {
		defer close(w.stopped)
		pid := 0
		for {
			pause := 2 * time.Millisecond
			if pid == 0 {
				if pid = b.startup(); pid == 0 {
					pause = 10 * time.Millisecond
				}
			}
			switch {
			case pid == 0:
			case !isStartup(pid):
				pid = 0
			default:
				w.looks++
				if len(childrenOf(pid)) > 0 {
					w.waits++
				}
			}
			select {
			case <-w.stop:
				return
			case <-time.After(pause):
			}
		}
	}()
	return w
}

// share ends it, and gives the part of replay in which the server waited for WAL.
func (w *replayWatch) share() (float64, error) {
	close(w.stop)
	<-w.stopped
	if w.looks == 0 {
		return 0, fmt.Errorf("no recovery was seen")
	}
	return float64(w.waits) / float64(w.looks), nil
}

// startup finds the startup process of a server that recovers; 0 for none.
func (b *bench) startup() int {
	for _, pattern := range []string{"r-*/postmaster.pid", "state/clusters/*/r-*/data*/postmaster.pid"} {
		found, _ := filepath.Glob(filepath.Join(b.work, pattern)) // the pattern is well formed
		for _, file := range found {
			text, err := os.ReadFile(file)
			if err != nil {
				continue // the server just ended
			}
			line, _, _ := strings.Cut(string(text), "\n")
			pid, err := strconv.Atoi(line)
			if err != nil {
				continue // and is being written
			}
			for _, c := range childrenOf(pid) {
				if isStartup(c) {
					return c
				}
			}
		}
	}
	return 0
}

var startupTitle = regexp.MustCompile(`^postgres: (\S+: )?startup`)

func isStartup(pid int) bool {
	title, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	return err == nil && startupTitle.Match(title)
}
