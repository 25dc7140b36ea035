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
	"github.com/kbcli/kbcli/engine/repository"
	"github.com/kbcli/kbcli/internal/atomicfile"
	"github.com/kbcli/kbcli/runtimes"
	"github.com/kbcli/kbcli/runtimes/agent"
	"github.com/kbcli/kbcli/runtimes/operator/specs"
	"github.com/kbcli/kbcli/runtimes/store"
)

// lockLife is the time to live of a lineage's lock in pods. With what is added for clocks
// it has run out about when Patroni's lease has, of 30 seconds.
const lockLife = 24 * time.Second

// What a promotion may take. Patroni asks once it has the leader's lock.
const (
	promotionLasts = 2 * time.Minute  // after which one that did not come about is forgotten
	replayWait     = 15 * time.Second // for what the archive has to be replayed
	silent         = "12 seconds"     // of an upstream; a standby asks it after half of wal_receiver_timeout
	lockPause      = 30 * time.Second // between two tries to find the lock of a dead primary
	lockPauseMost  = 10 * time.Minute
)

// wishes are what the objects say about the cluster's archive.
type wishes struct {
	archived bool
	sync     bool // commits wait for the repository
	alone    bool // there is no other server
	repo     string
	lineage  string
	status   *v1alpha1.ArchiveStatus
}

// ask reads them anew, and remembers them.
func (k *keeper) ask(ctx context.Context) (wishes, error) {
	var w wishes
	all, err := store.List[*v1alpha1.BackupPolicy](ctx, k.Objects, k.Namespace, nil)
	var policy *v1alpha1.BackupPolicy
	for _, p := range all {
		if p.Spec.ClusterRef == k.Cluster && p.DeletionTimestamp == nil && (policy == nil || p.IsDefault()) {
			policy = p
		}
	}
	if policy == nil && err != nil {
		return w, err
	}
	if policy != nil && policy.Spec.Schedule.Logfile.Enable {
		w.archived, w.repo = true, policy.Spec.BackupRepoName
		w.sync = policy.Spec.Archive.Mode == v1alpha1.ArchiveSync
	}
	o, err := store.Get[*v1alpha1.Cluster](ctx, k.Objects, k.Namespace, k.Cluster)
	if err != nil {
		return w, err
	}
	w.lineage, w.status, w.alone = o.Status.Lineage, o.Status.Archive, o.Spec.Replicas < 2
	k.mu.Lock()
	k.wishes = &w
	k.mu.Unlock()
	return w, k.mark(w)
}

// mark leaves a note for whoever asks while there is no agent.
func (k *keeper) mark(w wishes) error {
	path := filepath.Join(specs.SpoolDirectory, syncMark)
	_, err := os.Stat(path)
	switch {
	case w.archived && w.sync && os.IsNotExist(err):
		return atomicfile.Write(path, nil, 0o600)
	case !(w.archived && w.sync) && err == nil:
		return os.Remove(path)
	}
	return nil
}

// lastWishes are those that were read last, if there are any.
func (k *keeper) lastWishes(ctx context.Context) (wishes, error) {
	k.mu.Lock()
	w := k.wishes
	k.mu.Unlock()
	if w != nil {
		return *w, nil
	}
	return k.ask(ctx)
}

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
