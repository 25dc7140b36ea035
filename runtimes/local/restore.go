// SPDX-License-Identifier: Apache-2.0

package local

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/engine/catalog"
	"github.com/kbcli/kbcli/engine/pg"
	"github.com/kbcli/kbcli/engine/pg/client"
	"github.com/kbcli/kbcli/engine/restore"
	"github.com/kbcli/kbcli/runtimes"
	"github.com/kbcli/kbcli/runtimes/store"
)

// restore makes a cluster's data directory from another's past. It begins anew when
// it was interrupted; what is wrong with it otherwise is final, and told.
func (k *keeper) restore(ctx context.Context, c *v1alpha1.Cluster, port int) error {
	if err := k.phase(ctx, v1alpha1.ClusterRestoring, "", ""); err != nil {
		return err
	}
	s, err := k.recover(ctx, c, port)
	debug.FreeOSMemory() // an idle agent is small
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		k.r.log.Error("restore failed", "cluster", k.namespace+"/"+k.name, "error", err)
		serr := k.status(ctx, func(st *v1alpha1.ClusterStatus) {
			if st.Restore == nil {
				st.Restore = &v1alpha1.RestoreStatus{}
			}
			st.Restore.Phase, st.Restore.Message = v1alpha1.RestoreFailed, err.Error()
			var missed *restore.NotReachedError
			if errors.As(err, &missed) {
				st.Restore.ReachedLSN = missed.Reached.String()
			}
		})
		return errors.Join(err, serr, k.phase(ctx, v1alpha1.ClusterFailed, reasonOf(err), err.Error()))
	}
	return k.placed(ctx, s, port)
}

// AwaitCommand is the command of this program that runs archive.Await with the
// arguments that follow it.
const AwaitCommand = "wal-await"

// reasonOf is one word for why a restore failed.
func reasonOf(err error) string {
	var missed *restore.NotReachedError
	var outside *catalog.OutsideWindowError
	var gap *catalog.GapError
	var room *restore.NoRoomError
	switch {
	case errors.As(err, &missed):
		return "TargetNotReached"
	case errors.As(err, &outside):
		return "OutsideWindow"
	case errors.As(err, &gap):
		return "GapInWAL"
	case errors.As(err, &room):
		return "NoRoom"
	}
	return "RestoreFailed"
}

// targetOf reads the target of a restore.
func targetOf(r *v1alpha1.RestoreSpec) (catalog.Target, error) {
	t := catalog.Target{Timeline: pg.TimelineID(r.Timeline), Exclusive: r.Exclusive, Latest: r.Latest}
	switch {
	case r.Resolved != nil:
		stop, err := pg.ParseLSN(r.Resolved.StopLSN)
		if err != nil {
			return t, err
		}
		end, err := pg.ParseLSN(r.Resolved.EndLSN)
		if err != nil {
			return t, err
		}
		return catalog.Target{
			Timeline: pg.TimelineID(r.Resolved.Timeline),
			At: &catalog.Found{
				Stop:   catalog.Stop{LSN: stop, Inclusive: r.Resolved.StopInclusive, Immediate: r.Resolved.Immediate, Next: end},
				Backup: r.Resolved.BackupName,
			},
		}, nil
	case r.Time != nil:
		t.Time = r.Time.Time
	case r.LSN != "":
		lsn, err := pg.ParseLSN(r.LSN)
		t.LSN = lsn
		return t, err
	case r.XID != "":
		// with an epoch or without, as PostgreSQL takes it
		xid, err := strconv.ParseUint(r.XID, 10, 64)
		t.XID = pg.XID(xid)
		return t, err
	case r.Name != "":
		t.Name = r.Name
	case r.Latest:
	case r.Backup != "":
		t.Backup = r.Backup
	default:
		return t, errors.New("the restore names no target: a time, an LSN, a transaction, a restore point, latest or a backup")
	}
	return t, nil
}

// recover does the work: plan, fetch, recover, prove, and put the directory in place.
func (k *keeper) recover(ctx context.Context, c *v1alpha1.Cluster, port int) (*server, error) {
	spec := c.Spec.Restore
	target, err := targetOf(spec)
	if err != nil {
		return nil, err
	}
	p, err := k.r.Plan(ctx, runtimes.Source{Namespace: spec.SourceNamespace, Cluster: spec.SourceCluster, Lineage: spec.SourceLineage}, target)
	if err != nil {
		return nil, err
	}
	c.Spec.ClusterVersionRef = fmt.Sprintf("postgresql-%d", p.Major)
	s, err := k.server(c)
	if err != nil {
		return nil, err
	}
	if err := k.writePlan(ctx, p); err != nil {
		return nil, err
	}
	scratch, sockets := k.r.recovery(k.namespace, k.name), ""
	if len(scratch) > maxSocketDir {
		sockets = k.r.short("r", scratch)
		if err := os.RemoveAll(sockets); err != nil { // a killed agent left it
			return nil, err
		}
		defer os.RemoveAll(sockets)
	}
	tmp, spaces := filepath.Join(s.dir, "data.new"), filepath.Join(s.dir, "tablespaces")
	for _, dir := range []string{tmp, spaces, scratch} {
		if err := os.RemoveAll(dir); err != nil {
			return nil, err
		}
	}
	program, err := os.Executable()
	if err != nil {
		return nil, err
	}
	var done, total atomic.Int64
	var fed atomic.Int64
	stop := k.progress(ctx, p, &done, &total, &fed)
	defer stop()
	into := restore.Into{
		DataDirectory: tmp, Tablespaces: spaces, UID: s.uid, GID: s.gid, Jobs: restoreJobs(),
		Progress: func(d, t int64) { done.Store(d); total.Store(t) },
	}
	if p.HasTablespaces() {
		if err := s.account.dir(spaces, 0o755); err != nil {
			return nil, err
		}
	}
	began := k.r.clock()
	if err := p.Fetch(ctx, into); err != nil {
		return nil, err
	}
	fetched := k.r.clock()
	k.restorePhase(ctx, v1alpha1.RestoreRecovering)
	reached, err := p.Recover(ctx, restore.Recovery{
		Into: into, BinDir: s.bin, Program: program, Args: []string{AwaitCommand}, Scratch: scratch, Sockets: sockets,
		Replayed: func(n int) { fed.Store(int64(n)) }, Clock: k.r.clock,
	})
	if err != nil {
		return nil, err
	}
	stop()
	took := restore.Took{Fetch: fetched.Sub(began), Replay: reached.Replay, Start: k.r.clock().Sub(fetched) - reached.Replay}
	reached.Notes = append(reached.Notes, k.tookNote(p, took))
	k.r.learnRates(p, took)
	s.superuser = reached.Superuser
	if err := s.adopt(tmp, port, settingsOf(c)); err != nil {
		return nil, err
	}
	if err := os.Rename(tmp, s.data); err != nil {
		return nil, err
	}
	if err := os.RemoveAll(scratch); err != nil {
		return nil, err
	}
	return s, k.writeReached(ctx, spec, p, reached)
}

// restoreJobs is how many packs are unpacked at once: on a small machine more than it has
// cores, for those that write wait for the disk. Each takes about 18 MB of memory.
func restoreJobs() int { return max(4, runtime.NumCPU()) }

func (k *keeper) writePlan(ctx context.Context, p *restore.Plan) error {
	_, err := store.Mutate(ctx, k.r.objects, k.namespace, k.name, func(c *v1alpha1.Cluster) error {
		c.Spec.ClusterVersionRef = fmt.Sprintf("postgresql-%d", p.Major)
		return nil
	})
	if err != nil {
		return err
	}
	return k.status(ctx, func(st *v1alpha1.ClusterStatus) {
		rs := &v1alpha1.RestoreStatus{Phase: v1alpha1.RestoreFetching, PlannedLSN: p.EndLSN.String()}
		if x := p.LastKept; x != nil {
			rs.LastKeptXID, rs.LastKeptTime = strconv.FormatUint(uint64(x.XID), 10), v1alpha1.MicroTimeOf(x.Time)
		}
		if x := p.FirstLost; x != nil {
			rs.FirstLostXID, rs.FirstLostTime = strconv.FormatUint(uint64(x.XID), 10), v1alpha1.MicroTimeOf(x.Time)
		}
		st.Restore = rs
	})
}

// restorePhase tells how far the restore has come. A failure to tell does not stop it.
func (k *keeper) restorePhase(ctx context.Context, phase v1alpha1.RestorePhase) {
	err := k.status(ctx, func(st *v1alpha1.ClusterStatus) {
		if st.Restore != nil {
			st.Restore.Phase = phase
		}
	})
	if err != nil && ctx.Err() == nil {
		k.r.log.Warn("the restore's progress could not be written", "error", err)
	}
}

// progress writes how far the restore is, every second, until the function it returns
// is called.
func (k *keeper) progress(ctx context.Context, p *restore.Plan, done, total, fed *atomic.Int64) func() {
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	began := metav1.NewTime(k.r.clock())
	go func() {
		defer close(ended)
		for {
			select {
			case <-ctx.Done():
				return
			case <-time.After(time.Second):
			}
			err := k.status(ctx, func(st *v1alpha1.ClusterStatus) {
				if st.Restore == nil {
					return
				}
				st.Restore.Progress = &v1alpha1.Progress{
					Phase: strings.ToLower(string(st.Restore.Phase)), StartedAt: began,
					BytesDone: done.Load(), BytesTotal: max(total.Load(), p.BackupBytes),
					SegmentsDone: fed.Load(), SegmentsTotal: int64(p.Segments),
				}
			})
			if err != nil && ctx.Err() == nil {
				k.r.log.Warn("the restore's progress could not be written", "error", err)
			}
		}
	}()
	return func() { cancel(); <-ended }
}

func (k *keeper) writeReached(ctx context.Context, spec *v1alpha1.RestoreSpec, p *restore.Plan, reached *restore.Reached) error {
	k.tellReached(p, reached)
	return k.status(ctx, func(st *v1alpha1.ClusterStatus) {
		rs := st.Restore
		if rs == nil {
			rs = &v1alpha1.RestoreStatus{}
			st.Restore = rs
		}
		rs.Phase, rs.Progress = v1alpha1.RestoreCompleted, nil
		rs.ReachedLSN = reached.LSN.String()
		rs.Notes = append([]string{
			fmt.Sprintf("accounts and passwords are those of cluster %s at %s", spec.SourceCluster, p.Time.UTC().Format("2006-01-02 15:04:05.999999 MST")),
		}, reached.Notes...)
	})
}

// ready waits until the server answers, and notes who it is.
func (k *keeper) ready(ctx context.Context, c *v1alpha1.Cluster, s *server) error {
	ctx, cancel := context.WithTimeout(ctx, settleDown)
	defer cancel()
	for {
		conn, err := client.Connect(ctx, ownConninfo(c, "postgres"))
		if err == nil {
			id, ierr := conn.Identify(ctx)
			if err = errors.Join(ierr, conn.Close()); err != nil {
				return err
			}
			pid := int64(s.pid())
			return k.status(ctx, func(st *v1alpha1.ClusterStatus) {
				st.Version, st.SystemIdentifier, st.PID = id.Version.String(), id.SystemID.String(), pid
				st.DataDirectory, st.SocketDirectory, st.Superuser = s.data, s.socket, s.superuser
			})
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// readPort finds the port in the settings that were written for this machine.
func readPort(data string) (int, error) {
	b, err := os.ReadFile(filepath.Join(data, ownConf))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		name, value, ok := strings.Cut(strings.TrimSpace(line), "=")
		if ok && strings.TrimSpace(name) == "port" {
			return strconv.Atoi(strings.Trim(strings.TrimSpace(value), "'"))
		}
	}
	return 0, fmt.Errorf("%s names no port", filepath.Join(data, ownConf))
}
