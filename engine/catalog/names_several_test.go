// SPDX-License-Identifier: Apache-2.0

package catalog

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kbcli/kbcli/engine/blob"
	"github.com/kbcli/kbcli/engine/blob/fault"
	"github.com/kbcli/kbcli/engine/pg"
	"github.com/kbcli/kbcli/engine/repository"
)

// everNamed stores all names, and n parts that each rename one table, and tells what a
// reader then makes of it.
func everNamed(w *world, n int) func() []string {
	file := pg.RelFileLocator{Spc: 1663, DB: 5, Rel: 20000}
	put := func(o repository.NamesObject, name string) {
		d := DatabaseNames{Oid: 5, Name: "postgres", Told: o.Full, Part: !o.Full, Relations: []RelationName{{Oid: 20000, File: 20000, Kind: 'r', Schema: "public", Name: name}}}
		w.must(w.l.PutNames(w.Context(), o, (&Names{Time: noon, Databases: []DatabaseNames{d}}).Encode()))
	}
	put(repository.NamesObject{LSN: 100, Timeline: 1, Full: true}, "t0")
	for i := range n {
		put(repository.NamesObject{LSN: pg.LSN(100 + 10*i), Timeline: 1}, fmt.Sprint("t", i+1)) // the first where the full one is
	}
	return func() (out []string) {
		w.Helper()
		c := w.load()
		p, err := c.Path(1)
		w.must(err)
		names, err := c.namesFor(w.Context(), p, 100, 1<<40)
		w.must(err)
		for i := range n {
			out = append(out, names.file(file, pg.LSN(100+10*i+5)).Name)
		}
		return out
	}
}

// Nothing is lost when parts are put together, or when that is interrupted anywhere.
func TestMergeNames(t *testing.T) {
	may := func() error { return nil }
	want := func(n int) (out []string) {
		for i := range n {
			out = append(out, fmt.Sprint("t", i+1))
		}
		return out
	}
	for stop := range 60 {
		w := newWorld(t, repository.LineageInfo{})
		read := everNamed(w, 30)
		if diff := cmp.Diff(want(30), read()); diff != "" {
			t.Fatalf("before (-want +got):\n%s", diff)
		}
		asked := 0
		enough := errors.New("the lineage was lost")
		err := MergeNames(t.Context(), w.l, 8, func() error {
			if asked++; asked > stop {
				return enough
			}
			return nil
		})
		if diff := cmp.Diff(want(30), read()); diff != "" {
			t.Fatalf("stopped at step %d (-want +got):\n%s", stop, diff)
		}
		w.must(MergeNames(t.Context(), w.l, 1, may))
		if diff := cmp.Diff(want(30), read()); diff != "" {
			t.Fatalf("stopped at step %d, and taken up (-want +got):\n%s", stop, diff)
		}
		objects, lerr := w.l.NamesObjects(t.Context())
		if len(objects) != 2 || lerr != nil {
			t.Fatalf("stopped at step %d, there are %+v, %v", stop, objects, lerr)
		}
		if err == nil {
			return
		}
	}
	t.Error("it does not end")
}

// Who listed parts that were put together since lists again, and reads them where they are.
func TestNamesMoved(t *testing.T) {
	w := newWorld(t, repository.LineageInfo{})
	everNamed(w, 20)
	f := fault.New(w.store, 1)
	repo, err := repository.Open(t.Context(), f, repository.Options{Clock: func() time.Time { return noon }})
	w.must(err)
	ls, err := repo.Lineages(t.Context())
	w.must(err)
	c, err := Load(t.Context(), ls[0])
	w.must(err)
	p, err := c.Path(1)
	w.must(err)
	f.Set(fault.Rule{Verb: blob.VerbGet, Key: "-part", Times: 2, Action: fault.Fail(blob.ErrNotExist)})
	names, err := c.namesFor(t.Context(), p, 100, 1<<40)
	if err != nil || len(f.Events()) != 2 || len(names.byName) != 21 {
		t.Errorf("%d names after %d faults, %v", len(names.byName), len(f.Events()), err)
	}
}

// Few objects are read of those behind what is asked for.
func TestNamesBetween(t *testing.T) {
	w := newWorld(t, repository.LineageInfo{})
	everNamed(w, 100)
	c := w.load()
	p, err := c.Path(1)
	w.must(err)
	all, err := w.l.NamesObjects(t.Context())
	w.must(err)
	got := namesBetween(p, all, 200, 300)
	if len(got) != 1+21+namesAfter || !got[0].Full || got[len(got)-1].LSN != 300+10*namesAfter {
		t.Errorf("%d: %v", len(got), got)
	}
}

func TestSeveralNamesEncoding(t *testing.T) {
	parts := []namesPart{{5, []byte("one")}, {5, nil}, {1 << 60, []byte("two")}}
	b := encodeSeveral(parts)
	got, err := decodeSeveral(b)
	if err != nil || fmt.Sprint(got) != fmt.Sprint(parts) {
		t.Errorf("%v, %v", got, err)
	}
	for i := range b {
		if _, err := decodeSeveral(b[:i]); err == nil {
			t.Errorf("cut at %d it reads", i)
		}
	}
}

func FuzzDecodeSeveralNames(f *testing.F) {
	f.Add(encodeSeveral([]namesPart{{5, []byte("one")}, {9, nil}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		if parts, err := decodeSeveral(b); err == nil {
			if _, err := decodeSeveral(encodeSeveral(parts)); err != nil {
				t.Error(err)
			}
		}
	})
}
