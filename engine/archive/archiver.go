// SPDX-License-Identifier: Apache-2.0

package archive

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"time"

	"github.com/gofrs/flock"
	"golang.org/x/sync/errgroup"

	"github.com/kbcli/kbcli/engine/pg"
	"github.com/kbcli/kbcli/engine/pg/walscan"
	"github.com/kbcli/kbcli/engine/repository"
)

// WhenFull says what to do when the spool has reached its limit because the
// repository does not take what arrives.
type WhenFull string

// The choices: stop reading, so that PostgreSQL keeps its WAL; or give up the
// oldest WAL that is not shipped, declare the gap, and go on.
const (
	WaitWhenFull WhenFull = "Wait"
	GapWhenFull  WhenFull = "Gap"
)

// Config of an Archiver. All fields but Sync and WhenFull are needed.
type Config struct {
	Lineage  *repository.Lineage
	Conninfo string // of the server; application_name is used for sync mode
	Slot     string // a physical slot, made when it is missing
	Spool    string // a directory of this archiver's own

	SpoolLimit   int64 // bytes; at least four segments are always allowed
	WhenFull     WhenFull
	Sync         bool          // acknowledge what the repository holds, not the spool
	TailInterval time.Duration // how long a commit may wait for its tail
	BeatInterval time.Duration // how long an idle server's beat may stand still

	// May, if set, is asked before each request to the repository, and in sync mode
	// before each acknowledgement. Its error holds both up as a store that is away does,
	// and is asked again; what the server sends still goes into the spool.
	May func() error
	// Named, if set, is told the databases in which names may have changed, soon after
	// the commit: see walindex.Builder.Named. It must not wait.
	Named func(databases []pg.Oid)

	Clock func() time.Time
	Log   *slog.Logger
}

// State is what an Archiver is doing.
type State string

// The states. Gap is reported until a backup after the gap makes a new window.
const (
	Connecting State = "Connecting"
	Streaming  State = "Streaming"
	Blocked    State = "Blocked" // the spool is full
	Stopped    State = "Stopped"
)

// Status is a moment's view of an Archiver.
type Status struct {
	State    State
	Timeline pg.TimelineID // being received
	Received pg.LSN
	Spooled  pg.LSN // durable on the local disk

	RepositoryTimeline pg.TimelineID
	Repository         pg.LSN // all WAL before it is in the repository

	// Proven: every commit that was acknowledged to a client at or before it,
	// by the server's clock, is in the repository. Zero until known.
	Proven time.Time

	ServerLSN pg.LSN // where the server was at its last message
	// LagSince is since when the oldest WAL is known that the server has written and
	// the repository has not; zero where there is none.
	LagSince   time.Time
	SpoolBytes int64
	Gaps       []repository.Gap // declared by this Archiver, or not in the repository yet
	// Turns counts the stretches of WAL that the repository holds to their end: what is
	// after a turn does not follow what was before. A catalog is loaded again after each.
	Turns     int
	LastError error
	ErrorTime time.Time
}

// proof says that every commit acknowledged by time lies before lsn.
type proof struct {
	place
	time time.Time
}

// Archiver moves the WAL of one server into one lineage.
type Archiver struct {
	cfg      Config
	size     pg.SegmentSize
	spool    *spool
	patience time.Duration // how long a stop may wait for what is left to be put
	// instead, if set, gets the records, and no index is made: a benchmark's other half
	instead func(*walscan.Record) error

	// turning is held while what jumps there are, or which segment is being
	// shipped, changes: the two must agree.
	turning sync.Mutex

	mu       sync.Mutex
	changed  chan struct{}
	st       Status
	jumps    map[place]jump // keyed by where the old stretch ends; replaced, never changed
	shipping pg.Segment     // all before it is out of the spool or on its way
	proofs   []proof
	lag      lag
	fatal    error
}

// New opens the spool. It does not connect.
func New(cfg Config) (*Archiver, error) {
	info := cfg.Lineage.Info()
	s, err := openSpool(cfg.Spool, info.SegmentSize)
	if err != nil {
		return nil, err
	}
	cfg.SpoolLimit = max(cfg.SpoolLimit, 4*int64(info.SegmentSize))
	a := &Archiver{
		cfg: cfg, size: info.SegmentSize, spool: s,
		patience: 5 * time.Second,
		changed:  make(chan struct{}),
		jumps:    map[place]jump{},
	}
	a.st.State = Connecting
	return a, nil
}

// Run archives until ctx ends, through lost connections and stores. It returns
// nil when ctx ended and everything received was shipped or the store could not
// take it, and an error when going on would do harm: the server is another one
// or was wound back, the spool's disk failed, or the lineage holds other bytes. It
// is called once. Nothing of it runs on when it has returned.
func (a *Archiver) Run(ctx context.Context) error {
	err := a.run(ctx)
	if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		err = nil
	}
	return a.stopped(err)
}

func (a *Archiver) run(ctx context.Context) error {
	unlock, err := a.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	defer a.spool.close()
	start, err := a.resume(ctx)
	if err != nil {
		return err
	}
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error { return a.receive(gctx, start) })
	g.Go(func() error { return a.syncSpool(gctx) })
	g.Go(func() error { return a.ship(gctx) })
	return g.Wait()
}

// lock waits until no other process works on the spool: one that was told to stop
// may still be putting its last tail.
func (a *Archiver) lock(ctx context.Context) (unlock func(), err error) {
	l := flock.New(filepath.Join(a.cfg.Spool, "lock"))
	ok, err := l.TryLock()
	if err == nil && !ok {
		a.failing("lock the spool", errors.New("another process uses it"))
		if _, err = l.TryLockContext(ctx, 100*time.Millisecond); err == nil {
			a.healed()
		}
	}
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	if err != nil {
		return nil, fmt.Errorf("lock the spool: %w", err)
	}
	return func() { _ = l.Close() }, nil // the kernel unlocks in any case
}

func (a *Archiver) stopped(err error) error {
	a.update(func(st *Status) {
		st.State = Stopped
		if err != nil {
			st.LastError, st.ErrorTime = err, a.cfg.Clock()
			a.fatal = err
		} else {
			a.fatal = context.Canceled
		}
	})
	return err
}

// Status is a copy of the present state.
func (a *Archiver) Status() Status {
	a.mu.Lock()
	defer a.mu.Unlock()
	st := a.st
	st.SpoolBytes = a.spool.bytes()
	st.Gaps = append([]repository.Gap(nil), st.Gaps...)
	st.LagSince = a.lag.since()
	return st
}

// update changes the state and wakes everyone who waits for a change.
func (a *Archiver) update(fn func(*Status)) {
	a.mu.Lock()
	fn(&a.st)
	a.lag.follow(&a.st, a.cfg.Clock)
	close(a.changed)
	a.changed = make(chan struct{})
	a.mu.Unlock()
}

// await blocks until done says so, a change at a time.
func (a *Archiver) await(ctx context.Context, done func(*Status) bool) error {
	for {
		a.mu.Lock()
		ok, fatal, ch := done(&a.st), a.fatal, a.changed
		a.mu.Unlock()
		if ok {
			return nil
		}
		if fatal != nil {
			return fmt.Errorf("archiving stopped: %w", fatal)
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-ch:
		}
	}
}

// Wait blocks until the repository holds all WAL of the timeline before lsn, or
// has moved on to a later timeline.
func (a *Archiver) Wait(ctx context.Context, tli pg.TimelineID, lsn pg.LSN) error {
	return a.await(ctx, func(st *Status) bool {
		return st.RepositoryTimeline > tli || st.RepositoryTimeline == tli && st.Repository >= lsn
	})
}

// Changed gives a channel that is closed at the next change of the Status.
func (a *Archiver) Changed() <-chan struct{} {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.changed
}

// spoolError is a failure of the local disk.
type spoolError struct{ err error }

func (e *spoolError) Error() string { return e.err.Error() }
func (e *spoolError) Unwrap() error { return e.err }

// syncSpool makes durable what was received, as fast as the disk allows: what
// arrives during one fdatasync shares the next.
func (a *Archiver) syncSpool(ctx context.Context) error {
	for {
		var target pg.LSN
		var tli pg.TimelineID
		err := a.await(ctx, func(st *Status) bool {
			target, tli = st.Received, st.Timeline
			return st.Received > st.Spooled
		})
		if err != nil {
			return err
		}
		if err := a.spool.sync(); err != nil {
			return &spoolError{err}
		}
		a.update(func(st *Status) {
			// the receiver may have moved to another stretch meanwhile
			if st.Timeline == tli && st.Received >= target {
				st.Spooled = max(st.Spooled, target)
			}
		})
	}
}
