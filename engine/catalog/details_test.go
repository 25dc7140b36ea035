// SPDX-License-Identifier: Apache-2.0

package catalog

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kbcli/kbcli/engine/blob"
	"github.com/kbcli/kbcli/engine/blob/fault"
	"github.com/kbcli/kbcli/engine/pg"
	"github.com/kbcli/kbcli/engine/repository"
	"github.com/kbcli/kbcli/engine/repository/walindex"
)

// What an index does not say is read from the WAL, and only when it is asked for.
func TestIndexDetails(t *testing.T) {
	w := write(t)
	want := w.indexes(t)
	brief := func(x *walindex.Index) *walindex.Index {
		b, err := walindex.Brief(x.Encode())
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	rows := 0
	for _, x := range want {
		for _, tx := range x.Transactions {
			if tx.Changes != nil {
				rows += len(tx.Changes.Rows)
			}
		}
	}
	if rows == 0 {
		t.Fatal("nothing was changed")
	}
	for name, put := range map[string]func(l *world, i int, x *walindex.Index){
		"stored": func(l *world, _ int, x *walindex.Index) { l.must(l.l.PutIndex(l.Context(), x.Segment, x.Encode())) },
		"of the first version": func(l *world, _ int, x *walindex.Index) {
			l.must(l.l.PutIndex(l.Context(), x.Segment, brief(x).Encode()))
		},
		"missing": func(*world, int, *walindex.Index) {},
		"some of the first version": func(l *world, i int, x *walindex.Index) {
			if i%3 == 0 {
				x = brief(x)
			}
			l.must(l.l.PutIndex(l.Context(), x.Segment, x.Encode()))
		},
	} {
		t.Run(name, func(t *testing.T) {
			wd := w.archived(t, put)
			f := fault.New(wd.store, 1)
			repo, err := repository.Open(t.Context(), f, repository.Options{Clock: func() time.Time { return noon }})
			if err != nil {
				t.Fatal(err)
			}
			ls, err := repo.Lineages(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			c, err := Load(t.Context(), ls[0])
			if err != nil {
				t.Fatal(err)
			}
			p, err := c.Path(0)
			if err != nil {
				t.Fatal(err)
			}
			for i, x := range want {
				got, err := c.Index(t.Context(), p, w.first+uint64(i), w.end)
				if diff := cmp.Diff(x, got); err != nil || diff != "" {
					t.Errorf("segment %d: %v (-want +got):\n%.2000s", i, err, diff)
				}
			}
			last, err := c.Index(t.Context(), p, w.first+uint64(len(want)), w.end)
			if err != nil || !last.Detailed || len(last.Transactions) == 0 || last.Transactions[0].Changes == nil {
				t.Errorf("what is not whole: %+v, %v", last, err)
			}
			// without it the WAL of stored indexes is not looked at
			if name == "missing" {
				return
			}
			f.Set(fault.Rule{Verb: blob.VerbGet, Key: "wal/", Action: fault.Fail(nil)})
			for i := range want {
				if _, err := c.index(t.Context(), p, w.first+uint64(i), mib.End(w.first+uint64(i))); err != nil {
					t.Errorf("segment %d without its WAL: %v", i, err)
				}
			}
		})
	}
	// from the middle, what began before the segment before is not known for certain
	c := w.archived(t, func(*world, int, *walindex.Index) {}).load()
	p, err := c.Path(0)
	if err != nil {
		t.Fatal(err)
	}
	n := len(want) - 1
	got, err := c.Index(t.Context(), p, w.first+uint64(n), w.end)
	if err != nil || !cmp.Equal(got.Blocks, want[n].Blocks) || len(got.Transactions) != len(want[n].Transactions) || got.Open.Since > pg.LSN(mib.Start(w.first+uint64(n))) {
		t.Errorf("alone: %v", err)
	}
}
