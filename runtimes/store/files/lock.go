// SPDX-License-Identifier: Apache-2.0

package files

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/gofrs/flock"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/internal/atomicfile"
)

const (
	lockDir = ".locks"
	// lockPause is how often a lock that somebody holds is asked for. They are
	// held for about two fsyncs.
	lockPause = 2 * time.Millisecond
)

// locked runs f while no other writer has the object, in this process or
// another. The lock files are only for their owner: whoever may only read
// must not be able to hold up who writes.
func (s *Store) locked(ctx context.Context, p place, f func() error) (err error) {
	path := filepath.Join(s.dir, lockDir, p.kind.Plural, p.key.Namespace, p.key.Name)
	if err := makeDir(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("lock %v: %w", p.key, err)
	}
	writers := flock.New(s.writersPath())
	if ok, err := writers.TryRLockContext(ctx, lockPause); err != nil || !ok {
		return fmt.Errorf("lock %v: %w", p.key, err)
	}
	defer func() { err = errors.Join(err, writers.Unlock()) }()

	lock, err := acquire(ctx, path)
	if err != nil {
		return fmt.Errorf("lock %v: %w", p.key, err)
	}
	defer func() {
		// Removed while it is held, so that nobody's lock is pulled away: see acquire.
		err = errors.Join(err, os.Remove(path), lock.Unlock())
	}()
	return f()
}

// acquire takes the lock on the file that is at path. A file that was removed
// while it was waited for locks nothing: then it begins again.
func acquire(ctx context.Context, path string) (*flock.Flock, error) {
	for {
		lock := flock.New(path)
		if ok, err := lock.TryLockContext(ctx, lockPause); err != nil || !ok {
			return nil, errors.Join(err, lock.Close())
		}
		held, err := lock.Stat()
		if err != nil {
			return nil, errors.Join(err, lock.Unlock())
		}
		if there, err := os.Stat(path); err == nil && os.SameFile(held, there) {
			return lock, nil
		}
		if err := lock.Unlock(); err != nil {
			return nil, err
		}
	}
}

func (s *Store) writersPath() string { return filepath.Join(s.dir, lockDir, "writers") }

// sweep removes the temporary files of writers that were killed, unless
// somebody is writing: then another opening will.
func (s *Store) sweep() error {
	if err := makeDir(filepath.Join(s.dir, lockDir), 0o700); err != nil {
		return err
	}
	writers := flock.New(s.writersPath())
	if ok, err := writers.TryLock(); err != nil || !ok {
		return err
	}
	var errs []error
	for _, k := range v1alpha1.Kinds() {
		dirs := []string{""}
		if k.Namespaced {
			namespaces, err := s.namespaces(k)
			dirs, errs = namespaces, append(errs, err)
		}
		for _, ns := range dirs {
			errs = append(errs, atomicfile.RemoveTemp(filepath.Join(s.dir, k.Plural, ns)))
		}
	}
	return errors.Join(append(errs, writers.Unlock())...)
}
