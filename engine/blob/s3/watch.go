// SPDX-License-Identifier: Apache-2.0

package s3

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"
)

// watch cancels a request whose bytes have stopped moving, which TCP itself may
// notice only after many minutes.
type watch struct {
	limit time.Duration
	timer *time.Timer
	hit   atomic.Bool
}

// newWatch makes a watch that does not run yet.
func newWatch(cancel context.CancelFunc, limit time.Duration) *watch {
	w := &watch{limit: limit}
	w.timer = time.AfterFunc(limit, func() {
		w.hit.Store(true)
		cancel()
	})
	w.timer.Stop()
	return w
}

func (w *watch) start()      { w.timer.Reset(w.limit) }
func (w *watch) pause()      { w.timer.Stop() }
func (w *watch) stop()       { w.timer.Stop() }
func (w *watch) fired() bool { return w.hit.Load() }

// explain gives the true cause of an error that followed from the cancel.
func (w *watch) explain(err error) error {
	if w.fired() {
		return fmt.Errorf("no byte moved for %s", w.limit)
	}
	return err
}
