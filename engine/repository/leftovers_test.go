// SPDX-License-Identifier: Apache-2.0

package repository

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kbcli/kbcli/engine/blob"
	"github.com/kbcli/kbcli/engine/blob/fault"
	"github.com/kbcli/kbcli/engine/blob/mem"
)

// leftLineage has two backups, the second with packs of the first and of one that was
// deleted, and what is left of a third that was interrupted.
func leftLineage(t *testing.T, s blob.Store) *Lineage {
	l := newLineage(t, create(t, s, Options{}))
	for _, name := range []string{"a", "b", "gone", "half"} {
		for n := range uint32(3) {
			if _, err := l.PutPack(t.Context(), PackRef{name, n + 1}, testPack()); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, name := range []string{"a", "b"} {
		m := manifestOf(name, 0x300)
		if name == "b" {
			m.Uses = map[string][]uint32{"a": {1, 3}, "gone": {2}}
		}
		if err := l.PutBackup(t.Context(), m, filesOf(name, testPack())); err != nil {
			t.Fatal(err)
		}
	}
	return l
}

func packsOf(t *testing.T, l *Lineage) (out []string) {
	for _, name := range []string{"a", "b", "gone", "half"} {
		numbers, _, err := l.Packs(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range numbers {
			out = append(out, fmt.Sprint(name, n))
		}
	}
	return out
}

func sweepAll(ctx context.Context, l *Lineage) error {
	names, err := l.Leftovers(ctx)
	for _, name := range names {
		if err == nil {
			err = l.Sweep(ctx, name)
		}
	}
	return err
}

func TestLeftovers(t *testing.T) {
	s := mem.New(nil)
	l := leftLineage(t, s)
	want := func(names ...string) {
		t.Helper()
		got, err := l.Leftovers(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(append([]string{}, names...), got); diff != "" {
			t.Errorf("leftovers (-want +got):\n%s", diff)
		}
	}
	want("gone", "half")
	if err := l.Sweep(t.Context(), "b"); err != nil { // it is whole
		t.Fatal(err)
	}
	want("gone", "half")
	key := l.manifestKey("a")
	whole := raw(t, s, key)
	replace(t, s, key, whole[:len(whole)-1])
	if names, err := l.Leftovers(t.Context()); err == nil {
		t.Errorf("with a damaged manifest these are left over: %v", names)
	}
	if err := l.Sweep(t.Context(), "half"); err == nil {
		t.Error("something is swept while a manifest cannot be read")
	}
	replace(t, s, key, whole)
	if err := sweepAll(t.Context(), l); err != nil {
		t.Fatal(err)
	}
	want()
	if diff := cmp.Diff([]string{"a1", "a2", "a3", "b1", "b2", "b3", "gone2"}, packsOf(t, l)); diff != "" {
		t.Errorf("packs (-want +got):\n%s", diff)
	}
}

// TestSweepAfterAKill ends the deletion of a backup at each operation of the store, with
// the operation done and not, and again the sweeping after it: what the backups that are
// listed use is always there, and in the end nothing else is.
func TestSweepAfterAKill(t *testing.T) {
	killed := 0
	for nth := 1; ; nth++ {
		for _, action := range []fault.Action{fault.Fail(nil), fault.FailAfter(nil)} {
			f := fault.New(mem.New(nil), 1)
			l := leftLineage(t, f)
			check := func(when string) {
				t.Helper()
				all, err := l.Manifests(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				have := " " + strings.Join(packsOf(t, l), " ") + " "
				for _, m := range all {
					need := []string{m.Name + "1", m.Name + "2", m.Name + "3"}
					for other, numbers := range m.Uses {
						for _, n := range numbers {
							need = append(need, fmt.Sprint(other, n))
						}
					}
					for _, p := range need {
						if !strings.Contains(have, " "+p+" ") {
							t.Errorf("%s %d, pack %s of backup %s is lost", when, nth, p, m.Name)
						}
					}
				}
			}
			f.Set(fault.Rule{Nth: nth, Action: action})
			removed := l.RemoveBackup(t.Context(), "a")
			f.Set()
			check("after a kill at operation")
			f.Set(fault.Rule{Nth: nth, Action: action})
			swept := sweepAll(t.Context(), l)
			f.Set()
			check("after a second kill at operation")
			if removed != nil || swept != nil {
				killed++
			}
			if err := sweepAll(t.Context(), l); err != nil {
				t.Fatal(err)
			}
			check("swept after a kill at operation")
			want := []string{"a1", "a3", "b1", "b2", "b3", "gone2"}
			if _, err := l.Manifest(t.Context(), "a"); err == nil {
				want = []string{"a1", "a2", "a3", "b1", "b2", "b3", "gone2"}
			}
			if diff := cmp.Diff(want, packsOf(t, l)); diff != "" {
				t.Errorf("a kill at operation %d: packs (-want +got):\n%s", nth, diff)
			}
			if removed == nil && swept == nil && nth > 5 {
				if killed < 20 {
					t.Errorf("only %d kills", killed)
				}
				return
			}
		}
	}
}

// TestTombstone: it is replaced, read without an identity, and damage is found.
func TestTombstone(t *testing.T) {
	_, to := somebody(t)
	s := mem.New(nil)
	l := newLineage(t, create(t, s, Options{Recipients: []string{to}}))
	if _, err := l.Tombstone(t.Context()); !errors.Is(err, blob.ErrNotExist) {
		t.Errorf("where there is none: %v", err)
	}
	for _, want := range []string{`{"elapsed":1}`, `{"elapsed":2}`} {
		if err := l.PutTombstone(t.Context(), []byte(want)); err != nil {
			t.Fatal(err)
		}
		got, err := l.Tombstone(t.Context())
		if err != nil || string(got) != want {
			t.Errorf("the tombstone says %q, %v", got, err)
		}
	}
	key := l.key("tombstone")
	whole := raw(t, s, key)
	for at := range whole {
		bad := bytes.Clone(whole)
		bad[at] ^= 4
		replace(t, s, key, bad)
		if got, err := l.Tombstone(t.Context()); err == nil {
			t.Errorf("with byte %d turned over it says %q", at, got)
		}
	}
}
