// SPDX-License-Identifier: Apache-2.0

package local

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// listens is the port that the running server says it listens on, which its settings
// may have been changed to; 0 where it does not say.
func (s *server) listens() int32 {
	b, err := os.ReadFile(filepath.Join(s.data, "postmaster.pid"))
	if err != nil {
		return 0
	}
	lines := strings.Split(string(b), "\n")
	if len(lines) < 4 {
		return 0
	}
	port, err := strconv.ParseInt(strings.TrimSpace(lines[3]), 10, 32)
	if err != nil || port <= 0 {
		return 0
	}
	return int32(port)
}

// whyNot picks from the log of a server that did not start the lines that say why, with
// the hint that follows; the last ones if none does.
func whyNot(log string) string {
	var out []string
	said := false
	for line := range strings.Lines(log) {
		line = strings.TrimSpace(line)
		switch {
		case strings.Contains(line, "FATAL:"), strings.Contains(line, "PANIC:"), strings.Contains(line, "LOG:  could not "):
			said = true
		case strings.Contains(line, "HINT:") && said:
		default:
			said = false
			continue
		}
		for _, severity := range []string{"FATAL:", "PANIC:", "HINT:", "LOG:"} {
			if _, words, ok := strings.Cut(line, severity); ok {
				out = append(out, severity+" "+strings.TrimSpace(words))
				break
			}
		}
	}
	if len(out) == 0 {
		return lastLines(log, 4)
	}
	return strings.Join(out[max(0, len(out)-4):], "; ")
}
