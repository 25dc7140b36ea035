// SPDX-License-Identifier: Apache-2.0

package bounds

import (
	"errors"
	"math"
	"os"
	"path/filepath"
	"runtime/debug"
	"testing"

	"golang.org/x/sys/unix"
)

func TestCheck(t *testing.T) {
	for _, test := range []struct {
		memory, need, least int64 // least 0: it is enough
	}{
		{64 << 20, 40 << 20, 0},
		{64 << 20, 40<<20 + 1, 65 << 20},
		{8 << 20, 100 << 20, 160 << 20},
		{0, 100 << 20, 0},
		{0, 1 << 40, 0},
	} {
		b := Bounds{Memory: test.memory}
		err := b.Check(test.need)
		var small *MemoryError
		if errors.As(err, &small) != (test.least > 0) || small != nil && small.Least != test.least {
			t.Errorf("%d bytes within %d: %v", test.need, test.memory, err)
		}
		if small != nil {
			if err := (Bounds{Memory: small.Least}).Check(test.need); err != nil {
				t.Errorf("with what it asked for: %v", err)
			}
		}
	}
}

func TestHold(t *testing.T) {
	if was := debug.SetMemoryLimit(-1); was != math.MaxInt64 {
		t.Fatalf("the test begins with a limit of %d", was)
	}
	now := func() int64 { return debug.SetMemoryLimit(-1) }
	_, release := Bounds{Memory: 64 << 20}.Hold()
	one := now()
	if one < 48<<20 || one > 48<<20+taken() {
		t.Errorf("one: the limit is %d", one)
	}
	second, releaseSecond := Bounds{}.Hold()
	if got := now(); got != one+192<<20 {
		t.Errorf("two: the limit is %d, not %d", got, one+192<<20)
	}
	if err := second.Check(1 << 30); err != nil {
		t.Fatal(err)
	}
	if got := now(); got < one+1<<30 {
		t.Errorf("grown: the limit is %d", got)
	}
	release()
	release()
	releaseSecond()
	if got := now(); got != math.MaxInt64 {
		t.Errorf("afterwards: the limit is %d", got)
	}
}

// standing is how far the calling thread stands back.
func standing(t *testing.T) (nice, ioclass int) {
	t.Helper()
	n, err := unix.Getpriority(unix.PRIO_PROCESS, 0)
	if err != nil {
		t.Fatal(err)
	}
	io, _, errno := unix.Syscall(unix.SYS_IOPRIO_GET, 1, 0, 0)
	if errno != 0 {
		t.Fatal(errno)
	}
	return 20 - n, int(io >> 13)
}

// TestThread: the goroutine's thread stands back, and no other ever does.
func TestThread(t *testing.T) {
	began, _ := standing(t)
	want := max(began, 7)
	for _, b := range []Bounds{{Nice: 7}, {IdleIO: true}, {Nice: 7, IdleIO: true}, {}} {
		done := make(chan struct{})
		go func() {
			defer close(done)
			if err := b.Thread(); err != nil {
				t.Error(err)
			}
			nice, class := standing(t)
			if b.Nice > 0 && nice != want || b.Nice == 0 && nice != began || (class == 3) != b.IdleIO {
				t.Errorf("%+v: nice %d, I/O class %d", b, nice, class)
			}
		}()
		<-done
		for range 50 {
			after := make(chan struct{})
			go func() {
				defer close(after)
				if nice, class := standing(t); nice != began || class == 3 {
					t.Errorf("after %+v another goroutine has nice %d, I/O class %d", b, nice, class)
				}
			}()
			<-after
		}
	}
}

func TestLeft(t *testing.T) {
	for name, test := range map[string]struct {
		groups string
		files  map[string]string
		want   int64
	}{
		"container":    {"0::/\n", map[string]string{"memory.max": "268435456\n"}, 256<<20 - 10<<20 - spare},
		"no limit":     {"0::/\n", map[string]string{"memory.max": "max\n"}, 0},
		"nothing told": {"0::/a\n", nil, 0},
		"above":        {"0::/a/b\n", map[string]string{"a/b/memory.max": "max\n", "a/memory.max": "268435456\n"}, 256<<20 - 10<<20 - spare},
		"the lowest":   {"0::/a/b\n", map[string]string{"a/b/memory.max": "1073741824\n", "a/memory.max": "268435456\n"}, 256<<20 - 10<<20 - spare},
		"too little":   {"0::/\n", map[string]string{"memory.max": "33554432\n"}, 1 << 20},
		"version 1":    {"12:cpu:/x\n4:memory:/x\n", map[string]string{"memory/x/memory.limit_in_bytes": "268435456\n"}, 256<<20 - 10<<20 - spare},
		"1, none":      {"4:memory:/x\n", map[string]string{"memory/x/memory.limit_in_bytes": "9223372036854771712\n"}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			top := t.TempDir()
			groups := filepath.Join(top, "groups")
			if err := os.WriteFile(groups, []byte(test.groups), 0o600); err != nil {
				t.Fatal(err)
			}
			for path, text := range test.files {
				path = filepath.Join(top, path)
				if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if got := left(groups, top, 10<<20); got != test.want {
				t.Errorf("got %d, want %d", got, test.want)
			}
		})
	}
}
