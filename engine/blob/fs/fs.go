// SPDX-License-Identifier: Apache-2.0

package fs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/kbcli/kbcli/engine/blob"
)

// tmpDir is the folder below the root for what is being written. Its presence
// also says that the root is a store, see checkRoot.
const tmpDir = ".tmp"

const (
	dirMode  = 0o750
	fileMode = 0o640
)

// Store is a directory that holds objects.
type Store struct {
	root  string               // absolute
	fsync func(*os.File) error // (*os.File).Sync, but in tests of its failure

	mu sync.Mutex
	id os.FileInfo // of root, as last believed
}

// Open opens the store in dir, which must be a directory: else ErrNoBucket. It
// writes nothing, so that a store can be read from a read-only file system.
func Open(dir string) (*Store, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", dir, err)
	}
	id, err := os.Stat(abs)
	switch {
	case isAbsent(err):
		return nil, fmt.Errorf("open %s: %w", abs, blob.ErrNoBucket)
	case err != nil:
		return nil, fmt.Errorf("open: %w", classify(err))
	case !id.IsDir():
		return nil, fmt.Errorf("open %s: not a directory: %w", abs, blob.ErrNoBucket)
	}
	return &Store{root: abs, fsync: (*os.File).Sync, id: id}, nil
}

// Create makes dir, with its parents, if it does not exist, and opens it. After
// a nil return the directory survives a power cut.
func Create(dir string) (*Store, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("create %s: %w", dir, err)
	}
	// The lowest ancestor that is there already: from it down all is synced.
	base := abs
	for {
		if _, err := os.Stat(base); err == nil || base == filepath.Dir(base) {
			break
		}
		base = filepath.Dir(base)
	}
	if err := os.MkdirAll(filepath.Join(abs, tmpDir), dirMode); err != nil {
		return nil, fmt.Errorf("create: %w", classify(err))
	}
	s, err := Open(abs)
	if err != nil {
		return nil, err
	}
	for d := abs; ; d = filepath.Dir(d) {
		if err := s.syncDir(d); err != nil {
			return nil, fmt.Errorf("create %s: %w", abs, err)
		}
		if d == base {
			return s, nil
		}
	}
}

func (s *Store) String() string { return s.root }

func (s *Store) path(key string) string { return filepath.Join(s.root, filepath.FromSlash(key)) }

// check is what each verb begins with.
func check(ctx context.Context, verb blob.Verb, key string) error {
	if err := blob.CheckKey(key); err != nil {
		return fmt.Errorf("%s: %w", verb, err)
	}
	if first, _, _ := strings.Cut(key, "/"); first == tmpDir {
		return fmt.Errorf("%s: object key %q: %s is not for objects", verb, key, tmpDir)
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%s %s: %w", verb, key, err)
	}
	return nil
}

// checkRoot says whether what is missing below the root may be called missing.
// A root that is not the directory that was opened is believed if it has a
// .tmp: another mount of the same store has, the empty directory below a mount
// that is gone has not.
func (s *Store) checkRoot() error {
	id, err := os.Stat(s.root)
	if isAbsent(err) || (err == nil && !id.IsDir()) {
		return fmt.Errorf("%s: %w", s.root, blob.ErrNoBucket)
	}
	if err != nil {
		return classify(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if os.SameFile(id, s.id) {
		return nil
	}
	if _, err := os.Stat(filepath.Join(s.root, tmpDir)); err != nil {
		return fmt.Errorf("%s is another directory than the one opened and holds no store: %w", s.root, blob.ErrNoBucket)
	}
	s.id = id
	return nil
}

// absent is the error for an object that the file system says is not there.
func (s *Store) absent(verb blob.Verb, key string) error {
	if err := s.checkRoot(); err != nil {
		return fmt.Errorf("%s %s: %w", verb, key, err)
	}
	return fmt.Errorf("%s %s: %w", verb, key, blob.ErrNotExist)
}

// isAbsent says that the path does not lead to anything. A parent that is a
// file means the same for an object as a parent that is not there.
func isAbsent(err error) bool {
	return errors.Is(err, syscall.ENOENT) || errors.Is(err, syscall.ENOTDIR)
}

// classify wraps an error of the operating system in the sentinel that says what
// can be done about it, if one does.
func classify(err error) error {
	var errno syscall.Errno
	if !errors.As(err, &errno) {
		return err
	}
	switch errno {
	case syscall.ENOSPC, syscall.EDQUOT:
		return fmt.Errorf("%w: %w", blob.ErrNoSpace, err)
	case syscall.EACCES, syscall.EPERM, syscall.EROFS:
		return fmt.Errorf("%w: %w", blob.ErrDenied, err)
	case syscall.ESTALE, syscall.ETIMEDOUT, syscall.ENOTCONN, syscall.ECONNABORTED, syscall.ECONNRESET,
		syscall.ECONNREFUSED, syscall.EHOSTDOWN, syscall.EHOSTUNREACH, syscall.ENETDOWN, syscall.ENETUNREACH,
		syscall.EMFILE, syscall.ENFILE, syscall.EINTR, syscall.EAGAIN:
		// The first ten are those of a network file system; the others are
		// this machine's and pass as well.
		return fmt.Errorf("%w: %w", blob.ErrUnreachable, err)
	}
	return err
}

// syncDir makes the entries of a directory durable. What fsync says is final:
// it never wraps ErrUnreachable.
func (s *Store) syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return classify(err)
	}
	err = s.fsync(f)
	f.Close()
	if err != nil {
		return syncError(err)
	}
	return nil
}

func syncError(err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return fmt.Errorf("%w: %w", blob.ErrNoSpace, err)
	}
	return err
}

// Sweep removes what writers that died left behind: files in .tmp that were last
// written to before olderThan. Give living writers ample time, a day or more.
func (s *Store) Sweep(ctx context.Context, olderThan time.Time) error {
	dir := filepath.Join(s.root, tmpDir)
	entries, err := os.ReadDir(dir)
	if isAbsent(err) {
		if err := s.checkRoot(); err != nil {
			return fmt.Errorf("sweep: %w", err)
		}
		return nil
	}
	if err != nil {
		return fmt.Errorf("sweep: %w", classify(err))
	}
	for _, e := range entries {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("sweep %s: %w", dir, err)
		}
		info, err := e.Info()
		if isAbsent(err) || (err == nil && (!info.Mode().IsRegular() || !info.ModTime().Before(olderThan))) {
			continue
		}
		if err == nil {
			err = os.Remove(filepath.Join(dir, e.Name()))
		}
		if err != nil && !isAbsent(err) {
			return fmt.Errorf("sweep: %w", classify(err))
		}
	}
	return nil
}
