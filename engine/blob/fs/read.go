// SPDX-License-Identifier: Apache-2.0

package fs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"slices"
	"strings"
	"syscall"

	"github.com/kbcli/kbcli/engine/blob"
)

// Stat implements blob.Reader.
func (s *Store) Stat(ctx context.Context, key string) (blob.Info, error) {
	if err := check(ctx, blob.VerbStat, key); err != nil {
		return blob.Info{}, err
	}
	info, err := os.Lstat(s.path(key))
	if isAbsent(err) || (err == nil && !info.Mode().IsRegular()) {
		return blob.Info{}, s.absent(blob.VerbStat, key)
	}
	if err != nil {
		return blob.Info{}, fmt.Errorf("stat %s: %w", key, classify(err))
	}
	return blob.Info{Key: key, Size: info.Size(), ModTime: info.ModTime()}, nil
}

// Get implements blob.Reader.
func (s *Store) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	if err := check(ctx, blob.VerbGet, key); err != nil {
		return nil, err
	}
	if offset < 0 || length < -1 {
		return nil, fmt.Errorf("get %s: range of %d bytes at %d", key, length, offset)
	}
	// Not following a link and not waiting for a pipe: neither is an object.
	f, err := os.OpenFile(s.path(key), os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if isAbsent(err) || errors.Is(err, syscall.ELOOP) {
		return nil, s.absent(blob.VerbGet, key)
	}
	if err != nil {
		return nil, fmt.Errorf("get %s: %w", key, classify(err))
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("get %s: %w", key, classify(err))
	}
	if !info.Mode().IsRegular() {
		f.Close()
		return nil, s.absent(blob.VerbGet, key)
	}
	left := max(info.Size()-offset, 0)
	if length >= 0 {
		left = min(left, length)
	}
	return &body{ctx: ctx, key: key, f: f, next: offset, left: left, info: info}, nil
}

// body reads a range of a file that must have all of it.
type body struct {
	ctx        context.Context
	key        string
	f          *os.File
	next, left int64
	info       os.FileInfo
}

// Version names the file: a Replace makes another one.
func (b *body) Version() string {
	v := fmt.Sprintf("%d-%d", b.info.Size(), b.info.ModTime().UnixNano())
	if st, ok := b.info.Sys().(*syscall.Stat_t); ok {
		v += fmt.Sprintf("-%d-%d", st.Dev, st.Ino)
	}
	return v
}

func (b *body) Read(p []byte) (int, error) {
	if err := b.ctx.Err(); err != nil {
		return 0, fmt.Errorf("get %s: %w", b.key, err)
	}
	if b.left == 0 {
		return 0, io.EOF
	}
	n, err := b.f.ReadAt(p[:min(int64(len(p)), b.left)], b.next)
	b.next += int64(n)
	b.left -= int64(n)
	if n > 0 || len(p) == 0 {
		return n, nil // what else there was to say comes with the next read
	}
	if err == io.EOF {
		return 0, fmt.Errorf("get %s: the file lost %d bytes while it was read: %w", b.key, b.left, io.ErrUnexpectedEOF)
	}
	return 0, fmt.Errorf("get %s: %w", b.key, classify(err))
}

func (b *body) Close() error { return b.f.Close() }

// List implements blob.Lister. It holds the names of one folder at each level
// in memory. Only folders that can hold the prefix are read.
func (s *Store) List(ctx context.Context, prefix string) iter.Seq2[blob.Info, error] {
	return s.ListAfter(ctx, prefix, "")
}

// ListAfter implements blob.Lister. Folders that come before are not read.
func (s *Store) ListAfter(ctx context.Context, prefix, after string) iter.Seq2[blob.Info, error] {
	return func(yield func(blob.Info, error) bool) {
		dir, rest := "", prefix
		if i := strings.LastIndexByte(prefix, '/'); i >= 0 {
			dir, rest = prefix[:i], prefix[i+1:]
			// Nothing can be under what is no key; nor may ".." lead outside.
			if check(context.Background(), blob.VerbList, dir) != nil {
				dir = ""
				rest = "/"
			}
		}
		l := lister{s: s, ctx: ctx, yield: yield, after: after}
		// That there is nothing is said by an empty directory too, so the root
		// is looked at first, and again wherever something is missing.
		err := s.checkRoot()
		if err == nil {
			err = l.folder(dir, rest)
		}
		if err != nil && !errors.Is(err, errStop) {
			yield(blob.Info{}, fmt.Errorf("list %s: %w", prefix, err))
		}
	}
}

type lister struct {
	s     *Store
	ctx   context.Context
	yield func(blob.Info, error) bool
	after string
}

var errStop = errors.New("stop")

// folder yields the objects in dir and below, dir being "" for the root, whose
// part after dir starts with prefix.
func (l *lister) folder(dir, prefix string) error {
	if err := l.ctx.Err(); err != nil {
		return err
	}
	entries, err := os.ReadDir(l.s.path(dir))
	if isAbsent(err) {
		return l.s.checkRoot()
	}
	if err != nil {
		return classify(err)
	}
	// Below a folder all keys go on with a slash, which sorts behind some of the
	// bytes that names may have: a-b, a.b, a/b, a0. So that is how it is sorted.
	type named struct {
		os.DirEntry
		order string
	}
	var todo []named
	for _, e := range entries {
		name := e.Name()
		if !strings.HasPrefix(name, prefix) || (dir == "" && name == tmpDir) {
			continue
		}
		if e.IsDir() {
			todo = append(todo, named{e, name + "/"})
		} else if e.Type().IsRegular() {
			todo = append(todo, named{e, name})
		}
	}
	slices.SortFunc(todo, func(a, b named) int { return strings.Compare(a.order, b.order) })
	for _, e := range todo {
		key := e.Name()
		if dir != "" {
			key = dir + "/" + key
		}
		if e.IsDir() {
			if below := key + "/"; below < l.after && !strings.HasPrefix(l.after, below) {
				continue
			}
			if err := l.folder(key, ""); err != nil {
				return err
			}
			continue
		}
		if err := l.object(e.DirEntry, key); err != nil {
			return err
		}
	}
	return nil
}

func (l *lister) object(e os.DirEntry, key string) error {
	if err := l.ctx.Err(); err != nil {
		return err
	}
	// What somebody else laid here under a name that is no key is not ours.
	if key <= l.after || blob.CheckKey(key) != nil {
		return nil
	}
	info, err := e.Info()
	if isAbsent(err) {
		return l.s.checkRoot() // deleted meanwhile
	}
	if err != nil {
		return classify(err)
	}
	if !l.yield(blob.Info{Key: key, Size: info.Size(), ModTime: info.ModTime()}, nil) {
		return errStop
	}
	return nil
}
