// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"sync"
	"time"

	"github.com/kbcli/kbcli/engine/catalog"
	"github.com/kbcli/kbcli/engine/pg"
	"github.com/kbcli/kbcli/engine/repository"
)

// How often names are stored at most, and how long it is left alone after a failure. A
// server that has no time for the question is asked later.
const (
	namesPause   = 2 * time.Second
	namesRetry   = 30 * time.Second
	namesTimeout = 5 * time.Minute
)

// namer stores what a server's relations are called: all when archiving begins and with
// each backup, and what changed within seconds of a commit that changed a name. That
// it fails keeps nobody from archiving.
type namer struct {
	lineage  *repository.Lineage
	conninfo string
	may      func() error
	oldest   func() (pg.LSN, bool) // where the oldest backup starts
	log      *slog.Logger

	wake chan struct{}

	mu    sync.Mutex
	full  bool
	dirty map[pg.Oid]bool

	// of run alone
	last     *catalog.Names
	length   int // of the last full names, and of all parts since
	since    int
	unmerged int // parts that were stored since they were put together
}

func (p *Protector) newNamer() *namer {
	return &namer{
		lineage: p.lineage, conninfo: p.cfg.Conninfo, may: p.held.may, oldest: p.oldestBackup, log: p.cfg.Log,
		wake: make(chan struct{}, 1), dirty: map[pg.Oid]bool{},
	}
}

// oldestBackup is where the WAL of all backups begins.
func (p *Protector) oldestBackup() (at pg.LSN, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cat == nil {
		return 0, false
	}
	note := func(lsn pg.LSN) {
		if !ok || lsn < at {
			at, ok = lsn, true
		}
	}
	for _, m := range p.cat.Backups() {
		note(m.StartLSN)
	}
	for _, m := range p.cat.Absent() {
		note(m.StartLSN)
	}
	return at, ok
}

// whole asks for all names.
func (n *namer) whole() { n.mark(true, nil) }

// changed asks for the names in some databases.
func (n *namer) changed(dbs []pg.Oid) { n.mark(false, dbs) }

func (n *namer) mark(full bool, dbs []pg.Oid) {
	n.mu.Lock()
	n.full = n.full || full
	for _, db := range dbs {
		n.dirty[db] = true
	}
	n.mu.Unlock()
	select {
	case n.wake <- struct{}{}:
	default:
	}
}

// start stores names until the function that it returns was called.
func (n *namer) start(ctx context.Context) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	n.whole()
	go func() {
		defer close(done)
		n.run(ctx)
	}()
	return func() { cancel(); <-done }
}

func (n *namer) run(ctx context.Context) {
	failing := false
	for {
		select {
		case <-ctx.Done():
			return
		case <-n.wake:
		}
		n.mu.Lock()
		full, dirty := n.full, n.dirty
		n.full, n.dirty = false, map[pg.Oid]bool{}
		n.mu.Unlock()
		err := n.store(ctx, full, dirty)
		pause := namesPause
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			if pause = namesRetry; errors.Is(err, errNotHeld) {
				pause = namesPause
			} else if !failing {
				n.log.Warn("the names of relations could not be stored; history shows numbers until they are", "error", err)
				failing = true
			}
			n.mark(full, keysOf(dirty))
		default:
			failing = false
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
	}
}

func keysOf(m map[pg.Oid]bool) (out []pg.Oid) {
	for oid := range maps.Keys(m) {
		out = append(out, oid)
	}
	return out
}

// store asks the server and puts what is new.
func (n *namer) store(ctx context.Context, full bool, dirty map[pg.Oid]bool) error {
	ctx, cancel := context.WithTimeout(ctx, namesTimeout)
	defer cancel()
	if err := n.may(); err != nil {
		return err
	}
	full = full || n.last == nil
	now, at, err := catalog.AskNames(ctx, n.lineage, n.conninfo, n.last, func(db pg.Oid) bool { return full || dirty[db] })
	if now == nil {
		return err
	}
	if err != nil {
		n.log.Debug("the names in a database could not be asked for", "error", err)
	}
	if full && n.last != nil {
		now.Keep(n.last) // what could not be asked for now
	}
	put := now
	if !full {
		if put = now.Since(n.last); put == nil {
			now.Keep(n.last)
			n.last = now
			return nil
		}
	}
	at.Full = full
	body := put.Encode()
	for try := 0; ; try++ {
		if err := n.may(); err != nil {
			return err
		}
		err := n.lineage.PutNames(ctx, at, body)
		var conflict *repository.ConflictError
		if errors.As(err, &conflict) && try < 16 {
			at.LSN++ // a server that stands still has other names than it seemed to have
			continue
		}
		if err != nil {
			return fmt.Errorf("store names: %w", err)
		}
		break
	}
	if n.last != nil {
		now.Keep(n.last)
	}
	n.last = now
	return n.tidy(ctx, full, len(body))
}

// Names that change all the time leave few objects: as many parts are put together, and
// parts that have become longer than all names, and than so much, are followed by all names.
const (
	namesMerged = 64
	namesShort  = 64 << 10
)

// tidy does what keeps names few when some were stored.
func (n *namer) tidy(ctx context.Context, full bool, length int) error {
	if full {
		n.length, n.since = length, 0
		if err := n.prune(ctx); err != nil {
			return err
		}
		n.unmerged = namesMerged // those of before, too
	} else {
		n.unmerged++
		if n.since += length; n.since > max(n.length, namesShort) {
			n.whole()
		}
	}
	if n.unmerged < namesMerged {
		return nil
	}
	n.unmerged = 0
	return catalog.MergeNames(ctx, n.lineage, namesMerged, n.may)
}

// prune removes names that no backup needs.
func (n *namer) prune(ctx context.Context) error {
	oldest, ok := n.oldest()
	if !ok {
		return nil
	}
	all, err := n.lineage.NamesObjects(ctx)
	if err != nil {
		return err
	}
	keep := pg.LSN(0)
	for _, o := range all {
		if o.Full && o.LSN <= oldest {
			keep = max(keep, o.LSN)
		}
	}
	for _, o := range all {
		if o.LSN >= keep {
			continue
		}
		if err := n.may(); err != nil {
			return err
		}
		if err := n.lineage.DeleteNames(ctx, o); err != nil {
			return fmt.Errorf("delete old names: %w", err)
		}
	}
	return nil
}
