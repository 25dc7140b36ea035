// SPDX-License-Identifier: Apache-2.0

package repository

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestRemoveBackup removes backups that use each other's packs, in every order: a pack
// goes with the last backup that used it.
func TestRemoveBackup(t *testing.T) {
	uses := map[string]map[string][]uint32{
		"a": nil,
		"b": {"a": {1, 3}},
		"c": {"a": {1}, "b": {1}},
	}
	for _, order := range []string{"abc", "acb", "bac", "bca", "cab", "cba"} {
		t.Run(order, func(t *testing.T) {
			l, _ := plainLineage(t)
			ctx := t.Context()
			for _, name := range []string{"a", "b", "c"} {
				for n := range uint32(3) {
					if _, err := l.PutPack(ctx, PackRef{name, n + 1}, testPack()); err != nil {
						t.Fatal(err)
					}
				}
				m := manifestOf(name, 0x300)
				m.Uses = uses[name]
				if err := l.PutBackup(ctx, m, filesOf(name, testPack())); err != nil {
					t.Fatal(err)
				}
			}
			left := map[string]bool{"a": true, "b": true, "c": true}
			for _, name := range []string{order[:1], order[1:2], order[2:], order[2:]} { // and again
				if err := l.RemoveBackup(ctx, name); err != nil {
					t.Fatal(err)
				}
				delete(left, name)
				want, got := map[string]bool{}, map[string]bool{}
				for name := range left {
					for n := range 3 {
						want[fmt.Sprint(name, n+1)] = true
					}
					for other, numbers := range uses[name] {
						for _, n := range numbers {
							want[fmt.Sprint(other, n)] = true
						}
					}
				}
				for _, name := range []string{"a", "b", "c"} {
					numbers, _, err := l.Packs(ctx, name)
					if err != nil {
						t.Fatal(err)
					}
					for _, n := range numbers {
						got[fmt.Sprint(name, n)] = true
					}
				}
				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("after %s went (-want +got):\n%s", name, diff)
				}
			}
		})
	}
}
