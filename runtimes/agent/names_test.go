// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kbcli/kbcli/engine/blob/mem"
	"github.com/kbcli/kbcli/engine/catalog"
	"github.com/kbcli/kbcli/engine/pg"
	"github.com/kbcli/kbcli/engine/repository"
	"github.com/kbcli/kbcli/internal/testpg"
)

// TestNames: all names are stored at first, then what changed, and what no backup needs goes.
func TestNames(t *testing.T) {
	s := testpg.Start(t, testpg.Options{})
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	repo, err := repository.Create(t.Context(), mem.New(nil), repository.Options{Clock: time.Now})
	must(err)
	var system, db int64
	s.QueryRow(t, "select system_identifier, (select oid::int8 from pg_database where datname = 'postgres') from pg_control_system()", &system, &db)
	l, err := repo.CreateLineage(t.Context(), repository.LineageInfo{Cluster: "c", SystemID: pg.SystemID(system), Major: 15, SegmentSize: 16 << 20})
	must(err)
	var held error
	oldest := pg.LSN(0)
	n := &namer{
		lineage: l, conninfo: s.ConnString("postgres"), log: slog.New(slog.DiscardHandler), may: func() error { return held },
		oldest: func() (pg.LSN, bool) { return oldest, oldest != 0 }, wake: make(chan struct{}, 1), dirty: map[pg.Oid]bool{},
	}
	objects := func() (out []repository.NamesObject) {
		t.Helper()
		out, err := l.NamesObjects(t.Context())
		must(err)
		return out
	}
	until := func(what string, ok func([]repository.NamesObject) bool) []repository.NamesObject {
		t.Helper()
		for deadline := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
			got := objects()
			if ok(got) {
				return got
			}
			if time.Now().After(deadline) {
				t.Fatalf("%s: %+v", what, got)
			}
		}
	}
	defer n.start(t.Context())()
	got := until("all names", func(o []repository.NamesObject) bool { return len(o) == 1 })
	if !got[0].Full || got[0].Timeline != 1 {
		t.Errorf("%+v", got)
	}
	s.Exec(t, "create table t (i int primary key)")
	s.Exec(t, "create temporary table unseen (i int)")
	n.changed([]pg.Oid{pg.Oid(db)})
	got = until("a part", func(o []repository.NamesObject) bool { return len(o) == 2 })
	b, err := l.Names(t.Context(), got[1])
	must(err)
	x, err := catalog.DecodeNames(b)
	must(err)
	var seen []string
	for _, d := range x.Databases {
		for _, r := range d.Relations {
			seen = append(seen, fmt.Sprintf("%s.%s.%s %c", d.Name, r.Schema, r.Name, r.Kind))
		}
	}
	if diff := cmp.Diff([]string{"postgres.public.t r", "postgres.public.t_pkey i"}, seen); diff != "" || got[1].Full {
		t.Errorf("(-want +got):\n%s", diff)
	}
	// nothing that has a name happened
	must(n.storeOnce(t, []pg.Oid{pg.Oid(db)}))
	if got := objects(); len(got) != 2 {
		t.Errorf("%+v", got)
	}
	// who does not hold the lineage writes nothing
	held = errNotHeld
	if err := n.storeOnce(t, nil); !errors.Is(err, errNotHeld) {
		t.Error(err)
	}
	held = nil
	// with a backup, and what came before the oldest goes
	s.Exec(t, "create table u (i int)")
	n.whole()
	got = until("all names again", func(o []repository.NamesObject) bool { return len(o) == 3 && o[2].Full })
	oldest = got[2].LSN + 1
	s.Exec(t, "create table v (i int)")
	n.whole()
	until("old ones gone", func(o []repository.NamesObject) bool { return len(o) == 2 && o[0] == got[2] && o[1].Full })
}

// TestNamesTidy: names that change all the time leave few objects, and none of them is lost.
func TestNamesTidy(t *testing.T) {
	repo, err := repository.Create(t.Context(), mem.New(nil), repository.Options{Clock: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	l, err := repo.CreateLineage(t.Context(), repository.LineageInfo{Cluster: "c", SystemID: 1, Major: 15, SegmentSize: 16 << 20})
	if err != nil {
		t.Fatal(err)
	}
	n := &namer{lineage: l, may: func() error { return nil }, oldest: func() (pg.LSN, bool) { return 0, false }, wake: make(chan struct{}, 1), dirty: map[pg.Oid]bool{}}
	put := func(at repository.NamesObject, length int) {
		t.Helper()
		x := catalog.Names{Databases: []catalog.DatabaseNames{{Oid: 5, Name: strings.Repeat("x", length)}}}
		body := x.Encode()
		if err := errors.Join(l.PutNames(t.Context(), at, body), n.tidy(t.Context(), at.Full, len(body))); err != nil {
			t.Fatal(err)
		}
	}
	put(repository.NamesObject{LSN: 1, Timeline: 1, Full: true}, 100)
	for i := range 3 * namesMerged {
		put(repository.NamesObject{LSN: pg.LSN(i + 2), Timeline: 1}, 100)
	}
	got, err := l.NamesObjects(t.Context())
	if err != nil || len(got) != 2 || !got[0].Full || !got[1].Several || got[1].LSN != 3*namesMerged+1 {
		t.Errorf("%+v, %v", got, err)
	}
	if n.full {
		t.Error("all names are wanted too early")
	}
	for i := 0; !n.full && i < 10; i++ {
		put(repository.NamesObject{LSN: pg.LSN(10000 + i), Timeline: 1}, namesShort/4)
	}
	if !n.full {
		t.Error("however long the parts are, not all names are stored again")
	}
}

// storeOnce stores as run does, while run has nothing to do.
func (n *namer) storeOnce(t *testing.T, dbs []pg.Oid) error {
	time.Sleep(namesPause / 10)
	dirty := map[pg.Oid]bool{}
	for _, db := range dbs {
		dirty[db] = true
	}
	return n.store(t.Context(), false, dirty)
}
