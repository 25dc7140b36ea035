// SPDX-License-Identifier: Apache-2.0

package tests3

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"

	"github.com/gofrs/flock"
)

// version is the release of versitygw that the tests are known to pass with.
const version = "v1.8.0"

var binary = sync.OnceValues(findBinary)

func findBinary() (string, error) {
	if path := os.Getenv("KBCLI_TEST_VERSITYGW"); path != "" {
		return path, nil
	}
	if path, err := exec.LookPath("versitygw"); err == nil {
		return path, nil
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	bin := filepath.Join(cache, "kbcli-test", "bin")
	path := filepath.Join(bin, "versitygw-"+version)
	if err := os.MkdirAll(bin, 0o755); err != nil {
		return "", err
	}
	// Go tests packages side by side: one process builds, the others wait.
	lock := flock.New(filepath.Join(bin, ".lock"))
	if err := lock.Lock(); err != nil {
		return "", fmt.Errorf("lock %s: %w", bin, err)
	}
	defer lock.Close()
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	build, err := os.MkdirTemp(bin, "build")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(build)
	cmd := exec.Command("go", "install", "github.com/versity/versitygw/cmd/versitygw@"+version)
	cmd.Env = append(os.Environ(), "GOBIN="+build, "GOFLAGS=")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build versitygw %s: %w\n%s", version, err, out)
	}
	return path, os.Rename(filepath.Join(build, "versitygw"), path)
}
