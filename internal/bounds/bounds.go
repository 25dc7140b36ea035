// SPDX-License-Identifier: Apache-2.0

package bounds

import (
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"
)

// DefaultMemory is what a backup or a restore may take where nobody said how much.
const DefaultMemory = 256 << 20

// Bounds of one backup or restore. A field that is zero bounds nothing, but for Memory.
type Bounds struct {
	// Memory is how many bytes it takes at most, beside what the process takes anyway. 0 is
	// DefaultMemory, and more where that would be too little: what nobody bounded is not
	// refused because a database has grown.
	Memory int64
	// Workers is how many goroutines compress or unpack at once, at most; 0 leaves it to
	// whoever does the work. Fewer are at work if Memory is too small for them.
	Workers int
	// Upload and Download are bytes a second to and from the repository. Those of the WAL
	// that is archived meanwhile are not counted.
	Upload, Download int64
	// Nice is how far its threads stand back for others, 0 to 19, as in nice(1). A process
	// that stands back further keeps to that.
	Nice int
	// IdleIO leaves the disk to others as long as they want it, as ionice -c 3 does. It is
	// heeded by the I/O schedulers that know of it, as bfq, and by no other.
	IdleIO bool

	grow func(memory int64) // of Hold; nil: nothing is held
}

// Room is how much of Memory may be needed at once. The rest is what was needed before
// until Go collects it, and what Go takes itself.
func (b Bounds) Room() int64 { return b.memory() / 8 * 5 }

// most is where Go collects at the latest. It leaves something to what Go does not count,
// as the program's own pages.
func most(memory int64) int64 { return memory / 4 * 3 }

func (b Bounds) memory() int64 {
	if b.Memory <= 0 {
		return DefaultMemory
	}
	return b.Memory
}

// Check refuses bounds under which need bytes at once are too many, with a *MemoryError.
func (b Bounds) Check(need int64) error {
	if need <= b.Room() {
		return nil
	}
	const mib = 1 << 20
	least := (need*8 + 5*mib - 1) / (5 * mib) * mib
	if b.Memory > 0 {
		return &MemoryError{Limit: b.Memory, Least: least}
	}
	if b.grow != nil {
		b.grow(least)
	}
	return nil
}

// MemoryError says that something cannot be done in the memory that it was given.
type MemoryError struct {
	Limit, Least int64 // bytes
}

func (e *MemoryError) Error() string {
	return fmt.Sprintf("%d MiB of memory are too few: it takes at least %d MiB", e.Limit>>20, (e.Least+1<<20-1)>>20)
}

// Thread puts the calling goroutine on a thread of its own that stands back as b says;
// both end together. Whoever calls it must not unlock the thread. Where b says nothing
// of it, nothing is done.
func (b Bounds) Thread() error {
	if b.Nice <= 0 && !b.IdleIO {
		return nil
	}
	runtime.LockOSThread()
	if b.Nice > 0 {
		// the call, other than the library's function, answers with 20 less the niceness
		is, err := unix.Getpriority(unix.PRIO_PROCESS, 0)
		if err != nil {
			return fmt.Errorf("read the priority: %w", err)
		}
		if want := min(b.Nice, 19); 20-is < want {
			if err := unix.Setpriority(unix.PRIO_PROCESS, 0, want); err != nil {
				return fmt.Errorf("set the priority to %d: %w", want, err)
			}
		}
	}
	if b.IdleIO {
		const who, idle = 1, 3 << 13 // IOPRIO_WHO_PROCESS of thread 0, this one; IOPRIO_CLASS_IDLE
		if _, _, errno := unix.Syscall(unix.SYS_IOPRIO_SET, who, 0, idle); errno != 0 && errno != unix.ENOSYS {
			return fmt.Errorf("set the priority of I/O to idle: %w", errno)
		}
	}
	return nil
}
