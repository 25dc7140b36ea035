// SPDX-License-Identifier: Apache-2.0

package restore_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kbcli/kbcli/engine/basebackup"
	"github.com/kbcli/kbcli/engine/pg"
	"github.com/kbcli/kbcli/engine/pg/walscan"
	"github.com/kbcli/kbcli/engine/repository"
	"github.com/kbcli/kbcli/engine/repository/walindex"
	"github.com/kbcli/kbcli/engine/restore"
	"github.com/kbcli/kbcli/internal/testpg"
)

// delete deletes a backup as retention does: packs that others use stay.
func (r *rig) delete(t *testing.T, name string) {
	t.Helper()
	if err := r.lineage.RemoveBackup(t.Context(), name); err != nil {
		t.Fatal(err)
	}
}

// spread is how many bytes the frames of a backup hold for one that is used.
func (r *rig) spread(t *testing.T, m *repository.Manifest) float64 {
	t.Helper()
	f, err := r.lineage.Files(t.Context(), m)
	if err != nil {
		t.Fatal(err)
	}
	raw := int64(0)
	for _, fr := range f.Frames {
		raw += int64(fr.Raw)
	}
	return float64(raw) / float64(m.DataBytes)
}

// TestIncrementalChain takes ten incremental backups one upon the other, deletes some
// of them and the first, and restores what is left.
func TestIncrementalChain(t *testing.T) {
	server := testpg.Start(t, testpg.Options{Settings: map[string]string{"autovacuum": "off"}})
	r := newRig(t, server, nil)
	server.Exec(t, "create table t as select i as id, 0 as n, md5(i::text) || md5((i * 7)::text) as v from generate_series(1, 200000) i")
	server.Exec(t, "create index on t (id)")
	server.Exec(t, "create table many (id serial, v text)")
	r.startArchiving(t)
	m := r.backup(t, "b0")
	all := []string{m.Name}
	want := map[string]map[string]string{m.Name: contents(t, server)}
	rnd := rand.New(rand.NewPCG(1, uint64(time.Now().UnixNano())))
	for i := 1; i <= 10; i++ {
		from := rnd.IntN(180000)
		server.Exec(t, fmt.Sprintf("update t set n = n + 1 where id between %d and %d", from, from+8000))
		server.Exec(t, fmt.Sprintf("update t set n = n + 1 where id %% 1000 = %d", i))
		server.Exec(t, "insert into many (v) select md5(i::text) from generate_series(1, 5000) i")
		if i%3 == 0 {
			server.Exec(t, "delete from many where id % 2 = 0")
			server.Exec(t, "vacuum many")
		}
		name := fmt.Sprint("b", i)
		want[name] = contents(t, server)
		m = r.incremental(t, name, m)
		if m.ReadAll != "" || m.NewBytes > m.DataBytes/2 {
			t.Errorf("%s: %d of %d bytes are new, everything was read: %q", name, m.NewBytes, m.DataBytes, m.ReadAll)
		}
		if s := r.spread(t, m); s > 1.35 {
			t.Errorf("%s: a restore reads %.2f bytes for one that it needs", name, s)
		}
		all = append(all, name)
	}
	t.Logf("the tenth: %d of %d bytes are new, %.2f read for one", m.NewBytes, m.DataBytes, r.spread(t, m))
	rnd.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	gone := all[:8]
	if i := slices.Index(all, "b0"); i >= 8 {
		all[0], all[i] = all[i], all[0]
	}
	for _, name := range gone {
		r.delete(t, name)
	}
	for i, name := range all[8:] {
		m, err := r.lineage.Manifest(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := restore.Verify(t.Context(), r.lineage, m, nil); err != nil {
			t.Errorf("%s of %v, without %v: %v", name, all, gone, err)
		}
		if i < 2 {
			r.judge(t, name, want[name])
		}
	}
	// what was deleted and is used still lies there, and nothing that is not
	for _, name := range gone {
		numbers, _, err := r.lineage.Packs(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range numbers {
			used := false
			for _, left := range all[8:] {
				m, err := r.lineage.Manifest(t.Context(), left)
				if err != nil {
					t.Fatal(err)
				}
				used = used || slices.Contains(m.Uses[name], n)
			}
			if !used {
				t.Errorf("pack %d of %s lies there for nobody", n, name)
			}
		}
	}
}

// TestIncrementalPromoted builds on a backup of the standby's and on one of the primary's
// when the standby has become the primary.
func TestIncrementalPromoted(t *testing.T) {
	for _, major := range []int{13, 18} {
		t.Run(fmt.Sprint(major), func(t *testing.T) {
			p := testpg.Start(t, testpg.Options{Major: major, SegmentSizeMB: 1, Settings: map[string]string{"autovacuum": "off", "wal_keep_size": "1GB"}})
			p.Exec(t, "create table t as select i as id, 0 as n, md5(i::text) as v from generate_series(1, 50000) i")
			p.Exec(t, "create index on t (id)")
			s := testpg.Standby(t, p)
			r := newRig(t, s, nil)
			r.startArchiving(t)
			quiet := func() {
				p.Exec(t, "checkpoint")
				s.CatchUp(t, p)
			}
			r.server = p
			old := r.backup(t, "primary")
			p.Exec(t, "update t set n = n + 1 where id % 100 = 0")
			quiet()
			r.server = s
			m := r.backup(t, "standby")
			p.Exec(t, "update t set n = n + 1 where id between 1000 and 3000")
			p.Exec(t, "vacuum t")
			quiet()
			m = r.incremental(t, "before", m)
			if m.ReadAll != "" || m.NewBytes > m.DataBytes/2 {
				t.Errorf("before: %d of %d bytes are new: %q", m.NewBytes, m.DataBytes, m.ReadAll)
			}
			r.agrees(t, m)
			p.Exec(t, "update t set n = n + 1 where id between 20000 and 21000")
			s.CatchUp(t, p)
			p.Kill9(t)
			s.Promote(t)
			s.Exec(t, "update t set n = n + 1 where id between 30000 and 31000")
			s.Exec(t, "create table new as select generate_series(1, 1000) as id")
			want := contents(t, s)
			s.Disconnect()
			s.Exec(t, "checkpoint")
			for name, base := range map[string]*repository.Manifest{"after": m, "other": old} {
				m := r.incremental(t, name, base)
				if m.Timeline < 2 || m.ReadAll != "" || m.NewBytes > m.DataBytes/2 {
					t.Errorf("%s: on timeline %s, %d of %d bytes are new: %q", name, m.Timeline, m.NewBytes, m.DataBytes, m.ReadAll)
				}
				if name == "after" {
					r.agrees(t, m) // the primary's hint bits are its own
				}
				r.judge(t, name, want)
			}
		})
	}
}

// TestIncrementalTakenUp breaks an incremental backup off, and takes it up.
func TestIncrementalTakenUp(t *testing.T) {
	server := testpg.Start(t, testpg.Options{Settings: map[string]string{"autovacuum": "off"}})
	server.Exec(t, "create table t as select i, md5(i::text) || md5((i*7)::text) || md5((i*11)::text) as v from generate_series(1, 10000) i")
	r := newRig(t, server, nil)
	r.startArchiving(t)
	m := r.backup(t, "b1")
	server.Exec(t, "insert into t select i, md5(i::text) || md5((i*7)::text) || md5((i*11)::text) as v from generate_series(1, 600000) i")
	contents(t, server) // which sets hint bits
	ctx, cancel := context.WithCancel(t.Context())
	cfg := r.incrementalConfig(t, "b2", m)
	cfg.Workers = 1
	cfg.Progress = func(p basebackup.Progress) {
		if p.Stored > 0 {
			cancel()
		}
	}
	if _, err := basebackup.Take(ctx, cfg); !errors.Is(err, context.Canceled) {
		t.Fatalf("broken off: %v", err)
	}
	packs, before, err := r.lineage.Packs(t.Context(), "b2")
	if err != nil || len(packs) == 0 {
		t.Fatalf("nothing was stored: %v", err)
	}
	server.Exec(t, "update t set v = 'x' where i <= 10")
	want := contents(t, server)
	var progress basebackup.Progress
	cfg = r.incrementalConfig(t, "b2", m)
	cfg.Progress = func(p basebackup.Progress) {
		if p.Phase == "done" {
			progress = p
		}
	}
	m2, err := basebackup.Take(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if progress.Total >= m2.DataBytes || progress.Done != progress.Total {
		t.Errorf("progress at the end: %+v of %d", progress, m2.DataBytes)
	}
	_, size, err := r.lineage.Packs(t.Context(), "b2")
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d bytes were there, %d are, %d raw ones came; %d were read", before, size, m2.NewBytes, progress.Done)
	if m2.NewBytes > progress.Done*9/10 {
		t.Errorf("%d of %d bytes were stored again", m2.NewBytes, progress.Done)
	}
	if m2.Stored < size || m2.Stored > size+1<<20 {
		t.Errorf("it says that it takes %d bytes, and its packs take %d", m2.Stored, size)
	}
	files, err := r.lineage.Files(t.Context(), m2)
	if err != nil {
		t.Fatal(err)
	}
	numbers, _, err := r.lineage.Packs(t.Context(), "b2")
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range numbers {
		if !slices.Contains(files.Packs, repository.PackRef{Backup: "b2", Number: n}) {
			t.Errorf("pack %d is used by nobody", n)
		}
	}
	r.judge(t, "b2", want)
}

// TestIncrementalReadsAll: where it is not known what changed everything is read, the
// backup says why, and what the base has is not stored again.
func TestIncrementalReadsAll(t *testing.T) {
	server := testpg.Start(t, testpg.Options{Settings: map[string]string{"autovacuum": "off"}})
	server.Exec(t, "create table t as select i, md5(i::text) as v from generate_series(1, 100000) i")
	r := newRig(t, server, nil)
	r.startArchiving(t)
	base := r.backup(t, "base")
	server.Exec(t, "update t set v = 'x' where i % 10000 = 0")
	server.Exec(t, "select pg_switch_wal()")
	server.Exec(t, "update t set v = 'y' where i % 10000 = 1")
	want := contents(t, server)
	index := func(change func(x *walindex.Index)) func(w *basebackup.WAL) {
		return func(w *basebackup.WAL) {
			real := w.Index
			w.Index = func(ctx context.Context, n uint64) (*walindex.Index, error) {
				x, err := real(ctx, n)
				if err == nil {
					y := *x
					change(&y)
					x = &y
				}
				return x, err
			}
		}
	}
	last := func(x *walindex.Index) bool {
		return x.Segment.Number > r.lineage.Info().SegmentSize.Number(base.StartLSN)
	}
	for _, c := range []struct {
		name, want string
		base       func(m *repository.Manifest)
		wal        func(w *basebackup.WAL)
		damaged    bool // the base
	}{
		{"nobase", "there is no earlier backup", nil, nil, true},
		{"snapshot", "is a snapshot", func(m *repository.Manifest) { m.Snapshot = &repository.Snapshot{} }, nil, true},
		{"unlisted", "cannot be read", func(m *repository.Manifest) { m.Name = "nobody" }, nil, true},
		{"otherlist", "cannot be read", func(m *repository.Manifest) { m.FilesSum++ }, nil, true},
		{"checksums", "checksums of pages were switched", func(m *repository.Manifest) { m.Checksums = false }, nil, false},
		{"timeline", "no way leads", func(m *repository.Manifest) { m.Timeline = 2 }, nil, false},
		{"later", "no way leads", func(m *repository.Manifest) { m.StartLSN += 1 << 40; m.StopLSN += 1 << 40 }, nil, false},
		{"history", "no way leads", nil, func(w *basebackup.WAL) {
			w.History.Entries = []pg.HistoryEntry{{Timeline: 1, End: base.StartLSN}, {Timeline: 2, End: base.StartLSN + 8}}
		}, false},
		{"partial", "could not be read", nil, index(func(x *walindex.Index) { x.Partial = last(x) }), false},
		{"brief", "does not say what changed", nil, index(func(x *walindex.Index) { x.Detailed = false }), false},
		{"opaque", "extension", nil, index(func(x *walindex.Index) { x.Opaque = []walindex.Opaque{{Rmgr: 128}} }), false},
		{"minimal", "wal_level=minimal", nil, index(func(x *walindex.Index) {
			x.Parameters = []walindex.Parameters{{ParameterChange: walscan.ParameterChange{WalLevel: walscan.WalLevelMinimal}}}
		}), false},
		{"hole", "are not indexed", nil, index(func(x *walindex.Index) {
			if last(x) {
				x.First += 8
			}
		}), false},
		{"short", "and this backup starts at", nil, index(func(x *walindex.Index) {
			if last(x) {
				x.First, x.Next = 0, 0
			}
		}), false},
		{"missing", "is not in the repository", nil, func(w *basebackup.WAL) {
			w.Index = func(context.Context, uint64) (*walindex.Index, error) {
				return nil, &repository.MissingWALError{Timeline: 1, From: 1, To: 2}
			}
		}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := *base
			cfg := r.incrementalConfig(t, c.name, &m)
			if c.base != nil {
				c.base(&m)
			} else if c.name == "nobase" {
				cfg.Incremental.Base = nil
			}
			cfg.Incremental.WAL = func(ctx context.Context, tli pg.TimelineID, lsn pg.LSN) (basebackup.WAL, error) {
				w, err := r.says(ctx, tli, lsn)
				if c.wal != nil {
					c.wal(&w)
				}
				return w, err
			}
			done, err := basebackup.Take(t.Context(), cfg)
			if err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(done.ReadAll, c.want) {
				t.Errorf("it read everything because %q, not %q", done.ReadAll, c.want)
			}
			if twice := done.NewBytes > done.DataBytes/3; twice != c.damaged {
				t.Errorf("%d of %d bytes are new", done.NewBytes, done.DataBytes)
			}
		})
	}
	r.judge(t, "minimal", want)

	// a pack of the base is gone: nothing is taken from it
	if err := r.lineage.DeletePack(t.Context(), repository.PackRef{Backup: "base", Number: 1}); err != nil {
		t.Fatal(err)
	}
	m := r.incremental(t, "nopack", base)
	if !strings.Contains(m.ReadAll, "pack 1 of backup base") || len(m.Uses) > 0 {
		t.Errorf("it read everything because %q, and uses %v", m.ReadAll, m.Uses)
	}
	r.judge(t, "nopack", want)

	// and where it goes while one is taken, none is listed
	cfg := r.incrementalConfig(t, "late", m)
	cfg.Progress = func(p basebackup.Progress) {
		if p.Phase == "stopping" {
			r.delete(t, "nopack")
		}
	}
	if _, err := basebackup.Take(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), " of backup nopack") {
		t.Errorf("the base was deleted meanwhile: %v", err)
	}
	if _, err := r.lineage.Manifest(t.Context(), "late"); err == nil {
		t.Error("a backup is listed that lacks a pack")
	}
}
