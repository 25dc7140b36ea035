// SPDX-License-Identifier: Apache-2.0

package wire_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kbcli/kbcli/internal/wire"
)

// read reads one thing after another, as a script of letters says, and tells what
// came out.
func read(b []byte, script string) (got []string, err error) {
	r := &wire.Reader{B: b}
	for _, c := range script {
		switch c {
		case 'u':
			got = append(got, fmt.Sprint(r.Uvarint()))
		case 'v':
			got = append(got, fmt.Sprint(r.Varint()))
		case '4':
			got = append(got, fmt.Sprint(r.U32()))
		case '8':
			got = append(got, fmt.Sprint(r.Fixed64()))
		case '1':
			got = append(got, fmt.Sprint(r.U8()))
		case 'b':
			got = append(got, fmt.Sprintf("%q", r.Bytes(r.Uvarint())))
		case 'n':
			got = append(got, fmt.Sprint(r.Count(3)))
		}
	}
	return got, r.Done()
}

func TestReader(t *testing.T) {
	var all []byte
	all = binary.AppendUvarint(all, math.MaxUint64)
	all = binary.AppendVarint(all, math.MinInt64)
	all = binary.AppendUvarint(all, math.MaxUint32)
	all = binary.LittleEndian.AppendUint64(all, 7)
	all = append(all, 255)
	all = append(binary.AppendUvarint(all, 3), "abc"...)
	overlong := bytes.Repeat([]byte{0x80}, 10)
	for _, test := range []struct {
		name   string
		b      []byte
		script string
		want   []string
		err    string
	}{
		{"everything", all, "uv481b", []string{"18446744073709551615", "-9223372036854775808", "4294967295", "7", "255", `"abc"`}, ""},
		{"nothing", nil, "", nil, ""},
		{"empty text", []byte{0}, "b", []string{`""`}, ""},
		{"left over", []byte{1, 2}, "u", []string{"1"}, "bytes are left over"},
		{"cut number", []byte{0x80}, "uv81b", []string{"0", "0", "0", "0", `""`}, "number is cut"},
		{"cut signed number", []byte{0x80}, "v", []string{"0"}, "number is cut"},
		{"overlong number", append(overlong, 1), "u", []string{"0"}, "number is cut"},
		{"cut fixed number", make([]byte, 7), "8", []string{"0"}, "number is cut"},
		{"no byte", nil, "1", []string{"0"}, "text is cut"},
		{"cut text", []byte{4, 'a', 'b', 'c'}, "b1", []string{`""`, "0"}, "text is cut"},
		{"huge text", binary.AppendUvarint(nil, math.MaxUint64), "b", []string{`""`}, "text is cut"},
		{"large number", binary.AppendUvarint(nil, 1<<32), "4", []string{"0"}, "number is too large"},
		{"count", []byte{2, 0, 0, 0, 0, 0, 0}, "n888", []string{"2", "0", "0", "0"}, "number is cut"},
		{"count too large", []byte{2, 0, 0, 0, 0, 0}, "n", []string{"0"}, "count is larger than its table"},
		{"huge count", binary.AppendUvarint(nil, math.MaxUint64), "nn", []string{"0", "0"}, "count is larger than its table"},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := read(test.b, test.script)
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("read (-want +got):\n%s", diff)
			}
			if s := fmt.Sprint(err); s != test.err && (err != nil || test.err != "") {
				t.Errorf("got error %v, want %q", err, test.err)
			}
		})
	}
}

func TestFailKeepsTheFirst(t *testing.T) {
	r := &wire.Reader{B: []byte{1, 2, 3}}
	r.Fail("first")
	r.Fail("second")
	if r.Uvarint(); r.Len() != 0 || r.Err() == nil || r.Done().Error() != "first" {
		t.Errorf("%d bytes left, %v", r.Len(), r.Done())
	}
}

// Whatever is read from whatever bytes, nothing panics, no count promises more than
// there is, and after a fault all is zero.
func FuzzReader(f *testing.F) {
	f.Add([]byte{2, 0, 0, 0, 0, 0, 0}, "n4b8")
	f.Add([]byte("\x80\x80\x01abc"), "uvb1")
	f.Fuzz(func(t *testing.T, b []byte, script string) {
		r := &wire.Reader{B: b}
		for _, c := range script {
			before := r.Len()
			var zero bool
			switch c % 7 {
			case 0:
				zero = r.Uvarint() == 0
			case 1:
				zero = r.Varint() == 0
			case 2:
				zero = r.U32() == 0
			case 3:
				zero = r.Fixed64() == 0
			case 4:
				zero = r.U8() == 0
			case 5:
				zero = len(r.Bytes(r.Uvarint())) == 0
			case 6:
				n := r.Count(3)
				if zero = n == 0; n < 0 || 3*n > before {
					t.Fatalf("%d entries of 3 bytes in %d bytes", n, before)
				}
			}
			if r.Err() != nil && (!zero || r.Len() != 0) {
				t.Fatalf("after %v: zero %t, %d bytes left", r.Err(), zero, r.Len())
			}
		}
	})
}
