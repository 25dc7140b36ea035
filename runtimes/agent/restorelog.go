// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/engine/catalog"
	"github.com/kbcli/kbcli/engine/pg"
	"github.com/kbcli/kbcli/engine/restore"
	"github.com/kbcli/kbcli/internal/humantime"
	"github.com/kbcli/kbcli/runtimes"
	"github.com/kbcli/kbcli/runtimes/store"
)

// RestoreLog tells in a Cluster how far its restore has come.
type RestoreLog struct {
	Objects   store.Store
	Namespace string
	Cluster   string
	Event     EventFunc // nil where nobody listens
	Clock     func() time.Time
	Log       *slog.Logger
}

func (k *RestoreLog) status(ctx context.Context, change func(*v1alpha1.ClusterStatus)) error {
	_, err := store.MutateStatus(ctx, k.Objects, k.Namespace, k.Cluster, func(c *v1alpha1.Cluster) error {
		change(&c.Status)
		return nil
	})
	return err
}

// Failed tells that the restore will not be, and why.
func (k *RestoreLog) Failed(ctx context.Context, err error) error {
	return k.status(ctx, func(st *v1alpha1.ClusterStatus) {
		if st.Restore == nil {
			st.Restore = &v1alpha1.RestoreStatus{}
		}
		st.Restore.Phase, st.Restore.Message = v1alpha1.RestoreFailed, err.Error()
		var missed *restore.NotReachedError
		if errors.As(err, &missed) {
			st.Restore.ReachedLSN = missed.Reached.String()
		}
	})
}

// RestoreReason is one word for why a restore failed.
func RestoreReason(err error) string {
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

// TargetOf reads the target of a restore.
func TargetOf(r *v1alpha1.RestoreSpec) (catalog.Target, error) {
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

// ResolvedBy is what a plan found a target to mean, as it is written down.
func ResolvedBy(p *restore.Plan) *v1alpha1.ResolvedTarget {
	return &v1alpha1.ResolvedTarget{
		Timeline: int64(p.Timeline), StopLSN: p.StopLSN.String(), StopInclusive: p.Inclusive,
		Immediate: p.Immediate, EndLSN: p.EndLSN.String(), BackupName: p.Backup,
	}
}

// Planned tells what the plan is, before anything is fetched.
func (k *RestoreLog) Planned(ctx context.Context, p *restore.Plan) error {
	_, err := store.Mutate(ctx, k.Objects, k.Namespace, k.Cluster, func(c *v1alpha1.Cluster) error {
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
		if st.Restore != nil {
			rs.Steps = st.Restore.Steps
		}
		rs.Begin(string(rs.Phase), k.Clock())
		st.Restore = rs
	})
}

// Phase tells how far the restore has come. A failure to tell does not stop it.
func (k *RestoreLog) Phase(ctx context.Context, phase v1alpha1.RestorePhase) {
	k.mark(ctx, string(phase), func(r *v1alpha1.RestoreStatus) { r.Phase = phase })
}

// Step tells that a part of the restore begins that is no phase of its own.
func (k *RestoreLog) Step(ctx context.Context, name string) {
	k.mark(ctx, name, func(*v1alpha1.RestoreStatus) {})
}

func (k *RestoreLog) mark(ctx context.Context, step string, change func(*v1alpha1.RestoreStatus)) {
	now := k.Clock()
	err := k.status(ctx, func(st *v1alpha1.ClusterStatus) {
		if st.Restore != nil {
			change(st.Restore)
			st.Restore.Begin(step, now)
		}
	})
	if err != nil && ctx.Err() == nil {
		k.Log.Warn("the restore's progress could not be written", "error", err)
	}
}

// Progress writes how far the restore is, every second, until the function it returns
// is called.
func (k *RestoreLog) Progress(ctx context.Context, p *restore.Plan, done, total, fed *atomic.Int64) func() {
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	began := metav1.NewTime(k.Clock())
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
				k.Log.Warn("the restore's progress could not be written", "error", err)
			}
		}
	}()
	return func() { cancel(); <-ended }
}

// Reached tells where the restore ended.
func (k *RestoreLog) Reached(ctx context.Context, spec *v1alpha1.RestoreSpec, p *restore.Plan, reached *restore.Reached) error {
	k.tellReached(p, reached)
	return k.status(ctx, func(st *v1alpha1.ClusterStatus) {
		rs := st.Restore
		if rs == nil {
			rs = &v1alpha1.RestoreStatus{}
			st.Restore = rs
		}
		rs.Phase, rs.Progress = v1alpha1.RestoreCompleted, nil
		rs.ReachedLSN = reached.LSN.String()
		rs.Begin(v1alpha1.StepStarting, k.Clock())
		rs.Notes = append([]string{
			fmt.Sprintf("accounts and passwords are those of cluster %s at %s", spec.SourceCluster, p.Time.UTC().Format("2006-01-02 15:04:05.999999 MST")),
		}, reached.Notes...)
	})
}

// tellReached records where a restore ended.
func (k *RestoreLog) tellReached(p *restore.Plan, reached *restore.Reached) {
	text := fmt.Sprintf("the past of %s was reached: LSN %s", p.Lineage, reached.LSN)
	if x := p.LastKept; x != nil {
		text += ", the last commit at " + humantime.FormatExact(x.Time, time.UTC)
	}
	if k.Event != nil {
		k.Event(v1alpha1.KindCluster+"/"+k.Cluster, runtimes.EventNormal, "Restored", text)
	}
}
