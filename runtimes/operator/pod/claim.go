// SPDX-License-Identifier: Apache-2.0

package pod

import (
	"context"
	"fmt"
	"time"

	"github.com/kbcli/kbcli/engine/pg/client"
	"github.com/kbcli/kbcli/engine/repository"
	"github.com/kbcli/kbcli/runtimes/agent"
)

// lockLife is the time to live of a lineage's lock in pods. With what is added for clocks
// it has run out about when Patroni's lease has, of 30 seconds.
const lockLife = 24 * time.Second

const (
	silent        = "12 seconds"     // of an upstream; a standby asks it after half of wal_receiver_timeout
	lockPause     = 30 * time.Second // between two tries to find the lock of a dead primary
	lockPauseMost = 10 * time.Minute
)

// claim asks for the lock of a lineage whose holder may have died.
type claim struct {
	lineage string
	cancel  context.CancelFunc
	done    chan struct{}
	lock    *repository.Lock // once done is closed; nil with err
	err     error
}

// ended tells whether the claim is answered.
func (c *claim) ended() bool {
	select {
	case <-c.done:
		return true
	default:
		return false
	}
}

// startClaim begins to wait for the lock, unless that is done already.
func (k *keeper) startClaim(ctx context.Context, l *repository.Lineage) *claim {
	k.mu.Lock()
	defer k.mu.Unlock()
	if c := k.claim; c != nil && c.lineage == l.Info().ID && !(c.ended() && (c.err != nil || c.lock.Context().Err() != nil)) {
		return c
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	c := &claim{lineage: l.Info().ID, cancel: cancel, done: make(chan struct{})}
	k.claim = c
	go func() {
		defer close(c.done)
		c.lock, c.err = agent.LockOfDead(ctx, l, k.identity)
	}()
	return c
}

// lockOfDead has the lock of the lineage for the Protector that is to come.
func (k *keeper) lockOfDead(ctx context.Context, l *repository.Lineage) error {
	c := k.startClaim(ctx, l)
	select {
	case <-ctx.Done():
		return fmt.Errorf("wait for the agent that archives: %w", ctx.Err())
	case <-c.done:
	}
	if c.err != nil {
		return fmt.Errorf("commits wait for the repository, and another agent acknowledges them: %w", c.err)
	}
	return nil
}

// endClaim gives the lock back that there may be.
func (k *keeper) endClaim() {
	k.mu.Lock()
	c := k.claim
	k.claim = nil
	k.mu.Unlock()
	if c == nil {
		return
	}
	c.cancel()
	<-c.done
	if c.lock == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if err := c.lock.Unlock(ctx); err != nil {
		k.Log.Warn("the lineage's lock could not be given back: it runs out", "error", err)
	}
}

// heldLock gives the lock over to the Protector.
func (k *keeper) heldLock(lineage string) *repository.Lock {
	k.mu.Lock()
	defer k.mu.Unlock()
	c := k.claim
	if c == nil || c.lineage != lineage || !c.ended() || c.lock == nil || c.lock.Context().Err() != nil {
		return nil
	}
	k.claim = nil
	c.cancel()
	return c.lock
}

// watch is for a standby whose upstream is silent: it finds out early whether the agent
// that archives has died with it, so that nobody waits for its lock when a new primary is
// there. A lock that it gets is free for that one at once.
func (k *keeper) watch(ctx context.Context, c *client.Conn, w wishes) error {
	k.mu.Lock()
	now, cl := k.Clock(), k.claim
	if !k.promoting.IsZero() {
		if now.Sub(k.promoting).Abs() < promotionLasts {
			k.mu.Unlock()
			return nil
		}
		k.promoting = time.Time{}
	}
	k.mu.Unlock()
	if cl != nil {
		if !cl.ended() {
			return nil
		}
		if cl.err == nil && k.pause == 0 {
			k.Log.Info("nobody archives: the place is free")
		}
		k.pause = min(max(2*k.pause, lockPause), lockPauseMost)
		k.pauseUntil = now.Add(k.pause)
		k.endClaim()
		return nil
	}
	var quiet bool
	err := c.SQL().QueryRow(ctx, `SELECT NOT EXISTS (SELECT FROM pg_stat_wal_receiver
		WHERE status = 'streaming' AND last_msg_receipt_time > clock_timestamp() - interval '`+silent+`')`).Scan(&quiet)
	if err != nil {
		return fmt.Errorf("ask for the upstream: %w", err)
	}
	if !quiet {
		k.pause, k.pauseUntil = 0, time.Time{}
		return nil
	}
	if now.Before(k.pauseUntil) {
		return nil
	}
	s, err := k.supply(ctx, w)
	if err != nil || s == nil {
		return err
	}
	k.startClaim(ctx, s.Lineage)
	return nil
}
