// SPDX-License-Identifier: Apache-2.0

package restore

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"

	"github.com/cespare/xxhash/v2"

	"github.com/kbcli/kbcli/engine/pg"
	"github.com/kbcli/kbcli/engine/repository"
)

// Delta makes Fetch take what the directory holds already: a server's that is stopped, or
// what an earlier restore left. Afterwards it is to the byte what a restore into an empty
// directory gives. See Plan.CheckReuse for which directories it may be.
//
// What is right is told by its checksum and by nothing else. The repository has one for
// each frame, at most 1 MiB of one file, or of several: a frame is fetched unless all of
// it is in the directory, also if one page of it differs, and of one that was fetched only
// the pages that differ are written. Of a frame of which the backup uses a part, as of
// those that an incremental backup took over, there is no checksum: it is fetched, and
// compared.
//
// The numbers are set by Fetch.
type Delta struct {
	Kept    int64 // bytes of files that were right
	Fetched int64 // bytes of the repository's frames
	Written int64 // bytes of files
}

// deltaWork counts for a Delta.
type deltaWork struct{ kept, fetched, written atomic.Int64 }

// comparePage is how much is written where one byte differs.
const comparePage = 8 << 10

// prune removes what the backup does not have in dir, which is at in it: other files,
// what is not of the kind that it should be, files that something else may hold by another
// name, and those that their owner may not write to. Links are not followed.
func (f *fetcher) prune(root *os.Root, dir, at string) error {
	entries, err := fs.ReadDir(root.FS(), dir)
	if err != nil {
		return err
	}
	for _, d := range entries {
		name, p := path.Join(dir, d.Name()), path.Join(at, d.Name())
		keep, err := f.keeps(d, p)
		if err != nil {
			return err
		}
		if !keep {
			if err := root.RemoveAll(name); err != nil {
				return err
			}
			continue
		}
		if d.IsDir() {
			if err := f.prune(root, name, p); err != nil {
				return err
			}
		}
	}
	return nil
}

// pruneTablespaces removes from the directory of the tablespaces those that the backup
// does not have.
func (f *fetcher) pruneTablespaces() error {
	entries, err := os.ReadDir(f.into.Tablespaces)
	if errors.Is(err, fs.ErrNotExist) || f.into.Tablespaces == "" {
		return nil
	}
	if err != nil {
		return err
	}
	for _, d := range entries {
		oid, err := strconv.ParseUint(d.Name(), 10, 32)
		if err == nil && f.space[pg.Oid(oid)] != nil {
			continue
		}
		if err := os.RemoveAll(filepath.Join(f.into.Tablespaces, d.Name())); err != nil {
			return err
		}
	}
	return nil
}

func (f *fetcher) keeps(d fs.DirEntry, p string) (bool, error) {
	i, ok := slices.BinarySearchFunc(f.files.Files, p, func(e repository.File, p string) int { return strings.Compare(e.Path, p) })
	if !ok {
		return false, nil
	}
	switch e := &f.files.Files[i]; {
	case e.Kind == repository.Directory && d.IsDir():
		_, inside := f.place(p)
		return inside != "", nil // a tablespace's own entry becomes a link
	case e.Kind == repository.RegularFile && d.Type().IsRegular():
		info, err := d.Info()
		if err != nil {
			return false, err
		}
		st, ok := info.Sys().(*syscall.Stat_t)
		return ok && st.Nlink == 1 && info.Mode()&ownerWrites == ownerWrites, nil
	}
	return false, nil
}

// differing leaves of the jobs of a pack those whose frames the directory does not have.
func (f *fetcher) differing(w *openFile, jobs []job) ([]job, error) {
	left := jobs[:0]
	for i := range jobs {
		same, err := f.has(w, &jobs[i])
		if err != nil {
			return nil, err
		}
		if !same {
			left = append(left, jobs[i])
		}
	}
	return left, nil
}

// has tells whether the directory has what a frame gives, and counts it then.
func (f *fetcher) has(w *openFile, j *job) (bool, error) {
	// in the order of the frame's bytes: their checksum takes all of them
	slices.SortFunc(j.writes, func(a, b stretch) int {
		return cmp.Or(cmp.Compare(a.skip, b.skip), cmp.Compare(a.file, b.file), cmp.Compare(a.offset, b.offset))
	})
	covered := uint32(0)
	for _, s := range j.writes {
		if s.skip > covered || f.files.Files[s.file].Path == controlPath {
			return false, nil
		}
		covered = max(covered, s.skip+s.length)
	}
	if covered != j.frame.Raw {
		return false, nil
	}
	raw, had := w.frame(int(j.frame.Raw)), uint32(0)
	for _, s := range j.writes {
		b := w.piece(int(s.length))
		if n, err := f.readOld(w, s.file, b, s.offset); err != nil || n < len(b) {
			return false, err
		}
		again := min(had-s.skip, s.length)
		if !bytes.Equal(b[:again], raw[s.skip:s.skip+again]) {
			return false, nil
		}
		copy(raw[s.skip+again:], b[again:])
		had = max(had, s.skip+s.length)
	}
	if xxhash.Sum64(raw) != j.frame.Sum {
		return false, nil
	}
	for _, s := range j.writes {
		f.delta.kept.Add(int64(s.length))
		f.placed(s.file, raw[s.skip:s.skip+s.length], s.offset)
	}
	return true, nil
}

// readOld reads what a file has at off, and gives how many bytes that are.
func (f *fetcher) readOld(w *openFile, i int, b []byte, off int64) (int, error) {
	if w.file != i {
		if err := f.openTo(w, i, &f.files.Files[i]); err != nil {
			return 0, err
		}
	}
	n, err := readFullAt(w.f, b, off)
	if err != nil {
		return 0, fmt.Errorf("read %s: %w", f.files.Files[i].Path, err)
	}
	return n, nil
}

// writeDiffering writes of b what the open file has otherwise at off.
func (f *fetcher) writeDiffering(w *openFile, i int, b []byte, off int64) error {
	old := w.piece(len(b))
	n, err := f.readOld(w, i, old, off)
	if err != nil {
		return err
	}
	same := func(at int) bool {
		end := min(at+comparePage, len(b))
		return end <= n && bytes.Equal(b[at:end], old[at:end])
	}
	for at := 0; at < len(b); {
		if same(at) {
			f.delta.kept.Add(int64(min(comparePage, len(b)-at)))
			at += comparePage
			continue
		}
		from := at
		for at < len(b) && !same(at) {
			at += comparePage
		}
		end := min(at, len(b))
		if err := f.writeOut(w, b[from:end], off+int64(from)); err != nil {
			return err
		}
		f.delta.written.Add(int64(end - from))
	}
	return nil
}
