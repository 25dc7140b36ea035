// SPDX-License-Identifier: Apache-2.0

package repository

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kbcli/kbcli/engine/blob/mem"
)

func TestLocks(t *testing.T) {
	now := time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)
	r, err := Create(t.Context(), mem.New(nil), Options{Clock: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	want := func(locks ...LockedError) {
		t.Helper()
		got, err := r.Locks(t.Context())
		if diff := cmp.Diff(locks, got); diff != "" || err != nil {
			t.Errorf("%v (-want +got):\n%s", err, diff)
		}
	}
	want()
	var held []*Lock
	for _, name := range []string{"b", "a"} {
		l, err := r.Lock(t.Context(), name, "me, for "+name, time.Minute, 0)
		if err != nil {
			t.Fatal(err)
		}
		held = append(held, l)
	}
	want(LockedError{"a", "me, for a", now}, LockedError{"b", "me, for b", now})
	if err := held[0].Unlock(t.Context()); err != nil {
		t.Fatal(err)
	}
	want(LockedError{"a", "me, for a", now})
	if err := held[1].Unlock(t.Context()); err != nil {
		t.Fatal(err)
	}
	want()
}
