// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"time"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/engine/repository"
)

// formerInterval is how often it is asked what can be reached in former lineages.
const formerInterval = 10 * time.Minute

// former is what can be reached in the lineages that a cluster left. Repositories that
// do not answer must not hold up the report, so it is asked beside it.
type former struct {
	of      *repository.Lineage
	asked   time.Time
	answer  chan []v1alpha1.RecoverableWindow
	cancel  context.CancelFunc
	windows []v1alpha1.RecoverableWindow
}

// formerWindows is the last answer, or that to a question that has just been answered.
func (p *Protector) formerWindows(ctx context.Context) []v1alpha1.RecoverableWindow {
	f := &p.former
	if p.cfg.Former == nil {
		return nil
	}
	if f.answer != nil {
		select {
		case ws, ok := <-f.answer:
			f.answer = nil
			f.cancel()
			if ok {
				f.windows = ws
			}
		default:
			return f.windows
		}
	}
	if f.of == p.lineage && time.Since(f.asked) < formerInterval {
		return f.windows
	}
	l, answer := p.lineage, make(chan []v1alpha1.RecoverableWindow, 1)
	f.of, f.asked, f.answer = l, time.Now(), answer
	ctx, f.cancel = context.WithCancel(ctx)
	go func() {
		defer close(answer)
		ws, err := p.cfg.Former(ctx, l)
		if err != nil {
			if ctx.Err() == nil {
				p.cfg.Log.Warn("what former repositories hold is not known", "error", err)
			}
			if len(ws) == 0 {
				return // the last answer stands
			}
		}
		answer <- WindowsOf(ws)
	}()
	return f.windows
}

// stop ends the question, if one is asked.
func (f *former) stop() {
	if f.answer == nil {
		return
	}
	f.cancel()
	for range f.answer {
	}
	f.answer = nil
}
