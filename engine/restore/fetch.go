// SPDX-License-Identifier: Apache-2.0

package restore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/kbcli/kbcli/engine/pg"
	"github.com/kbcli/kbcli/engine/repository"
	"github.com/kbcli/kbcli/internal/bounds"
)

// Into says where a backup is unpacked.
type Into struct {
	// DataDirectory must not exist or be empty, unless Delta is set.
	DataDirectory string
	// Tablespaces holds a directory for each tablespace, named by its OID. Needed
	// when the backup has any.
	Tablespaces string
	// Volume is where the volume is mounted that was made of the plan's snapshot, if
	// OfVolume: DataDirectory and Tablespaces are in it, and what it holds is moved there.
	Volume string
	// UID and GID own what is written; -1 leaves it to the process.
	UID, GID int
	Jobs     int // how many packs are unpacked at once, if the bounds allow it; as many wait for the disk
	// Bounds are what the restore may take of the machine, recovery's server left aside.
	Bounds bounds.Bounds
	// Delta, if set, says that DataDirectory may hold a server's files already: see Delta.
	Delta    *Delta
	Progress func(done, total int64) `json:"-"`
}

// Fetch unpacks the backup of the plan. What it leaves cannot be started without
// recovery; a failed Fetch leaves a directory that cannot be started at all.
func (p *Plan) Fetch(ctx context.Context, into Into) error {
	if p.OfVolume() {
		return p.fetchVolume(ctx, into)
	}
	if err := p.Onto(into.DataDirectory); err != nil {
		return err
	}
	if into.Delta != nil {
		if err := p.CheckReuse(into.DataDirectory, into.UID); err != nil {
			return err
		}
	}
	if err := p.CheckRoom(into); err != nil {
		return err
	}
	// recovery would refuse it later
	if _, err := feeders(into.Bounds, 1, int64(p.lineage.Info().SegmentSize)); err != nil {
		return err
	}
	lineage := p.lineage.Limited(0, into.Bounds.Download)
	files, err := lineage.Files(ctx, p.manifest)
	if err != nil {
		return err
	}
	f := &fetcher{
		plan: p, into: into, lineage: lineage, files: files, sums: make([][]sum, len(files.Files)), started: make([]atomic.Bool, len(files.Files)),
		missing: make([]atomic.Int64, len(files.Files)), dated: make([]bool, len(files.Files)),
	}
	for i := range files.Files {
		f.total += files.Files[i].Size
		f.missing[i].Store(files.Files[i].Size)
	}
	defer f.close()
	if into.Delta != nil {
		// what the memory is too small for is refused before anything is lost
		if _, err := f.workers(); err != nil {
			return err
		}
		f.delta = &deltaWork{}
		f.cached.Store(true) // it is read anyway
		if err := f.disarm(); err != nil {
			return fmt.Errorf("restore: %w", err)
		}
	}
	if err := f.layout(); err != nil {
		return fmt.Errorf("restore: %w", err)
	}
	bring := f.unpack
	if p.manifest.Snapshot != nil {
		bring = f.clone
	}
	if err := bring(ctx); err != nil {
		return fmt.Errorf("restore: %w", err)
	}
	if err := f.finish(); err != nil {
		return fmt.Errorf("restore: %w", err)
	}
	if d := f.delta; d != nil {
		*into.Delta = Delta{d.kept.Load(), d.fetched.Load(), d.written.Load()}
	}
	return nil
}

// fetcher writes one backup's files.
type fetcher struct {
	plan    *Plan
	into    Into
	lineage *repository.Lineage
	files   *repository.Files

	data  *os.Root
	space map[pg.Oid]*os.Root

	delta   *deltaWork // nil: there was nothing
	control []byte     // with delta: the backup's control file, put last

	total   int64
	done    atomic.Int64
	started []atomic.Bool
	missing []atomic.Int64 // bytes of each file that are not written yet
	dated   []bool         // by file: it has its time; set by who writes its last byte

	turns  [64]sync.Mutex // to write to a file; several have one turn
	cached atomic.Bool    // the page cache cannot be passed by

	mu   sync.Mutex
	sums [][]sum // by file
}

// sum is the CRC-32C of a stretch of a file.
type sum struct {
	offset, length int64
	crc            uint32
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

const controlPath = "global/pg_control"

func (f *fetcher) own(root *os.Root, name string) error {
	if f.into.UID < 0 {
		return nil
	}
	return root.Lchown(name, f.into.UID, f.into.GID)
}

func (f *fetcher) open(dir string) (*os.Root, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	if err := root.Chmod(".", 0o700); err != nil {
		return nil, err
	}
	return root, f.own(root, ".")
}

// layout makes all directories, and every file that has no bytes.
func (f *fetcher) layout() error {
	var err error
	if f.data, err = f.open(f.into.DataDirectory); err != nil {
		return err
	}
	old := f.delta != nil
	f.space = map[pg.Oid]*os.Root{}
	if len(f.plan.manifest.Tablespaces) > 0 && f.into.Tablespaces != "" {
		if err := os.MkdirAll(f.into.Tablespaces, 0o755); err != nil { // the server's user passes through
			return err
		}
	}
	for _, t := range f.plan.manifest.Tablespaces {
		if f.into.Tablespaces == "" {
			return fmt.Errorf("the backup has the tablespace %d (%s) and no place for it was given", t.Oid, t.Location)
		}
		dir := filepath.Join(f.into.Tablespaces, fmt.Sprint(t.Oid))
		if entries, err := os.ReadDir(dir); err == nil && len(entries) > 0 && !old {
			return &NotEmptyError{dir}
		}
		if info, err := os.Lstat(dir); err == nil && !info.IsDir() { // a link leads to another's
			if err := os.Remove(dir); err != nil {
				return err
			}
		}
		if f.space[t.Oid], err = f.open(dir); err != nil {
			return err
		}
	}
	if old {
		if err := f.prune(f.data, ".", ""); err != nil {
			return err
		}
		if err := f.pruneTablespaces(); err != nil {
			return err
		}
		for oid, root := range f.space {
			if err := f.prune(root, ".", fmt.Sprintf("pg_tblspc/%d", oid)); err != nil {
				return err
			}
		}
	}
	for i := range f.files.Files {
		e := &f.files.Files[i]
		root, name := f.place(e.Path)
		switch {
		case name == "":
			// the tablespace's own entry: a link
			if err := f.link(e.Path); err != nil {
				return err
			}
		case e.Kind == repository.Directory:
			if err := root.Mkdir(name, 0o700); err != nil && (!old || !errors.Is(err, fs.ErrExist)) {
				return err
			}
			if err := f.own(root, name); err != nil {
				return err
			}
			if mode := os.FileMode(e.Mode); mode&0o777 != 0o700 || old {
				if err := root.Chmod(name, mode); err != nil {
					return err
				}
			}
		case e.Kind == repository.RegularFile && e.Size == 0 && f.plan.manifest.Snapshot == nil:
			if err := f.write(i, nil, 0); err != nil {
				return err
			}
		case e.Kind == repository.Symlink:
			return fmt.Errorf("the backup has a symbolic link at %s, which is not restored", e.Path)
		}
	}
	return nil
}

// place finds the root that a path of the backup lies in, and its name there; an
// empty name is the tablespace itself.
func (f *fetcher) place(p string) (*os.Root, string) {
	rest, ok := strings.CutPrefix(p, "pg_tblspc/")
	if !ok {
		return f.data, filepath.FromSlash(p)
	}
	id, inside, _ := strings.Cut(rest, "/")
	for oid, root := range f.space {
		if id == fmt.Sprint(oid) {
			return root, filepath.FromSlash(inside)
		}
	}
	return f.data, filepath.FromSlash(p) // made in place (allow_in_place_tablespaces)
}

func (f *fetcher) link(p string) error {
	name := filepath.FromSlash(p)
	to, err := filepath.Abs(filepath.Join(f.into.Tablespaces, path.Base(p)))
	if err != nil {
		return err
	}
	if err := f.data.Symlink(to, name); err != nil {
		return err
	}
	return f.own(f.data, name)
}

// job is one frame and the stretches of files that it gives.
type job struct {
	frame  repository.FrameInfo
	writes []stretch
}

type stretch struct {
	file   int
	offset int64
	skip   uint32
	length uint32
}

// unpack reads every pack once and writes what is in it.
func (f *fetcher) unpack(ctx context.Context) error {
	packs := make([][]job, len(f.files.Packs))
	frames := make([]*job, len(f.files.Frames))
	for i := range f.files.Files {
		var at int64
		for _, x := range f.files.Files[i].Extents {
			j := frames[x.Frame]
			if j == nil {
				j = &job{frame: f.files.Frames[x.Frame].FrameInfo}
				frames[x.Frame] = j
			}
			j.writes = append(j.writes, stretch{i, at, x.Skip, x.Length})
			at += int64(x.Length)
		}
	}
	for n, j := range frames {
		if j != nil {
			pack := f.files.Frames[n].Pack
			packs[pack] = append(packs[pack], *j)
		}
	}
	workers, err := f.workers()
	if err != nil {
		return err
	}
	var next atomic.Int64
	g, ctx := errgroup.WithContext(ctx)
	for range min(workers, len(packs)) {
		g.Go(func() error {
			if err := f.into.Bounds.Thread(); err != nil {
				return err
			}
			w := &openFile{file: -1}
			for {
				n := int(next.Add(1)) - 1
				if n >= len(packs) {
					return ctx.Err()
				}
				if len(packs[n]) == 0 {
					continue
				}
				if err := f.pack(ctx, w, f.files.Packs[n], packs[n]); err != nil {
					return err
				}
			}
		})
	}
	return g.Wait()
}

func (f *fetcher) pack(ctx context.Context, w *openFile, ref repository.PackRef, jobs []job) (err error) {
	if err := ctx.Err(); err != nil {
		return err
	}
	slices.SortFunc(jobs, func(a, b job) int { return cmp.Compare(a.frame.Offset, b.frame.Offset) })
	defer func() { err = errors.Join(err, w.close()) }()
	if f.delta != nil {
		if jobs, err = f.differing(w, jobs); err != nil || len(jobs) == 0 {
			return err
		}
	}
	infos := make([]repository.FrameInfo, len(jobs))
	for i := range jobs {
		infos[i] = jobs[i].frame
	}
	return f.lineage.ReadFrames(ctx, ref, infos, func(i int, raw []byte) error {
		if f.delta != nil {
			f.delta.fetched.Add(int64(infos[i].Stored))
		}
		for _, s := range jobs[i].writes {
			if err := f.writeTo(w, s.file, raw[s.skip:s.skip+s.length], s.offset); err != nil {
				return err
			}
		}
		return ctx.Err()
	})
}

// finish writes backup_label and tablespace_map, the manifest that pg_verifybackup
// reads, and makes everything durable.
func (f *fetcher) finish() error {
	m := f.plan.manifest
	if f.delta != nil { // a label makes something else of the old one
		if err := f.putControl(f.data, f.control); err != nil {
			return err
		}
	}
	extra := []extraFile{{"backup_label", m.Label}}
	if len(m.TablespaceMap) > 0 {
		links := make(pg.TablespaceMap, 0, len(m.Tablespaces))
		for _, t := range m.Tablespaces {
			dir, err := filepath.Abs(filepath.Join(f.into.Tablespaces, fmt.Sprint(t.Oid)))
			if err != nil {
				return err
			}
			links = append(links, pg.TablespaceLink{OID: t.Oid, Path: dir})
		}
		extra = append(extra, extraFile{"tablespace_map", links.Bytes(m.Version / 10000)})
	}
	for _, x := range extra {
		if err := f.put(x.name, x.content); err != nil {
			return err
		}
	}
	manifest, err := f.backupManifest(extra)
	if err != nil {
		return err
	}
	if err := f.put("backup_manifest", manifest); err != nil {
		return err
	}
	for i := range f.files.Files {
		t := &f.files.Files[i]
		if t.Kind != repository.RegularFile {
			continue
		}
		root, name := f.place(t.Path)
		if t.Mode&ownerWrites != ownerWrites {
			if err := root.Chmod(name, os.FileMode(t.Mode)); err != nil {
				return err
			}
		}
		if !f.dated[i] {
			at := time.UnixMicro(t.ModTime)
			if err := root.Chtimes(name, at, at); err != nil {
				return err
			}
		}
	}
	roots := []*os.Root{f.data}
	for _, r := range f.space {
		roots = append(roots, r)
	}
	for _, r := range roots {
		if err := syncFilesystem(r.Name()); err != nil {
			return err
		}
	}
	return nil
}

type extraFile struct {
	name    string
	content []byte
}

func (f *fetcher) put(name string, content []byte) error {
	if err := f.data.WriteFile(name, content, 0o600); err != nil {
		return err
	}
	return f.own(f.data, name)
}

func (f *fetcher) close() {
	if f.data != nil {
		_ = f.data.Close()
	}
	for _, r := range f.space {
		_ = r.Close()
	}
}

// syncFilesystem makes everything on dir's file system durable: with tens of
// thousands of files that is one wait instead of as many.
func syncFilesystem(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := unix.Syncfs(int(d.Fd())); err != nil {
		return fmt.Errorf("sync %s: %w", dir, err)
	}
	return nil
}
