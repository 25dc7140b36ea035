// SPDX-License-Identifier: Apache-2.0

package archive

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/kbcli/kbcli/engine/blob"
	"github.com/kbcli/kbcli/engine/repository"
)

// ErrSlow says that the storage has not answered for a while. It may still be
// taking what it is given.
var ErrSlow = errors.New("the storage has not answered yet")

// slow is how long the storage may take for one object before people are told.
const slow = 7 * time.Second

// failing notes an error that is being retried.
func (a *Archiver) failing(what string, err error) {
	a.cfg.Log.Warn("archiving is held up", "doing", what, "error", err)
	a.update(func(st *Status) { a.blame(st, what, err) })
}

func (a *Archiver) blame(st *Status, what string, err error) {
	st.LastError, st.ErrorTime = fmt.Errorf("%s: %w", what, err), a.cfg.Clock()
}

// healed forgets the error once work goes on.
func (a *Archiver) healed() {
	a.mu.Lock()
	had := a.st.LastError != nil
	a.mu.Unlock()
	if had {
		a.update(func(st *Status) { st.LastError, st.ErrorTime = nil, time.Time{} })
	}
}

// try is one piece of work with the storage, while it is under way.
type try struct {
	a    *Archiver
	what string

	mu     sync.Mutex
	failed bool // the Status may have an error of ours
	done   bool
}

// hear tells in the Status why the work takes long. Who retries below us logs that
// itself.
func (t *try) hear(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.done {
		return
	}
	t.failed = true
	t.a.update(func(st *Status) { t.a.blame(st, t.what, err) })
}

// late hears only where nothing was heard before.
func (t *try) late() {
	t.mu.Lock()
	heard := t.failed
	t.mu.Unlock()
	if !heard {
		t.hear(fmt.Errorf("%w after %s", ErrSlow, slow))
	}
}

// run does the work. A store may try for long before it gives up, and a dead
// network for longer: what goes wrong meanwhile is told at once.
func (t *try) run(ctx context.Context, fn func(context.Context) error) error {
	if may := t.a.cfg.May; may != nil {
		if err := may(); err != nil {
			return err
		}
	}
	watch := time.AfterFunc(slow, t.late)
	defer watch.Stop()
	return fn(blob.WithNotice(ctx, func(e blob.RetryEvent) { t.hear(e.Err) }))
}

// end forgets what was told, if the work is done.
func (t *try) end(err error) {
	t.mu.Lock()
	t.done = true
	failed := t.failed
	t.mu.Unlock()
	if failed && err == nil {
		t.a.healed()
	}
}

// once does what need not be done.
func (a *Archiver) once(ctx context.Context, what string, fn func(context.Context) error) error {
	t := &try{a: a, what: what}
	err := t.run(ctx, fn)
	t.end(err)
	return err
}

// retry runs fn until it succeeds, ctx ends, or the error is one that time does not
// mend.
func (a *Archiver) retry(ctx context.Context, what string, fn func(context.Context) error) (err error) {
	t := &try{a: a, what: what}
	defer func() { t.end(err) }()
	pause := 100 * time.Millisecond
	for {
		err := t.run(ctx, fn)
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if final(err) {
			return err
		}
		a.cfg.Log.Warn("archiving is held up", "doing", what, "error", err)
		t.hear(err)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
		}
		pause = min(2*pause, 5*time.Second)
	}
}

func final(err error) bool {
	var (
		conflict *repository.ConflictError
		corrupt  *repository.CorruptError
		mismatch *repository.MismatchError
		diverged *DivergedError
		disk     *spoolError
	)
	return errors.As(err, &conflict) || errors.As(err, &corrupt) || errors.As(err, &mismatch) || errors.As(err, &diverged) || errors.As(err, &disk)
}
