// SPDX-License-Identifier: Apache-2.0

package local

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kbcli/kbcli/api/v1alpha1"
)

// TestSweepSecrets: keys go a day after the last BackupRepo that named them, and not
// where they were named again meanwhile.
func TestSweepSecrets(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"a", "a-20260101000000", "a-20260201000000"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "folder"), 0o700); err != nil {
		t.Fatal(err)
	}
	repo := func(name string) []*v1alpha1.BackupRepo {
		o := &v1alpha1.BackupRepo{}
		o.Spec.S3 = &v1alpha1.S3Repo{CredentialsFile: filepath.Join(dir, name)}
		return []*v1alpha1.BackupRepo{o, {}}
	}
	var s secretSweep
	now := time.Now()
	for _, c := range []struct {
		after time.Duration
		names string
		left  []string
	}{
		{0, "a", []string{"a", "a-20260101000000", "a-20260201000000"}},
		{20 * time.Hour, "a-20260201000000", []string{"a", "a-20260101000000", "a-20260201000000"}},
		{5 * time.Hour, "a-20260201000000", []string{"a", "a-20260201000000"}},
		{time.Hour, "a", []string{"a", "a-20260201000000"}},
		{20 * time.Hour, "a-20260201000000", []string{"a", "a-20260201000000"}},
		{23 * time.Hour, "a-20260201000000", []string{"a", "a-20260201000000"}},
		{time.Hour, "a-20260201000000", []string{"a-20260201000000"}},
	} {
		now = now.Add(c.after)
		if err := s.sweep(dir, repo(c.names), now); err != nil {
			t.Fatal(err)
		}
		var left []string
		all, err := filepath.Glob(filepath.Join(dir, "a*"))
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range all {
			left = append(left, filepath.Base(path))
		}
		if diff := cmp.Diff(c.left, left); diff != "" {
			t.Errorf("after %s more, with %s: keys (-want +got):\n%s", c.after, c.names, diff)
		}
	}
	if err := s.sweep(filepath.Join(dir, "none"), nil, now.Add(time.Hour)); err != nil {
		t.Errorf("without a directory: %v", err)
	}
}
