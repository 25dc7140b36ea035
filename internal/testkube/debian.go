// SPDX-License-Identifier: Apache-2.0

package testkube

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/kbcli/kbcli/internal/testapt"
)

// aptAge is how old the lists of packages may be.
const aptAge = 7 * 24 * time.Hour

// debianPackage is one that apt would install.
type debianPackage struct{ file string } // its name, version and architecture

// resolvePackages names the packages that a machine with nothing on it would get if names
// were installed, sorted. apt's state is the directory private: the machine's lists and
// installed packages are neither used nor touched.
func resolvePackages(private string, names []string) ([]debianPackage, error) {
	if err := prepareApt(private); err != nil {
		return nil, err
	}
	out, err := testapt.Apt{Dir: private}.Get("/", append([]string{"install", "--print-uris", "--yes", "--no-install-recommends"}, names...)...)
	if err != nil {
		return nil, err
	}
	var all []debianPackage
	for line := range strings.Lines(out) {
		f := strings.Fields(line)
		if len(f) >= 3 && strings.HasPrefix(f[0], "'") {
			all = append(all, debianPackage{f[1]})
		}
	}
	if len(all) < len(names) {
		return nil, fmt.Errorf("apt named %d packages for %d", len(all), len(names))
	}
	slices.SortFunc(all, func(a, b debianPackage) int { return strings.Compare(a.file, b.file) })
	return all, nil
}

// prepareApt makes or renews lists of the machine's own release.
func prepareApt(private string) error {
	stamp := filepath.Join(private, "updated")
	if st, err := os.Stat(stamp); err == nil && time.Since(st.ModTime()) < aptAge {
		return nil
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	sources, err := debianSources()
	if err != nil {
		return err
	}
	apt := testapt.Apt{Dir: private}
	if err := apt.Prepare(sources); err != nil {
		return err
	}
	if _, err := apt.Get("/", "update"); err != nil {
		return err
	}
	return os.WriteFile(stamp, nil, 0o644)
}

// debianSources are the suites of the machine's own release that it takes packages from,
// security among them, and nobody else's.
func debianSources() (string, error) {
	release, err := os.ReadFile("/etc/os-release")
	if err != nil {
		return "", err
	}
	var codename string
	for line := range strings.Lines(string(release)) {
		if v, ok := strings.CutPrefix(strings.TrimSpace(line), "VERSION_CODENAME="); ok {
			codename = strings.Trim(v, `"`)
		}
	}
	out, err := exec.Command("apt-get", "indextargets", "--format", "$(CREATED_BY)|$(RELEASE)|$(COMPONENT)|$(REPO_URI)").Output()
	if err != nil {
		return "", fmt.Errorf("ask apt for its sources: %w", err)
	}
	var lines []string
	for line := range strings.Lines(string(out)) {
		f := strings.Split(strings.TrimSpace(line), "|")
		if len(f) != 4 || f[0] != "Packages" || f[2] != "main" || !strings.Contains(f[3], "debian") {
			continue
		}
		suite := f[1]
		if suite != codename && suite != codename+"-security" && suite != codename+"-updates" {
			continue
		}
		lines = append(lines, fmt.Sprintf("deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] %s %s main\n", f[3], suite))
	}
	slices.Sort(lines)
	lines = slices.Compact(lines)
	if codename == "" || len(lines) == 0 {
		return "", errors.New("apt's sources name no mirror of this machine's release")
	}
	return strings.Join(lines, ""), nil
}

// unpackPackages fetches packages and lays their files into tree, a new directory with
// merged /usr. No package's script runs.
func unpackPackages(private string, packages []debianPackage, tree string) error {
	var wanted []string
	for _, p := range packages {
		name, version, err := packageVersion(p.file)
		if err != nil {
			return err
		}
		wanted = append(wanted, name+"="+version)
	}
	debs := filepath.Join(private, "debs")
	if err := os.RemoveAll(debs); err != nil {
		return err
	}
	if err := os.MkdirAll(debs, 0o755); err != nil {
		return err
	}
	defer os.RemoveAll(debs)
	// apt checks what it fetches
	if _, err := (testapt.Apt{Dir: private}).Get(debs, append([]string{"download"}, wanted...)...); err != nil {
		return err
	}
	for _, d := range []string{"bin", "sbin", "lib", "lib64"} {
		if err := os.MkdirAll(filepath.Join(tree, "usr", d), 0o755); err != nil {
			return err
		}
		if err := os.Symlink("usr/"+d, filepath.Join(tree, d)); err != nil {
			return err
		}
	}
	if err := os.Chmod(tree, 0o755); err != nil {
		return err
	}
	files, err := filepath.Glob(filepath.Join(debs, "*.deb"))
	if err != nil || len(files) != len(packages) {
		return errors.Join(err, fmt.Errorf("apt-get left %d packages, not %d", len(files), len(packages)))
	}
	for _, f := range files {
		// A package that has /bin/x must not replace the link bin by a directory.
		if err := command("sh", "-c", `dpkg-deb --fsys-tarfile "$1" | tar -x --keep-directory-symlink -C "$2"`, "sh", f, tree); err != nil {
			return fmt.Errorf("unpack %s: %w", filepath.Base(f), err)
		}
	}
	return nil
}

// packageVersion splits name_version_architecture.deb; a colon in the version is %3a.
func packageVersion(file string) (name, version string, err error) {
	f := strings.Split(strings.TrimSuffix(file, ".deb"), "_")
	if len(f) != 3 {
		return "", "", fmt.Errorf("%s is not the name of a package's file", file)
	}
	return f[0], strings.ReplaceAll(f[1], "%3a", ":"), nil
}
