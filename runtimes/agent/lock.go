// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/engine/archive"
	"github.com/kbcli/kbcli/engine/blob"
	"github.com/kbcli/kbcli/engine/repository"
)

// lockLife is the time to live of a lineage's lock, unless the Identity has another. It
// is renewed three times in it, at three requests each: an hour costs about 540.
var lockLife = time.Minute

// patience is how long a store may take to answer for the lock before everything else
// of the cluster is looked after again. A lock that was got and not told is this agent's
// own, and taken at once by the next question.
const patience = 5 * time.Second

// hold is the right to write to a lineage. One Protector has it at a time, of however
// many a copied state directory or a cloned machine may have brought up.
type hold struct {
	lock    *repository.Lock
	lineage *repository.Lineage
	now     atomic.Pointer[repository.Lock] // lock, for who writes
	why     atomic.Pointer[error]           // why there is none, for them

	asking  chan struct{} // closed when the question is answered; nil: none is asked
	cancel  context.CancelFunc
	of      *repository.Lineage
	got     *repository.Lock
	err     error
	refused error // the last answer
}

// errNotHeld says that nothing may be written now. What keeps the lock from being got comes
// with it, once that is known.
var errNotHeld = errors.New("the right to write to the repository is being asked for")

// have notes the lock that there is; nil is none.
func (h *hold) have(lock *repository.Lock, of *repository.Lineage) {
	h.lock, h.lineage = lock, of
	h.now.Store(lock)
	h.why.Store(nil)
}

// may is nil while the lock is held. It is safe for use by many goroutines.
func (h *hold) may() error {
	lock := h.now.Load()
	if lock == nil {
		if why := h.why.Load(); why != nil {
			return fmt.Errorf("%w: %w", errNotHeld, *why)
		}
		return errNotHeld
	}
	return context.Cause(lock.Context())
}

// hold takes the lock of a lineage, or has it already. While another has it, it is a
// *repository.LockedError, and the lock is taken over in the background once its holder
// has not renewed it for its time to live. That it was lost is told once, as
// repository.ErrLockLost.
func (p *Protector) hold(ctx context.Context, l *repository.Lineage) error {
	h := &p.held
	if h.lock == nil && p.cfg.Held != nil {
		// also while it is asked for here: what came to this agent another way is not given
		// up by anybody who is asked
		if lock := p.cfg.Held(l.Info().ID); lock != nil {
			p.abandon()
			h.have(lock, l)
		}
	}
	if h.lock != nil && h.lineage == l {
		if h.lock.Context().Err() == nil {
			return nil
		}
		err := context.Cause(h.lock.Context())
		h.have(nil, nil)
		return err
	}
	p.release()
	if h.asking != nil {
		select {
		case <-h.asking:
		default:
			return h.refused
		}
		h.cancel()
		h.asking, h.cancel = nil, nil
		if h.err != nil {
			h.refused = h.err
		} else if h.of == l {
			h.have(h.got, l)
			h.refused = nil
			p.cfg.Log.Info("the lineage is this agent's now", "lineage", l.Info().ID)
			return nil
		} else {
			_ = h.got.Unlock(ctx)
		}
	}
	qctx, done := context.WithTimeout(ctx, patience)
	lock, err := p.lock(qctx, l, 0)
	done()
	var locked *repository.LockedError
	if err == nil {
		h.have(lock, l)
		h.refused = nil
		return nil
	}
	if qctx.Err() != nil && ctx.Err() == nil && !errors.As(err, &locked) && !errors.Is(err, blob.ErrUnreachable) {
		err = fmt.Errorf("%w after %s: %w", archive.ErrSlow, patience, err)
	}
	h.why.Store(&err)
	if !errors.As(err, &locked) {
		return err
	}
	h.refused = err
	actx, cancel := context.WithCancel(ctx)
	asking := make(chan struct{})
	h.asking, h.cancel, h.of, h.got, h.err = asking, cancel, l, nil, nil
	go func() {
		defer close(asking)
		h.got, h.err = p.lock(actx, l, Overdue(p.cfg.Identity))
	}()
	return err
}

// lock asks for the lock of a lineage, for as long as wait.
func (p *Protector) lock(ctx context.Context, l *repository.Lineage, wait time.Duration) (*repository.Lock, error) {
	lock, err := lockLineage(ctx, l, p.cfg.Identity, wait)
	if err != nil {
		return nil, fmt.Errorf("protect cluster %s: %w", p.cfg.Cluster, err)
	}
	return lock, nil
}

// Lock takes the lock under which a lineage is written to, and does not wait for it. A
// *repository.LockedError says who has it.
func Lock(ctx context.Context, l *repository.Lineage, id *Identity) (*repository.Lock, error) {
	return lockLineage(ctx, l, id, 0)
}

// LockOfDead is Lock, but waits for as long as it takes until a holder that has died has
// not renewed it for its time to live.
func LockOfDead(ctx context.Context, l *repository.Lineage, id *Identity) (*repository.Lock, error) {
	return lockLineage(ctx, l, id, Overdue(id))
}

// Overdue is how long a lock is waited for whose holder may have died.
func Overdue(id *Identity) time.Duration {
	life := id.lockLife()
	return life + life/4
}

func lockLineage(ctx context.Context, l *repository.Lineage, id *Identity, wait time.Duration) (*repository.Lock, error) {
	name := "agent-" + l.Info().ID
	if id == nil {
		return l.Repository().Lock(ctx, name, "an agent", id.lockLife(), wait)
	}
	self := id.String()
	lock, err := l.Repository().LockFrom(ctx, name, self, id.lockLife(), wait, func(holder string) bool {
		if holder == self {
			// its own, that could not be given back, or that moved with the repository
			return !id.holds(name)
		}
		return id.Gone(holder)
	})
	if err == nil {
		id.took(name, lock)
	}
	return lock, err
}

// release gives the lock back, so that the next need not wait.
func (p *Protector) release() {
	h := &p.held
	if h.lock == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if err := h.lock.Unlock(ctx); err != nil {
		p.cfg.Log.Warn("the lineage's lock could not be given back: the next agent waits until it has run out", "error", err)
	}
	h.have(nil, nil)
}

// abandon ends what asks for a lock, and gives back what there is.
func (p *Protector) abandon() {
	h := &p.held
	if h.asking != nil {
		h.cancel()
		<-h.asking
		if h.err == nil {
			h.have(h.got, h.of)
		}
		h.asking, h.refused = nil, nil
	}
	p.release()
}

// while gives a context that ends, with the lock's cause, when the lock is lost.
func (p *Protector) while(ctx context.Context) (context.Context, context.CancelFunc) {
	out, cancel := context.WithCancelCause(ctx)
	if p.held.lock == nil {
		return out, func() { cancel(context.Canceled) }
	}
	lock := p.held.lock.Context()
	stop := context.AfterFunc(lock, func() { cancel(context.Cause(lock)) })
	return out, func() { stop(); cancel(context.Canceled) }
}

// refuse ends what runs where the lineage is another's, and tells a Backup that waits
// when it has waited for as long as a dead holder is waited for. Where the store does not
// answer the Archiver goes on: it fills its spool, and ships nothing until the lock is
// this agent's again.
func (p *Protector) refuse(ctx context.Context, next *v1alpha1.Backup, err error) error {
	p.stopJob()
	var locked *repository.LockedError
	if errors.As(err, &locked) {
		p.stopArchiving()
	}
	return p.waits(ctx, next, err)
}
