// SPDX-License-Identifier: Apache-2.0

package local

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/kbcli/kbcli/api/v1alpha1"
)

// secretGrace is how long keys that no BackupRepo names any more stay, so that a change
// of keys can be undone; secretInterval is how often it is looked for them.
const (
	secretGrace    = 24 * time.Hour
	secretInterval = 10 * time.Minute
)

// secretSweep remembers since when this process has seen keys that nobody names. It is
// used by one goroutine.
type secretSweep struct {
	looked time.Time
	unused map[string]time.Time // by file name
}

// sweep deletes the files of dir that none of repos names and has named for secretGrace.
// repos must be all that there are.
func (s *secretSweep) sweep(dir string, repos []*v1alpha1.BackupRepo, now time.Time) error {
	if !s.looked.IsZero() && now.Sub(s.looked) < secretInterval {
		return nil
	}
	s.looked = now
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("look for keys that nobody uses: %w", err)
	}
	used := map[string]bool{}
	for _, o := range repos {
		if o.Spec.S3 != nil {
			used[filepath.Clean(o.Spec.S3.CredentialsFile)] = true
		}
		if o.Spec.Sealing != nil {
			used[filepath.Clean(o.Spec.Sealing.IdentityFile)] = true
		}
	}
	before := s.unused
	s.unused = map[string]time.Time{}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		if !e.Type().IsRegular() || used[path] {
			continue
		}
		since, ok := before[e.Name()]
		if !ok {
			since = now
		}
		if now.Sub(since) < secretGrace {
			s.unused[e.Name()] = since
			continue
		}
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("delete keys that nobody uses: %w", err)
		}
	}
	return nil
}
