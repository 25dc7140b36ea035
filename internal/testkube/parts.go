// SPDX-License-Identifier: Apache-2.0

package testkube

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/gofrs/flock"
)

// kubernetesVersion is what the programs say they are; e2e/node/parts/go.mod has it too.
const kubernetesVersion = "1.35.4"

// kubeNames are the names that the one program of Kubernetes goes by.
var kubeNames = []string{"etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy", "kubectl"}

// foreign are programs built as their project has them.
var foreign = []string{
	"github.com/kubernetes-csi/external-snapshotter/v8/cmd/csi-snapshotter",
	"github.com/kubernetes-csi/external-snapshotter/v8/cmd/snapshot-controller",
}

// crdModule has the definitions of VolumeSnapshot and its two companions.
const crdModule = "github.com/kubernetes-csi/external-snapshotter/client/v8"

// keepUnused is how long programs of other versions stay in the cache.
const keepUnused = 14 * 24 * time.Hour

// Parts is the directory with the programs that a node is made of, and with the folder
// crds. It builds them when they are not there: about 700 CPU-seconds if Go's own cache is
// cold too. What the build has to say goes to progress.
func Parts(progress io.Writer) (string, error) {
	source, err := partsSource()
	if err != nil {
		return "", err
	}
	sum, err := hashTree(source)
	if err != nil {
		return "", err
	}
	all, err := cacheDir()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(all, sum)
	if _, err := os.Stat(dir); err == nil {
		return dir, touch(dir)
	}
	lock := flock.New(filepath.Join(all, ".lock"))
	if err := lock.Lock(); err != nil {
		return "", fmt.Errorf("lock %s: %w", all, err)
	}
	defer lock.Close()
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	build, err := os.MkdirTemp(all, "build-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(build)
	if err := buildParts(source, build, progress); err != nil {
		return "", fmt.Errorf("build the parts of a node: %w", err)
	}
	if err := os.Chmod(build, 0o755); err != nil {
		return "", err
	}
	if err := os.Rename(build, dir); err != nil {
		return "", err
	}
	return dir, removeUnused(all, sum)
}

// touch notes that a folder of the cache is in use: keepUnused counts from here.
func touch(dir string) error {
	now := time.Now()
	return os.Chtimes(dir, now, now)
}

// cacheDir holds one folder for each version of the parts, and the images.
func cacheDir() (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(cache, "kbcli-test", "node")
	return dir, os.MkdirAll(dir, 0o755)
}

// moduleRoot is where the go.mod of kbcli lies: go test runs a package in its own folder.
func moduleRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		text, err := os.ReadFile(filepath.Join(dir, "go.mod"))
		if err == nil && strings.HasPrefix(string(text), "module github.com/kbcli/kbcli\n") {
			return dir, nil
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return "", err
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", errors.New("not inside a checkout of kbcli: there the sources of the node's parts lie")
		}
		dir = parent
	}
}

func partsSource() (string, error) {
	root, err := moduleRoot()
	return filepath.Join(root, "e2e", "node", "parts"), err
}

// hashTree is a name for what would be built from the sources in dir.
func hashTree(dir string) (string, error) {
	h := sha256.New()
	fmt.Fprintf(h, "%s %s\n", runtime.Version(), kubernetesVersion)
	err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || filepath.Ext(name) == ".md" {
			return err
		}
		text, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(dir, name)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(h, "%s %x\n", rel, sha256.Sum256(text))
		return err
	})
	return hex.EncodeToString(h.Sum(nil))[:16], err
}

func buildParts(source, into string, progress io.Writer) error {
	fmt.Fprintln(progress, "testkube: building Kubernetes; with nothing cached this takes 6 minutes on two free cores")
	v := strings.Split(kubernetesVersion, ".")
	var ldflags strings.Builder
	ldflags.WriteString("-s -w")
	for _, set := range []string{
		"k8s.io/component-base/version.gitVersion=v" + kubernetesVersion,
		"k8s.io/component-base/version.gitMajor=" + v[0],
		"k8s.io/component-base/version.gitMinor=" + v[1],
		"k8s.io/component-base/version.gitTreeState=clean",
		"k8s.io/client-go/pkg/version.gitVersion=v" + kubernetesVersion,
	} {
		ldflags.WriteString(" -X " + set)
	}
	// Others work on this machine too, and a test run has several packages at once.
	args := []string{"-n", "10", "go", "build", "-buildvcs=false", "-trimpath", "-ldflags", ldflags.String(), "-o", into + "/", "./kube", "./dns", "./csi", "./pause"}
	if _, err := goCommand(source, progress, "nice", append(args, foreign...)...); err != nil {
		return err
	}
	for _, name := range kubeNames {
		if err := os.Symlink("kube", filepath.Join(into, name)); err != nil {
			return err
		}
	}
	out, err := goCommand(source, progress, "go", "list", "-m", "-f", "{{.Dir}}", crdModule)
	if err != nil {
		return err
	}
	return copyCRDs(filepath.Join(strings.TrimSpace(string(out)), "config", "crd"), filepath.Join(into, "crds"))
}

func goCommand(dir string, progress io.Writer, name string, args ...string) ([]byte, error) {
	cmd := exec.Command(name, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=", "GOWORK=off")
	cmd.Stderr = progress
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("%s in %s: %w", strings.Join(args, " "), dir, err)
	}
	return out, nil
}

func copyCRDs(from, to string) error {
	names, err := filepath.Glob(filepath.Join(from, "snapshot.storage.k8s.io_*.yaml"))
	if err != nil {
		return err
	}
	if len(names) < 3 {
		return fmt.Errorf("%s has %d definitions of snapshots, 3 are needed", from, len(names))
	}
	if err := os.Mkdir(to, 0o755); err != nil {
		return err
	}
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(to, filepath.Base(name)), text, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// removeUnused takes away versions that nobody has asked for in a while: each has 300 MB.
func removeUnused(all, inUse string) error {
	entries, err := os.ReadDir(all)
	if err != nil {
		return err
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			return err
		}
		if !e.IsDir() || e.Name() == inUse || time.Since(info.ModTime()) < keepUnused {
			continue
		}
		if err := os.RemoveAll(filepath.Join(all, e.Name())); err != nil {
			return err
		}
	}
	return nil
}
