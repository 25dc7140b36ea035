// SPDX-License-Identifier: Apache-2.0

package repository

import (
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kbcli/kbcli/engine/blob/mem"
	"github.com/kbcli/kbcli/engine/pg"
	"github.com/kbcli/kbcli/engine/pg/walscan"
	"github.com/kbcli/kbcli/engine/repository/chapter"
	"github.com/kbcli/kbcli/engine/repository/walindex"
)

// chaptered makes a lineage whose chapters are of four segments.
func chaptered(t *testing.T, r *Repository) *Lineage {
	t.Helper()
	l, err := r.CreateLineage(t.Context(), LineageInfo{Cluster: "c", SystemID: testSystem, Major: 15, SegmentSize: testSegment, ChapterSegments: 4})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func testChapter(t *testing.T, first pg.Segment) *chapter.Chapter {
	t.Helper()
	b := chapter.NewBuilder(first)
	for i := range 4 {
		n := first.Number + uint64(i)
		start := testSegment.Start(n)
		x := &walindex.Index{Segment: pg.Segment{Timeline: first.Timeline, Number: n}, First: start + 40, Next: start + 4000, Last: start + 3000, Detailed: true}
		if i > 0 {
			x.Transactions = []walindex.Transaction{
				{Kind: walscan.Commit, Start: start + 1000, End: start + 1040, XID: pg.XID(700 + n), Time: 800_000_000_000_000 + pg.Timestamp(n)*1e6},
				{Kind: walscan.Abort, Start: start + 3000, End: start + 3040, XID: 699, Time: 800_000_000_000_000 + pg.Timestamp(n)*1e6 - 5, Dropped: []pg.RelFileLocator{{Spc: 1663, DB: 5, Rel: 16400}}},
			}
			x.RestorePoints = []walindex.RestorePoint{{Start: start + 2000, Time: 800_000_000_000_000, Name: fmt.Sprint("p", i)}}
			x.Creations = []walindex.Creation{{Start: start + 500, XID: 699, Rel: pg.RelFileLocator{Spc: 1663, DB: 5, Rel: 16400}}}
		}
		if err := b.Add(x); err != nil {
			t.Fatal(err)
		}
	}
	return b.Chapter()
}

func TestChapters(t *testing.T) {
	sealedAndNot(t, func(t *testing.T, s *mem.Store, o Options) {
		ctx, l := t.Context(), chaptered(t, create(t, s, o))
		var want []chapter.Name
		for _, first := range []pg.Segment{{Timeline: 1, Number: 8}, {Timeline: 1, Number: 4096}, {Timeline: 2, Number: 4}} {
			c := testChapter(t, first)
			for range 2 { // it may be made again
				if err := l.PutChapter(ctx, c.Name(), c.Encode()); err != nil {
					t.Fatal(err)
				}
			}
			want = append(want, c.Name())
			if got, err := l.Chapter(ctx, c.Name()); err != nil || !cmp.Equal(got.Encode(), c.Encode()) {
				t.Errorf("%+v: %v", got, err)
			}
		}
		replace(t, s, l.key("chapter", "of-a-later-version"), []byte("?"))
		other := want[0]
		other.Min--
		replace(t, s, l.chapterKey(other), raw(t, s, l.chapterKey(want[0]))) // a copy under another name
		got, err := l.Chapters(ctx)
		if diff := cmp.Diff([]chapter.Name{other, want[1], want[2]}, got); err != nil || diff != "" {
			t.Errorf("%v (-want +got):\n%s", err, diff)
		}
		_, err = l.Chapter(ctx, other)
		wantDamage(t, "a copy", l.chapterKey(other), err)
		wrong := testChapter(t, want[1].First)
		wrong.Segments = wrong.Segments[:3]
		if err := l.PutChapter(ctx, want[1], wrong.Encode()); err != nil {
			t.Fatal(err)
		}
		_, err = l.Chapter(ctx, want[1])
		wantDamage(t, "three segments", l.chapterKey(want[1]), err)
		if err := l.DeleteChapters(ctx, want[0].First); err != nil {
			t.Fatal(err)
		}
		if got, err := l.Chapters(ctx); err != nil || !slices.Equal(got, want[1:]) {
			t.Errorf("deleted: %v, %v", got, err)
		}
	})
}

// By chapters or not, the same segments are there.
func TestRuns(t *testing.T) {
	for seed := range uint64(30) {
		r := rand.New(rand.NewPCG(seed, 4))
		s := mem.New(nil)
		l := chaptered(t, create(t, s, Options{}))
		var want chapter.Runs
		var names []chapter.Name
		for tli := pg.TimelineID(1); tli <= 3; tli++ {
			base := uint64(r.IntN(9)) + 4090
			whole := map[uint64]bool{}
			for n := base; n < base+40; n++ {
				if r.IntN(12) > 0 {
					g := pg.Segment{Timeline: tli, Number: n}
					if err := l.PutSegment(t.Context(), g, nil, 1); err != nil {
						t.Fatal(err)
					}
					if err := l.PutIndex(t.Context(), g, nil); err != nil {
						t.Fatal(err)
					}
					want.Add(tli, n, n+1)
					whole[n] = true
				}
			}
			for n := base / 4 * 4; n < base+40; n += 4 {
				if whole[n] && whole[n+1] && whole[n+2] && whole[n+3] && r.IntN(4) > 0 {
					names = append(names, chapter.Name{First: pg.Segment{Timeline: tli, Number: n}})
				}
			}
		}
		// one that tells of what is not there is not believed
		names = append(names, chapter.Name{First: pg.Segment{Timeline: 4, Number: 4}})
		for what, list := range map[string]func() (chapter.Runs, error){
			"segments":                  func() (chapter.Runs, error) { return l.SegmentRuns(t.Context(), names) },
			"segments without chapters": func() (chapter.Runs, error) { return l.SegmentRuns(t.Context(), nil) },
			"indexes":                   func() (chapter.Runs, error) { return l.IndexedRuns(t.Context(), names) },
		} {
			got, err := list()
			if diff := cmp.Diff(want, got); err != nil || diff != "" {
				t.Fatalf("seed %d, %s: %v (-want +got):\n%s", seed, what, err, diff)
			}
		}
	}
}

// A chapter as format 1 wrote it, as hexadecimal digits, and its name.
func TestFormat1Chapter(t *testing.T) {
	file := filepath.Join(formatDir, "chapter")
	c := testChapter(t, pg.Segment{Timeline: 3, Number: 0x2500})
	if *update {
		text := c.Name().Key(testSegment) + "\n" + hex.EncodeToString(c.Encode()) + "\n"
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	key, body, _ := strings.Cut(string(b), "\n")
	raw, err := hex.DecodeString(strings.TrimSpace(body))
	if err != nil {
		t.Fatal(err)
	}
	got, err := chapter.Decode(raw)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(c, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if n, err := chapter.ParseName(testSegment, 4, key); err != nil || n != c.Name() {
		t.Errorf("%+v, %v", n, err)
	}
}
