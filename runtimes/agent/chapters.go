// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"log/slog"
	"time"

	"github.com/kbcli/kbcli/engine/catalog"
	"github.com/kbcli/kbcli/engine/pg"
	"github.com/kbcli/kbcli/engine/repository"
)

// rollInterval is how often it is looked whether a chapter is complete, and how long it
// is left alone after a failure.
var rollInterval = time.Minute

// roller makes the chapters of a lineage while its WAL is archived: those that are lacking
// when archiving begins, and each when it is complete. That it fails keeps nobody from
// archiving: what has no chapter is listed.
type roller struct {
	*catalog.Roller
	lineage *repository.Lineage
	at      func() pg.Segment // that the repository is about to have
	log     *slog.Logger
}

func (p *Protector) newRoller() *roller {
	return &roller{Roller: catalog.NewRoller(p.lineage, p.held.may), lineage: p.lineage, log: p.cfg.Log}
}

// start makes chapters until the function that it returns was called.
func (r *roller) start(ctx context.Context) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		r.run(ctx)
	}()
	return func() { cancel(); <-done }
}

func (r *roller) run(ctx context.Context) {
	tick := time.NewTicker(rollInterval)
	defer tick.Stop()
	var rolled pg.Segment // the chapter that was being written when all before it were made
	failing := false
	for {
		if now := r.lineage.ChapterOf(r.at()); now.Timeline != 0 && now != rolled {
			made, err := r.Roll(ctx)
			switch {
			case ctx.Err() != nil:
				return
			case err != nil && !failing:
				r.log.Warn("chapters cannot be made: until they are, segments are listed", "error", err)
			case err == nil:
				rolled = now
			}
			failing = err != nil
			if made > 0 {
				r.log.Info("chapters were made", "chapters", made)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// suspendRolling keeps chapters from being stored until resume is called: segments are
// about to be deleted.
func (p *Protector) suspendRolling() (resume func()) {
	if p.arch == nil {
		return func() {}
	}
	return p.arch.chapters.Suspend()
}
