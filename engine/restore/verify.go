// SPDX-License-Identifier: Apache-2.0

package restore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/kbcli/kbcli/engine/blob"
	"github.com/kbcli/kbcli/engine/pg"
	"github.com/kbcli/kbcli/engine/repository"
)

// Report is what Verify read of a backup.
type Report struct {
	Backup   string               `json:"backup"`
	Files    int64                `json:"files"`
	Bytes    int64                `json:"bytes"` // of all files, as they are restored
	Packs    int                  `json:"packs"`
	Segments int                  `json:"segments"`           // of WAL, from the backup's start to its end
	BadPages []repository.BadPage `json:"badPages,omitempty"` // wrong on the server already
}

// DamagedError says what of a backup is damaged or missing. It wraps an error for each.
type DamagedError struct {
	Backup string
	Damage []error
}

func (e *DamagedError) Error() string {
	words := make([]string, len(e.Damage))
	for i, d := range e.Damage {
		words[i] = d.Error()
	}
	return fmt.Sprintf("backup %s is damaged: %s", e.Backup, strings.Join(words, "; "))
}

func (e *DamagedError) Unwrap() []error { return e.Damage }

// verifyJobs is how many packs are read at once; each takes a pack of memory.
const verifyJobs = 2

// Verify reads everything that a restore to the end of the backup m would read, and
// checks every byte of it: each pack that its list of files names, its own and those of
// other backups; that the list and the packs agree; and the WAL from its start to its
// stop. Of a snapshot, which has no checksums of its own, it checks that each file is
// there with its size, and the pages of relations if they carry checksums; of a
// VolumeSnapshot, whose files cannot be seen, that it is there. It writes nothing.
//
// progress, which may be nil, is told how many of the raw bytes have been read, and
// how many there are, one call at a time and not in the caller's goroutine. Damage is a
// *DamagedError that names all there is, beside a Report of the rest; any other error
// comes alone, as soon as it occurs.
func Verify(ctx context.Context, l *repository.Lineage, m *repository.Manifest, progress func(done, total int64)) (*Report, error) {
	v := &verifier{l: l, m: m, progress: progress, report: &Report{Backup: m.Name, BadPages: m.BadPages}}
	files := v.files
	if m.Snapshot != nil {
		files = v.snapshot
	}
	for _, part := range []func(context.Context) error{files, v.history, v.wal} {
		if err := part(ctx); err != nil {
			return nil, fmt.Errorf("verify backup %s: %w", m.Name, err)
		}
	}
	if len(v.damage) > 0 {
		slices.SortFunc(v.damage, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
		return v.report, &DamagedError{m.Name, v.damage}
	}
	return v.report, nil
}

type verifier struct {
	l        *repository.Lineage
	m        *repository.Manifest
	progress func(done, total int64)
	report   *Report

	mu     sync.Mutex
	done   int64
	damage []error
}

// note keeps err if it is damage to what, and returns it if it is not.
func (v *verifier) note(what string, err error) error {
	var corrupt *repository.CorruptError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &corrupt):
	case errors.Is(err, blob.ErrNotExist):
		err = fmt.Errorf("%s is missing: %w", what, err)
	default:
		return err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.damage = append(v.damage, err)
	return nil
}

// files checks the list of files, which repository.Files does to the last extent, and
// all packs that it names.
func (v *verifier) files(ctx context.Context) error {
	files, err := v.l.Files(ctx, v.m)
	if err != nil {
		return v.note("the list of files", err)
	}
	v.list(files)
	var total int64
	packs := make([][]repository.FrameInfo, len(files.Packs))
	for _, f := range files.Frames {
		packs[f.Pack] = append(packs[f.Pack], f.FrameInfo)
		total += int64(f.Raw)
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(verifyJobs)
	for n, frames := range packs {
		g.Go(func() error { return v.pack(ctx, files.Packs[n], frames, total) })
	}
	return g.Wait()
}

// list holds the list of files against the manifest.
func (v *verifier) list(files *repository.Files) {
	control := false
	for i := range files.Files {
		f := &files.Files[i]
		if f.Kind != repository.RegularFile {
			continue
		}
		v.report.Files++
		v.report.Bytes += f.Size
		control = control || f.Path == controlPath
	}
	if !control || v.report.Files != v.m.Files || v.report.Bytes != v.m.DataBytes {
		v.damage = append(v.damage, fmt.Errorf("the list of files has %d files of %d bytes, its manifest says %d of %d, and its control file is there: %t",
			v.report.Files, v.report.Bytes, v.m.Files, v.m.DataBytes, control))
	}
}

// pack reads one pack whole. That a frame is in its table with the checksum that the
// list of files has means that its bytes are those of the files.
func (v *verifier) pack(ctx context.Context, ref repository.PackRef, frames []repository.FrameInfo, total int64) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	name := fmt.Sprintf("pack %d of backup %s", ref.Number, ref.Backup)
	table, err := v.l.PackTable(ctx, ref)
	if err != nil {
		return v.note(name, err)
	}
	has := make(map[repository.FrameInfo]bool, len(table))
	for _, f := range table {
		has[f] = true
	}
	var raw int64
	for _, f := range frames {
		raw += int64(f.Raw)
		if !has[f] {
			return v.note(name, &repository.CorruptError{Key: name, Reason: fmt.Sprintf("it has no frame at %d with the checksum that the list of files says", f.Offset)})
		}
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.report.Packs++
	v.done += raw
	if v.progress != nil {
		v.progress(v.done, total)
	}
	return nil
}

// history checks that the way to the backup's timeline is known.
func (v *verifier) history(ctx context.Context) error {
	if v.m.Timeline == 1 {
		return nil
	}
	content, err := v.l.History(ctx, v.m.Timeline)
	if err != nil {
		return v.note(fmt.Sprintf("the history of timeline %s", v.m.Timeline), err)
	}
	if _, err := pg.ParseHistory(v.m.Timeline, content); err != nil {
		v.damage = append(v.damage, err)
	}
	return nil
}

// wal reads the WAL that makes the backup consistent.
func (v *verifier) wal(ctx context.Context) error {
	size := v.l.Info().SegmentSize
	for at := v.m.StartLSN; at < v.m.StopLSN; at = size.End(size.Number(at)) {
		g := pg.Segment{Timeline: v.m.Timeline, Number: size.Number(at)}
		err := v.segment(ctx, g, min(v.m.StopLSN, size.End(g.Number)))
		var missing *repository.MissingWALError
		if errors.As(err, &missing) {
			v.damage = append(v.damage, err)
			continue
		}
		if err := v.note("WAL segment "+size.Name(g), err); err != nil {
			return err
		}
	}
	return nil
}

// segment reads one segment, which must be there up to need, whole or in pieces.
func (v *verifier) segment(ctx context.Context, g pg.Segment, need pg.LSN) error {
	_, err := v.l.Segment(ctx, g, nil)
	if errors.Is(err, blob.ErrNotExist) {
		var raw []byte
		if raw, err = v.l.ReadTail(ctx, g); err == nil || errors.Is(err, blob.ErrNotExist) {
			end := v.l.Info().SegmentSize.Start(g.Number) + pg.LSN(len(raw))
			if end < need { // or it has been completed, and its pieces deleted, between the two questions
				if _, err = v.l.Segment(ctx, g, nil); errors.Is(err, blob.ErrNotExist) {
					err = &repository.MissingWALError{Timeline: g.Timeline, From: max(end, v.m.StartLSN), To: need}
				}
			} else {
				err = nil
			}
		}
	}
	if err == nil {
		v.report.Segments++
	}
	return err
}
