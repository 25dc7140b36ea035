// SPDX-License-Identifier: Apache-2.0

package repository

import (
	"errors"
	"fmt"
	"os"
	"testing"
	"time"

	"filippo.io/age"

	"github.com/kbcli/kbcli/engine/blob/mem"
	"github.com/kbcli/kbcli/engine/pg"
)

// TestCopiesBounded: indexes from before the oldest list of files that is kept go, and
// so do the lists.
func TestCopiesBounded(t *testing.T) {
	ctx := t.Context()
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	repo, err := Create(ctx, mem.New(time.Now), Options{Recipients: []string{id.Recipient().String()}, Copies: t.TempDir(), Clock: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	l, err := repo.CreateLineage(ctx, LineageInfo{Namespace: "n", Cluster: "c", SystemID: 1, Major: 15, SegmentSize: pg.DefaultSegmentSize})
	if err != nil {
		t.Fatal(err)
	}
	at := time.Now().Add(-time.Hour)
	touch := func(key string) {
		t.Helper()
		at = at.Add(time.Second)
		if err := os.Chtimes(repo.copies.path(key), at, at); err != nil {
			t.Fatal(err)
		}
	}
	const backups = 7
	for i := range uint64(backups) {
		g := pg.Segment{Timeline: 1, Number: i + 1}
		if err := l.PutIndex(ctx, g, fmt.Append(nil, "index ", i)); err != nil {
			t.Fatal(err)
		}
		touch(l.segmentKey("index", g))
		key := l.filesKey(fmt.Sprint("b", i))
		repo.copies.put(key, []byte("list"))
		touch(key)
	}
	l.pruneCopies()
	for i := range uint64(backups) {
		g := pg.Segment{Timeline: 1, Number: i + 1}
		b, err := l.Known().Index(ctx, g)
		// that of the oldest list was written before it
		if want := i > backups-keptLists; (err == nil) != want || want && string(b) != fmt.Sprint("index ", i) || !want && !errors.Is(err, ErrSealed) {
			t.Errorf("index %d: %q, %v", i, b, err)
		}
		if _, err := l.Index(ctx, g); !errors.Is(err, ErrSealed) {
			t.Errorf("index %d without copies: %v", i, err)
		}
		_, err = repo.copies.get(l.filesKey(fmt.Sprint("b", i)))
		if want := i >= backups-keptLists; (err == nil) != want {
			t.Errorf("list %d: %v", i, err)
		}
	}
	// what is not in the repository is not known
	if err := l.repo.store.Delete(ctx, l.segmentKey("index", pg.Segment{Timeline: 1, Number: backups})); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Known().Index(ctx, pg.Segment{Timeline: 1, Number: backups}); err == nil || errors.Is(err, ErrSealed) {
		t.Errorf("an index that was deleted: %v", err)
	}
}
