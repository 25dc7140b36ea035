// SPDX-License-Identifier: Apache-2.0

package pod

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"syscall"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/engine/basebackup"
	"github.com/kbcli/kbcli/engine/pg"
	"github.com/kbcli/kbcli/engine/pg/client"
	"github.com/kbcli/kbcli/runtimes/agent"
	"github.com/kbcli/kbcli/runtimes/kubernetes/names"
	"github.com/kbcli/kbcli/runtimes/operator/specs"
	"github.com/kbcli/kbcli/runtimes/operator/volumesnapshots"
	"github.com/kbcli/kbcli/runtimes/repos"
	"github.com/kbcli/kbcli/runtimes/store"
)

// Options say which pod this is.
type Options struct {
	Namespace, Cluster, Pod string

	Objects store.Store
	Volumes *volumesnapshots.Set                               // nil where there are none
	Event   agent.EventFunc                                    // nil where nobody listens
	Note    func(ctx context.Context, key, value string) error // writes an annotation on this pod; nil where there is none
	Clock   func() time.Time
	Log     *slog.Logger
}

// FromEnvironment reads what specs put into the environment.
func FromEnvironment(getenv func(string) string) (Options, error) {
	o := Options{Namespace: getenv(specs.EnvNamespace), Cluster: getenv(specs.EnvCluster), Pod: getenv(specs.EnvPod)}
	if o.Namespace == "" || o.Cluster == "" || o.Pod == "" {
		return o, fmt.Errorf("%s, %s and %s are not all set: this is for the pods of a cluster", specs.EnvNamespace, specs.EnvCluster, specs.EnvPod)
	}
	return o, nil
}

// Repositories are those of the installation that this pod was given the keys of: where
// its cluster's backups go or lie, and those of the cluster that it is made from.
func (o Options) Repositories() *repos.Set {
	set := &repos.Set{Objects: o.Objects, Copies: filepath.Join(specs.SpoolDirectory, "copies"), Given: hasKeys, Clock: o.Clock, Log: o.Log}
	if o.Volumes != nil {
		set.Volumes = o.Volumes
	}
	return set
}

// hasKeys tells whether the files that a repository is read with are here. Those that are
// still on their way come within two minutes, and at once where pods were told.
func hasKeys(r *v1alpha1.BackupRepo) bool {
	return !slices.ContainsFunc(repos.SecretFiles(r), func(path string) bool {
		_, err := os.Stat(path)
		return errors.Is(err, fs.ErrNotExist)
	})
}

func (o Options) conninfo() string {
	return fmt.Sprintf("host=%s port=%d user=%s dbname=postgres sslmode=disable connect_timeout=10", specs.SocketDirectory, specs.Port, specs.Superuser)
}

const (
	lookInterval = time.Second     // how often the server is asked what it is
	slotInterval = 5 * time.Second // how often a standby's slot follows
	downLooks    = 3               // after which a server is not running
	askTimeout   = 10 * time.Second
)

// mostWorkers is how many files of a server that works are read at once, on however large
// a node: the agent is a guest there.
const mostWorkers = 8

// keeper is the agent of one pod.
type keeper struct {
	Options
	repos    *repos.Set
	identity *agent.Identity
	taker    *agent.Taker
	stop     func(error)   // ends the Protector, for a reason that it may tell; nil while none runs
	ended    chan struct{} // closed when it has
	slot     time.Time
	told     client.Server
	recovers *bool // what was told of its recovery; nil: nothing yet
	down     int   // how often in a row no server was there

	pause      time.Duration // of watch
	pauseUntil time.Time

	mu        sync.Mutex // guards what is asked for at the door
	wishes    *wishes
	promoting time.Time // when Patroni asked; zero when there is no promotion
	due       pg.LSN    // how far the server that is promoted must have come
	claim     *claim
}

// Run looks after the pod's server until ctx ends.
func Run(ctx context.Context, o Options) (err error) {
	if err := os.MkdirAll(specs.SpoolDirectory, 0o700); err != nil {
		return err
	}
	identity, err := agent.Identify(specs.SpoolDirectory)
	if err != nil {
		return err
	}
	k := &keeper{Options: o, repos: o.Repositories(), identity: identity.Alone().LocksLast(lockLife)}
	ctx, cancel := context.WithCancel(ctx)
	answered, err := k.open(ctx)
	if err != nil {
		cancel()
		return err
	}
	defer k.endClaim()
	defer k.unprotect(nil)
	if o.Note != nil {
		var watching sync.WaitGroup
		defer watching.Wait() // ctx has ended then
		watching.Go(func() { k.watchRoom(ctx) })
	}
	defer func() { cancel(); <-answered }()
	k.taker = agent.NewTaker(k.config(), o.Pod)
	defer func() { err = errors.Join(err, k.taker.End(context.WithoutCancel(ctx), nil)) }()
	tick := time.NewTicker(lookInterval)
	defer tick.Stop()
	was := ""
	for {
		if err := k.look(ctx); err != nil && ctx.Err() == nil {
			if err.Error() != was {
				o.Log.Warn("the server is not looked after as it should be", "error", err)
			}
			was = err.Error()
		} else {
			was = ""
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// look asks the server what it is, and does what that asks for. One that does not answer
// is what it was: a Protector connects again by itself.
func (k *keeper) look(ctx context.Context) error {
	actx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	c, err := client.Connect(actx, k.conninfo())
	if err != nil {
		k.missed(err)
		return err
	}
	defer c.Close()
	k.down = 0
	s, err := c.Identify(actx)
	if err != nil {
		return err
	}
	noted := k.noteRecovery(ctx, s.InRecovery)
	if s.InRecovery {
		k.unprotect(agent.ErrStandby)
		return errors.Join(noted, k.keepSlot(actx, c), k.taker.Look(ctx))
	}
	if k.stop != nil {
		select {
		case <-k.ended: // as where the API server could not be reached when it began
			k.unprotect(nil)
		default:
		}
	}
	promoted := k.taker.Promoted(ctx)
	if k.stop == nil {
		k.protect(ctx)
	}
	k.mu.Lock()
	k.promoting = time.Time{}
	k.mu.Unlock()
	return errors.Join(noted, promoted, k.kept(actx, c, s), k.tell(ctx, s))
}

// noteRecovery tells on the pod since when its server is in recovery: the operator sees
// from that, and from who holds the lock, where a promotion did not come about.
func (k *keeper) noteRecovery(ctx context.Context, is bool) error {
	if k.Note == nil || k.recovers != nil && *k.recovers == is {
		return nil
	}
	since := ""
	if is {
		since = k.Clock().UTC().Format(time.RFC3339)
	}
	if err := k.Note(ctx, names.AnnotationRecovers, since); err != nil {
		return fmt.Errorf("tell since when the server is in recovery: %w", err)
	}
	k.recovers = &is
	return nil
}

// missed counts how often there was no server. One that is not running has nothing more
// to archive: whoever takes its place need not wait for this agent.
func (k *keeper) missed(err error) {
	if !errors.Is(err, syscall.ENOENT) && !errors.Is(err, syscall.ECONNREFUSED) {
		k.down = 0
		return
	}
	if k.down++; k.down == downLooks {
		k.unprotect(agent.ErrServerAway)
	}
}

// tell notes in the Cluster which server it is.
func (k *keeper) tell(ctx context.Context, s client.Server) error {
	if k.told.Version == s.Version && k.told.SystemID == s.SystemID {
		return nil
	}
	_, err := store.MutateStatus(ctx, k.Objects, k.Namespace, k.Cluster, func(c *v1alpha1.Cluster) error {
		c.Status.Version, c.Status.SystemIdentifier = s.Version.String(), s.SystemID.String()
		return nil
	})
	if err == nil {
		k.told = s
	}
	return err
}

// config is what the agents of this server work with.
func (k *keeper) config() agent.Config {
	return agent.Config{
		Objects: repos.Wishes{Store: k.Objects}, Namespace: k.Namespace, Cluster: k.Cluster,
		Conninfo: k.conninfo(), DataDirectory: specs.DataDirectory, Spool: specs.SpoolDirectory,
		OpenRepo: k.repos.Named, Former: k.repos.FormerWindows, Identity: k.identity, Workers: min(runtime.GOMAXPROCS(0), mostWorkers),
		Volume: k.volume, Held: k.heldLock, Standbys: true, SpoolMost: k.spoolMost,
		Event: k.Event, Clock: k.Clock, Log: k.Log,
	}
}

func (k *keeper) protect(ctx context.Context) {
	p := agent.New(k.config())
	pctx, cancel := context.WithCancelCause(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := p.Run(pctx); err != nil && pctx.Err() == nil {
			k.Log.Error("the protector ended", "error", err)
		}
	}()
	k.Log.Info("this server writes: it is archived and backed up from here")
	k.stop, k.ended = func(why error) { cancel(why); <-done }, done
}

// snapshotAddon is the Addon that switches snapshots on.
const snapshotAddon = "snapshot-controller"

// volume is this pod's, to be snapshotted.
func (k *keeper) volume(ctx context.Context) (basebackup.Volume, error) {
	addon, err := store.Get[*v1alpha1.Addon](ctx, k.Objects, "", snapshotAddon)
	switch {
	case apierrors.IsNotFound(err) || err == nil && !addon.Spec.Install.Enabled:
		return nil, &agent.NoSnapshotError{Reason: "the addon " + snapshotAddon + " is not enabled"}
	case err != nil:
		return nil, err
	case k.Volumes == nil:
		return nil, &agent.NoSnapshotError{Reason: "there are no VolumeSnapshots here"}
	}
	claim := specs.ClaimName(k.Cluster, specs.Ordinal(k.Cluster, k.Pod))
	return k.Volumes.Volume(ctx, k.Namespace, k.Cluster, claim, specs.VolumeDirectory)
}

func (k *keeper) unprotect(why error) {
	if k.stop != nil {
		k.stop(why)
		k.stop = nil
		k.Log.Info("this server is no longer archived from here")
	}
}

// keepSlot has a standby keep the WAL that the repository does not have, as long as there
// is an archive, and be ready to take over.
func (k *keeper) keepSlot(ctx context.Context, c *client.Conn) error {
	if w, err := k.lastWishes(ctx); err != nil {
		return err
	} else if err := k.watch(ctx, c, w); err != nil {
		return err
	}
	if now := k.Clock(); now.Sub(k.slot).Abs() < slotInterval {
		return nil
	} else {
		k.slot = now
	}
	name := agent.SlotName(k.Namespace, k.Cluster)
	w, err := k.ask(ctx)
	if err != nil {
		return err
	}
	if err := followSync(ctx, c, name, w.archived && w.sync); err != nil {
		return err
	}
	if !w.archived {
		if there, err := hasSlot(ctx, c, name); err != nil || !there {
			return err
		}
		if err := c.DropSlot(ctx, name); !errors.Is(err, client.ErrSlotNotFound) {
			return err
		}
		return nil
	}
	return follow(ctx, c, name, w.status)
}

// hasSlot tells whether there is a slot. It is asked before one is made or dropped: the
// server's log has every refusal.
func hasSlot(ctx context.Context, c *client.Conn, name string) (there bool, err error) {
	if err := c.SQL().QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = $1)", name).Scan(&there); err != nil {
		return false, fmt.Errorf("look for slot %s: %w", name, err)
	}
	return there, nil
}

// follow makes a slot where there is none, and moves it to what the repository holds; not
// further than this server has come.
func follow(ctx context.Context, c *client.Conn, name string, a *v1alpha1.ArchiveStatus) error {
	there, err := hasSlot(ctx, c, name)
	if err != nil {
		return err
	}
	if !there {
		if err := c.CreatePhysicalSlot(ctx, name, true, false); err != nil && !errors.Is(err, client.ErrSlotExists) {
			return err
		}
	}
	if a == nil || a.RepositoryLSN == "" {
		return nil
	}
	lsn, err := pg.ParseLSN(a.RepositoryLSN)
	if err != nil {
		return fmt.Errorf("where the archive is: %w", err)
	}
	_, err = c.SQL().Exec(ctx, `SELECT pg_replication_slot_advance(slot_name, least($2::pg_lsn, pg_last_wal_replay_lsn()))
		FROM pg_replication_slots WHERE slot_name = $1 AND NOT active AND restart_lsn < least($2::pg_lsn, pg_last_wal_replay_lsn())`, name, lsn.String())
	if err != nil {
		return fmt.Errorf("advance slot %s: %w", name, err)
	}
	return nil
}
