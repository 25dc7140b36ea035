// SPDX-License-Identifier: Apache-2.0

package catalog

import (
	"context"
	"errors"

	"golang.org/x/sync/errgroup"

	"github.com/kbcli/kbcli/engine/blob"
	"github.com/kbcli/kbcli/engine/pg"
	"github.com/kbcli/kbcli/engine/repository"
	"github.com/kbcli/kbcli/engine/repository/chapter"
	"github.com/kbcli/kbcli/engine/repository/walindex"
)

// keepChapters bounds how many decoded chapters are kept, and keepListed how many
// transactions are listed in them.
const (
	keepChapters = 256
	keepListed   = 100_000
)

// chapters are those that were read.
type chapters struct {
	read   map[pg.Segment]*chapter.Chapter
	listed int
}

// summary is what the chapter of a whole segment says of it; nil where there is none
// that can be read. Damage is passed over: the indexes say the same.
func (c *Catalog) summary(ctx context.Context, g pg.Segment) (*chapter.Segment, error) {
	first := c.l.ChapterOf(g)
	c.mu.Lock()
	n, ok := c.inv.chapters[first]
	ok = ok && c.inv.has(g)
	x := c.chapters.read[first]
	c.mu.Unlock()
	if !ok {
		return nil, nil
	}
	if x == nil {
		var err error
		if x, err = c.readChapter(ctx, n); x == nil || err != nil {
			return nil, err
		}
	}
	return &x.Segments[g.Number-first.Number], nil
}

func (c *Catalog) readChapter(ctx context.Context, n chapter.Name) (*chapter.Chapter, error) {
	x, err := c.l.Chapter(ctx, n)
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case errors.Is(err, blob.ErrNotExist), errors.Is(err, repository.ErrSealed):
		delete(c.inv.chapters, n.First)
		return nil, nil
	case isDamage(err):
		delete(c.inv.chapters, n.First)
		c.passed = append(c.passed, err)
		return nil, nil
	case err != nil:
		return nil, err
	}
	listed := 0
	for i := range x.Segments {
		listed += len(x.Segments[i].Index.Transactions) + len(x.Segments[i].Index.Creations)
	}
	if c.chapters.read == nil || len(c.chapters.read) >= keepChapters || c.chapters.listed+listed > keepListed {
		c.chapters.read, c.chapters.listed = map[pg.Segment]*chapter.Chapter{}, 0
	}
	c.chapters.read[n.First] = x
	c.chapters.listed += listed
	return x, nil
}

// prefetchChapters brings the chapters of the segments [from, to) on p into memory at
// once, keepFetched at most, unless the first is there. What cannot be had is left to
// summary.
func (c *Catalog) prefetchChapters(ctx context.Context, p Path, from, to uint64) {
	var g errgroup.Group
	length := c.l.ChapterLength()
	for i := 0; i < keepFetched && from < to; i++ {
		first := c.l.ChapterOf(p.Segment(from))
		c.mu.Lock()
		n, want := c.inv.chapters[first]
		there := c.chapters.read[first] != nil
		c.mu.Unlock()
		if there && i == 0 {
			return
		}
		if want && !there {
			g.Go(func() error {
				_, _ = c.readChapter(ctx, n) // summary sees the error again
				return nil
			})
		}
		from += length - from%length
	}
	_ = g.Wait() // no goroutine has an error
}

// chapterName is the name of the chapter of a segment.
func (c *Catalog) chapterName(g pg.Segment) (chapter.Name, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n, ok := c.inv.chapters[c.l.ChapterOf(g)]
	return n, ok && c.inv.has(g)
}

// briefOf is what a summary says of recovery, as index would; nil where it says less.
func briefOf(s *chapter.Segment) *walindex.Index {
	if s == nil || !s.Brief {
		return nil
	}
	x := *s.Index
	x.Detailed, x.Creations, x.Truncates, x.DatabasesMade, x.DatabasesDropped, x.TablespacesDropped = false, nil, nil, nil, nil, nil
	x.Transactions = make([]walindex.Transaction, len(s.Index.Transactions))
	for i, tx := range s.Index.Transactions {
		tx.Changes = nil
		x.Transactions[i] = tx
	}
	return &x
}
