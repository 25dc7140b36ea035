// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"os/exec"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestMedians(t *testing.T) {
	var s samples
	for _, w := range []float64{9, 1, 2} {
		s.add("slow", usage{Wall: w + 10})
		s.add("quick", usage{Wall: w})
	}
	s.add("even", usage{Wall: 3})
	s.add("even", usage{Wall: 5})
	if got, want := s.get("slow").spread(wall), "12.00 (11.00–19.00)"; got != want {
		t.Errorf("spread %s, not %s", got, want)
	}
	if got := s.get("even").median(wall); got != 4 {
		t.Errorf("median of two: %v", got)
	}
	if name, least := s.best(wall, "quick"); name != "even" || least != 4 {
		t.Errorf("the best without quick: %s, %v", name, least)
	}
	if got := s.get("nobody").median(wall); got != 0 {
		t.Errorf("median of nothing: %v", got)
	}
}

func TestArguments(t *testing.T) {
	got := arguments([]string{"-quick", "-work", "/somewhere", "-out=/x", "--runs", "2", "full"})
	if diff := cmp.Diff([]string{"-quick", "--runs", "2", "full"}, got); diff != "" {
		t.Error(diff)
	}
}

// What a child did counts for who waited for it: the figures of all tools rest on that.
func TestChildCounts(t *testing.T) {
	m := &meter{}
	u, err := m.measure(func(watch func(int)) error {
		// the shell's child reads and writes
		_, err := finish(exec.Command("sh", "-c", "head -c 50000000 /dev/zero | sha256sum; exit 0"), watch)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	// head reads, writes into the pipe, and sha256sum reads
	if u.Read < 100_000_000 || u.Written < 50_000_000 || u.Read > 110_000_000 {
		t.Errorf("%d bytes read and %d written", u.Read, u.Written)
	}
	if u.CPU <= 0 {
		t.Errorf("%v s of CPU", u.CPU)
	}
	if _, _, err := procCPU(os.Getpid()); err != nil {
		t.Error(err)
	}
}
