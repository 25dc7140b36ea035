// SPDX-License-Identifier: Apache-2.0

package room

import (
	"path/filepath"
	"testing"
)

func TestLevel(t *testing.T) {
	const mb, gb = 1 << 20, 1 << 30
	for _, test := range []struct {
		use  Use
		want Level
	}{
		{Use{}, Plenty}, // nobody has asked
		{Use{Size: 400 * mb, Free: 300 * mb}, Plenty},
		{Use{Size: 400 * mb, Free: 61 * mb}, Plenty},
		{Use{Size: 400 * mb, Free: 58 * mb}, AlmostFull},
		{Use{Size: 400 * mb, Free: 31 * mb}, Full},
		{Use{Size: 400 * mb}, Full},
		{Use{Size: 100 * gb, Free: 14 * gb}, AlmostFull},
		{Use{Size: 100 * gb, Free: 3 * gb}, AlmostFull},
		{Use{Size: 100 * gb, Free: gb}, Full},
	} {
		if got := test.use.Level(); got != test.want {
			t.Errorf("%+v: %d, want %d", test.use, got, test.want)
		}
		if got := Parse(test.use.String()); got != test.use {
			t.Errorf("%+v was read as %+v", test.use, got)
		}
	}
	for _, text := range []string{"", "{", "[]", `{"size":"much"}`} {
		if got := Parse(text); got != (Use{}) {
			t.Errorf("%q was read as %+v", text, got)
		}
	}
}

func TestOf(t *testing.T) {
	u, err := Of(t.TempDir())
	if err != nil || u.Size <= 0 || u.Free < 0 || u.Free > u.Size {
		t.Errorf("%+v, %v", u, err)
	}
	if _, err := Of(filepath.Join(t.TempDir(), "absent")); err == nil {
		t.Error("what is not there has room")
	}
}
