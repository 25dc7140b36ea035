// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/kbcli/kbcli/engine/catalog"
	"github.com/kbcli/kbcli/runtimes"
)

// A repository that does not answer is asked again, less and less often.
const slowestFollow = 30 * time.Second

// goOn prints events as they are archived. It ends with ctx alone, once anything was
// read: the agent and the repository may come and go.
func (o *history) goOn(ctx context.Context, a *app) error {
	p := following{o: o, a: a}
	q := o.query(&catalog.Going{})
	began, failing, pause := false, false, watchEvery
	for {
		var unprinted error
		err := o.reader.FollowHistory(ctx, o.src, q, func(found []runtimes.HistoryEvent) error {
			unprinted = p.print(found)
			return unprinted
		}, func() {
			if failing {
				a.note("note: the history of %s can be read again", o.src.Cluster)
			}
			began, failing, pause = true, false, watchEvery
		})
		if unprinted != nil {
			return unprinted
		}
		if ctx.Err() != nil {
			return a.watched(ctx)
		}
		var gone *runtimes.SourceNotFoundError
		if !began || errors.As(err, &gone) {
			return err
		}
		if !failing {
			a.note("note: the history of %s cannot be read now, and is tried again until ^C: %v", o.src.Cluster, err)
		}
		failing, pause = true, min(2*pause, slowestFollow)
		select {
		case <-ctx.Done():
			return a.watched(ctx)
		case <-time.After(pause):
		}
	}
}

// following prints events bit by bit.
type following struct {
	o      *history
	a      *app
	widths []int
	some   bool
}

func (p *following) print(found []runtimes.HistoryEvent) error {
	var events []happened
	for i := range found {
		if e := &found[i]; p.o.wants(&e.Event) {
			events = append(events, happenedOf(e.Event, e.Restorable))
		}
	}
	switch p.o.output {
	case "json":
		for _, e := range events {
			text, err := json.Marshal(e)
			if err != nil {
				return err
			}
			p.a.say("%s", text)
		}
	case "yaml":
		for _, e := range events {
			if p.some {
				p.a.say("---")
			}
			p.some = true
			if err := p.a.value("yaml", e); err != nil {
				return err
			}
		}
	default:
		if len(events) > 0 {
			p.widths = p.o.write(p.a, p.a.stdio.Out, p.widths, events)
		}
	}
	return nil
}
