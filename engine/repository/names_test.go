// SPDX-License-Identifier: Apache-2.0

package repository

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kbcli/kbcli/engine/blob"
	"github.com/kbcli/kbcli/engine/blob/mem"
)

func TestNames(t *testing.T) {
	sealedAndNot(t, func(t *testing.T, s *mem.Store, o Options) {
		ctx, l := t.Context(), newLineage(t, create(t, s, o))
		objects := []NamesObject{
			{LSN: 0x16_00000028, Timeline: 1, Full: true},
			{LSN: 0x16_00000028, Timeline: 1, Several: true},
			{LSN: 0x16_00000028, Timeline: 1},
			{LSN: 0x17_00000000, Timeline: 1},
			{LSN: 0x17_00000000, Timeline: 0xA},
		}
		for i := len(objects) - 1; i >= 0; i-- {
			if err := l.PutNames(ctx, objects[i], noise(uint64(i), 5000)); err != nil {
				t.Fatal(err)
			}
		}
		var conflict *ConflictError
		if err := l.PutNames(ctx, objects[0], []byte("others")); !errors.As(err, &conflict) {
			t.Errorf("others at the same place: %v", err)
		}
		got, err := l.NamesObjects(ctx)
		for i := range got {
			if got[i].Size == 0 {
				t.Errorf("%+v has no size", got[i])
			}
			got[i].Size = 0
		}
		if diff := cmp.Diff(objects, got); err != nil || diff != "" {
			t.Fatalf("%v (-want +got):\n%s", err, diff)
		}
		for i, o := range objects {
			if b, err := l.Names(ctx, o); err != nil || !cmp.Equal(b, noise(uint64(i), 5000)) {
				t.Errorf("%+v: %d bytes, %v", o, len(b), err)
			}
		}
		// another's bytes, or damaged ones, are not its own
		key := l.namesKey(objects[0])
		for what, b := range map[string][]byte{
			"another": raw(t, s, l.namesKey(objects[1])),
			"cut":     raw(t, s, key)[:200],
		} {
			good := raw(t, s, key)
			replace(t, s, key, b)
			_, err := l.Names(ctx, objects[0])
			wantDamage(t, what, key, err)
			replace(t, s, key, good)
		}
		if err := l.DeleteNames(ctx, objects[0]); err != nil {
			t.Fatal(err)
		}
		if _, err := l.Names(ctx, objects[0]); !errors.Is(err, blob.ErrNotExist) {
			t.Errorf("deleted: %v", err)
		}
		replace(t, s, l.key("names", "something"), []byte("x"))
		_, err = l.NamesObjects(ctx)
		wantDamage(t, "a strange key", l.key("names", "something"), err)
	})
}
