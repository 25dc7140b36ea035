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
	key    string
	doc    lockDoc
	cancel context.CancelCauseFunc
	ctx    context.Context
	done   chan struct{}
	once   sync.Once
}

// Lock takes the lock of that name or fails with a *LockedError. A lock whose
// holder is gone is taken over after it was seen unrenewed for its time to live,
// during which Lock waits; wait bounds that. holder names this process for people.
//
// Context gives a context that ends when the lock is lost.
func (r *Repository) Lock(ctx context.Context, name, holder string, ttl, wait time.Duration) (*Lock, error) {
	if ttl < 3*time.Second {
		return nil, fmt.Errorf("lock %s: a time to live of %s is too short to renew", name, ttl)
	}
	deadline := time.NewTimer(wait)
	defer deadline.Stop()
	var seen lockDoc
	var seenKey string
	var dead <-chan time.Time
	for {
		gen, key, doc, err := r.lockTop(ctx, name)
		if err != nil {
			return nil, fmt.Errorf("lock %s: %w", name, err)
		}
		expired := false
		switch {
		case key == "" || doc.TTL == 0:
			expired = true
		case key != seenKey || doc.Beat != seen.Beat || doc.Token != seen.Token:
			seen, seenKey = doc, key
			dead = time.After(doc.TTL)
		default:
			select {
			case <-dead:
				expired = true
			default:
			}
		}
		if expired {
			l, err := r.takeLock(ctx, name, gen+1, lockDoc{Holder: holder, Token: randomID(16), TTL: ttl})
			if err == nil {
				return l, nil
			}
			if !errors.Is(err, blob.ErrExist) {
				return nil, fmt.Errorf("lock %s: %w", name, err)
			}
			continue
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-deadline.C:
			return nil, &LockedError{name, doc.Holder, doc.Renewed}
		case <-time.After(min(doc.TTL/10, time.Second)):
		}
	}
}

func (r *Repository) lockTop(ctx context.Context, name string) (gen uint64, key string, doc lockDoc, err error) {
	prefix := "locks/" + name + "/"
	for info, err := range r.store.List(ctx, prefix) {
		if err != nil {
			return 0, "", doc, err
		}
		g, err := strconv.ParseUint(strings.TrimPrefix(info.Key, prefix), 16, 64)
		if err != nil {
			return 0, "", doc, &CorruptError{info.Key, "its name is not a generation"}
		}
		gen, key = g, info.Key
	}
	if key == "" {
		return 0, "", doc, nil
	}
	b, err := r.get(ctx, KindLock, key)
	if errors.Is(err, blob.ErrNotExist) {
		return gen, "", doc, nil
	}
	if err != nil {
		return 0, "", doc, err
	}
	if err := json.Unmarshal(b, &doc); err != nil {
		return 0, "", doc, &CorruptError{key, err.Error()}
	}
	return gen, key, doc, nil
}

func (r *Repository) takeLock(ctx context.Context, name string, gen uint64, doc lockDoc) (*Lock, error) {
	l := &Lock{repo: r, name: name, key: fmt.Sprintf("locks/%s/%016x", name, gen), doc: doc, done: make(chan struct{})}
	if err := l.write(ctx, false); err != nil {
		return nil, err
	}
	l.ctx, l.cancel = context.WithCancelCause(context.WithoutCancel(ctx))
	for info, err := range r.store.List(ctx, "locks/"+name+"/") {
		if err != nil || info.Key >= l.key {
			break
		}
		// an old generation left behind does no harm: only the highest counts
		_ = r.store.Delete(ctx, info.Key)
	}
	go l.renew()
	return l, nil
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

func (l *Lock) renew() {
	defer close(l.done)
	period := l.doc.TTL / 3
	lost := time.NewTimer(l.doc.TTL)
	defer lost.Stop()
	// the holder gives up by its own clock before another may take over by its own
	tick := time.NewTicker(period)
	defer tick.Stop()
	for {
		select {
		case <-l.ctx.Done():
			return
		case <-lost.C:
			l.cancel(fmt.Errorf("%w: %s was not renewed for %s", ErrLockLost, l.name, l.doc.TTL))
			return
		case <-tick.C:
		}
		ctx, cancel := context.WithTimeout(l.ctx, period)
		gen, key, doc, err := l.repo.lockTop(ctx, l.name)
		if err == nil && key != "" && doc.Token != l.doc.Token {
			cancel()
			l.cancel(fmt.Errorf("%w: %s was taken over by %s (generation %d)", ErrLockLost, l.name, doc.Holder, gen))
			return
		}
		l.doc.Beat++
		if err == nil {
			err = l.write(ctx, true)
		}
		cancel()
		if err == nil {
			lost.Reset(l.doc.TTL - period)
		}
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
			err = l.write(ctx, true)
		}
	})
	return err
}
