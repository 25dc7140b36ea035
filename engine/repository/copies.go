// SPDX-License-Identifier: Apache-2.0

package repository

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/kbcli/kbcli/internal/atomicfile"
)

// copies holds what this machine wrote into a sealed repository and cannot read back: lists
// of files, and indexes of WAL. They say where things are and not what is in them but for
// names, and lie beside the data directory that they tell of, readable by its keeper alone.
//
// A copy is a help and no more. One that cannot be written is not there, and one that is
// damaged neither: who needs it reads everything, and says so.
type copies struct{ dir string }

// Of the lists of files the newest are kept, and the indexes that were written since the
// oldest of these, as far as they take this many bytes.
const (
	keptLists        = 4
	keptIndexBytes   = 256 << 20
	copiesDirMode    = 0o700
	copiesFileMode   = 0o600
	copiesSumBytes   = 8
	copiesPruneEvery = 256 // indexes
)

func (c copies) path(key string) string { return filepath.Join(c.dir, filepath.FromSlash(key)) }

// put keeps payload, or removes what is kept.
func (c copies) put(key string, payload []byte) {
	path := c.path(key)
	b := append(binary.LittleEndian.AppendUint64(nil, xxhash.Sum64(payload)), payload...)
	err := os.MkdirAll(filepath.Dir(path), copiesDirMode)
	if err == nil {
		err = atomicfile.Write(path, b, copiesFileMode)
	}
	if err != nil {
		_ = os.Remove(path) // what it held is not what was written
	}
}

// get reads what put kept.
func (c copies) get(key string) ([]byte, error) {
	b, err := os.ReadFile(c.path(key))
	if err != nil {
		return nil, err
	}
	if len(b) < copiesSumBytes || binary.LittleEndian.Uint64(b) != xxhash.Sum64(b[copiesSumBytes:]) {
		return nil, errors.New("it is damaged")
	}
	return b[copiesSumBytes:], nil
}

// kept tells whether the repository keeps copies of objects of a kind.
func (r *Repository) kept(kind Kind) bool {
	return r.copies.dir != "" && r.Sealed() && len(r.identities) == 0 && (kind == KindFiles || kind == KindIndex)
}

// opened is the copy of an object that could not be opened for cause.
func (r *Repository) opened(kind Kind, key string, cause error) ([]byte, error) {
	if !r.known || !r.kept(kind) || !errors.Is(cause, ErrSealed) {
		return nil, cause
	}
	b, err := r.copies.get(key)
	if err != nil {
		return nil, fmt.Errorf("%w; of what was written here no copy is left: %w", cause, err)
	}
	return b, nil
}

// Known is the lineage as its writer knows it: of what this machine wrote and cannot open
// it reads the copies that it kept. See Options.Copies.
func (l *Lineage) Known() *Lineage {
	r := *l.repo
	r.known = true
	return &Lineage{repo: &r, info: l.info}
}

// pruneCopies removes the copies that no backup will need.
func (l *Lineage) pruneCopies() {
	if l.repo.copies.dir == "" {
		return
	}
	lists := l.copiesIn("backup")
	since := time.Time{}
	if len(lists) > keptLists {
		since = lists[keptLists-1].at
		for _, x := range lists[keptLists:] {
			_ = os.Remove(x.path) // the next time then
		}
	}
	size := int64(0)
	for _, x := range l.copiesIn("index") {
		if size += x.size; size > keptIndexBytes || x.at.Before(since) {
			_ = os.Remove(x.path)
		}
	}
}

// keptCopy is the file of a copy.
type keptCopy struct {
	path string
	size int64
	at   time.Time
}

// copiesIn lists the copies in a room of the lineage, the newest first.
func (l *Lineage) copiesIn(room string) []keptCopy {
	var out []keptCopy
	_ = filepath.WalkDir(l.repo.copies.path(l.key(room)), func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return nil
		}
		if info, err := d.Info(); err == nil {
			out = append(out, keptCopy{path, info.Size(), info.ModTime()})
		}
		return nil
	})
	slices.SortFunc(out, func(a, b keptCopy) int { return cmp.Compare(b.at.UnixNano(), a.at.UnixNano()) })
	return out
}
