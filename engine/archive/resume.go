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

	"golang.org/x/sys/unix"

	"github.com/kbcli/kbcli/engine/blob"
	"github.com/kbcli/kbcli/engine/pg"
	"github.com/kbcli/kbcli/engine/pg/walscan"
	"github.com/kbcli/kbcli/engine/repository"
)

// positionFile remembers in the spool how far segments were shipped, so that a
// start need not list the whole archive. It is a hint: it is believed for the
// lineage it names, and only if the segment before it is there.
const positionFile = "position.json"

type positionDoc struct {
	Lineage  string        `json:"lineage"`
	Timeline pg.TimelineID `json:"timeline"`
	LSN      pg.LSN        `json:"lsn"`
}

func (a *Archiver) savePosition(at place) error {
	b, err := json.Marshal(positionDoc{a.cfg.Lineage.Info().ID, at.tli, at.lsn})
	if err != nil {
		return err
	}
	path := filepath.Join(a.cfg.Spool, positionFile)
	if err := os.WriteFile(path+".tmp", b, 0o600); err != nil {
		return &spoolError{fmt.Errorf("spool: %w", err)}
	}
	// not synced: after a power cut an older position is as good
	if err := os.Rename(path+".tmp", path); err != nil {
		return &spoolError{fmt.Errorf("spool: %w", err)}
	}
	return nil
}

// resume finds where the archive ends, sets the repository's position, and says
// where to stream from. The zero place means that nothing was archived yet.
func (a *Archiver) resume(ctx context.Context) (place, error) {
	if err := a.trim(); err != nil {
		return place{}, err
	}
	var end place
	err := a.retry(ctx, "find where the archive ends", func(ctx context.Context) (err error) {
		end, err = a.repositoryEnd(ctx)
		return err
	})
	if err != nil || end.lsn == 0 {
		return place{}, err
	}
	if err := a.knownJumps(); err != nil {
		return place{}, err
	}
	from := end
	for {
		// walk what the spool holds beyond the repository, over timeline switches
		for {
			g := pg.Segment{Timeline: from.tli, Number: a.size.Number(from.lsn)}
			held := a.size.Start(g.Number) + pg.LSN(a.spool.held(g))
			if held <= from.lsn {
				break
			}
			from.lsn = held
		}
		j, ok := a.jumps[from]
		if !ok {
			break
		}
		from = place{j.to, j.lsn}
	}
	// WAL that does not follow is of no use: it lies behind a gap that is not
	// declared yet, and will be streamed again
	for _, g := range a.spool.segments() {
		behind := g.Timeline < end.tli || g.Timeline == end.tli && g.Number < a.size.Number(end.lsn)
		beyond := g.Timeline > from.tli || g.Timeline == from.tli && a.size.Start(g.Number) > from.lsn
		if behind || beyond {
			if err := a.spool.remove(g); err != nil {
				return place{}, &spoolError{err}
			}
		}
	}
	// streaming begins at the segment's start; one that is just full is done
	if a.size.Offset(from.lsn) != 0 {
		from.lsn = a.size.Floor(from.lsn)
	}
	a.update(func(st *Status) {
		st.RepositoryTimeline, st.Repository = end.tli, end.lsn
		st.Timeline, st.Received, st.Spooled = from.tli, from.lsn, from.lsn
	})
	return from, nil
}

// trim cuts the newest segment of each timeline in the spool back to its last whole
// record: after a power cut its end may be anything. The server sends it again.
func (a *Archiver) trim() error {
	newest := map[pg.TimelineID]pg.Segment{}
	for _, g := range a.spool.segments() {
		newest[g.Timeline] = g
	}
	for _, g := range newest {
		held := a.spool.held(g)
		f, err := os.OpenFile(a.spool.path(g), os.O_RDWR, 0)
		if err != nil {
			return &spoolError{fmt.Errorf("spool: %w", err)}
		}
		keep, err := soundLength(f, a.size, g)
		if err == nil && keep < held {
			err = f.Truncate(keep)
		}
		if err == nil {
			err = unix.Fdatasync(int(f.Fd()))
		}
		if err = errors.Join(err, f.Close()); err != nil {
			return &spoolError{fmt.Errorf("spool: trim %s: %w", f.Name(), err)}
		}
		a.spool.mu.Lock()
		a.spool.total -= held - keep
		a.spool.written[g] = keep
		a.spool.mu.Unlock()
	}
	return nil
}

// soundLength is how many bytes of the segment in r end with a whole record. A full
// segment that reads without fault is whole, although its last record may go on.
func soundLength(r io.Reader, size pg.SegmentSize, g pg.Segment) (int64, error) {
	start := size.Start(g.Number)
	s := walscan.New(walscan.Options{SegmentSize: size, Start: start})
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

// knownJumps notes the timeline switches whose history files the spool holds.
func (a *Archiver) knownJumps() error {
	tlis, err := a.spool.histories()
	if err != nil {
		return &spoolError{err}
	}
	for _, tli := range tlis {
		content, err := a.spool.history(tli)
		if err != nil {
			return &spoolError{err}
		}
		h, err := pg.ParseHistory(tli, content)
		if err != nil || len(h.Entries) == 0 {
			return &spoolError{fmt.Errorf("spool: history of timeline %s: %w", tli, errors.Join(err, errors.New("unreadable")))}
		}
		last := h.Entries[len(h.Entries)-1]
		a.jumps[place{last.Timeline, last.End}] = jump{to: tli, lsn: a.size.Floor(last.End)}
	}
	return nil
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
		// segments that were put and not yet remembered
		ok, err := a.cfg.Lineage.HasSegment(ctx, pg.Segment{Timeline: end.tli, Number: a.size.Number(end.lsn)})
		if err != nil {
			return place{}, err
		}
		if !ok {
			break
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
	if a.size.Offset(doc.LSN) == 0 && doc.LSN > 0 {
		ok, err := a.cfg.Lineage.HasSegment(ctx, pg.Segment{Timeline: doc.Timeline, Number: a.size.Number(doc.LSN) - 1})
		if err != nil {
			return place{}, err
		}
		_, herr := a.cfg.Lineage.History(ctx, doc.Timeline)
		if herr != nil && !errors.Is(herr, blob.ErrNotExist) {
			return place{}, herr
		}
		if !ok && herr != nil {
			return place{}, nil
		}
	}
	return place{doc.Timeline, doc.LSN}, nil
}

// listEnd looks at every segment: the last that follows the one before, unless
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
	var end place
	for g, err := range a.cfg.Lineage.Segments(ctx, pg.Segment{}) {
		if err != nil {
			return place{}, err
		}
		start := a.size.Start(g.Number)
		if g.Timeline == end.tli && start != end.lsn && !declared(end.tli, end.lsn, start) {
			a.cfg.Log.Warn("a hole in the archive; going on from there", "timeline", end.tli, "at", end.lsn)
			return end, nil
		}
		end = place{g.Timeline, a.size.End(g.Number)}
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
			return place{tlis[n-1], a.size.Floor(h.Entries[len(h.Entries)-1].End)}, nil
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
	return end, nil
}
