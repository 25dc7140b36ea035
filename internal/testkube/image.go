// SPDX-License-Identifier: Apache-2.0

package testkube

import (
	"archive/tar"
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/gofrs/flock"
)

// The images on a node. Nothing can be pulled: imagePullPolicy is Never or IfNotPresent.
const (
	// KbcliImage has kbcli of this work tree and certificates, and nothing else.
	KbcliImage = "kbcli.test/kbcli:test"
	// PostgreSQLImage has PostgreSQL 15, Patroni, and a shell; user 999.
	PostgreSQLImage = "kbcli.test/postgresql:15"
)

// pauseArchive makes the image that holds each pod together.
func pauseArchive(parts, dir string) (string, error) {
	program, err := os.ReadFile(filepath.Join(parts, "pause"))
	if err != nil {
		return "", err
	}
	return layered(dir, "pause.tar", pauseImage, imageConfig{Entrypoint: []string{"/pause"}, User: "65535:65535"}, func(w *tar.Writer) error {
		return addFile(w, "pause", 0o755, program)
	})
}

// kbcliArchive builds kbcli and makes its image, as deploy/image/kbcli.Dockerfile does.
func kbcliArchive(dir string) (string, error) {
	root, err := moduleRoot()
	if err != nil {
		return "", err
	}
	binary := filepath.Join(dir, "kbcli")
	cmd := exec.Command(filepath.Join(root, "deploy", "build.sh"), binary, "test")
	cmd.Env = append(os.Environ(), "GOFLAGS=-buildvcs=false")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build kbcli: %w\n%s", err, out)
	}
	program, err := os.ReadFile(binary)
	if err != nil {
		return "", err
	}
	authorities, err := os.ReadFile("/etc/ssl/certs/ca-certificates.crt")
	if err != nil {
		return "", fmt.Errorf("certificates of the Debian package ca-certificates: %w", err)
	}
	c := imageConfig{Env: []string{"PATH=/usr/bin"}, Entrypoint: []string{"/usr/bin/kbcli"}, User: "65532:65532"}
	return layered(dir, "kbcli.tar", KbcliImage, c, func(w *tar.Writer) error {
		for _, d := range []string{"etc", "etc/ssl", "etc/ssl/certs", "usr", "usr/bin"} {
			if err := addDir(w, d, 0o755); err != nil {
				return err
			}
		}
		if err := addDir(w, "tmp", 0o1777); err != nil {
			return err
		}
		for _, f := range []struct {
			name string
			mode int64
			text []byte
		}{
			{"etc/passwd", 0o644, []byte("root:x:0:0::/:/nonexistent\npostgres:x:999:999::/tmp:/nonexistent\nkbcli:x:65532:65532::/tmp:/nonexistent\n")},
			{"etc/group", 0o644, []byte("root:x:0:\npostgres:x:999:\nkbcli:x:65532:\n")},
			{"etc/ssl/certs/ca-certificates.crt", 0o644, authorities},
			{"usr/bin/kbcli", 0o755, program},
		} {
			if err := addFile(w, f.name, f.mode, f.text); err != nil {
				return err
			}
		}
		return nil
	})
}

// PostgreSQLArchive is the image PostgreSQLImage, made of Debian's packages on the first
// call and kept under a name that is a hash of their versions and of the recipe in
// deploy/image. The network is needed, and root.
func PostgreSQLArchive() (string, error) {
	root, err := moduleRoot()
	if err != nil {
		return "", err
	}
	recipe := filepath.Join(root, "deploy", "image")
	list, err := os.ReadFile(filepath.Join(recipe, "postgresql.packages"))
	if err != nil {
		return "", err
	}
	script, err := os.ReadFile(filepath.Join(recipe, "postgresql.sh"))
	if err != nil {
		return "", err
	}
	cache, err := cacheDir()
	if err != nil {
		return "", err
	}
	lock := flock.New(filepath.Join(cache, ".image.lock"))
	if err := lock.Lock(); err != nil {
		return "", fmt.Errorf("lock %s: %w", cache, err)
	}
	defer lock.Close()
	packages, err := resolvePackages(filepath.Join(cache, "apt"), packageNames(string(list)))
	if err != nil {
		return "", fmt.Errorf("find the packages of the PostgreSQL image: %w", err)
	}
	h := sha256.New()
	fmt.Fprintf(h, "1\n%s\n", script)
	for _, p := range packages {
		fmt.Fprintln(h, p.file)
	}
	dir := filepath.Join(cache, fmt.Sprintf("postgresql-%x", h.Sum(nil)[:8]))
	archive := filepath.Join(dir, "image.tar")
	if _, err := os.Stat(archive); err == nil {
		return archive, touch(dir)
	}
	work, err := os.MkdirTemp(cache, "build-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(work)
	tree := filepath.Join(work, "root")
	if err := unpackPackages(filepath.Join(cache, "apt"), packages, tree); err != nil {
		return "", fmt.Errorf("unpack the packages of the PostgreSQL image: %w", err)
	}
	if err := runIn(tree, script); err != nil {
		return "", fmt.Errorf("finish the PostgreSQL image: %w", err)
	}
	layer := filepath.Join(work, "layer.tar")
	if err := command("tar", "--numeric-owner", "--sort=name", "-C", tree, "-cf", layer, "."); err != nil {
		return "", err
	}
	made := filepath.Join(work, "made")
	if err := os.Mkdir(made, 0o755); err != nil {
		return "", err
	}
	err = writeImage(filepath.Join(made, "image.tar"), PostgreSQLImage, layer, imageConfig{
		Env: []string{
			"PATH=/usr/lib/postgresql/15/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
			"LANG=en_US.UTF-8", "PGDATA=/var/lib/postgresql/data",
		},
		User: "999:999", WorkingDir: "/var/lib/postgresql",
	})
	if err != nil {
		return "", err
	}
	return archive, os.Rename(made, dir)
}

// packageNames are the lines of a list without comments.
func packageNames(list string) []string {
	var names []string
	for line := range strings.Lines(list) {
		name, _, _ := strings.Cut(line, "#")
		if name = strings.TrimSpace(name); name != "" {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// runIn runs a script as root inside a tree of files.
func runIn(tree string, script []byte) error {
	file := filepath.Join(tree, "setup.sh")
	if err := os.WriteFile(file, script, 0o755); err != nil {
		return err
	}
	cmd := exec.Command("chroot", tree, "/bin/dash", "/setup.sh")
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8"}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%w\n%s", err, out)
	}
	return os.Remove(file)
}
