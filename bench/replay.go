// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
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
// time in which it waits, whatever the tool, and the same for all of them. What a command
// that does nothing takes for as many segments is told by the limit, whose WAL is in pg_wal
// and whose command is false: beyond that it waits for WAL.
type replayWatch struct {
	stop, stopped chan struct{}

	replayed, waited time.Duration // since the startup process began; of it with a child
	blocked          time.Duration // of it without one, and held up by a disk
}

// watchReplay watches every server that recovers below the work directory.
func (b *bench) watchReplay() *replayWatch {
	w := &replayWatch{stop: make(chan struct{}), stopped: make(chan struct{})}
	go func() {
		defer close(w.stopped)
		pid := 0
		var last time.Time
		for {
			pause := 2 * time.Millisecond
			if pid != 0 && !isStartup(pid) {
				pid = 0
			}
			if pid != 0 {
				now := time.Now()
				w.replayed += now.Sub(last)
				switch {
				case len(childrenOf(pid)) > 0:
					w.waited += now.Sub(last)
				case state(pid) == 'D':
					w.blocked += now.Sub(last)
				}
				last = now
			} else if pid = b.startup(); pid != 0 {
				last = time.Now()
			} else {
				pause = 10 * time.Millisecond
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

// seen ends it, and puts the seconds into a restore's figures.
func (w *replayWatch) seen(u *usage) error {
	close(w.stop)
	<-w.stopped
	if w.replayed == 0 {
		return errors.New("no recovery was seen")
	}
	u.Replayed, u.Waited, u.Blocked = w.replayed.Seconds(), w.waited.Seconds(), w.blocked.Seconds()
	return nil
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

// state is the letter that Linux gives a process: D is held up by a disk; 0 if it ended.
func state(pid int) byte {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	_, rest, ok := strings.Cut(string(text), ") ")
	if err != nil || !ok || rest == "" {
		return 0
	}
	return rest[0]
}

var startupTitle = regexp.MustCompile(`^postgres: (\S+: )?startup`)

func isStartup(pid int) bool {
	title, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	return err == nil && startupTitle.Match(title)
}
