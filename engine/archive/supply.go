// SPDX-License-Identifier: Apache-2.0

package archive

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/kbcli/kbcli/engine/blob"
	"github.com/kbcli/kbcli/engine/pg"
	"github.com/kbcli/kbcli/engine/repository"
)

// Supply gives a standby what it lacks and no server has for it any more: the answers to
// its restore_command. A server reads what that gives before its own pg_wal and in its
// place, so nothing is given that is less than what the standby has, or other.
//
// It follows the path that leads to the newest timeline of the archive. WAL that a
// primary wrote after its successor had left it is on no such path: it is given to nobody.
type Supply struct {
	Lineage *repository.Lineage
	Data    string // the standby's data directory
}

// ErrNotSupplied says that the standby goes on with what it has.
var ErrNotSupplied = errors.New("not supplied")

// Wanted says who asks for a file.
type Wanted struct {
	// Running: the server answers. It sees for itself then whether a timeline has left
	// its own before what it replayed; one that starts takes what it is given and ends
	// for good where that cannot be.
	Running bool
	// All: what there is of the unfinished segment is wanted too. It is for the server that
	// becomes the primary; any other would be given what the next primary may not have, but
	// for what it needs to be consistent.
	All bool
}

// File gives a segment, padded to its size, or a history file. ErrNotSupplied is the
// answer where there is none that this standby may follow; any other error says that it is
// not known.
func (s Supply) File(ctx context.Context, name string, w Wanted) ([]byte, error) {
	control, err := s.control()
	if err != nil {
		return nil, err
	}
	switch control.State {
	case pg.StateInArchiveRecovery, pg.StateShutDownInRecovery, pg.StateShutDown:
	default:
		// a primary that crashed has all it needs, and what it wrote last is known to
		// nobody before it has recovered
		return nil, ErrNotSupplied
	}
	if tli, err := pg.ParseHistoryFileName(name); err == nil {
		return s.history(ctx, control, tli, w)
	}
	g, err := s.size().ParseName(name)
	if err != nil {
		return nil, ErrNotSupplied // .backup and .partial are nothing that a standby needs
	}
	until := pg.LSN(0) // of what is not a whole segment
	switch {
	case w.All:
		until = s.size().End(g.Number)
	case !w.Running && g.Timeline == control.MinRecoveryPointTimeline:
		// one that was rewound cannot serve before it has what its source had then
		until = control.MinRecoveryPoint
	}
	return s.segment(ctx, g, until)
}

func (s Supply) size() pg.SegmentSize { return s.Lineage.Info().SegmentSize }

func (s Supply) control() (pg.ControlFile, error) {
	for try := 0; ; try++ {
		b, err := os.ReadFile(filepath.Join(s.Data, "global", "pg_control"))
		if err != nil {
			return pg.ControlFile{}, err
		}
		c, err := pg.ParseControlFile(b)
		if !errors.Is(err, pg.ErrControlFileCRC) || try == 3 {
			return c, err // one that was being written is read again
		}
	}
}

// Path leads to the newest timeline of the archive; that of one without a history file is
// own.
func (s Supply) Path(ctx context.Context, own pg.TimelineID) (pg.History, error) {
	all, err := s.Lineage.Histories(ctx)
	if err != nil {
		return pg.History{}, err
	}
	if len(all) == 0 || all[len(all)-1] < own {
		return pg.History{Timeline: own}, nil
	}
	tip := all[len(all)-1]
	content, err := s.Lineage.History(ctx, tip)
	if err != nil {
		return pg.History{}, err
	}
	return pg.ParseHistory(tip, content)
}

// End is where the archived WAL ends on a path, looked for from at on. It is at, or
// before it, where the archive has no more.
func (s Supply) End(ctx context.Context, path pg.History, at pg.LSN) (pg.LSN, error) {
	if n := len(path.Entries); n > 0 {
		at = max(at, path.Entries[n-1].End)
	}
	for n := s.size().Number(at); ; n++ {
		g := pg.Segment{Timeline: path.Timeline, Number: n}
		whole, err := s.Lineage.HasSegment(ctx, g)
		if err != nil {
			return 0, err
		}
		if whole {
			continue
		}
		tails, err := s.Lineage.Tails(ctx, &g)
		if err != nil {
			return 0, err
		}
		_, end := repository.Chain(tails, s.size().Start(n))
		if end < s.size().End(n) {
			// or it was completed, and its tails went, between the two questions
			if whole, err = s.Lineage.HasSegment(ctx, g); err != nil {
				return 0, err
			}
			if !whole {
				return end, nil
			}
		}
	}
}

// history gives a timeline's file to a server that can follow it.
func (s Supply) history(ctx context.Context, control pg.ControlFile, tli pg.TimelineID, w Wanted) ([]byte, error) {
	if _, err := os.Stat(filepath.Join(s.Data, "pg_wal", pg.HistoryFileName(tli))); err == nil {
		return nil, ErrNotSupplied // its own counts
	}
	content, err := s.Lineage.History(ctx, tli)
	if errors.Is(err, blob.ErrNotExist) {
		return nil, ErrNotSupplied
	}
	if err != nil {
		return nil, err
	}
	h, err := pg.ParseHistory(tli, content)
	if err != nil {
		return nil, err
	}
	if !w.Running && !canFollow(control, h) {
		return nil, ErrNotSupplied
	}
	return content, nil
}

// canFollow tells whether all that a server that starts has is part of a path.
func canFollow(c pg.ControlFile, h pg.History) bool {
	if !h.Contains(c.Timeline, c.Checkpoint) {
		return false
	}
	// the byte before it: it is where what was replayed ends
	return c.MinRecoveryPoint == 0 || h.Contains(c.MinRecoveryPointTimeline, c.MinRecoveryPoint-1)
}

// segment gives what the archive has of a segment on its path, if that is more than what
// lies in pg_wal.
func (s Supply) segment(ctx context.Context, g pg.Segment, until pg.LSN) ([]byte, error) {
	has, err := s.held(g)
	if err != nil {
		return nil, err
	}
	if len(has) == int(s.size()) {
		return nil, ErrNotSupplied
	}
	path, err := s.Path(ctx, g.Timeline)
	if err != nil {
		return nil, err
	}
	end := s.size().End(g.Number)
	if g.Timeline != path.Timeline {
		left, ok := path.SwitchPoint(g.Timeline)
		if !ok || left <= s.size().Start(g.Number) {
			return nil, ErrNotSupplied
		}
		end = min(end, left)
	}
	raw, whole, err := s.archived(ctx, g, until > s.size().Start(g.Number))
	if err != nil {
		return nil, err
	}
	if !whole {
		end = min(end, until)
	}
	raw = raw[:min(len(raw), int(end-s.size().Start(g.Number)))]
	if len(raw) <= len(has) {
		return nil, ErrNotSupplied
	}
	if !bytes.Equal(raw[:len(has)], has) {
		return nil, fmt.Errorf("WAL segment %s in pg_wal is not the archive's: %w", s.size().Name(g), ErrNotSupplied)
	}
	return append(raw, make([]byte, int(s.size())-len(raw))...), nil
}

// archived is what the archive has of a segment, and whether that is the whole one.
func (s Supply) archived(ctx context.Context, g pg.Segment, tails bool) (raw []byte, whole bool, err error) {
	for try := 0; ; try++ {
		raw, err := s.Lineage.Segment(ctx, g, nil)
		if err == nil {
			return raw, true, nil
		}
		if !errors.Is(err, blob.ErrNotExist) {
			return nil, false, err
		}
		if !tails {
			return nil, false, ErrNotSupplied
		}
		raw, err = s.Lineage.ReadTail(ctx, g)
		if err == nil && len(raw) > 0 {
			return raw, false, nil
		}
		if err != nil && !errors.Is(err, blob.ErrNotExist) {
			return nil, false, err
		}
		if try > 0 { // they go when the segment is complete, and then it is there
			return nil, false, ErrNotSupplied
		}
	}
}

// held is what the standby itself has of a segment, up to its last whole record. A file
// in pg_wal may be an old one under a new name.
func (s Supply) held(g pg.Segment) ([]byte, error) {
	b, err := os.ReadFile(filepath.Join(s.Data, "pg_wal", s.size().Name(g)))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if len(b) != int(s.size()) {
		return nil, nil // it is being made
	}
	n, err := soundLength(bytes.NewReader(b), s.size(), g, s.Lineage.Info().SystemID)
	return b[:n], err
}
