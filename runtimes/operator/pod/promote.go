// SPDX-License-Identifier: Apache-2.0

package pod

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/engine/archive"
	"github.com/kbcli/kbcli/engine/pg"
	"github.com/kbcli/kbcli/engine/pg/client"
	"github.com/kbcli/kbcli/engine/pg/replication"
	"github.com/kbcli/kbcli/runtimes"
	"github.com/kbcli/kbcli/runtimes/agent"
	"github.com/kbcli/kbcli/runtimes/operator/specs"
)

// What a promotion may take. Patroni asks once it has the leader's lock.
const (
	promotionLasts = 2 * time.Minute  // after which one that did not come about is forgotten
	replayWait     = 15 * time.Second // for what the archive has to be replayed
)

func (k *keeper) mustHaveAll() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return !k.promoting.IsZero() && k.wishes != nil && k.wishes.sync && !k.wishes.alone
}

// supply is what the repository can give this server; nil if nothing is archived.
func (k *keeper) supply(ctx context.Context, w wishes) (*archive.Supply, error) {
	if !w.archived || w.lineage == "" {
		return nil, nil
	}
	repo, _, err := k.repos.Named(ctx, w.repo)
	if err != nil {
		return nil, err
	}
	l, err := repo.Lineage(ctx, w.lineage)
	if err != nil {
		return nil, err
	}
	return &archive.Supply{Lineage: l, Data: specs.DataDirectory}, nil
}

// file is what a standby gets that asks for WAL.
func (k *keeper) file(ctx context.Context, name string) ([]byte, error) {
	k.mu.Lock()
	all := !k.promoting.IsZero()
	k.mu.Unlock()
	w, err := k.lastWishes(ctx)
	if err != nil {
		return nil, err
	}
	s, err := k.supply(ctx, w)
	if err != nil {
		return nil, err
	}
	if s == nil {
		return nil, archive.ErrNotSupplied
	}
	running := false
	qctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	if c, err := client.Connect(qctx, k.conninfo()); err == nil {
		srv, err := c.Identify(qctx)
		c.Close()
		if err == nil && !srv.InRecovery {
			return nil, archive.ErrNotSupplied
		}
		running = err == nil
	}
	return s.File(ctx, name, archive.Wanted{Running: running, All: all})
}

// mayPromote is nil when this server may become the primary. Where commits wait for the
// repository, it has all that were acknowledged by then or is about to read them, no other
// agent can acknowledge any more, and its own commits wait too from the first on. A server
// that is the only one has nobody to ask.
//
// Where they do not wait it may, and reads what the archive has if that answers.
func (k *keeper) mayPromote(ctx context.Context) error {
	actx, cancel := context.WithTimeout(ctx, askTimeout)
	w, err := k.ask(actx)
	cancel()
	if err != nil {
		k.mu.Lock()
		last := k.wishes
		k.mu.Unlock()
		_, serr := os.Stat(filepath.Join(specs.SpoolDirectory, syncMark))
		switch {
		case last != nil:
			w = *last
		case serr == nil:
			return fmt.Errorf("commits wait for the repository, and it is not known which one: %w", err)
		default:
			k.Log.Warn("it is not known whether the cluster is archived", "error", err)
			return nil
		}
	}
	k.mu.Lock()
	k.promoting, k.due = k.Clock(), 0
	k.mu.Unlock()
	if !w.archived || !w.sync || w.lineage == "" {
		if err := k.commitsWait(ctx, false); err != nil {
			k.Log.Warn("commits may wait for the repository", "error", err)
		}
		return nil
	}
	if w.alone { // whatever was acknowledged, this server has it; it is read from while the repository is away
		return k.commitsWait(ctx, true)
	}
	if err := k.haveAll(ctx, w); err != nil {
		k.mu.Lock()
		k.promoting = time.Time{}
		k.mu.Unlock()
		return err
	}
	return nil
}

// haveAll sees to it that nothing that was acknowledged is lost with this server.
func (k *keeper) haveAll(ctx context.Context, w wishes) error {
	s, err := k.supply(ctx, w)
	if err != nil {
		return fmt.Errorf("commits wait for the repository, which does not answer: %w", err)
	}
	if err := k.lockOfDead(ctx, s.Lineage); err != nil {
		return err
	}
	// only now nothing is added to what there is
	if err := k.commitsWait(ctx, true); err != nil {
		return err
	}
	c, err := client.Connect(ctx, k.conninfo())
	if err != nil {
		return err
	}
	defer c.Close()
	srv, err := c.Identify(ctx)
	if err != nil {
		return err
	}
	if !srv.InRecovery {
		return nil
	}
	replayed, err := replayedTo(ctx, c)
	if err != nil {
		return err
	}
	own, err := timelineOf(ctx, k.conninfo())
	if err != nil {
		return err
	}
	path, err := s.Path(ctx, own)
	if err != nil {
		return fmt.Errorf("find where the archive ends: %w", err)
	}
	if path.Timeline != own && !path.Contains(own, replayed-1) {
		return fmt.Errorf("this server is at %s of timeline %s, and the commits that were acknowledged are on timeline %s, which left that before", replayed, own, path.Timeline)
	}
	end, err := s.End(ctx, path, replayed)
	if err != nil {
		return fmt.Errorf("find where the archive ends: %w", err)
	}
	k.mu.Lock()
	k.due = end
	k.mu.Unlock()
	// It asks for what it lacks every few seconds, unless it waits for a connection that
	// nobody has told it is dead: then it asks when it is promoted.
	for began := k.Clock(); replayed < end && k.Clock().Sub(began) < replayWait; {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(200 * time.Millisecond):
		}
		if replayed, err = replayedTo(ctx, c); err != nil {
			return err
		}
	}
	k.Log.Info("this server may become the primary: nobody else archives, and it has what the archive has", "archived", end, "replayed", replayed)
	return nil
}

// timelineOf is the timeline that a standby replays. In SQL only the control file says it,
// which lags behind a switch until the next restartpoint.
func timelineOf(ctx context.Context, conninfo string) (pg.TimelineID, error) {
	c, err := replication.Connect(ctx, conninfo)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	id, err := c.IdentifySystem(ctx)
	return id.Timeline, err
}

func replayedTo(ctx context.Context, c *client.Conn) (pg.LSN, error) {
	var text string
	if err := c.SQL().QueryRow(ctx, "SELECT coalesce(pg_last_wal_replay_lsn(), '0/0')::text").Scan(&text); err != nil {
		return 0, fmt.Errorf("ask how far the server has come: %w", err)
	}
	return pg.ParseLSN(text)
}

// commitsWait has the server's commits wait for the repository, or not, when it is the
// primary.
func (k *keeper) commitsWait(ctx context.Context, sync bool) error {
	c, err := client.Connect(ctx, k.conninfo())
	if err != nil {
		return err
	}
	defer c.Close()
	return followSync(ctx, c, agent.SlotName(k.Namespace, k.Cluster), sync)
}

// followSync sets synchronous_standby_names on a standby, as the primary's agent does on
// the primary: the first commit after a promotion waits as the last one before it did.
func followSync(ctx context.Context, c *client.Conn, slot string, sync bool) error {
	have, err := c.Setting(ctx, "synchronous_standby_names")
	if err != nil {
		return err
	}
	sql := ""
	switch {
	case sync && have == "":
		sql = "ALTER SYSTEM SET synchronous_standby_names = '" + slot + "'" // letters, digits and _ only
	case !sync && have == slot:
		sql = "ALTER SYSTEM RESET synchronous_standby_names"
	default:
		return nil
	}
	for _, sql := range []string{sql, "SELECT pg_reload_conf()"} {
		if _, err := c.SQL().Exec(ctx, sql); err != nil {
			return fmt.Errorf("change synchronous_standby_names: %w", err)
		}
	}
	return nil
}

// kept looks whether a server that has become the primary has what it was to have.
func (k *keeper) kept(ctx context.Context, c *client.Conn, s client.Server) error {
	k.mu.Lock()
	due := k.due
	k.mu.Unlock()
	if due == 0 {
		return nil
	}
	var left string
	err := c.SQL().QueryRow(ctx, "SELECT pg_read_file('pg_wal/' || $1)", pg.HistoryFileName(s.Timeline)).Scan(&left)
	if err != nil {
		return fmt.Errorf("read where timeline %s began: %w", s.Timeline, err)
	}
	h, err := pg.ParseHistory(s.Timeline, []byte(left))
	if err != nil {
		return err
	}
	k.mu.Lock()
	k.due = 0
	k.mu.Unlock()
	if n := len(h.Entries); n > 0 && h.Entries[n-1].End < due {
		k.Log.Error("acknowledged commits are not in the new primary", "has", h.Entries[n-1].End, "archived", due)
		if k.Event != nil {
			k.Event(v1alpha1.KindCluster+"/"+k.Cluster, runtimes.EventWarning, "CommitsLost",
				fmt.Sprintf("%s became the primary at %s, and the archive has acknowledged commits up to %s: a restore gives them back", k.Pod, h.Entries[n-1].End, due))
		}
	}
	return nil
}
