// SPDX-License-Identifier: Apache-2.0

package basebackup

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/kbcli/kbcli/engine/blob"
	"github.com/kbcli/kbcli/engine/pg"
	"github.com/kbcli/kbcli/engine/pg/client"
	"github.com/kbcli/kbcli/engine/pg/walscan"
	"github.com/kbcli/kbcli/engine/repository"
	"github.com/kbcli/kbcli/engine/repository/walindex"
)

// Incremental is what a backup needs that reads what changed since another alone.
// Where that cannot be known everything is read, and the manifest says why.
type Incremental struct {
	// Base is a backup of the lineage whose bytes are in the repository; nil if there
	// is none, and Why then says that in its place.
	Base *repository.Manifest
	Why  string
	// WAL gives what the WAL says on the way to lsn on timeline tli. It is called when
	// the repository holds all of it.
	WAL func(ctx context.Context, tli pg.TimelineID, lsn pg.LSN) (WAL, error)
	// Whole has WAL asked of whole segments alone: of others this machine has no index,
	// nor can it read what it archived. The server is made to begin another segment.
	Whole bool
}

// WAL is what the repository's WAL says on the way to one position.
type WAL struct {
	History pg.History // of the timeline of that position
	// Index is that of a segment on the way, of the last one up to that position. It
	// is called by several goroutines.
	Index func(ctx context.Context, segment uint64) (*walindex.Index, error)
}

// unknown says why it is not known what changed.
type unknown struct{ reason string }

func (e *unknown) Error() string { return e.reason }

func unknownf(format string, args ...any) error { return &unknown{fmt.Sprintf(format, args...)} }

// lacking turns what says that something is not there, or is damaged, into an unknown.
// Any other error is one.
func lacking(what string, err error) error {
	var object *repository.CorruptError
	var wal *walscan.CorruptError
	var missing *repository.MissingWALError
	if errors.As(err, &object) || errors.As(err, &wal) || errors.As(err, &missing) ||
		errors.Is(err, blob.ErrNotExist) || errors.Is(err, repository.ErrSealed) {
		return unknownf("%s: %v", what, err)
	}
	return err
}

// differences finds what changed since the base, and the base's list of files. Where
// that cannot be known it notes why, and everything is read: against the base all the
// same if that is whole, so that nothing is stored twice.
func (b *backup) differences(ctx context.Context, start client.BackupStart) error {
	in := b.cfg.Incremental
	if in == nil {
		return nil
	}
	err := b.openBase(ctx, in)
	if err == nil {
		b.changed, err = b.changes(ctx, in, start)
	}
	var why *unknown
	if errors.As(err, &why) {
		b.cfg.Log.Warn("an incremental backup reads everything", "backup", b.cfg.Name, "reason", why.reason)
		b.readAll = why.reason
		return nil
	}
	return err
}

// openBase reads the list of files of the base, and looks that all its packs are there.
func (b *backup) openBase(ctx context.Context, in *Incremental) error {
	m := in.Base
	if m == nil {
		why := in.Why
		if why == "" {
			why = "there is no earlier backup that it could build on"
		}
		return &unknown{why}
	}
	if m.Snapshot != nil {
		return unknownf("backup %s is a snapshot, whose bytes are not in the repository", m.Name)
	}
	files, err := b.cfg.Lineage.Known().Files(ctx, m)
	if err != nil {
		return lacking("the backup it would build on cannot be read", err)
	}
	if err := b.packsThere(ctx, files.Packs); err != nil {
		return lacking(fmt.Sprintf("backup %s, which it would build on, is damaged", m.Name), err)
	}
	b.base = newBase(m, files)
	return nil
}

// packsThere fails, with blob.ErrNotExist, unless the repository lists all packs.
func (b *backup) packsThere(ctx context.Context, refs []repository.PackRef) error {
	there := map[string][]uint32{}
	for _, ref := range refs {
		numbers, ok := there[ref.Backup]
		if !ok {
			var err error
			if numbers, _, err = b.cfg.Lineage.Packs(ctx, ref.Backup); err != nil {
				return err
			}
			there[ref.Backup] = numbers
		}
		if _, ok := slices.BinarySearch(numbers, ref.Number); !ok {
			return fmt.Errorf("pack %d of backup %s: %w", ref.Number, ref.Backup, blob.ErrNotExist)
		}
	}
	return nil
}

// indexJobs is how many indexes are read at once.
const indexJobs = 4

// changes gathers what the WAL says from the start of the base to that of this backup.
// A block of which it says nothing is on disk as the base has it, or is one that the base
// read while it was written: then its WAL lies behind the start of this backup too, and
// begins with the whole page.
func (b *backup) changes(ctx context.Context, in *Incremental, start client.BackupStart) (*changed, error) {
	m := in.Base
	switch {
	case m.Checksums != b.control.DataChecksums() || m.Settings.DataPageChecksumVer != int(b.control.ChecksumVersion):
		return nil, unknownf("checksums of pages were switched on or off since backup %s, which rewrites every page", m.Name)
	case m.Settings.CatalogVersion != int(b.control.CatalogVersion):
		return nil, unknownf("backup %s is of another version of the catalogues", m.Name)
	}
	size := b.server.SegmentSize
	first, end := size.Number(m.StartLSN), size.Number(start.LSN)+1
	upto := start.LSN
	until := upto // what is waited for
	switch offset := size.Offset(upto); {
	case offset <= longHeader && end > first+1:
		// no record ends in the last one before it, and its header is not worth waiting for a
		// tail; but where WAL cannot be read back the index before it has to be there, which a
		// tail after it tells
		end--
		if !in.Whole {
			until = size.Floor(upto)
		}
	case in.Whole && offset > longHeader && !b.server.InRecovery:
		if _, err := b.conn.SQL().Exec(ctx, "select pg_catalog.pg_switch_wal()"); err != nil {
			return nil, fmt.Errorf("begin another segment of WAL: %w", err)
		}
		upto = size.End(size.Number(upto))
		until = upto
	}
	b.report("waiting for WAL")
	if err := b.cfg.WaitWAL(ctx, start.Timeline, until); err != nil {
		return nil, fmt.Errorf("wait for the WAL before the backup: %w", err)
	}
	wal, err := in.WAL(ctx, start.Timeline, upto)
	if err != nil {
		return nil, lacking("the way to it cannot be read", err)
	}
	h := wal.History
	if start.LSN < m.StartLSN || h.Timeline != start.Timeline || h.TimelineAt(m.StartLSN) != m.Timeline ||
		h.TimelineAt(max(m.StartLSN+1, m.StopLSN)-1) != m.Timeline {
		return nil, unknownf("no way leads from backup %s, from %s to %s on timeline %s, to %s on timeline %s",
			m.Name, m.StartLSN, m.StopLSN, m.Timeline, start.LSN, start.Timeline)
	}
	g := gathering{changed: newChanged(), first: first, seams: make([]seam, end-first), until: start.LSN, size: size}
	jobs, jctx := errgroup.WithContext(ctx)
	jobs.SetLimit(indexJobs)
	for n := first; n < end; n++ {
		jobs.Go(func() error {
			if err := jctx.Err(); err != nil {
				return err
			}
			x, err := wal.Index(jctx, n)
			if err != nil {
				return lacking("the WAL since backup "+m.Name+" cannot be read", err)
			}
			return g.add(n, x)
		})
	}
	if err := jobs.Wait(); err != nil {
		return nil, err
	}
	if err := g.whole(); err != nil {
		return nil, err
	}
	return g.changed, nil
}

// gathering unites indexes.
type gathering struct {
	first uint64
	until pg.LSN
	size  pg.SegmentSize

	mu      sync.Mutex
	changed *changed
	seams   []seam
}

// seam is where the records of an index begin and end; it began nowhere if none ends in
// its segment.
type seam struct{ first, next, overwritten pg.LSN }

func (g *gathering) add(n uint64, x *walindex.Index) error {
	name := g.size.Name(x.Segment)
	switch {
	case x.Segment.Number != n || !x.Detailed:
		return unknownf("the index of WAL segment %s does not say what changed", name)
	case x.Partial && n > g.first: // of the first it is a record from before the base
		return unknownf("a record that ends in WAL segment %s could not be read", name)
	case len(x.Opaque) > 0:
		o := x.Opaque[0]
		return unknownf("the record at %s changed files as only the extension knows that wrote it (resource manager %d)", o.Start, o.Rmgr)
	}
	for _, p := range x.Parameters {
		if p.WalLevel == walscan.WalLevelMinimal {
			return unknownf("the server ran with wal_level=minimal at %s, where WAL does not tell of every change", p.Start)
		}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.seams[n-g.first] = seam{x.First, x.Next, x.Overwritten}
	g.changed.add(x)
	return nil
}

// whole looks that each index goes on where the one before ended, and the last one as
// far as it shall.
func (g *gathering) whole() error {
	next := pg.LSN(0)
	for i, s := range g.seams {
		begun := s.first
		if s.overwritten != 0 {
			begun = s.overwritten
		}
		if s.first != 0 && i > 0 && next != 0 && g.record(begun) != g.record(next) {
			return unknownf("the records between %s and %s are not indexed", next, s.first)
		}
		if s.next != 0 {
			next = s.next
		}
	}
	if g.record(next) < g.record(g.until) {
		return unknownf("the WAL since the base is indexed to %s, and this backup starts at %s", next, g.until)
	}
	return nil
}

// The sizes of the header of a segment's first page of WAL, and of the others.
const longHeader, shortHeader = 40, 24

// record is where a record stands that would begin at lsn: behind the header of a page.
func (g *gathering) record(lsn pg.LSN) pg.LSN {
	switch {
	case g.size.Offset(lsn) == 0:
		return lsn + longHeader
	case lsn%pg.BlockSize == 0:
		return lsn + shortHeader
	}
	return lsn
}
