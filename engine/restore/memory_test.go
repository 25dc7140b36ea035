// SPDX-License-Identifier: Apache-2.0

package restore_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"filippo.io/age"

	blobfs "github.com/kbcli/kbcli/engine/blob/fs"
	"github.com/kbcli/kbcli/engine/repository"
	"github.com/kbcli/kbcli/engine/restore"
	"github.com/kbcli/kbcli/internal/testpg"
)

// fill puts files beside those of a stopped server; half of what is in them does not compress.
func fill(t *testing.T, dir string, files, size int) {
	t.Helper()
	rnd := rand.NewChaCha8([32]byte{1})
	uid, gid := testpg.Owner(t)
	b := make([]byte, size)
	for i := range files {
		if i%1000 == 0 {
			if err := os.MkdirAll(filepath.Join(dir, fmt.Sprint(i/1000)), 0o700); err != nil {
				t.Fatal(err)
			}
		}
		_, _ = rnd.Read(b[:size/2])
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprint(i/1000), fmt.Sprint(i)), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	err := filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		if err == nil && uid >= 0 {
			err = os.Lchown(path, uid, gid)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestMemory: a backup and a restore stay within the memory that they were given, be the
// files large or many, and the repository sealed or not; as the kernel counts the whole
// process, with its program, and with what Go itself takes.
func TestMemory(t *testing.T) {
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	server := testpg.Start(t, testpg.Options{})
	extra := filepath.Join(server.DataDir, "extra")
	for _, data := range []struct {
		name        string
		files, size int
		sealed      bool
	}{
		{"large", 5, 32 << 20, false},
		{"large, sealed", 5, 32 << 20, true},
		{"many", 12000, 2000, false},
	} {
		t.Run(data.name, func(t *testing.T) {
			if err := os.RemoveAll(extra); err != nil {
				t.Fatal(err)
			}
			fill(t, extra, data.files, data.size)
			repo := filepath.Join(t.TempDir(), "repo")
			store, err := blobfs.Create(repo)
			if err != nil {
				t.Fatal(err)
			}
			var options repository.Options
			c := child{Repo: repo}
			if data.sealed {
				options = repository.Options{Recipients: []string{id.Recipient().String()}, Identities: id.String()}
				c.Identity = id.String()
			}
			r := newRigWith(t, server, store, options)
			r.startArchiving(t)
			defer r.stopArchiving(t)
			c.Lineage = r.lineage.Info().ID
			for _, mib := range []int64{64, 256} {
				c.Memory = mib << 20
				c.Backup, c.Conninfo, c.Into = fmt.Sprintf("b%d", mib), server.ConnString("postgres"), restore.Into{}
				report := func(what string) {
					t.Helper()
					says := c.do(t)
					t.Logf("%s within %d MiB: at most %.1f MiB, %.1f at the start", what, mib, float64(says.Peak)/(1<<20), float64(says.Began)/(1<<20))
					if says.Err != "" {
						t.Fatalf("%s: %s", what, says.Err)
					}
					// the rest is for what a larger program than this one takes anyway
					if took := says.Peak - says.Began; took > c.Memory/4*3 {
						t.Errorf("%s took %d bytes", what, took)
					}
				}
				report("backup")
				c.Conninfo = ""
				c.Into, _ = r.place(t)
				report("restore")
				if mib == 64 {
					c.Into.Delta = &restore.Delta{}
					report("restore over it")
				}
			}
			if data.name != "large" {
				return
			}
			// what is too little is refused, and what it says is enough is enough
			for _, conninfo := range []string{server.ConnString("postgres"), ""} {
				c.Conninfo, c.Memory = conninfo, 8<<20
				c.Into, _ = r.place(t)
				if conninfo != "" {
					c.Backup = "small"
				}
				says := c.do(t)
				if says.Least <= c.Memory || !strings.Contains(says.Err, "8 MiB of memory are too few: it takes at least") {
					t.Fatalf("within 8 MiB: %+v", says)
				}
				c.Memory = says.Least
				if again := c.do(t); again.Err != "" {
					t.Errorf("within the %d bytes that are the least: %s", says.Least, again.Err)
				} else if t.Logf("the least is %d MiB, and the peak with it %.1f MiB", says.Least>>20, float64(again.Peak)/(1<<20)); again.Peak > says.Least+again.Began {
					t.Errorf("within the %d bytes that are the least it took %d, of which %d were taken at the start", says.Least, again.Peak, again.Began)
				}
			}
		})
	}
}
