// SPDX-License-Identifier: Apache-2.0

package repository

import (
	"testing"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/kbcli/kbcli/engine/blob/mem"
)

// TestLimited: what goes through the limited lineage is held back, and nothing else.
func TestLimited(t *testing.T) {
	l := newLineage(t, create(t, mem.New(testClock), Options{}))
	if l.Limited(0, 0) != l {
		t.Error("without limits it is another")
	}
	w := &PackWriter{}
	raw := noise(1, 400<<10)
	w.Add(raw, xxhash.Sum64(raw))
	took := func(f func() error) time.Duration {
		t.Helper()
		began := time.Now()
		if err := f(); err != nil {
			t.Fatal(err)
		}
		return time.Since(began)
	}
	slow := l.Limited(1<<20, 2<<20)
	put := took(func() error { _, err := slow.PutPack(t.Context(), PackRef{"b", 1}, w); return err })
	read := func(l *Lineage) func() error {
		return func() error {
			return l.ReadFrames(t.Context(), PackRef{"b", 1}, w.Frames(), func(int, []byte) error { return nil })
		}
	}
	got := took(read(slow))
	if put < 300*time.Millisecond || got < 150*time.Millisecond {
		t.Errorf("400 KiB were put at 1 MiB a second in %s, and read at 2 MiB in %s", put, got)
	}
	if free := took(read(l)); free > got {
		t.Errorf("without a limit it took %s, with one %s", free, got)
	}
}
