// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/engine/pg"
	"github.com/kbcli/kbcli/engine/pg/client"
	"github.com/kbcli/kbcli/runtimes/store"
)

// leaving asks Run to leave the server.
type leaving struct {
	ctx   context.Context
	force bool
	done  chan error
}

// Leave ends the protection of a server that stays, and takes away what was made on it:
// the slot, and the name that commits wait for in sync mode. First everything that the
// server has committed by now is put into the repository. With an error nothing was
// taken away that archiving needs, and it goes on. With force neither the repository
// nor the server is waited for, and what could not be done is logged.
//
// After a nil return Run has ended or is about to.
func (p *Protector) Leave(ctx context.Context, force bool) error {
	l := leaving{ctx, force, make(chan error, 1)}
	select {
	case p.leaving <- l:
		return <-l.done
	case <-p.ended:
		return errors.New("nobody protects the server any more")
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (p *Protector) leave(ctx context.Context, force bool) error {
	p.stopJob()
	err := p.flush(ctx, force)
	if err == nil || force {
		p.stopArchiving()
		err = errors.Join(err, p.takeAway(ctx))
	}
	if err != nil && force {
		p.cfg.Log.Warn("the server was left although not all could be done", "error", err)
		return nil
	}
	return err
}

// flush waits until the repository holds all that the server has now, and what the spool
// holds of earlier.
func (p *Protector) flush(ctx context.Context, force bool) error {
	c, err := store.Get[*v1alpha1.Cluster](ctx, p.cfg.Objects, p.cfg.Namespace, p.cfg.Cluster)
	if err != nil {
		return err
	}
	if c.Status.Lineage == "" || force {
		return nil // nothing was ever archived
	}
	if p.arch == nil {
		if held, err := filepath.Glob(filepath.Join(p.cfg.Spool, c.Status.Lineage, "0*")); err != nil || len(held) == 0 {
			return err
		}
		if err := p.openLineage(ctx); err != nil {
			return err
		}
		if err := p.hold(ctx, p.lineage); err != nil {
			return err
		}
		if err := p.keepArchiving(ctx); err != nil {
			return err
		}
	}
	tli, end, err := p.present(ctx)
	if err != nil {
		return err
	}
	if err := p.arch.Wait(ctx, tli, end); err != nil {
		st := p.arch.Status()
		return fmt.Errorf("the repository has not taken all WAL yet: it holds it up to %s of %s: %w", st.Repository, end, errors.Join(err, st.LastError))
	}
	return nil
}

// present is where the server is now.
func (p *Protector) present(ctx context.Context) (pg.TimelineID, pg.LSN, error) {
	c, err := client.Connect(ctx, p.cfg.Conninfo)
	if err != nil {
		return 0, 0, err
	}
	defer c.Close()
	s, err := c.Identify(ctx)
	if err != nil {
		return 0, 0, err
	}
	if p.lineage != nil && s.SystemID != p.lineage.Info().SystemID {
		return 0, 0, fmt.Errorf("the server that answers is another one: its system identifier is %s, and that of the history %s", s.SystemID, p.lineage.Info().SystemID)
	}
	var text string
	err = c.SQL().QueryRow(ctx, `SELECT (CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_flush_lsn() END)::text`).Scan(&text)
	if err != nil {
		return 0, 0, fmt.Errorf("ask the server where it is: %w", err)
	}
	lsn, err := pg.ParseLSN(text)
	return s.Timeline, lsn, err
}

// takeAway leaves nothing on the server.
func (p *Protector) takeAway(ctx context.Context) error {
	if _, err := os.Stat(p.cfg.Spool); errors.Is(err, os.ErrNotExist) && p.lineage == nil {
		return nil // nothing was ever made there
	}
	if _, _, err := p.present(ctx); err != nil {
		return err
	}
	p.last.syncKnown = false
	if err := p.followSync(ctx, v1alpha1.ArchiveAsync); err != nil {
		return err
	}
	return p.dropSlot(ctx)
}
