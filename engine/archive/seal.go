// SPDX-License-Identifier: Apache-2.0

package archive

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/kbcli/kbcli/engine/blob"
	"github.com/kbcli/kbcli/engine/pg"
	"github.com/kbcli/kbcli/engine/repository"
)

// manyFrames is how many frames a segment may have before they are compressed
// anew: small ones compress worse, and only a slow server makes many.
const manyFrames = 96

// uploads is how many whole segments may be on their way at once.
const uploads = 3

// upload is a whole segment on its way.
type upload struct {
	seg        pg.Segment
	frames     [][]byte
	sum        uint64
	index      []byte // nil if its WAL cannot be read
	lastCommit pg.Timestamp
	tails      bool // that it makes superfluous
}

// seal hands the whole segment to an upload of its own and goes on to the next. What
// can be called off comes first: the index can be finished only once.
func (p *shipper) seal(ctx context.Context) error {
	s := p.s
	frames := s.frames
	if len(frames) > manyFrames {
		var err error
		if frames, err = p.compressAnew(); err != nil {
			return err
		}
	}
	if err := p.history(ctx, s.seg.Timeline); err != nil {
		return err
	}
	select {
	case p.gate <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	u := upload{seg: s.seg, frames: frames, sum: s.sum.Sum64(), tails: p.old[s.seg] || s.tailed > p.a.size.Start(s.seg.Number)}
	delete(p.old, s.seg)
	u.index, u.lastCommit = p.scan.finish()
	before, done := p.last, make(chan error, 1)
	p.last = done
	p.uploading.Go(func() {
		err := p.upload(u, before, done)
		if err != nil {
			select {
			case p.err <- err:
			default:
			}
		}
		<-p.gate
	})
	p.drop()
	p.at = place{u.seg.Timeline, p.a.size.End(u.seg.Number)}
	return nil
}

func (p *shipper) compressAnew() ([][]byte, error) {
	var frames [][]byte
	start := p.a.size.Start(p.s.seg.Number)
	for off := int64(0); off < int64(p.a.size); off += chunk {
		raw := p.buf[:min(chunk, int64(p.a.size)-off)]
		if err := p.read(raw, start+pg.LSN(off)); err != nil {
			return nil, err
		}
		frames = append(frames, repository.Compress(nil, raw))
	}
	return frames, nil
}

// upload stores a segment and its index. It counts, which done tells, once the
// uploads before it do.
func (p *shipper) upload(u upload, before, done chan error) error {
	a, ctx := p.a, p.upctx
	err := a.put(ctx, u)
	if before != nil {
		select {
		case berr := <-before:
			err = errors.Join(berr, err)
		case <-ctx.Done():
			err = ctx.Err()
		}
	}
	if err == nil {
		end := place{u.seg.Timeline, a.size.End(u.seg.Number)}
		a.shipped(end, u.lastCommit)
		err = a.forget(u.seg, end)
	}
	done <- err
	close(done)
	if err == nil && u.tails {
		a.tidy(ctx, func(ctx context.Context) error { return a.cfg.Lineage.DeleteTails(ctx, u.seg) })
	}
	return err
}

// tidy runs fn, which deletes what is superfluous. Archiving does not depend on it:
// there are stores that let nobody delete. The next start tries again.
func (a *Archiver) tidy(ctx context.Context, fn func(context.Context) error) {
	var err error
	for _, pause := range []time.Duration{0, 100 * time.Millisecond, time.Second} {
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
		if err = fn(ctx); err == nil || errors.Is(err, blob.ErrDenied) {
			break
		}
	}
	if err != nil && ctx.Err() == nil {
		a.cfg.Log.Warn("tails that are in whole segments now cannot be deleted; they do no harm", "error", err)
	}
}

func (a *Archiver) put(ctx context.Context, u upload) error {
	err := a.retry(ctx, "put a WAL segment", func(ctx context.Context) error {
		return a.cfg.Lineage.PutSegment(ctx, u.seg, u.frames, u.sum)
	})
	if err != nil || u.index == nil {
		return err
	}
	return a.retry(ctx, "put a WAL index", func(ctx context.Context) error {
		return a.cfg.Lineage.PutIndex(ctx, u.seg, u.index)
	})
}

// forget removes from the spool what the repository holds.
func (a *Archiver) forget(g pg.Segment, end place) error {
	if err := a.savePosition(end, false); err != nil {
		return err
	}
	if err := a.spool.remove(g); err != nil {
		return &spoolError{err}
	}
	a.update(func(*Status) {}) // the spool has room again
	return nil
}

// sweep deletes the tails of whole segments that a run which was killed left.
func (a *Archiver) sweep(ctx context.Context) error {
	ts, err := a.cfg.Lineage.Tails(ctx, nil)
	if err != nil {
		return err
	}
	var last pg.Segment
	for _, t := range ts {
		if t.Segment == last {
			continue
		}
		last = t.Segment
		whole, err := a.cfg.Lineage.HasSegment(ctx, last)
		if err != nil {
			return err
		}
		// what the spool has is put again first, with its index
		if !whole || a.spool.held(last) > 0 {
			continue
		}
		if err := a.cfg.Lineage.DeleteTails(ctx, last); err != nil {
			return fmt.Errorf("of segment %s: %w", a.size.Name(last), err)
		}
	}
	return nil
}

// settle waits until every upload has ended.
func (p *shipper) settle(ctx context.Context) error {
	if p.last == nil {
		return nil
	}
	select {
	case err := <-p.last:
		p.last = nil
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}
