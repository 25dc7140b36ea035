// SPDX-License-Identifier: Apache-2.0

package archive

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/kbcli/kbcli/engine/blob"
	"github.com/kbcli/kbcli/engine/blob/fault"
	"github.com/kbcli/kbcli/engine/blob/fs"
	"github.com/kbcli/kbcli/engine/pg"
	"github.com/kbcli/kbcli/engine/pg/walscan"
	"github.com/kbcli/kbcli/engine/repository"
	"github.com/kbcli/kbcli/internal/testpg"
	"github.com/kbcli/kbcli/internal/testrepo"
)

// The test binary is also the program that asks a Feed, a Feed that can be killed,
// and an agent that can be killed.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case "await":
			code, err := Await(context.Background(), os.Args[2], os.Args[3], os.Args[4])
			if err != nil {
				fmt.Fprintln(os.Stderr, err)
			}
			os.Exit(code)
		case "feed":
			fmt.Fprintln(os.Stderr, feedOf(os.Args[2]).Run(context.Background()))
			os.Exit(1)
		case "archive":
			fmt.Fprintln(os.Stderr, runChild(os.Args[2]))
			os.Exit(1)
		}
	}
	// these tests wait for servers and clocks more than they compute
	flag.Parse()
	if n := flag.Lookup("test.parallel"); n.Value.String() == n.DefValue {
		if err := n.Value.Set("5"); err != nil {
			panic(err)
		}
	}
	os.Exit(m.Run())
}

// child is what a killed agent is told.
type child struct {
	Repo, Lineage, Conninfo, Slot, Spool string
	Sync                                 bool
}

func runChild(arg string) error {
	ctx := context.Background()
	var c child
	if err := json.Unmarshal([]byte(arg), &c); err != nil {
		return err
	}
	store, err := fs.Open(c.Repo)
	if err != nil {
		return err
	}
	repo, err := repository.Open(ctx, store, repository.Options{Clock: time.Now})
	if err != nil {
		return err
	}
	l, err := repo.Lineage(ctx, c.Lineage)
	if err != nil {
		return err
	}
	a, err := New(Config{
		Lineage: l, Conninfo: c.Conninfo, Slot: c.Slot, Spool: c.Spool, Sync: c.Sync,
		SpoolLimit: 1 << 30, WhenFull: WaitWhenFull, TailInterval: 50 * time.Millisecond, BeatInterval: time.Minute,
		Clock: time.Now, Log: slog.New(slog.NewTextHandler(os.Stderr, nil)),
	})
	if err != nil {
		return err
	}
	return a.Run(ctx)
}

const tailInterval = 200 * time.Millisecond

// rig is a server that is archived into a repository in a directory, by way of a
// store that can be told to fail.
type rig struct {
	server  *testpg.Server
	dir     string
	store   *fault.Store
	lineage *repository.Lineage
	spool   string
	more    func(*Config)

	*Archiver
	stop context.CancelFunc
	done chan error
}

func newRig(t *testing.T, server *testpg.Server) *rig {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "repo")
	store, err := fs.Create(dir)
	if err != nil {
		t.Fatal(err)
	}
	r := newRigIn(t, server, store)
	r.dir = dir
	return r
}

func newRigIn(t *testing.T, server *testpg.Server, store blob.Store) *rig {
	t.Helper()
	r := &rig{server: server, store: fault.New(store, 1), spool: filepath.Join(t.TempDir(), "spool")}
	_, r.lineage = testrepo.New(t, r.store, repository.Options{}, testrepo.Info(t, server))
	return r
}

// quiet collects the log, and shows it if the test fails.
type quiet struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (q *quiet) Write(p []byte) (int, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.b.Write(p)
}

func logger(t *testing.T) *slog.Logger {
	q := &quiet{}
	t.Cleanup(func() {
		q.mu.Lock()
		defer q.mu.Unlock()
		if t.Failed() && q.b.Len() > 0 {
			t.Logf("archiver's log:\n%s", q.b.String())
		}
	})
	return slog.New(slog.NewTextHandler(q, nil))
}

func (r *rig) conninfo() string {
	return r.server.ConnString("postgres") + " application_name=kbcli_t"
}

func (r *rig) config(t *testing.T) Config {
	cfg := Config{
		Lineage: r.lineage, Conninfo: r.conninfo(), Slot: "kbcli_t", Spool: r.spool,
		SpoolLimit: 1 << 30, WhenFull: WaitWhenFull, TailInterval: tailInterval, BeatInterval: time.Second,
		Clock: time.Now, Log: logger(t),
	}
	if r.more != nil {
		r.more(&cfg)
	}
	return cfg
}

// start begins to archive; the test's end stops it.
func (r *rig) start(t *testing.T) {
	t.Helper()
	a, err := New(r.config(t))
	if err != nil {
		t.Fatal(err)
	}
	a.patience = time.Second
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 2)
	r.Archiver, r.stop, r.done = a, cancel, done
	go func() { err := a.Run(ctx); done <- err; done <- err }()
	t.Cleanup(func() {
		cancel()
		select {
		case <-done:
		case <-time.After(20 * time.Second):
			t.Error("the archiver does not stop")
		}
	})
}

// halt stops archiving in order.
func (r *rig) halt(t *testing.T) {
	t.Helper()
	r.stop()
	select {
	case err := <-r.done:
		if err != nil {
			t.Fatalf("archiver: %v", err)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("the archiver does not stop")
	}
}

// died waits for the error that ends archiving.
func (r *rig) died(t *testing.T) error {
	t.Helper()
	select {
	case err := <-r.done:
		return err
	case <-time.After(20 * time.Second):
		t.Fatalf("archiving goes on: %+v", r.Status())
		return nil
	}
}

// until waits for a state, and fails the test if it does not come.
func (r *rig) until(t *testing.T, what string, within time.Duration, ok func(Status) bool) Status {
	t.Helper()
	for deadline := time.Now().Add(within); ; time.Sleep(5 * time.Millisecond) {
		st := r.Status()
		if ok(st) {
			return st
		}
		if time.Now().After(deadline) {
			b := make([]byte, 1<<20)
			t.Logf("%s", b[:runtime.Stack(b, true)])
			t.Fatalf("%s: not within %s: %+v", what, within, st)
		}
	}
}

// caughtUp waits until the repository holds all that the server has written.
func (r *rig) caughtUp(t *testing.T) place {
	t.Helper()
	at := flushed(t, r.server)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := r.Wait(ctx, at.tli, at.lsn); err != nil {
		t.Fatalf("wait for %+v: %v; %+v", at, err, r.Status())
	}
	return at
}

// flushed is where a server's WAL ends.
func flushed(t *testing.T, s *testpg.Server) place {
	t.Helper()
	var name, lsn string
	s.QueryRow(t, "select pg_walfile_name(l), l::text from pg_current_wal_flush_lsn() l", &name, &lsn)
	at, err := pg.ParseLSN(lsn)
	if err != nil {
		t.Fatal(err)
	}
	var tli uint32
	if _, err := fmt.Sscanf(name[:8], "%X", &tli); err != nil {
		t.Fatal(err)
	}
	return place{pg.TimelineID(tli), at}
}

// segments lists the whole segments in the repository.
func (r *rig) segments(t *testing.T) []pg.Segment {
	t.Helper()
	var out []pg.Segment
	for g, err := range r.lineage.Segments(t.Context(), pg.Segment{}) {
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, g.Segment)
	}
	return out
}

// raw is what the repository has of a segment, whole or as tails.
func (r *rig) raw(t *testing.T, g pg.Segment) []byte {
	t.Helper()
	b, err := r.lineage.Segment(t.Context(), g, nil)
	if err == nil {
		return b
	}
	if !errors.Is(err, blob.ErrNotExist) {
		t.Fatal(err)
	}
	raw, err := r.lineage.ReadTail(t.Context(), g)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// sameAsServer compares every segment from first to where end lies with the server's own
// file, whole ones whole and the last up to end. The server must have kept them.
func (r *rig) sameAsServer(t *testing.T, s *testpg.Server, first uint64, end place) {
	t.Helper()
	size := r.lineage.Info().SegmentSize
	for n := first; size.Start(n) < end.lsn; n++ {
		g := pg.Segment{Timeline: end.tli, Number: n}
		want, err := os.ReadFile(filepath.Join(s.DataDir, "pg_wal", size.Name(g)))
		if err != nil {
			t.Fatal(err)
		}
		got := r.raw(t, g)
		if size.End(n) <= end.lsn {
			if len(got) != int(size) {
				t.Errorf("segment %s: the repository has %d bytes of it", size.Name(g), len(got))
			}
		} else {
			want = want[:end.lsn-size.Start(n)]
			got = got[:min(len(got), len(want))]
		}
		if !bytes.Equal(got, want) {
			t.Errorf("segment %s differs from the server's", size.Name(g))
		}
	}
}

// commits lists the transactions that the repository's WAL commits, from segment first
// on. On each segment the newest of the timelines that have it is read.
func (r *rig) commits(t *testing.T, first uint64, tlis ...pg.TimelineID) map[pg.XID]bool {
	t.Helper()
	size := r.lineage.Info().SegmentSize
	s := walscan.New(walscan.Options{SegmentSize: size, Start: size.Start(first)})
	out := map[pg.XID]bool{}
	for n := first; ; n++ {
		var raw []byte
		for _, tli := range tlis {
			if b := r.raw(t, pg.Segment{Timeline: tli, Number: n}); len(b) > 0 {
				raw = b
			}
		}
		err := s.Feed(raw, func(rec *walscan.Record) error {
			x, ok, err := rec.Xact()
			if ok && x.Kind.Committed() {
				out[x.XID] = true
			}
			return err
		})
		if err != nil {
			t.Fatalf("segment %d: %v", n, err)
		}
		if len(raw) < int(size) {
			return out
		}
	}
}

// ledger is load with a memory: each client writes a row a transaction, and notes
// which the server acknowledged.
type ledger struct {
	mu    sync.Mutex
	acked []pg.XID
	stop  context.CancelFunc
	wg    sync.WaitGroup
}

const ledgerTable = "create table ledger (id bigserial, pad text)"

// begin runs clients until end, or until their server is gone.
func beginLoad(t *testing.T, s *testpg.Server, clients, pad int) *ledger {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	l := &ledger{stop: stop}
	for range clients {
		c := s.Conn(t, "postgres")
		l.wg.Go(func() {
			for ctx.Err() == nil {
				var xid int64
				err := c.QueryRow(context.Background(), "insert into ledger (pad) values (repeat(md5(random()::text), $1)) returning pg_current_xact_id()::text::int8", pad).Scan(&xid)
				if err != nil {
					return
				}
				l.mu.Lock()
				l.acked = append(l.acked, pg.XID(xid))
				l.mu.Unlock()
			}
		})
	}
	t.Cleanup(l.stop)
	return l
}

// end stops the clients and gives what was acknowledged.
func (l *ledger) end() []pg.XID {
	l.stop()
	l.wg.Wait()
	return l.acked
}

func missing(acked []pg.XID, have map[pg.XID]bool) int {
	n := 0
	for _, x := range acked {
		if !have[x] {
			n++
		}
	}
	return n
}

// agent starts archiving in a process of its own.
func (r *rig) agent(t *testing.T, sync bool) *exec.Cmd {
	t.Helper()
	arg, err := json.Marshal(child{r.dir, r.lineage.Info().ID, r.conninfo(), "kbcli_t", r.spool, sync})
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0], "archive", string(arg))
	var log bytes.Buffer
	cmd.Stderr = &log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() && strings.Contains(log.String(), "level=") {
			t.Logf("agent:\n%s", log.String())
		}
	})
	return cmd
}

func kill(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // it was killed
}

// long tells whether the long tests were asked for.
func long() bool { return os.Getenv("KBCLI_LONG_TESTS") == "1" }
