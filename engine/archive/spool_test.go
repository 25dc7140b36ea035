// SPDX-License-Identifier: Apache-2.0

package archive

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/kbcli/kbcli/engine/blob/mem"
	"github.com/kbcli/kbcli/engine/pg"
	"github.com/kbcli/kbcli/engine/pg/replication"
	"github.com/kbcli/kbcli/engine/pg/walscan"
	"github.com/kbcli/kbcli/engine/repository"
	"github.com/kbcli/kbcli/internal/testpg"
)

const mb = pg.SegmentSize(1 << 20)

func seg(tli pg.TimelineID, n uint64) pg.Segment { return pg.Segment{Timeline: tli, Number: n} }

func TestSpoolWrite(t *testing.T) {
	dir := t.TempDir()
	s, err := openSpool(dir, mb)
	if err != nil {
		t.Fatal(err)
	}
	data := bytes.Repeat([]byte("0123456789abcdef"), int(mb)/16)
	write := func(lsn pg.LSN, b []byte) {
		t.Helper()
		if err := s.write(1, lsn, b); err != nil {
			t.Fatal(err)
		}
	}
	write(mb.Start(3), data[:1000])
	write(mb.Start(3)+1000, data[1000:])
	write(mb.Start(4), data[:500])
	if err := s.sync(); err != nil {
		t.Fatal(err)
	}
	if err := s.write(1, mb.Start(4)+501, data[:1]); err == nil {
		t.Error("a hole was taken")
	}
	if err := s.close(); err != nil {
		t.Fatal(err)
	}

	// what is there is found again, compared, and gone on with
	if s, err = openSpool(dir, mb); err != nil {
		t.Fatal(err)
	}
	if s.held(seg(1, 3)) != int64(mb) || s.held(seg(1, 4)) != 500 || s.bytes() != int64(mb)+500 {
		t.Errorf("found %v, %d bytes", s.segments(), s.bytes())
	}
	write(mb.Start(4), data[:600])
	var diverged *DivergedError
	other := append([]byte(nil), data[:700]...)
	other[432]++
	if err := s.write(1, mb.Start(4), other); !errors.As(err, &diverged) || diverged.LSN != mb.Start(4)+432 {
		t.Errorf("other bytes: %v", err)
	}
	if s.held(seg(1, 4)) != 600 {
		t.Errorf("%d bytes are held", s.held(seg(1, 4)))
	}
	for _, g := range s.segments() {
		if err := s.remove(g); err != nil {
			t.Fatal(err)
		}
	}
	if files, _ := os.ReadDir(dir); len(files) > 0 || s.bytes() != 0 {
		t.Errorf("%d bytes and %v are left", s.bytes(), files)
	}
	write(mb.Start(5), data[:10])
	if err := s.close(); err != nil {
		t.Fatal(err)
	}
}

// memRig is an Archiver over a lineage in memory, with no server.
func memRig(t *testing.T, size pg.SegmentSize, id pg.SystemID) (*Archiver, *repository.Lineage) {
	t.Helper()
	repo, err := repository.Create(t.Context(), mem.New(nil), repository.Options{Clock: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	l, err := repo.CreateLineage(t.Context(), repository.LineageInfo{Cluster: "t", SystemID: id, Major: 15, SegmentSize: size})
	if err != nil {
		t.Fatal(err)
	}
	return newArchiver(t, l, t.TempDir()), l
}

func newArchiver(t *testing.T, l *repository.Lineage, spool string) *Archiver {
	t.Helper()
	a, err := New(Config{
		Lineage: l, Spool: spool, Slot: "s", Conninfo: "host=/nowhere", WhenFull: WaitWhenFull,
		TailInterval: time.Second, BeatInterval: time.Second, Clock: time.Now, Log: logger(t),
	})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// TestTrim tears the end of a spooled segment in the ways of a power cut.
func TestTrim(t *testing.T) {
	t.Parallel()
	s := testpg.Start(t, testpg.Options{SegmentSizeMB: 1, Settings: keep})
	s.Exec(t, "create table t (i int, pad text)")
	s.Exec(t, "insert into t select i, repeat('x', 100) from generate_series(1, 20000) i")
	end := flushed(t, s)
	n := mb.Number(end.lsn) - 1
	raw, err := os.ReadFile(filepath.Join(s.DataDir, "pg_wal", mb.Name(seg(1, n))))
	if err != nil {
		t.Fatal(err)
	}
	var ends []int64 // of the records that are whole in the segment
	var id pg.SystemID
	sc := walscan.New(walscan.Options{SegmentSize: mb, Start: mb.Start(n)})
	if err := sc.Feed(raw, func(r *walscan.Record) error { ends = append(ends, int64(r.End-mb.Start(n))); return nil }); err != nil {
		t.Fatal(err)
	}
	id = sc.SystemID()
	upTo := func(at int) int64 {
		last := int64(0)
		for _, e := range ends {
			if e <= int64(at) {
				last = e
			}
		}
		return last
	}
	zeroed := func(at int) []byte {
		return append(append([]byte(nil), raw[:at]...), make([]byte, len(raw)-at)...)
	}
	garbled := func(at int) []byte {
		b := append([]byte(nil), raw...)
		for i := at; i < len(b); i++ {
			b[i] ^= 0x5a
		}
		return b
	}
	tests := []struct {
		name string
		raw  []byte
		want int64
	}{
		{"whole", raw, int64(mb)},
		{"cut in a record", raw[:123457], upTo(123457)},
		{"cut at a page", raw[:8192*20], upTo(8192 * 20)},
		{"zeros behind", zeroed(300001), upTo(300001)},
		{"zero pages behind", zeroed(8192 * 9), upTo(8192 * 9)},
		{"garbage behind", garbled(200003), upTo(200003)},
		{"only the header", raw[:40], 0},
		{"nothing", nil, 0},
		{"another file", bytes.Repeat([]byte("x"), 5000), 0},
	}
	for _, tt := range tests {
		a, _ := memRig(t, mb, id)
		for name, b := range map[string][]byte{mb.Name(seg(1, n)): tt.raw, mb.Name(seg(1, n-1)): raw} {
			if err := os.WriteFile(filepath.Join(a.cfg.Spool, name), b, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if err := a.spool.load(); err != nil {
			t.Fatal(err)
		}
		if err := a.trim(); err != nil {
			t.Fatalf("%s: %v", tt.name, err)
		}
		if got := a.spool.held(seg(1, n)); got != tt.want || a.spool.bytes() != int64(mb)+got {
			t.Errorf("%s: %d bytes are kept, want %d; %d in all", tt.name, got, tt.want, a.spool.bytes())
		}
		if st, err := os.Stat(a.spool.path(seg(1, n))); err != nil || st.Size() != int64(len(tt.raw)) {
			t.Errorf("%s: the file: %v %v", tt.name, st, err)
		}
	}
	// another cluster's WAL is not ours
	if got, err := soundLength(bytes.NewReader(raw), mb, seg(1, n), id+1); err != nil || got != 0 {
		t.Errorf("another system's: %d %v", got, err)
	}
	if got, err := soundLength(io.MultiReader(bytes.NewReader(raw[:7]), bytes.NewReader(raw[7:])), mb, seg(1, n), id); err != nil || got != int64(mb) {
		t.Errorf("in pieces: %d %v", got, err)
	}
}

func TestProofChain(t *testing.T) {
	k := func(lsn pg.LSN, at pg.Timestamp) *replication.Keepalive {
		return &replication.Keepalive{ServerEnd: lsn, ServerTime: at}
	}
	tests := []struct {
		name string
		add  func(c *proofChain) (pg.Timestamp, bool)
		want pg.Timestamp
	}{
		{"one", func(c *proofChain) (pg.Timestamp, bool) { return c.add(k(10, 1), 10) }, 0},
		{"two", func(c *proofChain) (pg.Timestamp, bool) { c.add(k(10, 1), 10); return c.add(k(10, 2), 10) }, 0},
		{"three", func(c *proofChain) (pg.Timestamp, bool) {
			c.add(k(10, 1), 10)
			c.add(k(10, 2), 10)
			return c.add(k(10, 3), 10)
		}, 1},
		{"four", func(c *proofChain) (pg.Timestamp, bool) {
			for i := range 3 {
				c.add(k(10, pg.Timestamp(i+1)), 10)
			}
			return c.add(k(10, 4), 10)
		}, 2},
		{"WAL between", func(c *proofChain) (pg.Timestamp, bool) {
			c.add(k(10, 1), 10)
			c.add(k(10, 2), 10)
			c.reset()
			return c.add(k(10, 3), 10)
		}, 0},
		{"moved", func(c *proofChain) (pg.Timestamp, bool) {
			c.add(k(10, 1), 10)
			c.add(k(10, 2), 10)
			c.add(k(12, 3), 12)
			return c.add(k(12, 4), 12)
		}, 0},
		{"ahead of us", func(c *proofChain) (pg.Timestamp, bool) {
			c.add(k(10, 1), 10)
			c.add(k(10, 2), 10)
			return c.add(k(20, 3), 10)
		}, 0},
	}
	for _, tt := range tests {
		if got, ok := tt.add(&proofChain{}); got != tt.want || ok != (tt.want != 0) {
			t.Errorf("%s: %d, %t", tt.name, got, ok)
		}
	}
}

func TestSettle(t *testing.T) {
	a, _ := memRig(t, mb, 1)
	at := func(sec int64) time.Time { return time.Unix(sec, 0) }
	a.proven(proof{place{1, 100}, at(10)})
	if !a.Status().Proven.IsZero() {
		t.Error("proven before the repository has it")
	}
	a.shipped(place{1, 100}, 0)
	if got := a.Status().Proven; !got.Equal(at(10)) {
		t.Errorf("proven %s", got)
	}
	a.proven(proof{place{1, 100}, at(11)})
	a.proven(proof{place{1, 200}, at(20)})
	a.proven(proof{place{2, 150}, at(30)})
	if got := a.Status().Proven; !got.Equal(at(11)) {
		t.Errorf("proven %s", got)
	}
	a.shipped(place{2, 100}, 0)
	if got := a.Status().Proven; !got.Equal(at(20)) {
		t.Errorf("proven %s", got)
	}
	for i := range 2 * maxProofs {
		a.proven(proof{place{2, pg.LSN(1000 + i)}, at(int64(100 + i))})
	}
	if len(a.proofs) > maxProofs {
		t.Errorf("%d proofs wait", len(a.proofs))
	}
	a.shipped(place{3, 0}, pg.TimestampOf(at(90)))
	if got := a.Status().Proven; !got.Equal(at(100 + 2*maxProofs - 1)) {
		t.Errorf("proven %s", got)
	}
}

// TestTrimSwitch: a segment that was switched and of which the disk had room for no more
// than the records is held as far as its file goes.
func TestTrimSwitch(t *testing.T) {
	t.Parallel()
	s := testpg.Start(t, testpg.Options{SegmentSizeMB: 1, Settings: keep})
	s.Exec(t, "create table t as select generate_series(1, 1000) as i")
	n := mb.Number(flushed(t, s).lsn)
	s.Exec(t, "select pg_switch_wal()")
	raw, err := os.ReadFile(filepath.Join(s.DataDir, "pg_wal", mb.Name(seg(1, n))))
	if err != nil {
		t.Fatal(err)
	}
	sc := walscan.New(walscan.Options{SegmentSize: mb, Start: mb.Start(n)})
	if err := sc.Feed(raw, func(*walscan.Record) error { return nil }); err != nil {
		t.Fatal(err)
	}
	records := int64(len(bytes.TrimRight(raw, "\x00"))+8192) / 8192 * 8192 // pages that the server sends
	for _, length := range []int64{records, records + 3*8192, int64(mb)} {
		a, _ := memRig(t, mb, sc.SystemID())
		if err := os.WriteFile(filepath.Join(a.cfg.Spool, mb.Name(seg(1, n))), raw[:length], 0o600); err != nil {
			t.Fatal(err)
		}
		if err := a.spool.load(); err != nil {
			t.Fatal(err)
		}
		if err := a.trim(); err != nil {
			t.Fatal(err)
		}
		if got := a.spool.held(seg(1, n)); got > length || a.spool.bytes() != got {
			t.Errorf("of a file of %d bytes %d are held, %d in all", length, got, a.spool.bytes())
		}
	}
}
