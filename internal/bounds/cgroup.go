// SPDX-License-Identifier: Apache-2.0

package bounds

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// spare is what a process in a container keeps for everything that is no backup and no
// restore: WAL that is archived, catalogs.
const spare = 48 << 20

// Left is how much memory a container's limit, or systemd's, leaves to a backup or a
// restore; 0 if there is none. The least is 1 MiB, with which nothing can be done: that
// is found out, and said.
func Left() int64 {
	return left("/proc/self/cgroup", "/sys/fs/cgroup", taken())
}

func left(groups, top string, taken int64) int64 {
	limit := limitOf(groups, top)
	if limit == 0 {
		return 0
	}
	return max(limit-taken-spare, 1<<20)
}

// limitOf is the lowest limit of the control group that the process is in and those above
// it, as far as they can be seen; 0 is none.
func limitOf(groups, top string) int64 {
	b, err := os.ReadFile(groups)
	if err != nil {
		return 0
	}
	limit := int64(0)
	lower := func(path string) {
		b, err := os.ReadFile(path)
		if err != nil {
			return
		}
		// "max" in version 2; in version 1 no limit is a number that no machine has
		n, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
		if err == nil && n > 0 && n < 1<<60 && (limit == 0 || n < limit) {
			limit = n
		}
	}
	for line := range strings.Lines(string(b)) {
		_, rest, _ := strings.Cut(strings.TrimSpace(line), ":")
		controllers, group, ok := strings.Cut(rest, ":")
		if !ok {
			continue
		}
		dir, file := top, "memory.max"
		if controllers != "" {
			if !strings.Contains(","+controllers+",", ",memory,") {
				continue
			}
			dir, file = filepath.Join(top, "memory"), "memory.limit_in_bytes"
		}
		for at := filepath.Clean("/" + group); ; at = filepath.Dir(at) {
			lower(filepath.Join(dir, at, file))
			if at == "/" {
				break
			}
		}
	}
	return limit
}
