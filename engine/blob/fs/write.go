// SPDX-License-Identifier: Apache-2.0

package fs

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/kbcli/kbcli/engine/blob"
)

// placeTries bounds how often a folder may vanish between its making and the
// naming of the object in it, by Deletes that prune. Each time another Delete
// must have emptied it, so the bound is never met but in a defect.
const placeTries = 1000

var (
	errFolder = errors.New("the key is the folder of other objects")
	errParent = errors.New("a part of the key is itself an object")
)

// Put implements blob.Store.
func (s *Store) Put(ctx context.Context, key string, body blob.Body) error {
	if err := check(ctx, blob.VerbPut, key); err != nil {
		return err
	}
	// An early look spares writing what cannot be placed; the link decides.
	if info, err := os.Lstat(s.path(key)); err == nil && !info.IsDir() {
		return s.exists(key)
	}
	return s.store(ctx, blob.VerbPut, key, body, s.link)
}

// Replace implements blob.Store.
func (s *Store) Replace(ctx context.Context, key string, body blob.Body) error {
	if err := check(ctx, blob.VerbReplace, key); err != nil {
		return err
	}
	return s.store(ctx, blob.VerbReplace, key, body, os.Rename)
}

// store writes body to a temporary file, makes it durable, and has place give
// it the object's name.
func (s *Store) store(ctx context.Context, verb blob.Verb, key string, body blob.Body, place func(tmp, target string) error) error {
	if err := s.checkRoot(); err != nil {
		return fmt.Errorf("%s %s: %w", verb, key, err)
	}
	tmp, err := s.write(ctx, body)
	if err != nil {
		return fmt.Errorf("%s %s: %w", verb, key, err)
	}
	// After a rename there is nothing to remove any more, which is as well.
	defer os.Remove(tmp)
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%s %s: %w", verb, key, err)
	}

	err = s.place(tmp, key, place)
	if errors.Is(err, os.ErrExist) {
		return s.exists(key)
	}
	if err != nil {
		return fmt.Errorf("%s %s: %w", verb, key, err)
	}
	if err := s.syncUp(key); err != nil {
		if verb == blob.VerbPut {
			// Were it left, a second Put would find it, ask for a sync that the
			// kernel may now answer with success, and call it durable.
			syscall.Unlink(s.path(key))
		}
		return fmt.Errorf("%s %s: sync directory: %w", verb, key, err)
	}
	return nil
}

// exists is what Put answers when the object is there. Whoever put it there may
// have died before its directory was on the disk; the caller may rely on it, so
// it is synced now.
func (s *Store) exists(key string) error {
	if err := s.syncUp(key); err != nil {
		return fmt.Errorf("put %s: object exists: sync directory: %w", key, err)
	}
	return fmt.Errorf("put %s: %w", key, blob.ErrExist)
}

// write makes a durable file in .tmp with the bytes of body.
func (s *Store) write(ctx context.Context, body blob.Body) (_ string, err error) {
	tmp := filepath.Join(s.root, tmpDir, rand.Text())
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, fileMode)
	if isAbsent(err) {
		if err := s.makeTmp(); err != nil {
			return "", err
		}
		f, err = os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, fileMode)
	}
	if err != nil {
		return "", classify(err)
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(tmp)
		}
	}()
	if err := copyBody(ctx, f, body); err != nil {
		return "", err
	}
	if err := s.fsync(f); err != nil {
		return "", fmt.Errorf("sync: %w", syncError(err))
	}
	if err := f.Close(); err != nil {
		return "", fmt.Errorf("close: %w", syncError(err))
	}
	return tmp, nil
}

// makeTmp makes .tmp in a root that has none yet, not in one that is not ours.
func (s *Store) makeTmp() error {
	if err := s.checkRoot(); err != nil {
		return err
	}
	if err := os.Mkdir(filepath.Join(s.root, tmpDir), dirMode); err != nil && !errors.Is(err, os.ErrExist) {
		if isAbsent(err) {
			return fmt.Errorf("%s: %w", s.root, blob.ErrNoBucket)
		}
		return classify(err)
	}
	return nil
}

// piece is what is written at once. For more the kernel takes memory in large pieces, which
// are those that the host of a virtual machine has taken back, and gets them again page by page.
const piece = 64 << 10

func copyBody(ctx context.Context, f *os.File, body blob.Body) error {
	buf := make([]byte, min(body.Size(), piece))
	for off := int64(0); off < body.Size(); {
		if err := ctx.Err(); err != nil {
			return err
		}
		part := buf[:min(int64(len(buf)), body.Size()-off)]
		if n, err := body.ReadAt(part, off); n < len(part) {
			if err == nil || err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return fmt.Errorf("read body: %w", err)
		}
		if _, err := f.Write(part); err != nil {
			return classify(err)
		}
		off += int64(len(part))
	}
	return nil
}

// link gives tmp the name target unless target exists: then os.ErrExist.
func (s *Store) link(tmp, target string) error {
	err := os.Link(tmp, target)
	switch {
	case errors.Is(err, os.ErrExist):
		// An NFS client that sends a request again, because the answer was
		// lost, is told that its own link exists.
		a, aerr := os.Lstat(tmp)
		b, berr := os.Lstat(target)
		if aerr == nil && berr == nil && os.SameFile(a, b) {
			return nil
		}
	case errors.Is(err, syscall.EPERM), errors.Is(err, syscall.ENOTSUP), errors.Is(err, syscall.ENOSYS), errors.Is(err, syscall.EMLINK):
		// A file system without hard links.
		if rerr := renameNew(tmp, target); rerr == nil || errors.Is(rerr, os.ErrExist) || isAbsent(rerr) {
			return rerr
		}
	}
	return err
}

// place calls name(tmp, path of key) with the parents made, and copes with
// Deletes that remove parents, and with an empty folder in the object's place.
func (s *Store) place(tmp, key string, name func(tmp, target string) error) error {
	target := s.path(key)
	for range placeTries {
		err := name(tmp, target)
		switch {
		case err == nil:
			return nil
		case errors.Is(err, syscall.ENOTDIR):
			return fmt.Errorf("%w: %w", errParent, err)
		case errors.Is(err, syscall.ENOENT):
			if err := s.makeParents(key); err != nil {
				return err
			}
		case errors.Is(err, os.ErrExist), errors.Is(err, syscall.EISDIR):
			info, serr := os.Lstat(target)
			if isAbsent(serr) {
				continue // deleted again
			}
			if serr != nil {
				return classify(serr)
			}
			if !info.IsDir() {
				if errors.Is(err, syscall.EISDIR) {
					continue // a folder no more
				}
				return err
			}
			// A Delete that has not pruned yet, or died before it did.
			if rerr := syscall.Rmdir(target); rerr != nil && !isAbsent(rerr) {
				return errFolder
			}
		default:
			return classify(err)
		}
	}
	return fmt.Errorf("folder of %s vanished %d times", key, placeTries)
}

// makeParents makes the folders of key below the root, and never the root: that
// one is gone if it is gone.
func (s *Store) makeParents(key string) error {
	for i, c := range []byte(key) {
		if c != '/' {
			continue
		}
		err := os.Mkdir(s.path(key[:i]), dirMode)
		switch {
		case err == nil, errors.Is(err, os.ErrExist):
		case errors.Is(err, syscall.ENOTDIR):
			return fmt.Errorf("%w: %w", errParent, err)
		case errors.Is(err, syscall.ENOENT):
			// The folder above was pruned, place tries again; or the root went.
			return s.checkRoot()
		default:
			return classify(err)
		}
	}
	return s.checkRoot()
}

// syncUp makes the folders of key durable, up to the root. It does not trust
// that a folder that was found is on the disk: who made it may not be done.
func (s *Store) syncUp(key string) error {
	for {
		i := strings.LastIndexByte(key, '/')
		dir := s.root
		if i >= 0 {
			dir = s.path(key[:i])
		}
		// A folder that is gone was pruned after the object in it was deleted:
		// what remains to be made durable is further up.
		if err := s.syncDir(dir); err != nil && (!isAbsent(err) || i < 0) {
			if isAbsent(err) {
				return fmt.Errorf("%s: %w", s.root, blob.ErrNoBucket)
			}
			return err
		}
		if i < 0 {
			return nil
		}
		key = key[:i]
	}
}

// Delete implements blob.Store. It also removes the folders that it empties.
func (s *Store) Delete(ctx context.Context, key string) error {
	if err := check(ctx, blob.VerbDelete, key); err != nil {
		return err
	}
	// Not os.Remove, here and below: it would take a folder for an object that
	// is gone, and an object for a folder that is gone.
	err := syscall.Unlink(s.path(key))
	if info, serr := os.Lstat(s.path(key)); err != nil && serr == nil && info.IsDir() {
		return nil // a folder is no object; the error for it differs by system
	}
	if err != nil && !isAbsent(err) {
		return fmt.Errorf("delete %s: %w", key, classify(err))
	}
	if err != nil {
		if err := s.checkRoot(); err != nil {
			return fmt.Errorf("delete %s: %w", key, err)
		}
		// Another Delete may have been first and not be done with syncing.
	}
	dir := key
	for {
		i := strings.LastIndexByte(dir, '/')
		if i < 0 {
			dir = ""
			break
		}
		dir = dir[:i]
		if err := syscall.Rmdir(s.path(dir)); err != nil && !errors.Is(err, syscall.ENOENT) {
			break // not empty, or not ours to remove
		}
	}
	// The lowest folder that is left holds the entry that must go.
	for {
		err := s.syncDir(s.path(dir))
		if err == nil {
			return nil
		}
		if !isAbsent(err) || dir == "" {
			return fmt.Errorf("delete %s: sync directory: %w", key, err)
		}
		dir = dir[:max(strings.LastIndexByte(dir, '/'), 0)]
	}
}
