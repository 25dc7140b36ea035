// SPDX-License-Identifier: Apache-2.0

package repository

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"filippo.io/age"
	"github.com/cespare/xxhash/v2"

	"github.com/kbcli/kbcli/engine/blob"
	"github.com/kbcli/kbcli/engine/blob/mem"
	"github.com/kbcli/kbcli/engine/pg"
)

const (
	testSegment = pg.SegmentSize(1 << 20)
	testSystem  = pg.SystemID(7_000_000_000_000_000_001)
)

var testTime = time.Date(2026, 11, 22, 12, 0, 0, 123456000, time.UTC)

func testClock() time.Time { return testTime }

// somebody makes an age identity and its recipient.
func somebody(t testing.TB) (identity, recipient string) {
	t.Helper()
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	return id.String(), id.Recipient().String()
}

func create(t testing.TB, s blob.Store, o Options) *Repository {
	t.Helper()
	o.Clock = testClock
	r, err := Create(t.Context(), s, o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func newLineage(t testing.TB, r *Repository) *Lineage {
	t.Helper()
	l, err := r.CreateLineage(t.Context(), LineageInfo{
		Namespace: "default", Cluster: "c", SystemID: testSystem, Major: 15, SegmentSize: testSegment,
	})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// plainLineage is one in memory that is not sealed.
func plainLineage(t testing.TB) (*Lineage, *mem.Store) {
	s := mem.New(nil)
	return newLineage(t, create(t, s, Options{})), s
}

// noise is n bytes that compress by about a half; the same for one seed.
func noise(seed uint64, n int) []byte {
	r := rand.New(rand.NewPCG(seed, 1))
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

// quiet is a segment that compresses to nothing much.
func quiet(seed byte) []byte {
	return bytes.Repeat([]byte{seed, 1, 2, 3, 4, 5, 6, 7}, int(testSegment)/8)
}

// frames cuts raw into zstd frames of at most n bytes.
func framesOf(raw []byte, n int) [][]byte {
	var out [][]byte
	for len(raw) > 0 {
		k := min(n, len(raw))
		out = append(out, Compress(nil, raw[:k]))
		raw = raw[k:]
	}
	return out
}

func putSegment(t testing.TB, l *Lineage, g pg.Segment, raw []byte) {
	t.Helper()
	if err := l.PutSegment(t.Context(), g, framesOf(raw, 300_000), xxhash.Sum64(raw)); err != nil {
		t.Fatal(err)
	}
}

func putTail(l *Lineage, g pg.Segment, from, to int, segment []byte) error {
	start := l.info.SegmentSize.Start(g.Number)
	raw := segment[from:to]
	return l.PutTail(context.Background(), Tail{Segment: g, From: start + pg.LSN(from), To: start + pg.LSN(to)}, framesOf(raw, 1000), xxhash.Sum64(raw))
}

// packed is a pack writer with these frames.
func packed(raws ...[]byte) *PackWriter {
	w := &PackWriter{}
	for _, raw := range raws {
		w.Add(raw, xxhash.Sum64(raw))
	}
	return w
}

// filesOf lists one file a frame, of the pack one of backup.
func filesOf(backup string, w *PackWriter) *Files {
	f := &Files{Packs: []PackRef{{backup, 1}}}
	f.Files = append(f.Files, File{Path: "base", Kind: Directory, Mode: 0o700})
	for i, fr := range w.Frames() {
		f.Frames = append(f.Frames, Frame{0, fr})
		f.Files = append(f.Files, File{
			Path: fmt.Sprintf("base/%04d", i), Mode: 0o600, Size: int64(fr.Raw), ModTime: testTime.UnixMicro(),
			Extents: []Extent{{Length: fr.Raw, Frame: uint32(i)}},
		})
	}
	return f
}

func manifestOf(name string, stop pg.LSN) *Manifest {
	return &Manifest{
		Name: name, Type: "full", Version: 150020, Timeline: 1, StartLSN: stop - 100, StopLSN: stop,
		StartTime: testTime, StopTime: testTime.Add(time.Duration(stop)), Label: []byte("START WAL LOCATION: …\n"),
		Settings: Settings{MaxConnections: 100, MaxWalSenders: 10},
	}
}

// An object is what fill stored, and how it is read. got is what was read, for
// comparison. exact tells that its reader sees every byte of it.
type object struct {
	kind  Kind
	key   string
	exact bool
	read  func(ctx context.Context, r *Repository) (got string, err error)
}

var (
	wholeSegment = pg.Segment{Timeline: 1, Number: 5}
	tailSegment  = pg.Segment{Timeline: 1, Number: 6}
)

var testGap = Gap{Timeline: 1, From: 0x700000, ToTimeline: 1, To: 0x900000, Reason: "the spool was full", Detected: testTime}

func testPack() *PackWriter {
	return packed(bytes.Repeat([]byte("first "), 10), []byte("second"), bytes.Repeat([]byte("third "), 9))
}

// fill stores an object of every kind, and a second pack, into a new lineage.
func fill(t testing.TB, r *Repository) (*Lineage, []object) {
	t.Helper()
	ctx := t.Context()
	l := newLineage(t, r)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(l.PutHistory(ctx, 2, []byte("1\t0/600400\tno recovery target specified\n")))
	putSegment(t, l, wholeSegment, quiet(9))
	must(l.PutIndex(ctx, wholeSegment, []byte("what it says")))
	must(putTail(l, tailSegment, 0, 100, quiet(8)))
	must(putTail(l, tailSegment, 100, 8192, quiet(8)))
	must(l.PutGap(ctx, testGap))
	must(l.PutBeat(ctx, Beat{Timeline: 1, LSN: 0x602000, Time: testTime}))
	w := testPack()
	_, err := l.PutPack(ctx, PackRef{"b1", 1}, w)
	must(err)
	must(l.PutBackup(ctx, manifestOf("b1", 0x580000), filesOf("b1", w)))
	k, err := r.Lock(ctx, "keeper", "a test", time.Minute, 0)
	must(err)
	must(k.Unlock(ctx))
	return l, objectsIn(t, l)
}

// objectsIn are the objects of a lineage that fill stored into, and of its repository.
func objectsIn(t testing.TB, l *Lineage) []object {
	t.Helper()
	ctx, r := t.Context(), l.repo
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	open := func(read func(context.Context, *Lineage) (any, error)) func(context.Context, *Repository) (string, error) {
		return func(ctx context.Context, r *Repository) (string, error) {
			l := &Lineage{repo: r, info: l.info}
			v, err := read(ctx, l)
			if err != nil {
				return "", err
			}
			if b, ok := v.([]byte); ok {
				return string(b), nil
			}
			b, err := json.Marshal(v)
			return string(b), err
		}
	}
	manifest, err := l.Manifest(ctx, "b1")
	must(err)
	tails, err := l.Tails(ctx, &tailSegment)
	must(err)
	readTail := open(func(ctx context.Context, l *Lineage) (any, error) { return l.ReadTail(ctx, tailSegment) })
	out := []object{
		{KindRepository, "repository", true, func(ctx context.Context, r *Repository) (string, error) {
			o, err := Open(ctx, r.store, Options{Clock: testClock})
			if err != nil {
				return "", err
			}
			return o.ID(), nil
		}},
		{KindLineage, l.descriptionKey(), true, open(func(ctx context.Context, l *Lineage) (any, error) {
			o, err := l.repo.Lineage(ctx, l.info.ID)
			if err != nil {
				return nil, err
			}
			return o.Info(), nil
		})},
		{KindHistory, l.historyKey(2), true, open(func(ctx context.Context, l *Lineage) (any, error) { return l.History(ctx, 2) })},
		{KindSegment, l.segmentKey("wal", wholeSegment), true, open(func(ctx context.Context, l *Lineage) (any, error) {
			return l.Segment(ctx, wholeSegment, nil)
		})},
		{KindTail, l.tailKey(tails[0]), true, readTail},
		{KindTail, l.tailKey(tails[1]), true, readTail},
		{KindIndex, l.segmentKey("index", wholeSegment), true, open(func(ctx context.Context, l *Lineage) (any, error) { return l.Index(ctx, wholeSegment) })},
		{KindGap, l.gapKey(testGap), true, open(func(ctx context.Context, l *Lineage) (any, error) { return l.Gaps(ctx) })},
		{KindBeat, l.key("beat"), true, open(func(ctx context.Context, l *Lineage) (any, error) { return l.Beat(ctx) })},
		{KindPack, l.packKey(PackRef{"b1", 1}), true, open(func(ctx context.Context, l *Lineage) (any, error) { return l.PackTable(ctx, PackRef{"b1", 1}) })},
		{KindPack, l.packKey(PackRef{"b1", 1}), r.Sealed(), open(func(ctx context.Context, l *Lineage) (any, error) {
			files, err := l.Files(ctx, manifest)
			if err != nil {
				return nil, err
			}
			var frames []FrameInfo
			for _, f := range files.Frames {
				frames = append(frames, f.FrameInfo)
			}
			var b []byte
			err = l.ReadFrames(ctx, PackRef{"b1", 1}, frames, func(i int, raw []byte) error {
				b = fmt.Appendf(b, "%d%s", i, raw)
				return nil
			})
			return b, err
		})},
		{KindFiles, l.filesKey("b1"), true, open(func(ctx context.Context, l *Lineage) (any, error) { return l.Files(ctx, manifest) })},
		{KindManifest, l.manifestKey("b1"), true, open(func(ctx context.Context, l *Lineage) (any, error) { return l.Manifest(ctx, "b1") })},
		{KindLock, lockKey("keeper", 1), true, func(ctx context.Context, r *Repository) (string, error) {
			top, err := r.lockTop(ctx, "keeper")
			if err != nil {
				return "", err
			}
			b, err := json.Marshal(top.doc)
			return string(b), err
		}},
	}
	return out
}

func raw(t testing.TB, s blob.Store, key string) []byte {
	t.Helper()
	b, err := blob.ReadAll(t.Context(), s, key, 1<<30)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func replace(t testing.TB, s blob.Store, key string, b []byte) {
	t.Helper()
	if err := s.Replace(t.Context(), key, bytes.NewReader(b)); err != nil {
		t.Fatal(err)
	}
}

// wantDamage is for an error that must be a *CorruptError of key.
func wantDamage(t testing.TB, what, key string, err error) {
	t.Helper()
	var corrupt *CorruptError
	if !errors.As(err, &corrupt) || corrupt.Key != key || corrupt.Reason == "" {
		t.Errorf("%s of %s: got %v, want a CorruptError that names it", what, key, err)
	}
}
