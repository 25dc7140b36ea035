// SPDX-License-Identifier: Apache-2.0

package repository

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/kbcli/kbcli/engine/pg"
	"github.com/kbcli/kbcli/engine/repository/chapter"
)

// ChapterLength is how many segments make one chapter.
func (l *Lineage) ChapterLength() uint64 {
	if n := l.info.ChapterSegments; n != 0 {
		return n
	}
	return chapter.PerLog(l.info.SegmentSize)
}

// ChapterOf is the first segment of the chapter that g belongs to.
func (l *Lineage) ChapterOf(g pg.Segment) pg.Segment {
	g.Number -= g.Number % l.ChapterLength()
	return g
}

func (l *Lineage) chapterKey(n chapter.Name) string {
	return l.key("chapter", n.Key(l.info.SegmentSize))
}

// PutChapter stores a chapter; body is its encoding. It may be made again, so other
// bytes replace the old. The caller has seen all segments of it, and their indexes.
func (l *Lineage) PutChapter(ctx context.Context, n chapter.Name, body []byte) error {
	return l.repo.replace(ctx, kindChapter, l.chapterKey(n), Compress(nil, body))
}

// Chapter reads a chapter, or fails with a *CorruptError if it is not what it should be.
func (l *Lineage) Chapter(ctx context.Context, n chapter.Name) (*chapter.Chapter, error) {
	key := l.chapterKey(n)
	p, err := l.repo.get(ctx, kindChapter, key)
	if err != nil {
		return nil, err
	}
	b, err := decompressOne(p, maxChapter)
	if err != nil {
		return nil, &CorruptError{key, err.Error()}
	}
	c, err := chapter.Decode(b)
	if err != nil {
		return nil, &CorruptError{key, err.Error()}
	}
	if c.Name() != n || uint64(len(c.Segments)) != l.ChapterLength() {
		return nil, &CorruptError{key, "it is of other segments or times"}
	}
	return c, nil
}

// maxChapter is more than any chapter takes: its limit, and the heads of 4096 segments.
const maxChapter = 2 * chapter.Limit

// Chapters lists the chapters by timeline and number, one of those that begin with the
// same segment. What has another name is passed over.
func (l *Lineage) Chapters(ctx context.Context) ([]chapter.Name, error) {
	var out []chapter.Name
	prefix := l.key("chapter") + "/"
	for info, err := range l.repo.store.List(ctx, prefix) {
		if err != nil {
			return nil, fmt.Errorf("list chapters: %w", err)
		}
		n, err := chapter.ParseName(l.info.SegmentSize, l.ChapterLength(), strings.TrimPrefix(info.Key, prefix))
		if err != nil {
			continue // a name that is damaged: the log is listed
		}
		if k := len(out); k == 0 || out[k-1].First != n.First {
			out = append(out, n)
		}
	}
	return out, nil
}

// DeleteChapters removes all that tell of the stretch which begins with a segment. It
// precedes the deletion of any segment of it.
func (l *Lineage) DeleteChapters(ctx context.Context, first pg.Segment) error {
	for info, err := range l.repo.store.List(ctx, l.key("chapter", l.info.SegmentSize.Name(first)+"-")) {
		if err == nil {
			err = l.repo.store.Delete(ctx, info.Key)
		}
		if err != nil {
			return fmt.Errorf("delete chapter: %w", err)
		}
	}
	return nil
}

// SegmentRuns says which whole segments there are, by timeline and number: those of
// chapters, listed before, by their word, so that only the rest is listed. Of a chapter
// none of whose segments is there, and no other stands before it, nothing is believed.
func (l *Lineage) SegmentRuns(ctx context.Context, chapters []chapter.Name) (chapter.Runs, error) {
	return l.runs(ctx, "wal", chapters)
}

// IndexedRuns says which segments have an index, like SegmentRuns.
func (l *Lineage) IndexedRuns(ctx context.Context, chapters []chapter.Name) (chapter.Runs, error) {
	return l.runs(ctx, "index", chapters)
}

func (l *Lineage) runs(ctx context.Context, room string, chapters []chapter.Name) (chapter.Runs, error) {
	var out chapter.Runs
	length := l.ChapterLength()
	var after *pg.Segment
	for {
		skip := false
		for g, err := range l.segmentObjects(ctx, room, after) {
			if err != nil {
				return nil, err
			}
			first := l.ChapterOf(g.Segment)
			i, found := slices.BinarySearchFunc(chapters, first, func(n chapter.Name, g pg.Segment) int { return compareSegments(n.First, g) })
			if !found {
				out.Add(g.Timeline, g.Number, g.Number+1)
				continue
			}
			to := first.Number + length
			for i++; i < len(chapters) && chapters[i].First == (pg.Segment{Timeline: g.Timeline, Number: to}); i++ {
				to += length
			}
			out.Add(g.Timeline, first.Number, to)
			after, skip = &pg.Segment{Timeline: g.Timeline, Number: to - 1}, true
			break
		}
		if !skip {
			return out, nil
		}
	}
}

func compareSegments(a, b pg.Segment) int {
	return cmp.Or(cmp.Compare(a.Timeline, b.Timeline), cmp.Compare(a.Number, b.Number))
}
