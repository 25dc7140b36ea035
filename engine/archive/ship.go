// SPDX-License-Identifier: Apache-2.0

package archive

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"sync"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/kbcli/kbcli/engine/pg"
	"github.com/kbcli/kbcli/engine/repository"
)

// chunk is how many raw bytes of WAL make one frame when there is plenty.
const chunk = 1 << 20

// shipment is the segment that is being shipped.
type shipment struct {
	seg       pg.Segment
	file      *os.File
	pos       pg.LSN // compressed and scanned up to here
	tailed    pg.LSN // in the repository as tails up to here
	check     bool   // those tails are of an earlier run and not compared yet
	frames    [][]byte
	sum       *xxhash.Digest // of the raw bytes from the segment's start
	fromTail  [][]byte       // the frames since the last tail
	sinceTail *xxhash.Digest
}

// shipper is the state of the ship goroutine.
type shipper struct {
	a         *Archiver
	at        place // the next byte to ship
	s         *shipment
	old       map[pg.Segment]bool // spooled by an earlier run, which may have put tails of them
	scan      *scan
	buf       []byte
	due       *time.Timer            // fires when a tail may be put
	histories map[pg.TimelineID]bool // that are stored

	beatFailed bool // and nobody else forgets its error

	// upctx is of the uploads: they may end in order after ctx was cancelled.
	upctx     context.Context
	uploading sync.WaitGroup
	gate      chan struct{}
	last      chan error // tells when the newest upload counts: uploads count in order
	err       chan error // the first upload that failed for good
}

// ship compresses, scans and uploads what the spool holds, in order, until ctx
// ends. When it ends it tries, for a moment, to put what is there as a tail.
func (a *Archiver) ship(ctx context.Context) error {
	upctx, stop := context.WithCancel(context.WithoutCancel(ctx))
	p := &shipper{
		a: a, old: map[pg.Segment]bool{}, scan: newScan(a), buf: make([]byte, chunk),
		due: time.NewTimer(a.cfg.TailInterval), histories: map[pg.TimelineID]bool{},
		upctx: upctx, gate: make(chan struct{}, uploads), err: make(chan error, 1),
	}
	defer p.uploading.Wait()
	defer stop()
	defer p.due.Stop()
	defer p.drop()
	if err := a.await(ctx, func(st *Status) bool { return st.Repository != 0 }); err != nil {
		return err
	}
	a.mu.Lock()
	p.at = place{a.st.RepositoryTimeline, a.st.Repository}
	a.mu.Unlock()
	for _, g := range a.spool.segments() {
		p.old[g] = true
	}
	a.tidy(ctx, a.sweep)
	err := p.run(ctx)
	if ctx.Err() == nil {
		return err
	}
	// the last second of WAL is worth a moment's wait
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), a.patience)
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
		changed := p.a.Changed() // before step looks, so that no change is missed
		worked, err := p.step(ctx)
		if err != nil {
			return err
		}
		if worked {
			select {
			case <-p.due.C: // a segment that takes long to fill has tails all the same
				if err := p.tailDue(ctx); err != nil {
					return err
				}
			default:
			}
			continue
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case err := <-p.err:
			return err
		case <-changed:
		case <-p.due.C:
			if err := p.tailDue(ctx); err != nil {
				return err
			}
		case <-beat.C:
			if err := p.beat(ctx); err != nil {
				return err
			}
		}
	}
}

func (p *shipper) tailDue(ctx context.Context) error {
	p.due.Reset(p.a.cfg.TailInterval)
	return p.tail(ctx)
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
	start := place{s.seg.Timeline, size.Start(s.seg.Number)}
	if j, ok := p.a.jumpAt(start); ok && s.pos == start.lsn {
		return true, p.jump(ctx, start, j) // whatever was held here was given up
	}
	held := place{start.tli, start.lsn + pg.LSN(p.a.spool.held(s.seg))}
	if tailed := (place{start.tli, s.tailed}); held.lsn < s.tailed {
		if j, ok := p.a.jumpAt(tailed); ok {
			return true, p.jump(ctx, tailed, j) // and an earlier run put all there was
		}
	}
	j, jumps := p.a.jumpAt(held)
	full := held.lsn == size.End(s.seg.Number)
	switch ready := held.lsn - s.pos; {
	case held.lsn < s.pos: // it is being streamed again
		return false, nil
	case s.check && held.lsn >= s.tailed:
		return true, p.compare(ctx)
	case ready >= chunk || ready > 0 && (full || jumps):
		return true, p.take(ctx, s.pos+min(ready, chunk-s.pos%chunk))
	case full:
		return true, p.seal(ctx)
	case jumps:
		return true, p.jump(ctx, held, j)
	case p.a.cfg.Sync && held.lsn > s.tailed:
		return true, p.tail(ctx)
	}
	return false, nil
}

// begin opens the segment that p.at lies in. Its bytes are taken from its start,
// whatever the repository already has as tails.
func (p *shipper) begin(ctx context.Context) error {
	g := pg.Segment{Timeline: p.at.tli, Number: p.a.size.Number(p.at.lsn)}
	start := p.a.size.Start(g.Number)
	p.a.turning.Lock()
	p.a.mu.Lock()
	p.a.shipping = g
	p.a.mu.Unlock()
	p.a.turning.Unlock()
	if err := p.scan.begin(ctx, p, g); err != nil {
		return err
	}
	p.s = &shipment{seg: g, pos: start, tailed: p.at.lsn, check: p.at.lsn > start, sum: xxhash.New(), sinceTail: xxhash.New()}
	return nil
}

// compare holds what came again against the tails of an earlier run, by putting the
// last of them once more: bytes that differ before its end differ in it too.
func (p *shipper) compare(ctx context.Context) error {
	s := p.s
	var last repository.Tail
	err := p.a.retry(ctx, "compare the tails", func(ctx context.Context) error {
		ts, err := p.a.cfg.Lineage.Tails(ctx, &s.seg)
		if err != nil {
			return err
		}
		chain, _ := repository.Chain(ts, p.a.size.Start(s.seg.Number))
		if len(chain) == 0 {
			return nil
		}
		last = chain[len(chain)-1]
		raw := make([]byte, last.To-last.From)
		if err := p.read(raw, last.From); err != nil {
			return err
		}
		return p.a.cfg.Lineage.PutTail(ctx, last, [][]byte{repository.Compress(nil, raw)}, xxhash.Sum64(raw))
	})
	var conflict *repository.ConflictError
	if errors.As(err, &conflict) {
		return &DivergedError{s.seg.Timeline, last.From}
	}
	s.check = false
	return err
}

// read fills raw from the spooled segment.
func (p *shipper) read(raw []byte, at pg.LSN) error {
	if p.s.file == nil {
		f, err := p.a.spool.reader(p.s.seg)
		if err != nil {
			return &spoolError{err}
		}
		p.s.file = f
	}
	if _, err := p.s.file.ReadAt(raw, p.a.size.Offset(at)); err != nil {
		return &spoolError{fmt.Errorf("spool: read %s: %w", p.s.file.Name(), err)}
	}
	return nil
}

// take compresses and scans the WAL from s.pos to end, at most one chunk.
func (p *shipper) take(ctx context.Context, end pg.LSN) error {
	s := p.s
	if s.tailed > s.pos && s.tailed < end {
		end = s.tailed // so that a frame begins where the next tail does
	}
	raw := p.buf[:end-s.pos]
	if err := p.read(raw, s.pos); err != nil {
		return err
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
	if held <= s.tailed || held < s.pos || held == p.a.size.End(s.seg.Number) {
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
	if p.histories[tli] {
		return nil
	}
	content, err := p.a.spool.history(tli)
	if err != nil {
		return &spoolError{err}
	}
	if content != nil { // else stored by an earlier run, or timeline 1
		err = p.a.retry(ctx, "put a history file", func(ctx context.Context) error {
			return p.a.cfg.Lineage.PutHistory(ctx, tli, content)
		})
	}
	p.histories[tli] = err == nil
	return err
}

// jump ends a stretch: what there is of it stays as tails, for good.
func (p *shipper) jump(ctx context.Context, end place, j jump) error {
	if err := p.settle(ctx); err != nil {
		return err
	}
	if err := p.putTail(ctx); err != nil {
		return err
	}
	if err := p.history(ctx, j.to); err != nil {
		return err
	}
	for {
		if j.gap != nil {
			err := p.a.retry(ctx, "declare a gap", func(ctx context.Context) error {
				return p.a.cfg.Lineage.PutGap(ctx, *j.gap)
			})
			if err != nil {
				return err
			}
		}
		longer, err := p.leave(end, j)
		if err != nil || longer == nil {
			return err
		}
		j = *longer
	}
}

// leave goes on at j, unless the gap has grown meanwhile.
func (p *shipper) leave(end place, j jump) (longer *jump, err error) {
	a := p.a
	a.turning.Lock()
	defer a.turning.Unlock()
	if now, _ := a.jumpAt(end); now != j {
		return &now, nil
	}
	to := place{j.to, j.lsn}
	// the position first: without the jump nothing else leads there
	if err := a.savePosition(to, false); err != nil {
		return nil, err
	}
	jumps := maps.Clone(a.jumps)
	delete(jumps, end)
	err = a.setJumps(jumps, func(st *Status) {
		a.shipping = pg.Segment{Timeline: to.tli, Number: a.size.Number(to.lsn)}
		st.Turns++
	})
	if err != nil {
		return nil, err
	}
	// of the stretch that was left, and of what a gap swallowed, nothing more is shipped
	for _, g := range a.spool.segments() {
		if g == p.s.seg || j.gap != nil && g.Timeline == j.to && g.Number < a.size.Number(j.lsn) {
			if err := a.spool.remove(g); err != nil {
				return nil, &spoolError{err}
			}
		}
	}
	p.drop()
	p.scan.leave()
	p.at = to
	a.shipped(to, 0)
	return nil, nil
}

// finish puts what is there when the Archiver is stopped.
func (p *shipper) finish(ctx context.Context) error {
	for {
		worked, err := p.step(ctx)
		if err != nil {
			return err
		}
		if !worked {
			break
		}
	}
	if err := p.tail(ctx); err != nil {
		return err
	}
	// all uploads, and what they delete
	for range uploads {
		select {
		case p.gate <- struct{}{}:
		case err := <-p.err:
			return err
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return p.beat(ctx)
}

// drop closes the segment that was being shipped.
func (p *shipper) drop() {
	if p.s != nil && p.s.file != nil {
		_ = p.s.file.Close() // opened for reading only
	}
	p.s = nil
}

// beat records how far an idle server's clock got.
func (p *shipper) beat(ctx context.Context) error {
	at, proven, idle := p.a.idleSince()
	if !idle {
		return nil
	}
	err := p.a.once(ctx, "put a beat", func(ctx context.Context) error {
		return p.a.cfg.Lineage.PutBeat(ctx, repository.Beat{Timeline: at.tli, LSN: at.lsn, Time: proven})
	})
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		p.a.failing("put a beat", err)
		p.beatFailed = true
	} else if p.beatFailed {
		p.beatFailed = false
		p.a.healed()
	}
	return nil
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
