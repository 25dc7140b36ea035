// SPDX-License-Identifier: Apache-2.0

package testapt

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Apt is apt with a directory of its own, which it leaves behind. It is for one process
// at a time.
type Apt struct{ Dir string }

// Prepare makes what is missing of the directory, and says where packages come from, in
// the words of sources.list.
func (a Apt) Prepare(sources string) error {
	for _, d := range []string{"state/lists/partial", "cache/archives/partial"} {
		if err := os.MkdirAll(filepath.Join(a.Dir, d), 0o755); err != nil {
			return err
		}
	}
	if err := os.WriteFile(filepath.Join(a.Dir, "sources.list"), []byte(sources), 0o644); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(a.Dir, "status"), nil, 0o644)
}

// Get runs apt-get in the directory in, where it puts what it downloads, and gives what
// it prints.
func (a Apt) Get(in string, args ...string) (string, error) {
	options := []string{
		"-qq",
		"-o", "Dir::State=" + filepath.Join(a.Dir, "state"),
		"-o", "Dir::State::status=" + filepath.Join(a.Dir, "status"),
		"-o", "Dir::Cache=" + filepath.Join(a.Dir, "cache"),
		"-o", "Dir::Etc::SourceList=" + filepath.Join(a.Dir, "sources.list"),
		"-o", "Dir::Etc::SourceParts=/dev/null",
		"-o", "Dir::Etc::Preferences=/dev/null",
		"-o", "Dir::Etc::PreferencesParts=/dev/null",
		// An archived suite is signed, and its date is long past.
		"-o", "Acquire::Check-Valid-Until=false",
		"-o", "Acquire::Languages=none",
		"-o", "Acquire::Retries=3",
		// apt would fetch as the user _apt, who may not write here.
		"-o", "APT::Sandbox::User=",
		// Hooks of the machine's own configuration would act on its own cache.
		"-o", "APT::Update::Post-Invoke-Success::=true",
	}
	c := exec.Command("apt-get", append(options, args...)...)
	c.Dir = in
	var said strings.Builder
	c.Stderr = &said
	out, err := c.Output()
	if err != nil {
		return "", fmt.Errorf("apt-get %s: %w: %s", args[0], err, strings.TrimSpace(said.String()))
	}
	return string(out), nil
}
