// SPDX-License-Identifier: Apache-2.0

package archive

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/kbcli/kbcli/engine/blob"
	"github.com/kbcli/kbcli/engine/pg"
	"github.com/kbcli/kbcli/engine/pg/walscan"
	"github.com/kbcli/kbcli/engine/repository"
	"github.com/kbcli/kbcli/internal/atomicfile"
)

// positionFile remembers in the spool how far segments were shipped, so that a
// start need not list the whole archive. It is a hint: it is believed for the
// lineage it names, and only if the segment before it is there. Where an archive
// begins it is all that is known until the first tail is put.
const positionFile = "position.json"

type positionDoc struct {
	Lineage  string        `json:"lineage"`
	Timeline pg.TimelineID `json:"timeline"`
	LSN      pg.LSN        `json:"lsn"`
	First    bool          `json:"first,omitempty"` // the archive begins here
}

func (a *Archiver) savePosition(at place, first bool) error {
	b, err := json.Marshal(positionDoc{a.cfg.Lineage.Info().ID, at.tli, at.lsn, first})
	if err != nil {
		return err
	}
	if err := atomicfile.Write(filepath.Join(a.cfg.Spool, positionFile), b, 0o600); err != nil {
		return &spoolError{fmt.Errorf("spool: %w", err)}
	}
	return nil
}

// resume finds where the archive ends, sets the repository's position, and says
// where to stream from. The zero place means that nothing was archived yet.
func (a *Archiver) resume(ctx context.Context) (place, error) {
	if err := a.spool.load(); err != nil {
		return place{}, &spoolError{err}
	}
	if err := a.loadJumps(); err != nil {
		return place{}, err
	}
	if err := a.trim(); err != nil {
		return place{}, err
	}
	var end place
	err := a.retry(ctx, "find where the archive ends", func(ctx context.Context) (err error) {
		end, err = a.repositoryEnd(ctx)
		return err
	})
	if err != nil {
		return place{}, err
	}
	if end.lsn == 0 {
		held := a.spool.segments()
		if len(held) == 0 {
			return place{}, nil
		}
		// nothing was shipped yet of what was acknowledged
		end = place{held[0].Timeline, a.size.Start(held[0].Number)}
	}
	from, err := a.walk(end)
	if err != nil {
		return place{}, err
	}
	from.lsn = a.size.Floor(from.lsn) // streaming begins at a segment's start
	a.update(func(st *Status) {
		st.RepositoryTimeline, st.Repository = end.tli, end.lsn
		st.Timeline, st.Received, st.Spooled = from.tli, from.lsn, from.lsn
	})
	if at, ok := a.spool.modified(pg.Segment{Timeline: end.tli, Number: a.size.Number(end.lsn)}); ok {
		a.mu.Lock()
		a.lag.older(at) // what an earlier run left is as old as that
		a.mu.Unlock()
	}
	return from, nil
}

// walk follows what the spool holds beyond the repository's end, over jumps, and
// says where it ends. What is not on the way is of no use and removed: it was
// shipped, or it was given up.
func (a *Archiver) walk(from place) (place, error) {
	used := map[pg.Segment]bool{}
	jumps := map[place]jump{}
	for {
		g := pg.Segment{Timeline: from.tli, Number: a.size.Number(from.lsn)}
		held := a.spool.held(g)
		if j, ok := a.jumps[from]; ok {
			// of a segment that only begins here the jump leaves nothing
			used[g] = used[g] || held > 0 && a.size.Offset(from.lsn) != 0
			if _, again := jumps[from]; again {
				return from, &spoolError{fmt.Errorf("spool: %s leads in a circle", jumpsFile)}
			}
			jumps[from] = j
			from = place{j.to, j.lsn}
			continue
		}
		used[g] = used[g] || held > 0
		if end := a.size.Start(g.Number) + pg.LSN(held); end > from.lsn {
			from.lsn = end
			continue
		}
		break
	}
	for _, g := range a.spool.segments() {
		if !used[g] {
			if err := a.spool.remove(g); err != nil {
				return from, &spoolError{err}
			}
		}
	}
	if len(jumps) == len(a.jumps) {
		return from, nil
	}
	a.turning.Lock()
	defer a.turning.Unlock()
	return from, a.setJumps(jumps, func(*Status) {})
}

// trim lets the newest segment of each timeline in the spool end with its last whole
// record: after a power cut its end may be anything. The bytes behind it stay where
// they are until the server sends them again; they may have been acknowledged.
func (a *Archiver) trim() error {
	newest := map[pg.TimelineID]pg.Segment{}
	for _, g := range a.spool.segments() {
		newest[g.Timeline] = g
	}
	for _, g := range newest {
		held := a.spool.held(g)
		if _, ok := a.jumps[place{g.Timeline, a.size.Start(g.Number) + pg.LSN(held)}]; ok {
			continue // its end was durable before the next stretch began
		}
		f, err := a.spool.reader(g)
		if err != nil {
			return &spoolError{err}
		}
		keep, err := soundLength(f, a.size, g, a.cfg.Lineage.Info().SystemID)
		if err = errors.Join(err, f.Close()); err != nil {
			return &spoolError{fmt.Errorf("spool: trim %s: %w", f.Name(), err)}
		}
		// after a switch the rest of a segment is known, but where the disk was full not held
		a.spool.cut(g, min(keep, held))
	}
	return nil
}

// soundLength is how many bytes of the segment in r end with a whole record. A full
// segment that reads without fault is whole, although its last record may go on.
func soundLength(r io.Reader, size pg.SegmentSize, g pg.Segment, id pg.SystemID) (int64, error) {
	start := size.Start(g.Number)
	s := walscan.New(walscan.Options{SegmentSize: size, Start: start, SystemID: id})
	buf := make([]byte, 256<<10)
	var end pg.LSN
	for {
		n, err := r.Read(buf)
		if n > 0 {
			ferr := s.Feed(buf[:n], func(rec *walscan.Record) error { end = rec.End; return nil })
			if ferr != nil {
				return int64(max(end, start) - start), nil
			}
		}
		if err == io.EOF {
			break
		}
		if err != nil {
			return 0, err
		}
	}
	if s.Position() == size.End(g.Number) {
		return int64(size), nil
	}
	return int64(max(end, start) - start), nil
}

// repositoryEnd finds where the archived WAL ends: after the last segment that
// follows the others without an undeclared hole, and that one's tails.
func (a *Archiver) repositoryEnd(ctx context.Context) (place, error) {
	end, err := a.remembered(ctx)
	if err != nil {
		return place{}, err
	}
	if end.lsn == 0 {
		if end, err = a.listEnd(ctx); err != nil || end.lsn == 0 {
			return place{}, err
		}
	}
	for {
		// segments that were put and not yet remembered; one that the spool has
		// is put again, for its index may be missing
		g := pg.Segment{Timeline: end.tli, Number: a.size.Number(end.lsn)}
		ok, err := a.cfg.Lineage.HasSegment(ctx, g)
		if err != nil {
			return place{}, err
		}
		if !ok {
			break
		}
		if a.spool.held(g) == int64(a.size) {
			return end, nil
		}
		end.lsn = a.size.End(a.size.Number(end.lsn))
	}
	g := pg.Segment{Timeline: end.tli, Number: a.size.Number(end.lsn)}
	ts, err := a.cfg.Lineage.Tails(ctx, &g)
	if err != nil {
		return place{}, err
	}
	_, end.lsn = repository.Chain(ts, a.size.Start(g.Number))
	return end, nil
}

func (a *Archiver) remembered(ctx context.Context) (place, error) {
	b, err := os.ReadFile(filepath.Join(a.cfg.Spool, positionFile))
	if errors.Is(err, fs.ErrNotExist) {
		return place{}, nil
	}
	if err != nil {
		return place{}, &spoolError{fmt.Errorf("spool: %w", err)}
	}
	var doc positionDoc
	if json.Unmarshal(b, &doc) != nil || doc.Lineage != a.cfg.Lineage.Info().ID || doc.LSN == 0 {
		return place{}, nil // torn by a power cut, or another lineage's
	}
	at := place{doc.Timeline, doc.LSN}
	if doc.First {
		return at, nil
	}
	ok, err := a.cfg.Lineage.HasSegment(ctx, pg.Segment{Timeline: at.tli, Number: a.size.Number(at.lsn) - 1})
	if err != nil || ok {
		return at, err
	}
	// nothing precedes it where a timeline or a gap led there
	_, err = a.cfg.Lineage.History(ctx, at.tli)
	if err == nil {
		return at, nil
	}
	if !errors.Is(err, blob.ErrNotExist) {
		return place{}, err
	}
	gaps, err := a.cfg.Lineage.Gaps(ctx)
	if err != nil {
		return place{}, err
	}
	for _, g := range gaps {
		if (place{g.ToTimeline, g.To}) == at {
			return at, nil
		}
	}
	return place{}, nil
}

// listEnd looks at every segment, by the chapters where there are: the last that follows the one before, unless
// what is missing was declared a gap.
func (a *Archiver) listEnd(ctx context.Context) (place, error) {
	gaps, err := a.cfg.Lineage.Gaps(ctx)
	if err != nil {
		return place{}, err
	}
	declared := func(tli pg.TimelineID, from, to pg.LSN) bool {
		for _, g := range gaps {
			if g.Timeline == tli && g.From <= from+pg.LSN(a.size) && g.To >= to {
				return true
			}
		}
		return false
	}
	// beyond passes over the gaps that begin in the segment at end
	beyond := func(end place) place {
		for _, g := range gaps {
			if g.Timeline == end.tli && g.From >= end.lsn && g.From < end.lsn+pg.LSN(a.size) && g.To > end.lsn {
				end = place{g.ToTimeline, g.To}
			}
		}
		return end
	}
	var end place
	chapters, err := a.cfg.Lineage.Chapters(ctx)
	if err != nil {
		return place{}, err
	}
	runs, err := a.cfg.Lineage.SegmentRuns(ctx, chapters)
	if err != nil {
		return place{}, err
	}
	for _, r := range runs {
		start := a.size.Start(r.From)
		if r.Timeline == end.tli && start != end.lsn && !declared(end.tli, end.lsn, start) {
			a.cfg.Log.Warn("a hole in the archive; going on from there", "timeline", end.tli, "at", end.lsn)
			return end, nil
		}
		end = place{r.Timeline, a.size.Start(r.To)}
	}
	// the newest timeline may have no whole segment yet
	tlis, err := a.cfg.Lineage.Histories(ctx)
	if err != nil {
		return place{}, err
	}
	if n := len(tlis); n > 0 && tlis[n-1] > end.tli {
		content, err := a.cfg.Lineage.History(ctx, tlis[n-1])
		if err != nil {
			return place{}, err
		}
		h, err := pg.ParseHistory(tlis[n-1], content)
		if err != nil {
			return place{}, err
		}
		if len(h.Entries) > 0 {
			begin := place{tlis[n-1], a.size.Floor(h.Entries[len(h.Entries)-1].End)}
			if end = beyond(end); end.tli == begin.tli && end.lsn > begin.lsn {
				return end, nil
			}
			return begin, nil
		}
	}
	if end.lsn == 0 {
		// only tails: the first segment of all is not full yet
		ts, err := a.cfg.Lineage.Tails(ctx, nil)
		if err != nil || len(ts) == 0 {
			return place{}, err
		}
		t := ts[len(ts)-1]
		return place{t.Segment.Timeline, a.size.Start(t.Segment.Number)}, nil
	}
	return beyond(end), nil
}
