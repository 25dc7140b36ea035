// SPDX-License-Identifier: Apache-2.0

package reflink_test

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/kbcli/kbcli/internal/reflink"
	"github.com/kbcli/kbcli/internal/testdisk"
)

const diskSize = 512 << 20

func write(t *testing.T, path string, size int) []byte {
	t.Helper()
	b := make([]byte, size)
	r := rand.New(rand.NewPCG(1, uint64(size)))
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return b
}

func clone(t *testing.T, to, from string) error {
	t.Helper()
	src, err := os.Open(from)
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	dst, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer dst.Close()
	return reflink.Clone(dst, src)
}

func used(t *testing.T, dir string) int64 {
	t.Helper()
	var st unix.Statfs_t
	fd, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer fd.Close()
	if err := unix.Syncfs(int(fd.Fd())); err != nil {
		t.Fatal(err)
	}
	if err := unix.Statfs(dir, &st); err != nil {
		t.Fatal(err)
	}
	return int64(st.Blocks-st.Bfree) * st.Bsize
}

func TestClone(t *testing.T) {
	for _, kind := range []string{"xfs", "btrfs"} {
		t.Run(kind, func(t *testing.T) {
			dir := testdisk.Start(t, kind, diskSize)
			for _, size := range []int{0, 1, 4096, 12345, 64 << 20} {
				from, to := filepath.Join(dir, "from"), filepath.Join(dir, "to")
				want := write(t, from, size)
				before := used(t, dir)
				if err := clone(t, to, from); err != nil {
					t.Fatalf("%d bytes: %v", size, err)
				}
				if grown := used(t, dir) - before; grown > 8<<20 {
					t.Errorf("a clone of %d bytes takes %d", size, grown)
				}
				// what is written to the one is not seen in the other
				if size > 0 {
					f, err := os.OpenFile(from, os.O_WRONLY, 0)
					if err != nil {
						t.Fatal(err)
					}
					if _, err := f.WriteAt([]byte{^want[0]}, 0); err != nil {
						t.Fatal(err)
					}
					f.Close()
				}
				got, err := os.ReadFile(to)
				if err != nil || !bytes.Equal(got, want) {
					t.Errorf("a clone of %d bytes is another file (%v)", size, err)
				}
				for _, p := range []string{from, to} {
					if err := os.Remove(p); err != nil {
						t.Fatal(err)
					}
				}
			}
			file := filepath.Join(dir, "f")
			write(t, file, 4096)
			if err := reflink.Probe(file, dir); err != nil {
				t.Error(err)
			}
			if list, err := os.ReadDir(dir); err != nil || len(list) != 1 {
				t.Errorf("the probe left %v, %v", list, err)
			}
		})
	}
}

// TestNoCopyOnWrite: a data directory with chattr +C is cloned all the same.
func TestNoCopyOnWrite(t *testing.T) {
	dir := testdisk.Start(t, "btrfs", diskSize)
	data := filepath.Join(dir, "data")
	if err := os.Mkdir(data, 0o700); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("chattr", "+C", data).CombinedOutput(); err != nil {
		t.Fatalf("chattr: %v: %s", err, out)
	}
	file := filepath.Join(data, "f")
	want := write(t, file, 1<<20)
	if err := clone(t, filepath.Join(dir, "to"), file); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(filepath.Join(dir, "to")); err != nil || !bytes.Equal(got, want) {
		t.Errorf("the clone is another file (%v)", err)
	}
}

func TestRefused(t *testing.T) {
	ext4, other := testdisk.Start(t, "ext4", 64<<20), testdisk.Start(t, "xfs", diskSize)
	file := filepath.Join(ext4, "f")
	write(t, file, 4096)
	for _, test := range []struct {
		dir, want          string
		unsupported, apart bool
	}{
		{ext4, "EOPNOTSUPP: ext4 cannot share blocks", true, false},
		{other, "EXDEV: " + other + " is on another file system than " + file, false, true},
		{filepath.Join(ext4, "none"), "no such file", false, false},
	} {
		err := reflink.Probe(file, test.dir)
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: got %v, want %s", test.dir, err, test.want)
		}
		var no *reflink.Error
		if errors.As(err, &no) != (test.unsupported || test.apart) || no != nil && (no.Unsupported() != test.unsupported || no.Apart() != test.apart) {
			t.Errorf("%s: %#v", test.dir, err)
		}
	}
	if list, err := os.ReadDir(ext4); err != nil || len(list) != 2 { // and lost+found
		t.Errorf("the probe left %v, %v", list, err)
	}
}
