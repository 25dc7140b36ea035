// SPDX-License-Identifier: Apache-2.0

package disasters

import (
	"encoding/binary"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// wallClock is the clock of servers that are started while it is in the environment.
type wallClock struct {
	lib, file string
	offset    time.Duration
}

// newWallClock builds the library that turns it.
func newWallClock(t *testing.T) *wallClock {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "kbclock")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	c := &wallClock{lib: filepath.Join(dir, "clock.so"), file: filepath.Join(dir, "offset")}
	out, err := exec.Command("gcc", "-O2", "-shared", "-fPIC", "-o", c.lib, filepath.Join("testdata", "clock.c"), "-ldl").CombinedOutput()
	if err != nil {
		t.Fatalf("gcc: %v\n%s", err, out)
	}
	c.set(t, 0)
	return c
}

// another is a second clock, as another host has.
func (c *wallClock) another(t *testing.T, name string, offset time.Duration) *wallClock {
	t.Helper()
	o := &wallClock{lib: c.lib, file: c.file + name}
	o.set(t, offset)
	return o
}

// set turns the clock; offset is how far it is ahead of the machine's.
func (c *wallClock) set(t *testing.T, offset time.Duration) {
	t.Helper()
	// in place: servers have it mapped
	f, err := os.OpenFile(c.file, os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt(binary.LittleEndian.AppendUint64(nil, uint64(offset.Microseconds())), 0); err != nil {
		t.Fatal(err)
	}
	c.offset = offset
}

// while runs fn with the clock in the environment of what it starts.
func (c *wallClock) while(t *testing.T, fn func()) {
	t.Helper()
	for k, v := range map[string]string{"LD_PRELOAD": c.lib, "KBTEST_CLOCK": c.file} {
		if err := os.Setenv(k, v); err != nil {
			t.Fatal(err)
		}
		defer os.Unsetenv(k)
	}
	fn()
}
