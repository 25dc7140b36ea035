// SPDX-License-Identifier: Apache-2.0

package basebackup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync"
	"sync/atomic"

	"github.com/cespare/xxhash/v2"
	"golang.org/x/sync/errgroup"

	"github.com/kbcli/kbcli/engine/pg"
	"github.com/kbcli/kbcli/engine/repository"
)

// frameID is what a frame is known by when an interrupted backup is taken up.
type frameID struct {
	raw uint32
	sum uint64
}

// piece is where a stretch of a file went.
type piece struct {
	offset int64
	extent repository.Extent
}

// copier stores files. Its maps and slices are guarded by mu.
type copier struct {
	cfg     *Config
	start   pg.LSN
	verify  bool
	exact   bool  // nobody writes the files: what is short or gone is damage
	total   int64 // bytes to read
	entries []entry

	writers  chan *packWriter // free ones
	packs    atomic.Uint32
	uploads  errgroup.Group
	upctx    context.Context // of the uploads
	progress atomic.Int64

	base     *base    // nil: none
	fromBase []uint32 // by the base's frame: its number in frames and 1; 0 is none yet

	mu      sync.Mutex
	refs    []repository.PackRef
	numbers map[repository.PackRef]uint32 // in refs
	frames  []repository.Frame            // of packs by their numbers in refs
	pieces  [][]piece                     // by entry
	gone    []bool
	bad     []repository.BadPage
	earlier map[frameID]stored
	stored  int64
	fresh   int64
}

// stored is a frame that is in the repository.
type stored struct {
	pack repository.PackRef
	repository.FrameInfo
}

type packWriter struct {
	repository.PackWriter
	number uint32
}

// frame lists a frame, and gives its number. The caller holds mu.
func (c *copier) frame(pack repository.PackRef, info repository.FrameInfo) uint32 {
	n, ok := c.numbers[pack]
	if !ok {
		n = uint32(len(c.refs))
		c.numbers[pack] = n
		c.refs = append(c.refs, pack)
	}
	c.frames = append(c.frames, repository.Frame{Pack: n, FrameInfo: info})
	return uint32(len(c.frames) - 1)
}

// reuse lists a frame of the base, once. The caller holds mu.
func (c *copier) reuse(n uint32) uint32 {
	at := &c.fromBase[n]
	if *at == 0 {
		fr := c.base.files.Frames[n]
		*at = c.frame(c.base.files.Packs[fr.Pack], fr.FrameInfo) + 1
	}
	return *at - 1
}

// keep takes from the base what is not read.
func (c *copier) keep(b *base, shares []share) {
	if b == nil {
		return
	}
	c.base, c.fromBase = b, make([]uint32, len(b.files.Frames))
	c.bad = b.badPages(c.entries, shares)
	for i := range shares {
		shares[i].kept(c.entries[i].Size, func(at int64, x repository.Extent) {
			x.Frame = c.reuse(x.Frame)
			c.pieces[i] = append(c.pieces[i], piece{at, x})
		})
	}
}

func newCopier(cfg *Config, entries []entry, use sizing) *copier {
	c := &copier{
		cfg: cfg, entries: entries,
		writers: make(chan *packWriter, use.workers+use.uploads),
		pieces:  make([][]piece, len(entries)),
		gone:    make([]bool, len(entries)),
		numbers: map[repository.PackRef]uint32{},
	}
	for range cap(c.writers) {
		p := &packWriter{}
		p.Size = use.pack
		c.writers <- p
	}
	return c
}

// run copies all tasks with the given number of workers.
func (c *copier) run(ctx context.Context, list []task, workers int) error {
	queue := make(chan task)
	// uploads outlive the workers, and end with an error of any of them
	upctx, cancel := context.WithCancel(ctx)
	defer cancel()
	c.upctx = upctx
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		defer close(queue)
		for _, t := range list {
			select {
			case queue <- t:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		return nil
	})
	for range workers {
		g.Go(func() error {
			if err := c.cfg.Bounds.Thread(); err != nil {
				return err
			}
			w := &worker{c: c, buf: make([]byte, 0, repository.FrameSize)}
			for t := range queue {
				if err := w.do(ctx, t); err != nil {
					return err
				}
			}
			w.put()
			return nil
		})
	}
	err := g.Wait()
	if err != nil {
		cancel()
	}
	if uperr := c.uploads.Wait(); err == nil || !errors.Is(uperr, context.Canceled) {
		err = errors.Join(err, uperr)
	}
	return err
}

// worker fills one pack at a time.
type worker struct {
	c      *copier
	pack   *packWriter
	file   *os.File // the one that is open
	reads  int      // its entry
	buf    []byte   // raw bytes of the frame being filled
	inside []held
}

// held is a stretch of a file in the frame being filled.
type held struct {
	entry  int
	offset int64
	skip   int
	length int
}

func (w *worker) do(ctx context.Context, t task) error {
	defer w.close()
	for _, p := range t.parts {
		if err := w.part(ctx, p); err != nil {
			return err
		}
		if w.c.entries[p.entry].alone() && p.end == w.c.entries[p.entry].Size {
			if err := w.frame(ctx); err != nil {
				return err
			}
		}
	}
	return w.frame(ctx)
}

// open opens the file of an entry, unless it is the one that is open: nil if it is gone.
func (w *worker) open(i int) (*os.File, error) {
	if w.file != nil && w.reads == i {
		return w.file, nil
	}
	w.close()
	f, err := os.Open(w.c.entries[i].source)
	if errors.Is(err, fs.ErrNotExist) && !w.c.exact {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read data directory: %w", err)
	}
	w.file, w.reads = f, i
	return f, nil
}

func (w *worker) close() {
	if w.file != nil {
		_ = w.file.Close() // it was only read
	}
	w.file = nil
}

// part reads a stretch of a file into frames. What a file lacks because it was
// truncated meanwhile reads as zeros, as in PostgreSQL's own base backup: redo
// truncates it again.
func (w *worker) part(ctx context.Context, p part) error {
	i, from, end := p.entry, p.from, p.end
	e := &w.c.entries[i]
	f, err := w.open(i)
	if err != nil {
		return err
	}
	if f == nil && from == 0 && end == e.Size {
		w.c.mu.Lock()
		w.c.gone[i] = true
		w.c.mu.Unlock()
		return nil
	}
	for off := from; off < end; {
		if len(w.buf) == repository.FrameSize {
			if err := w.frame(ctx); err != nil {
				return err
			}
		}
		n := int(min(end-off, int64(repository.FrameSize-len(w.buf))))
		at := len(w.buf)
		w.buf = w.buf[:at+n]
		if err := w.read(f, e, w.buf[at:], off); err != nil {
			return err
		}
		w.inside = append(w.inside, held{i, off, at, n})
		off += int64(n)
		w.c.progress.Add(int64(n))
	}
	return ctx.Err()
}

func (w *worker) read(f *os.File, e *entry, b []byte, off int64) error {
	n := 0
	if f != nil {
		var err error
		if n, err = f.ReadAt(b, off); err != nil && err != io.EOF {
			return fmt.Errorf("read %s: %w", e.Path, err)
		}
	}
	if n < len(b) && w.c.exact {
		return fmt.Errorf("read %s: it ends at %d: %w", e.Path, off+int64(n), io.ErrUnexpectedEOF)
	}
	clear(b[n:])
	if e.relation && w.c.verify && f != nil {
		return w.pages(f, e, b[:n-n%pg.BlockSize], off)
	}
	return nil
}

// readAgain is how often a page that looks torn is read before it is believed.
const readAgain = 5

// pages verifies the checksums of whole pages read at off.
func (w *worker) pages(f *os.File, e *entry, b []byte, off int64) error {
	first := e.segment*pg.RelSegBlocks + uint32(off/pg.BlockSize)
	for i := 0; i < len(b); i += pg.BlockSize {
		page := b[i : i+pg.BlockSize]
		block := first + uint32(i/pg.BlockSize)
		for try := 0; !pg.VerifyPage(page, block).Ok(); try++ {
			if pg.PageLSN(page) >= w.c.start {
				break // written since the backup began: redo writes it anew
			}
			if try == readAgain {
				w.c.mu.Lock()
				w.c.bad = append(w.c.bad, repository.BadPage{Path: e.Path, Block: block})
				w.c.mu.Unlock()
				break
			}
			n, err := f.ReadAt(page, off+int64(i))
			if err == io.EOF && n < pg.BlockSize {
				clear(page)
				break
			}
			if err != nil && err != io.EOF {
				return fmt.Errorf("read %s: %w", e.Path, err)
			}
		}
	}
	return nil
}

// frame stores what was gathered as one frame, unless it is stored already.
func (w *worker) frame(ctx context.Context) error {
	if len(w.buf) == 0 {
		return nil
	}
	c := w.c
	id := frameID{uint32(len(w.buf)), xxhash.Sum64(w.buf)}
	inBase, same := c.base.same(c.entries, w.inside, id)
	c.mu.Lock()
	fr, known := c.earlier[id]
	c.mu.Unlock()
	if !known && !same {
		if w.pack == nil {
			select {
			case w.pack = <-c.writers:
			case <-ctx.Done():
				return ctx.Err()
			}
			w.pack.number = c.packs.Add(1)
		}
		n := w.pack.Add(w.buf, id.sum)
		fr = stored{repository.PackRef{Backup: c.cfg.Name, Number: w.pack.number}, w.pack.Frames()[n]}
	}
	c.mu.Lock()
	var number uint32
	if same {
		number = c.reuse(inBase)
	} else {
		number = c.frame(fr.pack, fr.FrameInfo)
	}
	for _, h := range w.inside {
		c.pieces[h.entry] = append(c.pieces[h.entry], piece{h.offset, repository.Extent{Length: uint32(h.length), Frame: number, Skip: uint32(h.skip)}})
	}
	if !known && !same {
		c.fresh += int64(len(w.buf))
	}
	c.mu.Unlock()
	w.buf, w.inside = w.buf[:0], w.inside[:0]
	c.report()
	if w.pack != nil && w.pack.Full() {
		w.put()
	}
	return nil
}

// put hands the pack to an upload of its own.
func (w *worker) put() {
	if w.pack == nil {
		return
	}
	p, c := w.pack, w.c
	w.pack = nil
	c.uploads.Go(func() error {
		// sealing and checksums are work too
		if err := c.cfg.Bounds.Thread(); err != nil {
			return err
		}
		n, err := c.cfg.Lineage.PutPack(c.upctx, repository.PackRef{Backup: c.cfg.Name, Number: p.number}, &p.PackWriter)
		if err != nil {
			return err
		}
		c.mu.Lock()
		c.stored += n
		c.mu.Unlock()
		p.Reset()
		c.writers <- p
		return nil
	})
}
