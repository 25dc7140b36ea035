// SPDX-License-Identifier: Apache-2.0

package stall

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"
)

// Watch cancels a request when nothing has moved for a while. Start is called whenever
// something moves; its methods may be called from many goroutines.
type Watch struct {
	limit time.Duration
	timer *time.Timer
	hit   atomic.Bool
}

// New makes a Watch that does not run yet.
func New(cancel context.CancelFunc, limit time.Duration) *Watch {
	w := &Watch{limit: limit}
	w.timer = time.AfterFunc(limit, func() {
		w.hit.Store(true)
		cancel()
	})
	w.timer.Stop()
	return w
}

// Start begins the time anew.
func (w *Watch) Start() { w.timer.Reset(w.limit) }

// Stop ends the watching, until Start is called again.
func (w *Watch) Stop() { w.timer.Stop() }

// Fired tells whether the request was canceled.
func (w *Watch) Fired() bool { return w.hit.Load() }

// Explain gives the true cause of an error that followed from the cancel.
func (w *Watch) Explain(err error) error {
	if w.Fired() {
		return fmt.Errorf("no byte moved for %s", w.limit)
	}
	return err
}
