// SPDX-License-Identifier: Apache-2.0

package catalog

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/kbcli/kbcli/engine/blob"
	"github.com/kbcli/kbcli/engine/pg"
	"github.com/kbcli/kbcli/engine/repository"
	"github.com/kbcli/kbcli/engine/repository/chapter"
	"github.com/kbcli/kbcli/engine/repository/walindex"
)

// Roller makes the chapters of a lineage, of what its writer may write. It is for who
// holds the right to that; Roll is called by one goroutine at a time.
type Roller struct {
	l     *repository.Lineage
	may   func() error
	tried map[pg.Segment]bool // stretches with an index that is not complete
	seen  map[pg.Segment]bool // chapters that were found to be sound

	storing sync.Mutex
}

// NewRoller makes a Roller. may is asked before anything is written.
func NewRoller(l *repository.Lineage, may func() error) *Roller {
	return &Roller{l: l, may: may, tried: map[pg.Segment]bool{}, seen: map[pg.Segment]bool{}}
}

// lookedOver is how many of the chapters that there were before are read at each Roll.
const lookedOver = 64

// Roll makes all chapters that are lacking and can be made, the newest first, and makes
// some that are damaged again, until ctx ends; what was made then stays. A stretch that is
// complete and has an index that is not is passed over from then on. Without the right to
// read what is sealed there are no chapters, and made is 0.
func (r *Roller) Roll(ctx context.Context) (made int, err error) {
	if !r.l.Repository().Readable() {
		return 0, nil
	}
	todo, damaged, err := r.lacking(ctx)
	if err != nil {
		return 0, err
	}
	for _, first := range todo {
		c, err := r.build(ctx, first)
		switch {
		case errors.Is(err, repository.ErrSealed):
			return made, nil // the identity that there is does not fit
		case errors.Is(err, blob.ErrNotExist), isDamage(err), errors.Is(err, errIncomplete):
			r.tried[first] = true
			continue
		case err != nil:
			return made, fmt.Errorf("make the chapter of %s: %w", r.l.Info().SegmentSize.Name(first), err)
		}
		ok, err := r.store(ctx, c, damaged[first])
		if err != nil {
			return made, fmt.Errorf("store the chapter of %s: %w", r.l.Info().SegmentSize.Name(first), err)
		}
		if ok {
			made++
		}
	}
	return made, nil
}

// Suspend waits for what is being stored, and then nothing is until resume is called:
// whoever deletes segments does so between the two.
func (r *Roller) Suspend() (resume func()) {
	r.storing.Lock()
	return r.storing.Unlock
}

// errIncomplete says that an index does not tell all.
var errIncomplete = errors.New("an index is not complete")

// lacking lists the stretches that are complete and have no sound chapter, as far as that
// is known.
func (r *Roller) lacking(ctx context.Context) (todo []pg.Segment, damaged map[pg.Segment]bool, err error) {
	chapters, err := r.l.Chapters(ctx)
	if err != nil {
		return nil, nil, err
	}
	damaged = map[pg.Segment]bool{}
	looked := 0
	for _, n := range slices.Backward(chapters) {
		if r.seen[n.First] || looked == lookedOver {
			continue
		}
		looked++
		_, err := r.l.Chapter(ctx, n)
		switch {
		case err == nil:
			r.seen[n.First] = true
		case isDamage(err):
			damaged[n.First] = true
		case !errors.Is(err, blob.ErrNotExist):
			return nil, nil, err
		}
	}
	chapters = slices.DeleteFunc(chapters, func(n chapter.Name) bool { return damaged[n.First] })
	there := map[pg.Segment]bool{}
	for _, n := range chapters {
		there[n.First] = true
	}
	wal, err := r.l.SegmentRuns(ctx, chapters)
	if err != nil {
		return nil, nil, err
	}
	indexed, err := r.l.IndexedRuns(ctx, chapters)
	if err != nil {
		return nil, nil, err
	}
	complete := map[pg.Segment]bool{}
	r.eachStretch(indexed, func(first pg.Segment) { complete[first] = true })
	r.eachStretch(wal, func(first pg.Segment) {
		if complete[first] && !there[first] && !r.tried[first] {
			todo = append(todo, first)
		}
	})
	slices.SortFunc(todo, func(a, b pg.Segment) int {
		return cmp.Or(cmp.Compare(b.Timeline, a.Timeline), cmp.Compare(b.Number, a.Number))
	})
	return todo, damaged, nil
}

// eachStretch hands out those stretches of one chapter's length that runs have whole.
func (r *Roller) eachStretch(runs chapter.Runs, fn func(first pg.Segment)) {
	length := r.l.ChapterLength()
	for _, run := range runs {
		for n := (run.From + length - 1) / length * length; n+length <= run.To; n += length {
			fn(pg.Segment{Timeline: run.Timeline, Number: n})
		}
	}
}

// build rolls up the indexes of a stretch.
func (r *Roller) build(ctx context.Context, first pg.Segment) (*chapter.Chapter, error) {
	b := chapter.NewBuilder(first)
	end := first.Number + r.l.ChapterLength()
	for n := first.Number; n < end; {
		got := make([]*walindex.Index, min(keepFetched, end-n))
		var g errgroup.Group
		for i := range got {
			g.Go(func() error {
				body, err := r.l.Index(ctx, pg.Segment{Timeline: first.Timeline, Number: n + uint64(i)})
				if err != nil {
					return err
				}
				if got[i], err = walindex.Decode(body); err != nil {
					return errIncomplete
				}
				return nil
			})
		}
		if err := g.Wait(); err != nil {
			return nil, err
		}
		for _, x := range got {
			if b.Add(x) != nil {
				return nil, errIncomplete
			}
		}
		n += uint64(len(got))
	}
	return b.Chapter(), nil
}

// store puts a chapter if its segments are all still there.
func (r *Roller) store(ctx context.Context, c *chapter.Chapter, again bool) (bool, error) {
	r.storing.Lock()
	defer r.storing.Unlock()
	if err := r.may(); err != nil {
		return false, err
	}
	n := c.First.Number
	for have, err := range r.l.Segments(ctx, c.First) {
		if err != nil {
			return false, err
		}
		if have.Timeline != c.First.Timeline || have.Number != n {
			return false, nil
		}
		if n++; n == c.First.Number+uint64(len(c.Segments)) {
			break
		}
	}
	if n != c.First.Number+uint64(len(c.Segments)) {
		return false, nil
	}
	if again {
		if err := r.l.DeleteChapters(ctx, c.First); err != nil {
			return false, err
		}
	}
	if err := r.l.PutChapter(ctx, c.Name(), c.Encode()); err != nil {
		return false, err
	}
	r.seen[c.First] = true
	return true, nil
}
