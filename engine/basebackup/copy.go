// SPDX-License-Identifier: Apache-2.0

package basebackup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/cespare/xxhash/v2"
	"golang.org/x/sync/errgroup"

	"github.com/kbcli/kbcli/engine/pg"
	"github.com/kbcli/kbcli/engine/repository"
)

// rangeSize is the most of one file that one task reads, so that a few large files
// keep all workers busy.
const rangeSize = 64 << 20

// task is what one worker reads in one go: a range of a file, or several small
// files that share a frame. A task begins with a frame of its own, so that what is
// in a frame does not depend on which worker came first.
type task struct {
	files []int // indexes of entries
	from  int64 // of the first and only file, when it is a range
	size  int64
}

// tasks cuts the entries into tasks, the largest first.
func tasks(entries []entry) []task {
	var out []task
	var small task
	for i := range entries {
		e := &entries[i]
		if e.Kind != repository.RegularFile || e.Path == controlPath {
			continue
		}
		if e.Size >= repository.FrameSize/2 {
			for from := int64(0); from < e.Size; from += rangeSize {
				out = append(out, task{[]int{i}, from, min(rangeSize, e.Size-from)})
			}
			continue
		}
		if small.size+e.Size > repository.FrameSize {
			out = append(out, small)
			small = task{}
		}
		small.files = append(small.files, i)
		small.size += e.Size
	}
	if len(small.files) > 0 {
		out = append(out, small)
	}
	slices.SortStableFunc(out, func(a, b task) int { return int(b.size - a.size) })
	return out
}

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

	mu      sync.Mutex
	frames  []repository.Frame
	pieces  [][]piece // by entry
	gone    []bool
	bad     []repository.BadPage
	earlier map[frameID]repository.Frame
	stored  int64
	fresh   int64
}

type packWriter struct {
	repository.PackWriter
	number uint32
}

func newCopier(cfg *Config, entries []entry, workers int) *copier {
	c := &copier{
		cfg: cfg, entries: entries,
		writers: make(chan *packWriter, workers+2),
		pieces:  make([][]piece, len(entries)),
		gone:    make([]bool, len(entries)),
		earlier: map[frameID]repository.Frame{},
	}
	for range cap(c.writers) {
		c.writers <- &packWriter{}
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
	buf    []byte // raw bytes of the frame being filled
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
	for _, i := range t.files {
		e := &w.c.entries[i]
		from, end := t.from, e.Size
		if len(t.files) == 1 && t.size < e.Size {
			end = t.from + t.size
		}
		if err := w.file(ctx, i, from, end); err != nil {
			return err
		}
	}
	return w.frame(ctx)
}

// file reads a stretch of a file into frames. What a file lacks because it was
// truncated meanwhile reads as zeros, as in PostgreSQL's own base backup: redo
// truncates it again.
func (w *worker) file(ctx context.Context, i int, from, end int64) error {
	e := &w.c.entries[i]
	f, err := os.Open(e.source)
	if errors.Is(err, fs.ErrNotExist) && !w.c.exact {
		if from == 0 && end == e.Size {
			w.c.mu.Lock()
			w.c.gone[i] = true
			w.c.mu.Unlock()
			return nil
		}
		f = nil
	} else if err != nil {
		return fmt.Errorf("read data directory: %w", err)
	}
	if f != nil {
		defer f.Close()
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
	c.mu.Lock()
	fr, known := c.earlier[id]
	c.mu.Unlock()
	if !known {
		if w.pack == nil {
			select {
			case w.pack = <-c.writers:
			case <-ctx.Done():
				return ctx.Err()
			}
			w.pack.number = c.packs.Add(1)
		}
		n := w.pack.Add(w.buf, id.sum)
		fr = repository.Frame{Pack: w.pack.number, FrameInfo: w.pack.Frames()[n]}
	}
	c.mu.Lock()
	number := uint32(len(c.frames))
	c.frames = append(c.frames, fr)
	for _, h := range w.inside {
		c.pieces[h.entry] = append(c.pieces[h.entry], piece{h.offset, repository.Extent{Length: uint32(h.length), Frame: number, Skip: uint32(h.skip)}})
	}
	if !known {
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
