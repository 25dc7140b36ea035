// SPDX-License-Identifier: Apache-2.0

package repository

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kbcli/kbcli/engine/blob"
	"github.com/kbcli/kbcli/engine/blob/fault"
	"github.com/kbcli/kbcli/engine/blob/mem"
	"github.com/kbcli/kbcli/engine/pg"
)

// counting counts requests and the bytes they asked for.
type counting struct {
	blob.Store
	gets, bytes atomic.Int64
}

func (c *counting) Get(ctx context.Context, key string, off, length int64) (io.ReadCloser, error) {
	c.gets.Add(1)
	c.bytes.Add(length)
	return c.Store.Get(ctx, key, off, length)
}

func TestPack(t *testing.T) {
	sealedAndNot(t, func(t *testing.T, s *mem.Store, o Options) {
		l := newLineage(t, create(t, s, o))
		ctx := t.Context()
		var raws [][]byte
		for i := range 60 {
			raws = append(raws, noise(uint64(i), 40_000))
		}
		raws = append(raws, make([]byte, FrameSize), noise(100, FrameSize), []byte{1})
		w := packed(raws...)
		ref := PackRef{"b1", 1}
		f := fault.New(s, 1, fault.Rule{Verb: blob.VerbPut, Action: fault.Fail(nil)})
		l.repo.store = f
		if _, err := l.PutPack(ctx, ref, w); !errors.Is(err, blob.ErrUnreachable) {
			t.Fatal(err)
		}
		f.Set()
		size, err := l.PutPack(ctx, ref, w) // the same writer again
		if err != nil {
			t.Fatal(err)
		}
		l.repo.store = s
		if n := int64(len(raw(t, s, l.packKey(ref)))); n < size || !l.repo.Sealed() && n != size {
			t.Errorf("it takes %d bytes, not %d", n, size)
		}
		table, err := l.PackTable(ctx, ref)
		if diff := cmp.Diff(w.Frames(), table); err != nil || diff != "" {
			t.Fatalf("table: %v (-want +got):\n%s", err, diff)
		}
		if numbers, total, err := l.Packs(ctx, "b1"); err != nil || !slices.Equal(numbers, []uint32{1}) || total < size {
			t.Errorf("%v, %d, %v", numbers, total, err)
		}
		for _, test := range []struct {
			name   string
			frames []int
			gets   int64
		}{
			{"all", seq(0, len(raws)), 1},
			{"one", []int{5}, 1},
			{"none", nil, 0},
			{"neighbours", []int{5, 6, 7}, 1},
			{"near", []int{5, 10}, 1},
			{"one twice", []int{5, 5}, 1},
			{"far", []int{5, 59}, 2},
			{"the last", []int{0, len(raws) - 1}, 2},
		} {
			c := &counting{Store: s}
			reader := *l
			repo := *l.repo
			repo.store = c
			reader.repo = &repo
			var ask []FrameInfo
			for _, i := range test.frames {
				ask = append(ask, table[i])
			}
			at := 0
			err := reader.ReadFrames(ctx, ref, ask, func(i int, got []byte) error {
				if i != at || !bytes.Equal(got, raws[test.frames[i]]) {
					t.Errorf("%s: frame %d is not what was put", test.name, i)
				}
				at++
				return nil
			})
			if err != nil || at != len(ask) {
				t.Errorf("%s: %d frames, %v", test.name, at, err)
			}
			want := test.gets
			if l.repo.Sealed() {
				if want = min(want, 1); test.gets > 1 {
					want = 4 // the head, how it is sealed and its end among them
				}
			}
			if n := c.gets.Load(); n != want {
				t.Errorf("%s: %d requests, want %d", test.name, n, want)
			}
		}
		stop := errors.New("stop")
		if err := l.ReadFrames(ctx, ref, table, func(i int, _ []byte) error {
			if i == 3 {
				return stop
			}
			return nil
		}); err != stop {
			t.Errorf("got %v", err)
		}
		if err := l.ReadFrames(ctx, ref, []FrameInfo{table[1], table[0]}, nil); err == nil {
			t.Error("frames out of order were read")
		}
		if err := l.DeletePack(ctx, ref); err != nil {
			t.Error(err)
		}
		if err := l.ReadFrames(ctx, ref, table, nil); !errors.Is(err, blob.ErrNotExist) {
			t.Errorf("a deleted pack: %v", err)
		}
	})
}

func seq(from, to int) (out []int) {
	for i := from; i < to; i++ {
		out = append(out, i)
	}
	return out
}

// A list of files may claim anything about frames.
func TestReadFramesOfLies(t *testing.T) {
	sealedAndNot(t, func(t *testing.T, s *mem.Store, o Options) {
		l := newLineage(t, create(t, s, o))
		ref := PackRef{"b1", 1}
		w := packed(noise(1, 5000), bytes.Repeat([]byte{7}, 100_000))
		if _, err := l.PutPack(t.Context(), ref, w); err != nil {
			t.Fatal(err)
		}
		good := w.Frames()[1]
		for _, change := range []func(*FrameInfo){
			func(f *FrameInfo) { f.Offset++ },
			func(f *FrameInfo) { f.Offset = 1 << 40 },
			func(f *FrameInfo) { f.Offset = 1<<64 - 10 },
			func(f *FrameInfo) { f.Stored-- },
			func(f *FrameInfo) { f.Stored++ },
			func(f *FrameInfo) { f.Stored = 1<<32 - 1 },
			func(f *FrameInfo) { f.Raw-- },
			func(f *FrameInfo) { f.Raw++ },
			func(f *FrameInfo) { f.Raw = 0 },
			func(f *FrameInfo) { f.Sum++ },
		} {
			f := good
			change(&f)
			err := l.ReadFrames(t.Context(), ref, []FrameInfo{f}, func(int, []byte) error {
				t.Errorf("%+v was read", f)
				return nil
			})
			wantDamage(t, fmt.Sprintf("%+v", f), l.packKey(ref), err)
		}
	})
}

func TestPackWriter(t *testing.T) {
	w := &PackWriter{}
	r := noise(1, 256<<10)
	for !w.Full() {
		r[0]++
		w.Add(r, 0)
	}
	if n := len(w.buf); n < PackSize || n > PackSize+FrameSize || cap(w.buf) > PackSize+2*FrameSize {
		t.Errorf("full at %d of %d", n, cap(w.buf))
	}
	was := cap(w.buf)
	if w.Reset(); len(w.Frames()) != 0 || w.Full() || cap(w.buf) != was {
		t.Error("it is not empty, or lost its memory")
	}
}

func FuzzPackTable(f *testing.F) {
	w := packed([]byte("one"), []byte("two"))
	l, s := plainLineage(f)
	if _, err := l.PutPack(f.Context(), PackRef{"b", 1}, w); err != nil {
		f.Fatal(err)
	}
	f.Add(raw(f, s, l.packKey(PackRef{"b", 1}))[headerSize(l.packKey(PackRef{"b", 1})):])
	f.Fuzz(func(t *testing.T, b []byte) {
		frames, err := parsePackTable(b)
		if err != nil {
			return
		}
		for _, f := range frames {
			if f.Offset+uint64(f.Stored) > uint64(len(b)) || f.Raw > FrameSize {
				t.Fatalf("%+v of %d bytes", f, len(b))
			}
			_, _ = decodeFrame(nil, b[f.Offset:f.Offset+uint64(f.Stored)], f)
		}
	})
}

// someFiles is a list with all that can be in one.
func someFiles() *Files {
	return &Files{
		Packs: []PackRef{{"b1", 1}, {"b1", 2}, {"older", 77}},
		Frames: []Frame{
			{0, FrameInfo{0, 100, 8192, 1}},
			{2, FrameInfo{1 << 33, maxStored, FrameSize, 1<<64 - 1}},
			{1, FrameInfo{100, 5, 20, 3}},
		},
		Files: []File{
			{Path: "PG_VERSION", Mode: 0o600, Size: 3, ModTime: testTime.UnixMicro(), Extents: []Extent{{3, 2, 4}}},
			{Path: "base", Kind: Directory, Mode: 0o700},
			{Path: "base/1", Kind: Directory, Mode: 0o700, ModTime: -1},
			{Path: "base/1/1259", Mode: 0o640, Size: FrameSize + 8192 + 1, Extents: []Extent{{FrameSize, 1, 0}, {8192, 0, 0}, {1, 2, 19}}},
			{Path: "base/1/1259_fsm", Mode: 0o600},
			{Path: "base/10", Kind: Symlink, Link: "../../x"},
			{Path: "pg_tblspc/16384/é", Mode: 0o7777},
		},
	}
}

func TestFilesRoundTrip(t *testing.T) {
	for _, want := range []*Files{{}, someFiles()} {
		got, err := parseFiles(want.encode())
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(fmt.Sprintf("%+v", want), fmt.Sprintf("%+v", got)); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	}
}

func TestFilesRefuses(t *testing.T) {
	for name, change := range map[string]func(f *Files){
		"up":                    func(f *Files) { f.Files[0].Path = "../PG_VERSION" },
		"up alone":              func(f *Files) { f.Files[0].Path = ".." },
		"up within":             func(f *Files) { f.Files[4].Path = "base/1/../../../x" },
		"absolute":              func(f *Files) { f.Files[0].Path = "/etc/passwd" },
		"itself":                func(f *Files) { f.Files[0].Path = "." },
		"no path":               func(f *Files) { f.Files[0].Path = "" },
		"slash at the end":      func(f *Files) { f.Files[0].Path = "A/" },
		"two slashes":           func(f *Files) { f.Files[0].Path = "A//B" },
		"zero byte":             func(f *Files) { f.Files[0].Path = "A\x00B" },
		"long path":             func(f *Files) { f.Files[0].Path = strings.Repeat("A", maxPath+1) },
		"out of order":          func(f *Files) { f.Files[1].Path = "A" },
		"twice":                 func(f *Files) { f.Files[1].Path = f.Files[0].Path },
		"kind":                  func(f *Files) { f.Files[0].Kind = 3 },
		"mode":                  func(f *Files) { f.Files[0].Mode = 0o10000 },
		"negative size":         func(f *Files) { f.Files[4].Size = -1 },
		"directory with bytes":  func(f *Files) { f.Files[0].Kind = Directory },
		"link with bytes":       func(f *Files) { f.Files[0].Kind = Symlink },
		"size too large":        func(f *Files) { f.Files[3].Size++ },
		"size too small":        func(f *Files) { f.Files[3].Size-- },
		"no frame":              func(f *Files) { f.Files[3].Extents[1].Frame = 3 },
		"far frame":             func(f *Files) { f.Files[3].Extents[1].Frame = 1<<32 - 1 },
		"out of its frame":      func(f *Files) { f.Files[3].Extents[2].Skip++ },
		"far out of its frame":  func(f *Files) { f.Files[3].Extents[2].Skip = 1<<32 - 1 },
		"empty extent":          func(f *Files) { f.Files[3].Extents[2].Length, f.Files[3].Size = 0, FrameSize+8192 },
		"no pack":               func(f *Files) { f.Frames[1].Pack = 3 },
		"large frame":           func(f *Files) { f.Frames[1].Raw++ },
		"large stored frame":    func(f *Files) { f.Frames[1].Stored++ },
		"empty stored frame":    func(f *Files) { f.Frames[1].Stored = 0 },
		"far offset":            func(f *Files) { f.Frames[1].Offset = 1 << 63 },
		"a backup up":           func(f *Files) { f.Packs[1].Backup = ".." },
		"a backup within":       func(f *Files) { f.Packs[1].Backup = "a/pack" },
		"a backup without name": func(f *Files) { f.Packs[1].Backup = "" },
	} {
		f := someFiles()
		change(f)
		if _, err := parseFiles(f.encode()); err == nil {
			t.Errorf("%s: no error", name)
		}
		l, s := plainLineage(t)
		if err := l.PutBackup(t.Context(), manifestOf("b1", 1000), f); err == nil {
			t.Errorf("%s: it was stored", name)
		}
		for info := range s.List(t.Context(), l.key("")) {
			t.Errorf("%s: %s was left", name, info.Key)
		}
	}
	for name, b := range map[string][]byte{
		"nothing": nil, "another magic": []byte("F2"),
		"packs": binary.AppendUvarint([]byte(filesMagic), 1<<60), "frames": append([]byte(filesMagic), 0, 0xff, 0xff, 0xff, 0x7f),
		"files": append([]byte(filesMagic), 0, 0, 0xff, 0xff, 0xff, 0x7f), "left over": append((&Files{}).encode(), 0),
	} {
		if _, err := parseFiles(b); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	// paths that share what they have take their room in memory all the same
	defer func(was int) { maxPaths = was }(maxPaths)
	maxPaths = 10 << 20
	b := append([]byte(filesMagic), 0, 0)
	n := maxPaths/(maxPath-8) + 2
	b = binary.AppendUvarint(b, uint64(n))
	long := strings.Repeat("a", maxPath-8)
	for i := range n {
		shared, rest := len(long), fmt.Sprintf("%08d", i)
		if i == 0 {
			shared, rest = 0, long+rest
		}
		b = appendString(binary.AppendUvarint(b, uint64(shared)), rest)
		b = append(b, 0, 0, 0, 0, 0)
	}
	if _, err := parseFiles(b); err == nil || !strings.Contains(err.Error(), "too many") {
		t.Errorf("%d bytes that unfold: %v", len(b), err)
	}
}

func FuzzFiles(f *testing.F) {
	f.Add(someFiles().encode())
	f.Add((&Files{}).encode())
	_, snapshot := snapshotOf("s")
	f.Add(snapshot.encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := parseFiles(b)
		if err != nil {
			return
		}
		for _, e := range got.Files {
			if !(len(e.Path) > 0 && e.Path[0] != '/') || slices.Contains(strings.Split(e.Path, "/"), "..") {
				t.Errorf("path %q", e.Path)
			}
		}
		again, err := parseFiles(got.encode())
		if err != nil || fmt.Sprintf("%+v", again) != fmt.Sprintf("%+v", got) {
			t.Errorf("not the same again: %v", err)
		}
	})
}

// At every step at which the store may fail a backup is whole or not listed, and
// can be taken again.
func TestPutBackupOverFaults(t *testing.T) {
	sealedAndNot(t, func(t *testing.T, s *mem.Store, o Options) {
		l := newLineage(t, create(t, s, o))
		ctx := t.Context()
		w := packed([]byte("content"))
		files := filesOf("b", w)
		listed := func() int {
			t.Helper()
			ms, err := l.Manifests(ctx)
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range ms {
				if _, err := l.Files(ctx, m); err != nil {
					t.Errorf("%s is listed: %v", m.Name, err)
				}
			}
			return len(ms)
		}
		before := 0
		for _, action := range []fault.Action{fault.Fail(nil), fault.FailAfter(nil)} {
			for n := 1; ; n++ {
				name := fmt.Sprintf("b%d", n)
				l.repo.store = fault.New(s, 1, fault.Rule{Nth: n, Action: action})
				m := manifestOf(name, 1000)
				was := *m
				err := l.PutBackup(ctx, m, files)
				l.repo.store = s
				now := listed()
				if err == nil {
					if now != before+1 || m.FilesSum == 0 || m.Stored == 0 || m.Written.IsZero() {
						t.Errorf("%+v", m)
					}
					before = now
					if err := l.DeleteBackup(ctx, name, func(uint32) bool { return false }); err != nil {
						t.Error(err)
					}
					break
				}
				if diff := cmp.Diff(&was, m); diff != "" {
					t.Errorf("a manifest that was not stored has changed:\n%s", diff)
				}
				other := filesOf("b", packed([]byte("other content")))
				err = l.PutBackup(ctx, m, other) // after another try the data files differ
				var conflict *ConflictError
				if now > before && !errors.As(err, &conflict) || now == before && err != nil {
					t.Errorf("%s again: %v", name, err)
				}
				listed()
				if err := l.DeleteBackup(ctx, name, func(uint32) bool { return false }); err != nil {
					t.Error(err)
				}
			}
			before = listed()
		}
	})
}

func TestBackups(t *testing.T) {
	l, s := plainLineage(t)
	ctx := t.Context()
	names := []string{"b", "b-1", "a.2", "z"}
	for i, name := range names {
		w := packed([]byte(name))
		for n := range uint32(3) {
			if _, err := l.PutPack(ctx, PackRef{name, n + 1}, w); err != nil {
				t.Fatal(err)
			}
		}
		if name == "z" {
			continue // unfinished
		}
		m := manifestOf(name, pg.LSN(5000-i))
		m.StopTime = testTime.Add(time.Duration(i%2) * time.Hour)
		if err := l.PutBackup(ctx, m, filesOf(name, w)); err != nil {
			t.Fatal(err)
		}
		got, err := l.Manifest(ctx, name)
		if diff := cmp.Diff(m, got); err != nil || diff != "" {
			t.Errorf("%s: %v (-want +got):\n%s", name, err, diff)
		}
	}
	list := func() (got []string, err error) {
		ms, err := l.Manifests(ctx)
		for _, m := range ms {
			got = append(got, m.Name)
		}
		return got, err
	}
	if got, err := list(); err != nil || !slices.Equal(got, []string{"a.2", "b", "b-1"}) {
		t.Errorf("%v, %v", got, err)
	}
	if got, err := l.BackupFolders(ctx); err != nil || !slices.Equal(got, []string{"a.2", "b-1", "b", "z"}) {
		t.Errorf("%v, %v", got, err)
	}
	var conflict *ConflictError
	if err := l.PutBackup(ctx, manifestOf("b", 7000), filesOf("b", packed([]byte("x")))); !errors.As(err, &conflict) {
		t.Errorf("another of the same name: %v", err)
	}
	for _, name := range []string{"", "a/b", "..", "a b"} {
		if _, err := l.Manifest(ctx, name); err == nil || errors.Is(err, blob.ErrNotExist) {
			t.Errorf("%q: %v", name, err)
		}
		if err := errors.Join(l.PutBackup(ctx, manifestOf(name, 100), &Files{})); err == nil {
			t.Errorf("%q was stored", name)
		}
		if err := l.DeleteBackup(ctx, name, nil); err == nil {
			t.Errorf("%q was deleted", name)
		}
	}
	// a list of files that belongs to another manifest
	key := l.filesKey("b")
	good := raw(t, s, key)
	if err := s.Delete(ctx, key); err != nil {
		t.Fatal(err)
	}
	if err := l.repo.put(ctx, KindFiles, key, Compress(nil, (&Files{}).encode()), 0); err != nil {
		t.Fatal(err)
	}
	m, err := l.Manifest(ctx, "b")
	if err != nil {
		t.Fatal(err)
	}
	_, err = l.Files(ctx, m)
	wantDamage(t, "another list of files", key, err)
	replace(t, s, key, good)

	replace(t, s, l.manifestKey("a.2"), []byte("x"))
	got, err := list()
	wantDamage(t, "one of three", l.manifestKey("a.2"), err)
	if !slices.Equal(got, []string{"b", "b-1"}) {
		t.Errorf("beside a damaged one: %v", got)
	}
	l.repo.store = fault.New(s, 1, fault.Rule{Verb: blob.VerbGet, Key: "manifest/b-1", Action: fault.Fail(nil)})
	if got, err := list(); got != nil || !errors.Is(err, blob.ErrUnreachable) {
		t.Errorf("one unreachable beside a damaged one: %v, %v", got, err)
	}
	l.repo.store = s

	// of what is deleted the manifest goes first
	for n := 1; ; n++ {
		l.repo.store = fault.New(s, 1, fault.Rule{Verb: blob.VerbDelete, Nth: n, Action: fault.Fail(nil)})
		err := l.DeleteBackup(ctx, "b", func(n uint32) bool { return n == 2 })
		l.repo.store = s
		if err == nil {
			break
		}
		if _, err := l.Manifest(ctx, "b"); n > 1 && !errors.Is(err, blob.ErrNotExist) {
			t.Errorf("half deleted and listed: %v", err)
		}
	}
	if numbers, _, err := l.Packs(ctx, "b"); err != nil || !slices.Equal(numbers, []uint32{2}) {
		t.Errorf("packs %v are left, %v", numbers, err)
	}
	if numbers, _, err := l.Packs(ctx, "b-1"); err != nil || len(numbers) != 3 {
		t.Errorf("packs of another: %v, %v", numbers, err)
	}
	for _, name := range []string{"1", "x", "000000001", "99999999999"} {
		key := l.key("backup", "b-1", "pack", name)
		replace(t, s, key, nil)
		_, _, err := l.Packs(ctx, "b-1")
		wantDamage(t, "a stray name", key, err)
		_ = s.Delete(ctx, key)
	}
}

func TestManifestOfAnother(t *testing.T) {
	l, _ := plainLineage(t)
	for _, doc := range []string{`{}`, `x`, `{"name":"b","timeline":1,"startLSN":"0/2","stopLSN":"0/1"}`, `{"name":"c","timeline":1,"startLSN":"0/1","stopLSN":"0/1"}`, `{"name":"b","startLSN":"0/1","stopLSN":"0/1"}`} {
		if err := l.repo.replace(t.Context(), KindManifest, l.manifestKey("b"), []byte(doc)); err != nil {
			t.Fatal(err)
		}
		_, err := l.Manifest(t.Context(), "b")
		wantDamage(t, doc, l.manifestKey("b"), err)
	}
}
