// SPDX-License-Identifier: Apache-2.0

package repository

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strconv"
	"strings"

	"github.com/cespare/xxhash/v2"

	"github.com/kbcli/kbcli/engine/blob"
	"github.com/kbcli/kbcli/engine/pg"
)

const walHeadSize = 32

func (l *Lineage) walHead(tli pg.TimelineID, from pg.LSN, length int) []byte {
	b := make([]byte, 0, walHeadSize)
	b = binary.LittleEndian.AppendUint64(b, uint64(l.info.SystemID))
	b = binary.LittleEndian.AppendUint32(b, uint32(tli))
	b = binary.LittleEndian.AppendUint64(b, uint64(from))
	b = binary.LittleEndian.AppendUint32(b, uint32(length))
	b = binary.LittleEndian.AppendUint32(b, uint32(l.info.Major))
	return binary.LittleEndian.AppendUint32(b, 0)
}

func (l *Lineage) segmentKey(room string, g pg.Segment) string {
	name := l.info.SegmentSize.Name(g)
	return l.key(room, name[:16], name)
}

// PutSegment stores one whole WAL segment. frames are zstd frames that give the
// segment's raw bytes one after another; sum is the xxh64 of those bytes. The
// same segment again is success, another under its name a *ConflictError.
func (l *Lineage) PutSegment(ctx context.Context, g pg.Segment, frames [][]byte, sum uint64) error {
	size := l.info.SegmentSize
	payload := l.walPayload(g.Timeline, size.Start(g.Number), int(size), frames)
	return l.repo.put(ctx, KindSegment, l.segmentKey("wal", g), payload, nonzero(sum))
}

// nonzero keeps 0 for "no content hash": one hash in 2^64 is shared.
func nonzero(sum uint64) uint64 {
	if sum == 0 {
		return 1
	}
	return sum
}

func (l *Lineage) walPayload(tli pg.TimelineID, from pg.LSN, length int, frames [][]byte) []byte {
	n := walHeadSize
	for _, f := range frames {
		n += len(f)
	}
	payload := append(make([]byte, 0, n), l.walHead(tli, from, length)...)
	for _, f := range frames {
		payload = append(payload, f...)
	}
	return payload
}

// Segment gives the raw bytes of a whole segment, checked. They are in room if that is large
// enough, which a caller of many keeps. That it is not there is blob.ErrNotExist.
func (l *Lineage) Segment(ctx context.Context, g pg.Segment, room []byte) ([]byte, error) {
	key := l.segmentKey("wal", g)
	raw, err := l.readWAL(ctx, KindSegment, key, g.Timeline, l.info.SegmentSize.Start(g.Number), room)
	if err != nil {
		return nil, err
	}
	if len(raw) != int(l.info.SegmentSize) {
		return nil, &CorruptError{key, fmt.Sprintf("it holds %d bytes of WAL, not a segment of %d", len(raw), l.info.SegmentSize)}
	}
	return raw, nil
}

func (l *Lineage) readWAL(ctx context.Context, kind Kind, key string, tli pg.TimelineID, from pg.LSN, room []byte) ([]byte, error) {
	p, content, err := l.repo.getContent(ctx, kind, key)
	if err != nil {
		return nil, err
	}
	if len(p) < walHeadSize {
		return nil, &CorruptError{key, "its WAL header is cut"}
	}
	length := binary.LittleEndian.Uint32(p[20:])
	want := l.walHead(tli, from, int(length))
	if !bytes.Equal(p[:walHeadSize], want) {
		return nil, &CorruptError{key, "its WAL header names another server, timeline or position"}
	}
	if length > uint32(l.info.SegmentSize) {
		return nil, &CorruptError{key, fmt.Sprintf("it claims %d bytes of WAL, more than a segment", length)}
	}
	raw, err := decompress(p[walHeadSize:], int(length), room)
	if err != nil {
		return nil, &CorruptError{key, err.Error()}
	}
	if nonzero(xxhash.Sum64(raw)) != content {
		return nil, &CorruptError{key, "the checksum of its WAL does not match"}
	}
	return raw, nil
}

// HasSegment tells whether a whole segment is stored.
func (l *Lineage) HasSegment(ctx context.Context, g pg.Segment) (bool, error) {
	_, err := l.repo.store.Stat(ctx, l.segmentKey("wal", g))
	if errors.Is(err, blob.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// Segments yields the whole segments by timeline and number, from (and
// including) the given one; the zero Segment starts at the first. size is what
// the object takes in the store.
func (l *Lineage) Segments(ctx context.Context, from pg.Segment) iter.Seq2[SegmentObject, error] {
	return l.segmentsFrom(ctx, "wal", from)
}

// Indexed yields the segments that have an Index, like Segments.
func (l *Lineage) Indexed(ctx context.Context, from pg.Segment) iter.Seq2[SegmentObject, error] {
	return l.segmentsFrom(ctx, "index", from)
}

// SegmentObject is a segment and the bytes that it takes in the store.
type SegmentObject struct {
	pg.Segment
	Size int64
}

func (l *Lineage) segmentsFrom(ctx context.Context, room string, from pg.Segment) iter.Seq2[SegmentObject, error] {
	if from == (pg.Segment{}) {
		return l.segmentObjects(ctx, room, nil)
	}
	before := pg.Segment{Timeline: from.Timeline - 1, Number: ^uint64(0) / uint64(l.info.SegmentSize)}
	if from.Number > 0 {
		before = pg.Segment{Timeline: from.Timeline, Number: from.Number - 1}
	}
	return l.segmentObjects(ctx, room, &before)
}

// segmentObjects yields the segments behind after, all with nil.
func (l *Lineage) segmentObjects(ctx context.Context, room string, after *pg.Segment) iter.Seq2[SegmentObject, error] {
	return func(yield func(SegmentObject, error) bool) {
		prefix, from := l.key(room)+"/", ""
		if after != nil {
			from = l.segmentKey(room, *after)
		}
		for info, err := range l.repo.store.ListAfter(ctx, prefix, from) {
			if err != nil {
				yield(SegmentObject{}, fmt.Errorf("list WAL: %w", err))
				return
			}
			name := info.Key[strings.LastIndexByte(info.Key, '/')+1:]
			g, err := l.info.SegmentSize.ParseName(name)
			if err != nil {
				yield(SegmentObject{}, &CorruptError{info.Key, err.Error()})
				return
			}
			if info.Key != l.segmentKey(room, g) {
				yield(SegmentObject{}, &CorruptError{info.Key, "it lies in another segment's folder"})
				return
			}
			if !yield(SegmentObject{g, info.Size}, nil) {
				return
			}
		}
	}
}

// DeleteSegment removes a segment and its index, the index last.
func (l *Lineage) DeleteSegment(ctx context.Context, g pg.Segment) error {
	if err := l.repo.store.Delete(ctx, l.segmentKey("wal", g)); err != nil {
		return err
	}
	return l.repo.store.Delete(ctx, l.segmentKey("index", g))
}

// Tail is a piece of a segment that is not whole yet: the bytes [From, To).
type Tail struct {
	Segment  pg.Segment
	From, To pg.LSN
	Size     int64 // bytes in the store; not set by writers
}

func (l *Lineage) tailKey(t Tail) string {
	return l.key("tail", l.info.SegmentSize.Name(t.Segment), fmt.Sprintf("%016X-%016X", uint64(t.From), uint64(t.To)))
}

// PutTail stores a piece of a segment. frames give its raw bytes, sum is their xxh64.
func (l *Lineage) PutTail(ctx context.Context, t Tail, frames [][]byte, sum uint64) error {
	if err := l.checkTail(t); err != nil {
		return err
	}
	payload := l.walPayload(t.Segment.Timeline, t.From, int(t.To-t.From), frames)
	return l.repo.put(ctx, KindTail, l.tailKey(t), payload, nonzero(sum))
}

// Tails lists the pieces of one segment, or with nil of all, by segment and position.
func (l *Lineage) Tails(ctx context.Context, g *pg.Segment) ([]Tail, error) {
	prefix := l.key("tail") + "/"
	if g != nil {
		prefix += l.info.SegmentSize.Name(*g) + "/"
	}
	var out []Tail
	for info, err := range l.repo.store.List(ctx, prefix) {
		if err != nil {
			return nil, fmt.Errorf("list tails: %w", err)
		}
		t, err := l.parseTail(info.Key)
		if err != nil {
			return nil, &CorruptError{info.Key, err.Error()}
		}
		t.Size = info.Size
		out = append(out, t)
	}
	return out, nil
}

func (l *Lineage) parseTail(key string) (Tail, error) {
	name, span, _ := strings.Cut(strings.TrimPrefix(key, l.key("tail")+"/"), "/")
	g, err := l.info.SegmentSize.ParseName(name)
	if err != nil {
		return Tail{}, err
	}
	a, b, ok := strings.Cut(span, "-")
	if !ok || len(a) != 16 || len(b) != 16 {
		return Tail{}, fmt.Errorf("tail name %q is not two positions", span)
	}
	from, err := strconv.ParseUint(a, 16, 64)
	if err != nil {
		return Tail{}, err
	}
	to, err := strconv.ParseUint(b, 16, 64)
	if err != nil {
		return Tail{}, err
	}
	t := Tail{Segment: g, From: pg.LSN(from), To: pg.LSN(to)}
	if err := l.checkTail(t); err != nil {
		return Tail{}, err
	}
	if l.tailKey(t) != key {
		return Tail{}, fmt.Errorf("tail name %q is not as it is written", span)
	}
	return t, nil
}

func (l *Lineage) checkTail(t Tail) error {
	size := l.info.SegmentSize
	if t.From >= t.To || t.From < size.Start(t.Segment.Number) || t.To > size.End(t.Segment.Number) {
		return fmt.Errorf("tail from %s to %s lies outside its segment %s", t.From, t.To, size.Name(t.Segment))
	}
	return nil
}

// Chain picks, from pieces of one segment, those that cover it without a hole from
// start, and says where they end. Pieces may overlap.
func Chain(ts []Tail, start pg.LSN) (chain []Tail, end pg.LSN) {
	ts = slices.Clone(ts)
	slices.SortFunc(ts, func(a, b Tail) int {
		return cmp.Or(cmp.Compare(a.From, b.From), cmp.Compare(b.To, a.To))
	})
	end = start
	for i := 0; i < len(ts); {
		best := -1
		for ; i < len(ts) && ts[i].From <= end; i++ {
			if ts[i].To > end && (best < 0 || ts[i].To > ts[best].To) {
				best = i
			}
		}
		if best < 0 {
			break
		}
		chain, end = append(chain, ts[best]), ts[best].To
	}
	return chain, end
}

// ReadTail gives the raw bytes that the tails of g hold without a hole from the
// segment's start; none is an empty slice. Where pieces overlap their bytes are
// compared.
func (l *Lineage) ReadTail(ctx context.Context, g pg.Segment) ([]byte, error) {
	ts, err := l.Tails(ctx, &g)
	if err != nil {
		return nil, err
	}
	start := l.info.SegmentSize.Start(g.Number)
	chain, end := Chain(ts, start)
	out := make([]byte, 0, end-start)
	for _, t := range chain {
		key := l.tailKey(t)
		raw, err := l.readWAL(ctx, KindTail, key, g.Timeline, t.From, nil)
		if err != nil {
			return nil, err
		}
		if len(raw) != int(t.To-t.From) {
			return nil, &CorruptError{key, fmt.Sprintf("it holds %d bytes of WAL, not %d", len(raw), t.To-t.From)}
		}
		overlap := int(start) + len(out) - int(t.From)
		if !bytes.Equal(raw[:overlap], out[len(out)-overlap:]) {
			return nil, &CorruptError{key, "it differs from the piece before where they overlap"}
		}
		out = append(out, raw[overlap:]...)
	}
	return out, nil
}

// DeleteTails removes all pieces of a segment.
func (l *Lineage) DeleteTails(ctx context.Context, g pg.Segment) error {
	ts, err := l.Tails(ctx, &g)
	if err != nil {
		return err
	}
	for _, t := range ts {
		if err := l.repo.store.Delete(ctx, l.tailKey(t)); err != nil {
			return err
		}
	}
	return nil
}

func (l *Lineage) historyKey(tli pg.TimelineID) string {
	return l.key("history", fmt.Sprintf("%08X", uint32(tli)))
}

// PutHistory stores a timeline's history file, verbatim. It must precede the
// timeline's first segment.
func (l *Lineage) PutHistory(ctx context.Context, tli pg.TimelineID, content []byte) error {
	return l.repo.put(ctx, KindHistory, l.historyKey(tli), content, 0)
}

// History reads a timeline's history file; timeline 1 has none (blob.ErrNotExist).
func (l *Lineage) History(ctx context.Context, tli pg.TimelineID) ([]byte, error) {
	return l.repo.get(ctx, KindHistory, l.historyKey(tli))
}

// Histories lists the timelines that have a history file, ascending.
func (l *Lineage) Histories(ctx context.Context) ([]pg.TimelineID, error) {
	var out []pg.TimelineID
	prefix := l.key("history") + "/"
	for info, err := range l.repo.store.List(ctx, prefix) {
		if err != nil {
			return nil, fmt.Errorf("list histories: %w", err)
		}
		v, err := strconv.ParseUint(strings.TrimPrefix(info.Key, prefix), 16, 32)
		if err != nil || v == 0 || info.Key != l.historyKey(pg.TimelineID(v)) {
			return nil, &CorruptError{info.Key, "its name is not a timeline"}
		}
		out = append(out, pg.TimelineID(v))
	}
	return out, nil
}

// PutIndex stores what a segment's records say; body is walindex's encoding.
// An index may be made again, so other bytes replace the old.
func (l *Lineage) PutIndex(ctx context.Context, g pg.Segment, body []byte) error {
	key, packed := l.segmentKey("index", g), Compress(nil, body)
	if l.repo.kept(KindIndex) {
		l.repo.copies.put(key, packed)
		if g.Number%copiesPruneEvery == 0 {
			l.pruneCopies()
		}
	}
	return l.repo.replace(ctx, KindIndex, key, packed)
}

// Index reads what PutIndex stored.
func (l *Lineage) Index(ctx context.Context, g pg.Segment) ([]byte, error) {
	key := l.segmentKey("index", g)
	p, err := l.repo.get(ctx, KindIndex, key)
	if err != nil {
		p, err = l.repo.opened(KindIndex, key, err)
	}
	if err != nil {
		return nil, err
	}
	// entries take a little more than the records they tell of at most
	b, err := decompressOne(p, 4*int64(l.info.SegmentSize)+16<<20)
	if err != nil {
		return nil, &CorruptError{key, err.Error()}
	}
	return b, nil
}

// MissingWALError says that WAL which must be in the repository is not.
type MissingWALError struct {
	Timeline pg.TimelineID
	From     pg.LSN // the first byte that is missing
	To       pg.LSN // the end of what was asked for
}

func (e *MissingWALError) Error() string {
	return fmt.Sprintf("WAL from %s to %s on timeline %s is not in the repository", e.From, e.To, e.Timeline)
}

// Covers fails with a *MissingWALError unless the repository holds the WAL of one
// timeline from from to to.
func (l *Lineage) Covers(ctx context.Context, tli pg.TimelineID, from, to pg.LSN) error {
	size := l.info.SegmentSize
	for at := from; at < to; at = size.End(size.Number(at)) {
		g := pg.Segment{Timeline: tli, Number: size.Number(at)}
		ok, err := l.HasSegment(ctx, g)
		if err != nil {
			return err
		}
		if ok {
			continue
		}
		ts, err := l.Tails(ctx, &g)
		if err != nil {
			return err
		}
		_, end := Chain(ts, size.Start(g.Number))
		if end >= min(to, size.End(g.Number)) {
			continue
		}
		// the segment may have been completed between the two questions
		if ok, err = l.HasSegment(ctx, g); err != nil {
			return err
		}
		if !ok {
			return &MissingWALError{tli, max(at, end), to}
		}
	}
	return nil
}
