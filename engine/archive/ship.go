// SPDX-License-Identifier: Apache-2.0

package archive

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/kbcli/kbcli/engine/pg"
	"github.com/kbcli/kbcli/engine/repository"
)

// chunk is how many raw bytes of WAL make one frame when there is plenty.
const chunk = 1 << 20

// manyFrames is how many frames a segment may have before they are compressed
// anew: small ones compress worse, and only a slow server makes many.
const manyFrames = 96

// uploads is how many whole segments may be on their way at once.
const uploads = 3

// shipment is the segment that is being shipped.
type shipment struct {
	seg       pg.Segment
	file      *os.File
	pos       pg.LSN // compressed and scanned up to here
	tailed    pg.LSN // in the repository as tails up to here
	frames    [][]byte
	sum       *xxhash.Digest // of the raw bytes from the segment's start
	fromTail  [][]byte       // the frames since the last tail
	sinceTail *xxhash.Digest
}

// shipper is the state of the ship goroutine.
type shipper struct {
	a    *Archiver
	at   place // the next byte to ship
	s    *shipment
	scan *scan
	buf  []byte
	due  *time.Timer // fires when a tail may be put
	gate chan struct{}
	last chan error // of the newest upload: closed or errored in order
	err  chan error // the first upload that failed for good

	// upctx is of the uploads: they may end in order after ctx was cancelled.
	upctx context.Context
}

// ship compresses, scans and uploads what the spool holds, in order, until ctx
// ends. When it ends it tries, for a moment, to put what is there as a tail.
func (a *Archiver) ship(ctx context.Context) error {
	upctx, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	p := &shipper{
		upctx: upctx,
		a:     a, scan: newScan(a), buf: make([]byte, chunk),
		due:  time.NewTimer(a.cfg.TailInterval),
		gate: make(chan struct{}, uploads),
		err:  make(chan error, 1),
	}
	defer p.due.Stop()
	defer p.drop()
	if err := a.await(ctx, func(st *Status) bool { return st.Repository != 0 }); err != nil {
		return err
	}
	a.mu.Lock()
	p.at = place{a.st.RepositoryTimeline, a.st.Repository}
	a.mu.Unlock()
	err := p.run(ctx)
	if ctx.Err() == nil {
		return err
	}
	// the last second of WAL is worth a moment's wait
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	if err := p.finish(last); err != nil {
		a.failing("put the last tail", err)
	}
	return ctx.Err()
}

func (p *shipper) run(ctx context.Context) error {
	beat := time.NewTicker(max(p.a.cfg.BeatInterval, time.Second))
	defer beat.Stop()
	for {
		worked, err := p.step(ctx)
		if err != nil {
			return err
		}
		if worked {
			continue
		}
		ch := p.a.Changed()
		if more, err := p.step(ctx); more || err != nil {
			if err != nil {
				return err
			}
			continue
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case err := <-p.err:
			return err
		case <-ch:
		case <-p.due.C:
			if err := p.tail(ctx); err != nil {
				return err
			}
			p.due.Reset(p.a.cfg.TailInterval)
		case <-beat.C:
			if err := p.beat(ctx); err != nil {
				return err
			}
		}
	}
}

// step does the next piece of work, if there is one.
func (p *shipper) step(ctx context.Context) (bool, error) {
	select {
	case err := <-p.err:
		return false, err
	case <-ctx.Done():
		return false, ctx.Err()
	default:
	}
	if p.s == nil {
		if err := p.begin(ctx); err != nil {
			return false, err
		}
	}
	s, size := p.s, p.a.size
	held := size.Start(s.seg.Number) + pg.LSN(p.a.spool.held(s.seg))
	p.a.mu.Lock()
	j, jumps := p.a.jumps[place{s.seg.Timeline, held}]
	p.a.mu.Unlock()
	full := held == size.End(s.seg.Number)
	switch ready := held - s.pos; {
	case held < s.pos: // it is being streamed again
		return false, nil
	case ready >= chunk || ready > 0 && (full || jumps):
		return true, p.take(ctx, s.pos+min(ready, chunk-s.pos%chunk))
	case full:
		return true, p.seal(ctx)
	case jumps:
		return true, p.jump(ctx, place{s.seg.Timeline, held}, j)
	case p.a.cfg.Sync && held > s.tailed:
		return true, p.tail(ctx)
	}
	return false, nil
}

// begin opens the segment that p.at lies in. Its bytes are taken from its start,
// whatever the repository already has as tails.
func (p *shipper) begin(ctx context.Context) error {
	g := pg.Segment{Timeline: p.at.tli, Number: p.a.size.Number(p.at.lsn)}
	start := p.a.size.Start(g.Number)
	if err := p.scan.begin(ctx, p, g); err != nil {
		return err
	}
	p.s = &shipment{seg: g, pos: start, tailed: p.at.lsn, sum: xxhash.New(), sinceTail: xxhash.New()}
	return nil
}

// take compresses and scans the WAL from s.pos to end, at most one chunk.
func (p *shipper) take(ctx context.Context, end pg.LSN) error {
	s := p.s
	if s.tailed > s.pos && s.tailed < end {
		end = s.tailed // so that a frame begins where the next tail does
	}
	if s.file == nil {
		f, err := p.a.spool.reader(s.seg)
		if err != nil {
			return &spoolError{err}
		}
		s.file = f
	}
	raw := p.buf[:end-s.pos]
	if _, err := s.file.ReadAt(raw, p.a.size.Offset(s.pos)); err != nil {
		return &spoolError{fmt.Errorf("spool: read %s: %w", s.file.Name(), err)}
	}
	p.scan.feed(raw)
	frame := repository.Compress(nil, raw)
	_, _ = s.sum.Write(raw)
	s.frames = append(s.frames, frame)
	if s.pos >= s.tailed {
		s.fromTail = append(s.fromTail, frame)
		_, _ = s.sinceTail.Write(raw)
	}
	s.pos = end
	return ctx.Err()
}

// tail puts what is there and not yet in the repository, however little.
func (p *shipper) tail(ctx context.Context) error {
	s := p.s
	if s == nil {
		return nil
	}
	held := p.a.size.Start(s.seg.Number) + pg.LSN(p.a.spool.held(s.seg))
	if held <= s.tailed || held == p.a.size.End(s.seg.Number) {
		return nil
	}
	if err := p.settle(ctx); err != nil { // the segments before must be there first
		return err
	}
	for s.pos < held {
		if err := p.take(ctx, min(held, s.pos+chunk-s.pos%chunk)); err != nil {
			return err
		}
	}
	return p.putTail(ctx)
}

func (p *shipper) putTail(ctx context.Context) error {
	s := p.s
	if s.pos <= s.tailed {
		return nil
	}
	if err := p.history(ctx, s.seg.Timeline); err != nil {
		return err
	}
	t := repository.Tail{Segment: s.seg, From: s.tailed, To: s.pos}
	err := p.a.retry(ctx, "put a tail", func(ctx context.Context) error {
		return p.a.cfg.Lineage.PutTail(ctx, t, s.fromTail, s.sinceTail.Sum64())
	})
	if err != nil {
		return err
	}
	s.tailed = s.pos
	s.fromTail = nil
	s.sinceTail.Reset()
	p.a.shipped(place{s.seg.Timeline, s.tailed}, p.scan.lastCommit())
	return nil
}

// history stores the history file of a timeline before anything of it.
func (p *shipper) history(ctx context.Context, tli pg.TimelineID) error {
	content, err := p.a.spool.history(tli)
	if err != nil {
		return &spoolError{err}
	}
	if content == nil {
		return nil // stored by an earlier run, or timeline 1
	}
	return p.a.retry(ctx, "put a history file", func(ctx context.Context) error {
		return p.a.cfg.Lineage.PutHistory(ctx, tli, content)
	})
}

// seal hands the whole segment to an upload of its own and goes on to the next.
func (p *shipper) seal(ctx context.Context) error {
	s := p.s
	index, lastCommit, err := p.scan.finish(s.seg)
	if err != nil {
		return err
	}
	frames := s.frames
	if len(frames) > manyFrames {
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
	ctx = p.upctx
	before, done := p.last, make(chan error, 1)
	p.last = done
	sum := s.sum.Sum64()
	end := place{s.seg.Timeline, p.a.size.End(s.seg.Number)}
	hadTails := s.tailed > p.a.size.Start(s.seg.Number)
	go func() {
		err := p.a.upload(ctx, s.seg, frames, sum, index)
		if before != nil {
			// in order: the position moves over this segment when it has moved
			// over the one before
			select {
			case berr := <-before:
				err = errors.Join(berr, err)
			case <-ctx.Done():
				err = ctx.Err()
			}
		}
		if err == nil {
			p.a.shipped(end, lastCommit)
			err = p.a.forget(ctx, s.seg, hadTails)
		}
		if err != nil {
			select {
			case p.err <- err:
			default:
			}
		}
		<-p.gate
		done <- err
		close(done)
	}()
	p.drop()
	p.at = end
	return nil
}

func (p *shipper) compressAnew() ([][]byte, error) {
	var frames [][]byte
	for off := int64(0); off < int64(p.a.size); off += chunk {
		raw := p.buf[:min(chunk, int64(p.a.size)-off)]
		if _, err := p.s.file.ReadAt(raw, off); err != nil {
			return nil, &spoolError{fmt.Errorf("spool: read %s: %w", p.s.file.Name(), err)}
		}
		frames = append(frames, repository.Compress(nil, raw))
	}
	return frames, nil
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

// drop closes the segment that was being shipped.
func (p *shipper) drop() {
	if p.s != nil && p.s.file != nil {
		_ = p.s.file.Close() // opened for reading only
	}
	p.s = nil
}

// jump ends a stretch: what there is of it stays as tails, for good.
func (p *shipper) jump(ctx context.Context, end place, j jump) error {
	if err := p.settle(ctx); err != nil {
		return err
	}
	if err := p.putTail(ctx); err != nil {
		return err
	}
	if j.gap != nil {
		err := p.a.retry(ctx, "declare a gap", func(ctx context.Context) error {
			return p.a.cfg.Lineage.PutGap(ctx, *j.gap)
		})
		if err != nil {
			return err
		}
	}
	if err := p.history(ctx, j.to); err != nil {
		return err
	}
	old := p.s.seg
	p.drop()
	p.scan.leave()
	p.at = place{j.to, j.lsn}
	p.a.update(func(st *Status) { delete(p.a.jumps, end) })
	p.a.shipped(p.at, 0)
	if err := p.a.savePosition(p.at); err != nil {
		return err
	}
	// of the timeline that was left, and of what a gap swallowed, nothing more is shipped
	for _, g := range p.a.spool.segments() {
		if g == old || j.gap != nil && g.Timeline == j.to && g.Number < p.a.size.Number(j.lsn) {
			if err := p.a.spool.remove(g); err != nil {
				return &spoolError{err}
			}
		}
	}
	return nil
}

// finish puts what is there when the Archiver is stopped.
func (p *shipper) finish(ctx context.Context) error {
	if err := p.settle(ctx); err != nil {
		return err
	}
	if p.s == nil {
		return nil
	}
	if err := p.tail(ctx); err != nil {
		return err
	}
	return p.beat(ctx)
}

// beat records how far an idle server's clock got.
func (p *shipper) beat(ctx context.Context) error {
	at, proven, idle := p.a.idleSince()
	if !idle {
		return nil
	}
	err := p.a.cfg.Lineage.PutBeat(ctx, repository.Beat{Timeline: at.tli, LSN: at.lsn, Time: proven})
	if err != nil && ctx.Err() == nil {
		p.a.failing("put a beat", err)
	}
	return ctx.Err()
}

// upload stores a segment and its index.
func (a *Archiver) upload(ctx context.Context, g pg.Segment, frames [][]byte, sum uint64, index []byte) error {
	err := a.retry(ctx, "put a WAL segment", func(ctx context.Context) error {
		return a.cfg.Lineage.PutSegment(ctx, g, frames, sum)
	})
	if err != nil || index == nil {
		return err
	}
	return a.retry(ctx, "put a WAL index", func(ctx context.Context) error {
		return a.cfg.Lineage.PutIndex(ctx, g, index)
	})
}

// forget removes what a whole segment makes superfluous.
func (a *Archiver) forget(ctx context.Context, g pg.Segment, tails bool) error {
	if err := a.savePosition(place{g.Timeline, a.size.End(g.Number)}); err != nil {
		return err
	}
	if err := a.spool.remove(g); err != nil {
		return &spoolError{err}
	}
	a.update(func(*Status) {}) // the spool has room again
	if !tails {
		return nil
	}
	return a.retry(ctx, "delete tails", func(ctx context.Context) error {
		return a.cfg.Lineage.DeleteTails(ctx, g)
	})
}

// shipped moves the repository's position. lastCommit is the greatest time of a
// commit before it: every commit acknowledged by that time lies before that commit.
func (a *Archiver) shipped(at place, lastCommit pg.Timestamp) {
	a.update(func(st *Status) {
		st.RepositoryTimeline, st.Repository = at.tli, at.lsn
		if t := lastCommit.Time(); lastCommit != 0 && t.After(st.Proven) {
			st.Proven = t
		}
		a.settle(st)
	})
}

// giveUp makes room in a full spool: the whole segments that wait behind the one
// being shipped are dropped, and the gap declared.
func (a *Archiver) giveUp(at place) error {
	a.mu.Lock()
	repo := place{a.st.RepositoryTimeline, a.st.Repository}
	a.mu.Unlock()
	if repo.tli != at.tli {
		return nil // let the switch be shipped first
	}
	// uploads under way keep their segments
	from := a.size.End(a.size.Number(repo.lsn) + uploads)
	to := a.size.Floor(at.lsn)
	if to <= from {
		return nil
	}
	gap := repository.Gap{
		Timeline: at.tli, From: from, ToTimeline: at.tli, To: to,
		Reason:   fmt.Sprintf("the repository did not take WAL and the spool reached its limit of %d bytes", a.cfg.SpoolLimit),
		Detected: a.cfg.Clock().UTC().Truncate(time.Microsecond),
	}
	a.cfg.Log.Error("WAL is given up: the spool is full and the policy says not to wait; a new backup is needed",
		"timeline", gap.Timeline, "from", gap.From, "to", gap.To)
	a.update(func(st *Status) {
		a.jumps[place{at.tli, from}] = jump{to: at.tli, lsn: to, gap: &gap}
		st.Gaps = append(st.Gaps, gap)
	})
	for n := a.size.Number(from); n < a.size.Number(to); n++ {
		if err := a.spool.remove(pg.Segment{Timeline: at.tli, Number: n}); err != nil {
			return &spoolError{err}
		}
	}
	return nil
}
