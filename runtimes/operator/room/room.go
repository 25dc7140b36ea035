// SPDX-License-Identifier: Apache-2.0

package room

import (
	"encoding/json"
	"fmt"

	"golang.org/x/sys/unix"
)

// Annotation is on a pod: a Use in JSON, written by its agent.
const Annotation = "apps.kubeblocks.io/volume"

// Use is how much room the volume of a pod has, in bytes.
type Use struct {
	Size int64 `json:"size"`
	Free int64 `json:"free"`
}

// Level is how full a volume is.
type Level int

// The levels.
const (
	Plenty Level = iota
	AlmostFull
	Full // PostgreSQL stops when it has to write more
)

// twoSegments of WAL is what a server wants to have free, always.
const twoSegments = 32 << 20

// Level judges: almost full from 85 percent on, full where two segments of WAL or two
// percent are left.
func (u Use) Level() Level {
	switch {
	case u.Size <= 0:
		return Plenty
	case u.Free < max(twoSegments, u.Size/50):
		return Full
	case u.Free < u.Size/100*15:
		return AlmostFull
	}
	return Plenty
}

// Percent is how full it is.
func (u Use) Percent() int64 {
	if u.Size <= 0 {
		return 0
	}
	return 100 - u.Free*100/u.Size
}

// String is what the annotation holds.
func (u Use) String() string { return fmt.Sprintf(`{"size":%d,"free":%d}`, u.Size, u.Free) }

// Parse reads it; what is none says nothing.
func Parse(text string) Use {
	var u Use
	if json.Unmarshal([]byte(text), &u) != nil {
		return Use{}
	}
	return u
}

// SpoolMost is how much of a volume of that size the spool may take, whatever the policy
// allows: the data and the server's own WAL are beside it.
func SpoolMost(size int64) int64 { return size / 8 }

// Of asks the file system that path is on.
func Of(path string) (Use, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return Use{}, fmt.Errorf("ask the volume for its room: %w", err)
	}
	return Use{Size: int64(st.Blocks) * st.Bsize, Free: int64(st.Bavail) * st.Bsize}, nil
}
