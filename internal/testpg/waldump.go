// SPDX-License-Identifier: Apache-2.0

package testpg

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kbcli/kbcli/internal/testapt"
)

// debianWaldump tells which Debian suite has pg_waldump of a release, and what
// it needs. Where a C library is among the packages the program is run by that
// library's own loader, for the machine's is too old for it.
var debianWaldump = map[int]struct {
	suite    string
	packages []string
}{
	13: {"bullseye", []string{"postgresql-13"}},
	17: {"trixie", []string{"postgresql-17", "libc6", "libgcc-s1", "liblz4-1", "libzstd1"}},
	18: {"forky", []string{"postgresql-18", "libc6", "libgcc-s1", "liblz4-1", "libzstd1"}},
}

// Waldump is the start of a command line that runs pg_waldump of this release:
// the program, and arguments that come before its own. It is fetched when first
// asked for. 14 and 16 have none: asking is fatal.
func (i Install) Waldump(t testing.TB) []string {
	t.Helper()
	if exe := filepath.Join(i.BinDir, "pg_waldump"); executable(exe) {
		return []string{exe}
	}
	from, ok := debianWaldump[i.Major]
	if !ok {
		t.Fatalf("testpg: no pg_waldump of PostgreSQL %d is to be had", i.Major)
	}
	dir := cached(t, fmt.Sprintf("waldump-%d", i.Major), func(dir string) error {
		return fetchDebian(from.suite, from.packages, dir)
	})
	exe := filepath.Join(dir, fmt.Sprintf("usr/lib/postgresql/%d/bin/pg_waldump", i.Major))
	lib := filepath.Join(dir, "usr/lib/x86_64-linux-gnu")
	if loader := filepath.Join(lib, "ld-linux-x86-64.so.2"); executable(loader) {
		return []string{loader, "--library-path", lib, exe}
	}
	return []string{exe}
}

func executable(name string) bool {
	st, err := os.Stat(name)
	return err == nil && st.Mode().IsRegular() && st.Mode()&0o111 != 0
}

// fetchDebian unpacks the current versions of packages of another suite of the
// machine's own mirror into dir. apt's state and cache are private to the call:
// the machine's package lists and installed packages are neither used nor touched.
func fetchDebian(suite string, packages []string, dir string) error {
	mirror, err := debianMirror()
	if err != nil {
		return err
	}
	private, err := os.MkdirTemp(filepath.Dir(dir), "apt-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(private)
	apt := testapt.Apt{Dir: private}
	if err := apt.Prepare(fmt.Sprintf("deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] %s %s main\n", mirror, suite)); err != nil {
		return err
	}
	if _, err := apt.Get(private, "update"); err != nil {
		return err
	}
	debs := filepath.Join(private, "debs")
	if err := os.Mkdir(debs, 0o755); err != nil {
		return err
	}
	if _, err := apt.Get(debs, append([]string{"download"}, packages...)...); err != nil {
		return err
	}
	files, err := filepath.Glob(filepath.Join(debs, "*.deb"))
	if err != nil || len(files) != len(packages) {
		return fmt.Errorf("apt-get left %d packages, not %d", len(files), len(packages))
	}
	for _, f := range files {
		if _, err := run(debs, "dpkg-deb", "-x", f, dir); err != nil {
			return err
		}
	}
	return nil
}

// debianMirror is the address that this machine takes its own release from.
func debianMirror() (string, error) {
	codename, err := debianCodename()
	if err != nil {
		return "", err
	}
	out, err := run("/", "apt-get", "indextargets", "--format", "$(CREATED_BY)|$(RELEASE)|$(REPO_URI)")
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(out)) {
		f := strings.Split(strings.TrimSpace(line), "|")
		if len(f) != 3 || f[0] != "Packages" {
			continue
		}
		// RELEASE is the suite as the sources spell it.
		if f[1] == codename || f[1] == "stable" || f[1] == "oldstable" {
			return f[2], nil
		}
	}
	return "", fmt.Errorf("apt's sources name no mirror of %s", codename)
}

func debianCodename() (string, error) {
	b, err := os.ReadFile("/etc/os-release")
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(strings.TrimSpace(line), "VERSION_CODENAME="); ok {
			return strings.Trim(v, `"`), nil
		}
	}
	return "", fmt.Errorf("/etc/os-release has no VERSION_CODENAME")
}
