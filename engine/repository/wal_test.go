// SPDX-License-Identifier: Apache-2.0

package repository

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/cespare/xxhash/v2"
	"github.com/google/go-cmp/cmp"

	"github.com/kbcli/kbcli/engine/blob"
	"github.com/kbcli/kbcli/engine/blob/fault"
	"github.com/kbcli/kbcli/engine/blob/mem"
	"github.com/kbcli/kbcli/engine/pg"
)

func TestPutSegment(t *testing.T) {
	sealedAndNot(t, func(t *testing.T, s *mem.Store, o Options) {
		l := newLineage(t, create(t, s, o))
		g := pg.Segment{Timeline: 3, Number: 0x1234}
		content := noise(1, int(testSegment))
		if ok, err := l.HasSegment(t.Context(), g); ok || err != nil {
			t.Errorf("before: %t, %v", ok, err)
		}
		if _, err := l.Segment(t.Context(), g, nil); !errors.Is(err, blob.ErrNotExist) {
			t.Errorf("before: %v", err)
		}
		// many writers of the same bytes, however they are cut, all succeed
		var wg sync.WaitGroup
		for i := range 4 {
			wg.Go(func() {
				if err := l.PutSegment(t.Context(), g, framesOf(content, 100_000*(i+1)), xxhash.Sum64(content)); err != nil {
					t.Errorf("writer %d: %v", i, err)
				}
			})
		}
		wg.Wait()
		var conflict *ConflictError
		other := noise(2, int(testSegment))
		if err := l.PutSegment(t.Context(), g, framesOf(other, 1<<20), xxhash.Sum64(other)); !errors.As(err, &conflict) || conflict.Key != l.segmentKey("wal", g) {
			t.Errorf("other bytes: %v", err)
		}
		room := make([]byte, 0, testSegment)
		if b, err := l.Segment(t.Context(), g, room); err != nil || !bytes.Equal(b, content) || &b[0] != &room[:1][0] {
			t.Errorf("read %d bytes, %v", len(b), err)
		}
		if ok, err := l.HasSegment(t.Context(), g); !ok || err != nil {
			t.Errorf("after: %t, %v", ok, err)
		}
		// over a damaged one nothing is put, and nobody is told that it was
		replace(t, s, l.segmentKey("wal", g), raw(t, s, l.segmentKey("wal", g))[:1000])
		wantDamage(t, "put over damage", l.segmentKey("wal", g), l.PutSegment(t.Context(), g, framesOf(content, 1<<20), xxhash.Sum64(content)))
	})
}

// What a writer got wrong is found before anybody gets wrong bytes.
func TestSegmentThatIsNone(t *testing.T) {
	l, _ := plainLineage(t)
	good := quiet(1)
	for i, test := range []struct {
		name string
		raw  []byte
		sum  uint64
	}{
		{"short", good[:len(good)-1], xxhash.Sum64(good)},
		{"long", append(slices.Clone(good), 0), xxhash.Sum64(good)},
		{"empty", nil, xxhash.Sum64(nil)},
		{"another sum", good, 1},
		{"a bomb", make([]byte, 64<<20), xxhash.Sum64(good)},
	} {
		g := pg.Segment{Timeline: 1, Number: uint64(i)}
		if err := l.PutSegment(t.Context(), g, framesOf(test.raw, 1<<20), test.sum); err != nil {
			t.Fatal(err)
		}
		_, err := l.Segment(t.Context(), g, nil)
		wantDamage(t, test.name, l.segmentKey("wal", g), err)
	}
	// the same object in the lineage of another server
	other := *l
	other.info.SystemID++
	g := pg.Segment{Timeline: 1, Number: 99}
	putSegment(t, &other, g, good)
	_, err := l.Segment(t.Context(), g, nil)
	wantDamage(t, "another server's", l.segmentKey("wal", g), err)
}

func TestListSegments(t *testing.T) {
	l, s := plainLineage(t)
	var want []pg.Segment
	for _, tli := range []pg.TimelineID{1, 2, 10} {
		for _, n := range []uint64{0, 1, 0xfff, 0x1000, 0x1001} {
			g := pg.Segment{Timeline: tli, Number: n}
			putSegment(t, l, g, quiet(1))
			if err := l.PutIndex(t.Context(), g, []byte("x")); err != nil {
				t.Fatal(err)
			}
			want = append(want, g)
		}
	}
	list := func(from pg.Segment) (got, indexed []pg.Segment, err error) {
		for g, err := range l.Segments(t.Context(), from) {
			if err != nil {
				return nil, nil, err
			}
			if g.Size == 0 {
				t.Errorf("%v has no size", g)
			}
			got = append(got, g.Segment)
		}
		for g, err := range l.Indexed(t.Context(), from) {
			if err != nil {
				return nil, nil, err
			}
			indexed = append(indexed, g.Segment)
		}
		return got, indexed, nil
	}
	for i := range want {
		got, indexed, err := list(want[i])
		if diff := cmp.Diff([][]pg.Segment{want[i:], want[i:]}, [][]pg.Segment{got, indexed}); err != nil || diff != "" {
			t.Errorf("from %v: %v (-want +got):\n%s", want[i], err, diff)
		}
	}
	if got, _, err := list(pg.Segment{}); err != nil || len(got) != len(want) {
		t.Errorf("all: %v, %v", got, err)
	}
	if err := l.DeleteSegment(t.Context(), want[0]); err != nil {
		t.Error(err)
	}
	if got, indexed, err := list(pg.Segment{}); err != nil || !slices.Equal(got, want[1:]) || !slices.Equal(indexed, want[1:]) {
		t.Errorf("after a deletion: %v, %v", got, err)
	}
	for _, stray := range []string{"x", "0000000100000000/x", "0000000100000000/000000010000000000001000", "0000000200000000/000000010000000000000000"} {
		key := l.key("wal", stray)
		replace(t, s, key, nil)
		_, _, err := list(pg.Segment{})
		wantDamage(t, "a stray name", key, err)
		_ = s.Delete(t.Context(), key)
	}
	l.repo.store = fault.New(s, 1, fault.Rule{Verb: blob.VerbList, Action: fault.Cut(3)})
	if _, _, err := list(pg.Segment{}); !errors.Is(err, blob.ErrUnreachable) {
		t.Errorf("a broken listing: %v", err)
	}
}

func TestIndexIsMadeAgain(t *testing.T) {
	sealedAndNot(t, func(t *testing.T, s *mem.Store, o Options) {
		l := newLineage(t, create(t, s, o))
		for _, n := range []int{1, 255, 256, 100_000, 40, smallFrame + 1} {
			body := noise(uint64(n), n)
			if err := l.PutIndex(t.Context(), wholeSegment, body); err != nil {
				t.Fatal(err)
			}
			if got, err := l.Index(t.Context(), wholeSegment); err != nil || !bytes.Equal(got, body) {
				t.Errorf("%d bytes: got %d, %v", n, len(got), err)
			}
		}
		// no more is unpacked than an index of such a segment can have
		if err := l.PutIndex(t.Context(), wholeSegment, make([]byte, 30<<20)); err != nil {
			t.Fatal(err)
		}
		_, err := l.Index(t.Context(), wholeSegment)
		wantDamage(t, "a bomb", l.segmentKey("index", wholeSegment), err)
	})
}

func TestChain(t *testing.T) {
	for _, test := range []struct {
		name  string
		tails [][2]pg.LSN
		want  [][2]pg.LSN
		end   pg.LSN
	}{
		{"none", nil, nil, 100},
		{"one", [][2]pg.LSN{{100, 110}}, [][2]pg.LSN{{100, 110}}, 110},
		{"in order", [][2]pg.LSN{{100, 110}, {110, 120}}, [][2]pg.LSN{{100, 110}, {110, 120}}, 120},
		{"out of order", [][2]pg.LSN{{110, 120}, {100, 110}}, [][2]pg.LSN{{100, 110}, {110, 120}}, 120},
		{"does not begin at the start", [][2]pg.LSN{{101, 110}}, nil, 100},
		{"a hole", [][2]pg.LSN{{100, 110}, {111, 120}}, [][2]pg.LSN{{100, 110}}, 110},
		{"overlap", [][2]pg.LSN{{100, 110}, {105, 120}}, [][2]pg.LSN{{100, 110}, {105, 120}}, 120},
		{"one within another", [][2]pg.LSN{{100, 120}, {105, 110}, {110, 115}}, [][2]pg.LSN{{100, 120}}, 120},
		{"the longest", [][2]pg.LSN{{100, 105}, {100, 110}, {104, 111}, {103, 120}}, [][2]pg.LSN{{100, 110}, {103, 120}}, 120},
	} {
		t.Run(test.name, func(t *testing.T) {
			tails := func(spans [][2]pg.LSN) (out []Tail) {
				for _, s := range spans {
					out = append(out, Tail{From: s[0], To: s[1]})
				}
				return out
			}
			got, end := Chain(tails(test.tails), 100)
			if diff := cmp.Diff(tails(test.want), got); diff != "" || end != test.end {
				t.Errorf("ends at %d, want %d (-want +got):\n%s", end, test.end, diff)
			}
		})
	}
}

// Whatever pieces there are, the chain reaches as far as bytes are covered from the start.
func TestChainReachesAllThereIs(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		var ts []Tail
		var covered [41]bool
		for range r.IntN(12) {
			from := r.IntN(40)
			to := from + 1 + r.IntN(40-from)
			ts = append(ts, Tail{From: pg.LSN(from), To: pg.LSN(to)})
			for i := from; i < to; i++ {
				covered[i] = true
			}
		}
		want := slices.Index(covered[:], false)
		chain, end := Chain(ts, 0)
		at := pg.LSN(0)
		for _, c := range chain {
			if c.From > at || c.To <= at {
				t.Fatalf("%v of %v", chain, ts)
			}
			at = c.To
		}
		if int(end) != want || at != end {
			t.Fatalf("%v reach %d, want %d", ts, end, want)
		}
	}
}

func TestTails(t *testing.T) {
	sealedAndNot(t, func(t *testing.T, s *mem.Store, o Options) {
		l := newLineage(t, create(t, s, o))
		ctx := t.Context()
		segment := noise(3, int(testSegment))
		g := pg.Segment{Timeline: 1, Number: 7}
		read := func() []byte {
			t.Helper()
			b, err := l.ReadTail(ctx, g)
			if err != nil {
				t.Fatal(err)
			}
			return b
		}
		if b := read(); len(b) != 0 {
			t.Errorf("%d bytes of nothing", len(b))
		}
		for _, span := range [][2]int{{0, 10}, {10, 5000}, {5000, 5001}, {4000, 9000}, {4000, 9000}, {20_000, 20_001}, {8000, 8500}} {
			if err := putTail(l, g, span[0], span[1], segment); err != nil {
				t.Fatalf("%v: %v", span, err)
			}
		}
		if b := read(); !bytes.Equal(b, segment[:9000]) {
			t.Errorf("read %d bytes", len(b))
		}
		// the next segment's are others
		if err := putTail(l, pg.Segment{Timeline: 1, Number: 8}, 0, 10, segment); err != nil {
			t.Fatal(err)
		}
		if ts, err := l.Tails(ctx, &g); err != nil || len(ts) != 6 || ts[0].Size == 0 {
			t.Errorf("%v, %v", ts, err)
		}
		if ts, err := l.Tails(ctx, nil); err != nil || len(ts) != 7 {
			t.Errorf("%v, %v", ts, err)
		}
		if err := putTail(l, g, 0, int(testSegment), segment); err != nil {
			t.Fatal(err)
		}
		if b := read(); !bytes.Equal(b, segment) {
			t.Errorf("read %d bytes", len(b))
		}
		if err := l.DeleteTails(ctx, g); err != nil {
			t.Fatal(err)
		}
		if ts, err := l.Tails(ctx, nil); err != nil || len(ts) != 1 {
			t.Errorf("%v, %v", ts, err)
		}
		var conflict *ConflictError
		if err := putTail(l, pg.Segment{Timeline: 1, Number: 8}, 0, 10, segment[1:]); !errors.As(err, &conflict) {
			t.Errorf("other bytes: %v", err)
		}
	})
}

func TestTailsThatDisagree(t *testing.T) {
	l, s := plainLineage(t)
	g := pg.Segment{Timeline: 1, Number: 7}
	a, b := noise(3, 9000), noise(4, 9000)
	if err := errors.Join(putTail(l, g, 0, 5000, a), putTail(l, g, 4000, 9000, b)); err != nil {
		t.Fatal(err)
	}
	start := l.info.SegmentSize.Start(7)
	_, err := l.ReadTail(t.Context(), g)
	wantDamage(t, "another overlap", l.tailKey(Tail{Segment: g, From: start + 4000, To: start + 9000}), err)

	for _, bad := range []Tail{
		{Segment: g, From: start, To: start},
		{Segment: g, From: start + 1, To: start},
		{Segment: g, From: start - 1, To: start + 1},
		{Segment: g, From: start, To: start + pg.LSN(testSegment) + 1},
	} {
		if err := l.PutTail(t.Context(), bad, nil, 0); err == nil {
			t.Errorf("%+v was put", bad)
		}
	}
	for _, name := range []string{"x", "0000000000700000", "0000000000700000-0000000000700000", "000000000070000a-0000000000700010", "0000000000700000-00000000008000001", "0000000000700000-0000000000800001"} {
		key := l.key("tail", "000000010000000000000007", name)
		replace(t, s, key, nil)
		_, err := l.Tails(t.Context(), nil)
		wantDamage(t, "a stray name", key, err)
		_ = s.Delete(t.Context(), key)
	}
}

func TestHistories(t *testing.T) {
	l, s := plainLineage(t)
	ctx := t.Context()
	for _, tli := range []pg.TimelineID{0x10, 2, 0xffffffff} {
		content := fmt.Appendf(nil, "1\t0/%X\tx\n", tli)
		for range 2 {
			if err := l.PutHistory(ctx, tli, content); err != nil {
				t.Fatal(err)
			}
		}
		var conflict *ConflictError
		if err := l.PutHistory(ctx, tli, append(content, ' ')); !errors.As(err, &conflict) {
			t.Error(err)
		}
		if b, err := l.History(ctx, tli); err != nil || !bytes.Equal(b, content) {
			t.Errorf("%q, %v", b, err)
		}
	}
	if got, err := l.Histories(ctx); err != nil || !slices.Equal(got, []pg.TimelineID{2, 0x10, 0xffffffff}) {
		t.Errorf("%v, %v", got, err)
	}
	for _, name := range []string{"0", "00000000", "0000000a", "x", "100000000"} {
		key := l.key("history", name)
		replace(t, s, key, nil)
		_, err := l.Histories(ctx)
		wantDamage(t, "a stray name", key, err)
		_ = s.Delete(ctx, key)
	}
}

func TestCovers(t *testing.T) {
	l, _ := plainLineage(t)
	// segments 1, 2, 4 and the beginning of 5
	for _, n := range []uint64{1, 2, 4} {
		putSegment(t, l, pg.Segment{Timeline: 1, Number: n}, quiet(1))
	}
	five := pg.Segment{Timeline: 1, Number: 5}
	if err := errors.Join(putTail(l, five, 0, 100, quiet(1)), putTail(l, five, 90, 200, quiet(1)), putTail(l, five, 300, 400, quiet(1))); err != nil {
		t.Fatal(err)
	}
	at := func(n, off int) pg.LSN { return testSegment.Start(uint64(n)) + pg.LSN(off) }
	for _, test := range []struct {
		from, to pg.LSN
		missing  pg.LSN // 0: none
	}{
		{at(1, 0), at(3, 0), 0},
		{at(1, 5), at(1, 6), 0},
		{at(2, 100), at(2, 100), 0},
		{at(2, 100), at(3, 1), at(3, 0)},
		{at(0, 100), at(3, 1), at(0, 100)},
		{at(3, 7), at(4, 1), at(3, 7)},
		{at(4, 0), at(5, 200), 0},
		{at(5, 150), at(5, 200), 0},
		{at(4, 0), at(5, 201), at(5, 200)},
		{at(5, 300), at(5, 400), at(5, 300)}, // not from the segment's start
		{at(6, 0), at(6, 1), at(6, 0)},
	} {
		err := l.Covers(t.Context(), 1, test.from, test.to)
		var missing *MissingWALError
		switch {
		case test.missing == 0 && err == nil:
		case errors.As(err, &missing) && missing.From == test.missing && missing.To == test.to && missing.Timeline == 1:
		default:
			t.Errorf("%s to %s: %v, want %s", test.from, test.to, err, test.missing)
		}
	}
	if err := l.Covers(t.Context(), 2, at(1, 0), at(1, 1)); err == nil || !strings.Contains(err.Error(), "timeline 2") {
		t.Error(err)
	}
	// who does not answer has not said that it is missing
	s := l.repo.store
	for _, verb := range []blob.Verb{blob.VerbStat, blob.VerbList} {
		l.repo.store = fault.New(s, 1, fault.Rule{Verb: verb, Action: fault.Fail(nil)})
		var missing *MissingWALError
		if err := l.Covers(t.Context(), 1, at(3, 0), at(3, 1)); !errors.Is(err, blob.ErrUnreachable) || errors.As(err, &missing) {
			t.Errorf("%s fails: %v", verb, err)
		}
	}
}

// completing puts a segment and deletes its tails when they are listed.
type completing struct {
	blob.Store
	then func()
}

func (c *completing) Stat(ctx context.Context, key string) (blob.Info, error) {
	info, err := c.Store.Stat(ctx, key)
	if c.then != nil {
		then := c.then
		c.then = nil
		then()
	}
	return info, err
}

func TestCoversWhileASegmentIsCompleted(t *testing.T) {
	l, s := plainLineage(t)
	g := pg.Segment{Timeline: 1, Number: 1}
	if err := putTail(l, g, 0, 100, quiet(1)); err != nil {
		t.Fatal(err)
	}
	reader := *l
	reader.repo = &Repository{store: &completing{s, func() {
		putSegment(t, l, g, quiet(1))
		if err := l.DeleteTails(context.Background(), g); err != nil {
			t.Error(err)
		}
	}}, clock: testClock}
	if err := reader.Covers(t.Context(), 1, testSegment.Start(1), testSegment.Start(1)+100); err != nil {
		t.Error(err)
	}
}
