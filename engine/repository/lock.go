// SPDX-License-Identifier: Apache-2.0

package repository

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/kbcli/kbcli/engine/blob"
)

// LockedError says who holds a lock.
type LockedError struct {
	Name    string
	Holder  string
	Renewed time.Time // by the holder's clock
}

func (e *LockedError) Error() string {
	return fmt.Sprintf("%s is locked by %s, which renewed the lock at %s", e.Name, e.Holder, e.Renewed.UTC().Format(time.RFC3339))
}

// ErrLockLost says that a lock could not be renewed in time or was taken over.
var ErrLockLost = errors.New("lock was lost")

type lockDoc struct {
	Holder  string        `json:"holder"`
	Token   string        `json:"token"`
	TTL     time.Duration `json:"ttl"`
	Renewed time.Time     `json:"renewed"`
	Beat    int           `json:"beat"`
}

// Lock is held until Unlock, or until it could not be renewed for its time to live.
type Lock struct {
	repo   *Repository
	name   string
	gen    uint64
	key    string
	doc    lockDoc
	cancel context.CancelCauseFunc
	ctx    context.Context
	done   chan struct{}
	once   sync.Once
}

// keepGenerations is how many generations of a lock are left behind. A generation can
// be put only once while it is kept, so that a process which slept through a few
// takeovers cannot win one of long ago.
const keepGenerations = 8

// Lock takes the lock of that name or fails with a *LockedError. A lock whose
// holder is gone is taken over after it was seen unrenewed for its time to live,
// during which Lock waits; wait bounds that. holder names this process for people.
//
// Context gives a context that ends when the lock is lost.
func (r *Repository) Lock(ctx context.Context, name, holder string, ttl, wait time.Duration) (*Lock, error) {
	return r.LockFrom(ctx, name, holder, ttl, wait, func(string) bool { return false })
}

// LockFrom is Lock, but takes a lock at once from a holder of whom the caller knows
// that it is gone for good, such as a process that was killed.
func (r *Repository) LockFrom(ctx context.Context, name, holder string, ttl, wait time.Duration, gone func(holder string) bool) (*Lock, error) {
	if ttl < 3*time.Second {
		return nil, fmt.Errorf("lock %s: a time to live of %s is too short to renew", name, ttl)
	}
	if strings.Contains(name, "/") {
		return nil, fmt.Errorf("lock name %q has a slash", name)
	}
	deadline := time.NewTimer(wait)
	defer deadline.Stop()
	var seen lockTop
	var dead *time.Timer
	for {
		// Only what is read after the time to live has passed tells that nothing
		// happened in it.
		overdue := false
		if dead != nil {
			select {
			case <-dead.C:
				overdue = true
			default:
			}
		}
		top, err := r.lockTop(ctx, name)
		if err != nil {
			return nil, fmt.Errorf("lock %s: %w", name, err)
		}
		if top.free() || overdue && top.same(seen) || gone(top.doc.Holder) {
			l, err := r.takeLock(ctx, name, top.gen+1, lockDoc{Holder: holder, Token: randomID(16), TTL: ttl})
			if err == nil {
				return l, nil
			}
			if !errors.Is(err, blob.ErrExist) {
				return nil, fmt.Errorf("lock %s: %w", name, err)
			}
			dead = nil // another was quicker
		}
		if dead == nil || !top.same(seen) {
			seen, dead = top, time.NewTimer(top.doc.TTL)
		}
		poll := time.NewTimer(min(max(top.doc.TTL/10, 10*time.Millisecond), time.Second))
		select {
		case <-ctx.Done():
			err = ctx.Err()
		case <-deadline.C:
			err = &LockedError{name, top.doc.Holder, top.doc.Renewed}
		case <-poll.C:
		}
		poll.Stop()
		if err != nil {
			dead.Stop()
			return nil, err
		}
	}
}

// lockTop is the highest generation of a lock; gen is 0 if there is none.
type lockTop struct {
	gen uint64
	doc lockDoc
}

func (t lockTop) free() bool { return t.doc.TTL <= 0 }

func (t lockTop) same(o lockTop) bool {
	return t.gen == o.gen && t.doc.Token == o.doc.Token && t.doc.Beat == o.doc.Beat
}

func lockKey(name string, gen uint64) string { return fmt.Sprintf("locks/%s/%016x", name, gen) }

// lockGenerations lists those that are there, ascending.
func (r *Repository) lockGenerations(ctx context.Context, name string) ([]uint64, error) {
	var out []uint64
	prefix := "locks/" + name + "/"
	for info, err := range r.store.List(ctx, prefix) {
		if err != nil {
			return nil, err
		}
		g, err := strconv.ParseUint(strings.TrimPrefix(info.Key, prefix), 16, 64)
		if err != nil || info.Key != lockKey(name, g) {
			return nil, &CorruptError{info.Key, "its name is not a generation"}
		}
		out = append(out, g)
	}
	return out, nil
}

func (r *Repository) lockTop(ctx context.Context, name string) (lockTop, error) {
	for range 10 {
		gens, err := r.lockGenerations(ctx, name)
		if err != nil || len(gens) == 0 {
			return lockTop{}, err
		}
		top := lockTop{gen: gens[len(gens)-1]}
		key := lockKey(name, top.gen)
		b, err := r.get(ctx, KindLock, key)
		if errors.Is(err, blob.ErrNotExist) {
			continue // taken over many times since it was listed
		}
		if err != nil {
			return lockTop{}, err
		}
		if err := json.Unmarshal(b, &top.doc); err != nil {
			return lockTop{}, &CorruptError{key, err.Error()}
		}
		return top, nil
	}
	return lockTop{}, fmt.Errorf("its generations are listed and are not there: %w", blob.ErrUnreachable)
}

// takeLock puts generation gen. It fails with blob.ErrExist if another has.
func (r *Repository) takeLock(ctx context.Context, name string, gen uint64, doc lockDoc) (*Lock, error) {
	l := &Lock{repo: r, name: name, gen: gen, key: lockKey(name, gen), doc: doc, done: make(chan struct{})}
	l.ctx, l.cancel = context.WithCancelCause(context.WithoutCancel(ctx))
	until := l.lease()
	gens, err := []uint64(nil), l.write(ctx, false)
	if err == nil {
		gens, err = r.lockGenerations(ctx, name)
	}
	if err == nil && (len(gens) == 0 || gens[len(gens)-1] != gen) {
		_ = r.store.Delete(ctx, l.key) // it counts for nothing: a higher one is there
		err = fmt.Errorf("%s: %w", l.key, blob.ErrExist)
	}
	if err != nil {
		until.Stop()
		l.cancel(err)
		return nil, err
	}
	for _, g := range gens {
		if g+keepGenerations > gen {
			break
		}
		_ = r.store.Delete(ctx, lockKey(name, g)) // one left behind does no harm
	}
	go l.renew(until)
	return l, nil
}

// lease ends the lock when its time to live has passed from now, a little early,
// because clocks run differently fast. It is begun before the write that it counts
// from: another begins to count when it sees the write, which is later.
func (l *Lock) lease() *time.Timer {
	return time.AfterFunc(l.doc.TTL-l.doc.TTL/16, func() {
		l.cancel(fmt.Errorf("%w: %s was not renewed for %s", ErrLockLost, l.name, l.doc.TTL))
	})
}

func (l *Lock) write(ctx context.Context, replace bool) error {
	l.doc.Renewed = l.repo.clock().UTC().Truncate(time.Microsecond)
	b, err := json.Marshal(l.doc)
	if err != nil {
		return err
	}
	sealed, err := l.repo.seal(KindLock, l.key, b, 0)
	if err != nil {
		return err
	}
	if replace {
		return l.repo.store.Replace(ctx, l.key, sealed)
	}
	return l.repo.store.Put(ctx, l.key, sealed)
}

func (l *Lock) renew(until *time.Timer) {
	defer close(l.done)
	period := l.doc.TTL / 3
	tick := time.NewTicker(period)
	defer tick.Stop()
	defer func() { until.Stop() }()
	for {
		select {
		case <-l.ctx.Done():
			return
		case <-tick.C:
		}
		next := l.lease()
		ctx, cancel := context.WithTimeout(l.ctx, period)
		top, err := l.repo.lockTop(ctx, l.name)
		if err == nil && (top.gen > l.gen || top.gen == l.gen && top.doc.Token != l.doc.Token) {
			cancel()
			next.Stop()
			l.cancel(fmt.Errorf("%w: %s was taken over by %s (generation %d)", ErrLockLost, l.name, top.doc.Holder, top.gen))
			return
		}
		if err == nil {
			l.doc.Beat++
			err = l.write(ctx, true)
		}
		cancel()
		if err == nil {
			until, next = next, until
		}
		next.Stop()
	}
}

// Context ends when the lock is lost or released; its cause says which.
func (l *Lock) Context() context.Context { return l.ctx }

// Unlock releases the lock, so that the next need not wait.
func (l *Lock) Unlock(ctx context.Context) error {
	var err error
	l.once.Do(func() {
		held := l.ctx.Err() == nil
		l.cancel(context.Canceled)
		<-l.done
		if held {
			// an empty time to live: free, and the generation goes on counting
			l.doc.TTL = 0
			l.doc.Beat++
			err = l.write(ctx, true)
		}
	})
	return err
}
