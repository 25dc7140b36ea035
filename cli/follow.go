// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/runtimes/store"
)

// step is what a state of an object means to who waits for it.
type step struct {
	done bool
	err  error  // ends the waiting too
	line string // what is going on
}

// tendInterval is how often who waits sees to it that somebody acts.
const tendInterval = 3 * time.Second

// follow waits until judge finds an object done. exists is false for one that is
// not there. The last state is returned also with an error.
func follow[T v1alpha1.Object](ctx context.Context, a *app, namespace, name string, timeout time.Duration, judge func(o T, exists bool) step) (T, error) {
	var o T
	s, err := a.objects(ctx)
	if err != nil {
		return o, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	kind := v1alpha1.KindFor[T]()
	if !kind.Namespaced {
		namespace = ""
	}
	events, err := s.Watch(ctx, kind.Name, namespace)
	if err != nil {
		return o, err
	}
	p := a.progress()
	defer p.end()
	limit := time.NewTimer(timeout)
	defer limit.Stop()
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	tend := time.NewTicker(tendInterval)
	defer tend.Stop()
	synced, exists := false, false
	var last step
	for {
		select {
		case <-ctx.Done():
			return o, left(ctx, kind, namespace, name)
		case e, ok := <-events:
			if !ok {
				return o, left(ctx, kind, namespace, name)
			}
			switch {
			case e.Type == store.Synced:
				synced = true
			case e.Key.Name != name:
				continue
			case e.Type == store.Broken:
				return o, e.Err
			default:
				o, exists = e.Object.(T), e.Type != store.Deleted
			}
		case <-tick.C:
		case <-tend.C:
			// who acts may have died since, or have been dying when it was looked for
			if err := a.rt.Ready(ctx); err != nil && ctx.Err() == nil {
				return o, err
			}
		case <-limit.C:
			p := newProblem(exitTimedOut, "%s %q was not done after %s", kind.Singular, name, timeout)
			if last.line != "" {
				p.hint = "it was at: " + last.line
			}
			return o, p.then("%s", lookCommand(kind, namespace, name))
		}
		if !synced {
			continue
		}
		last = judge(o, exists)
		if last.done || last.err != nil {
			return o, last.err
		}
		p.show(last.line)
	}
}

// leftError says that somebody stopped waiting. What was waited for goes on.
type leftError struct {
	cause Interrupted
	next  string
}

func (e *leftError) Error() string { return e.cause.Error() }
func (e *leftError) Unwrap() error { return e.cause }

func left(ctx context.Context, kind v1alpha1.Kind, namespace, name string) error {
	var i Interrupted
	if !errors.As(context.Cause(ctx), &i) {
		return context.Cause(ctx)
	}
	return &leftError{cause: i, next: lookCommand(kind, namespace, name)}
}

// lookCommand shows how far an object is.
func lookCommand(kind v1alpha1.Kind, namespace, name string) string {
	switch kind.Name {
	case v1alpha1.KindCluster:
		return fmt.Sprintf("kbcli cluster describe %s -n %s", name, namespace)
	case v1alpha1.KindBackup:
		return fmt.Sprintf("kbcli cluster list-backup --name=%s -n %s", name, namespace)
	case v1alpha1.KindBackupPolicy:
		return fmt.Sprintf("kbcli cluster list-backup-policy --name=%s -n %s", name, namespace)
	case v1alpha1.KindAddon:
		return "kbcli addon describe " + name
	}
	return "kbcli backuprepo describe " + name
}

// gone judges an object that is being deleted.
func gone[T v1alpha1.Object](uid string) func(T, bool) step {
	return func(o T, exists bool) step {
		// Another object may have taken the name.
		return step{done: !exists || string(o.GetUID()) != uid, line: "deleting"}
	}
}

const runningPatience = 60 * time.Second

// running waits, a minute at most, until a cluster has a server that answers.
func (a *app) running(ctx context.Context, c *v1alpha1.Cluster) (*v1alpha1.Cluster, error) {
	now := judgeRunning(c, true)
	if now.done || now.err != nil {
		return c, now.err
	}
	if _, err := a.ready(ctx); err != nil {
		return c, err
	}
	return follow(ctx, a, c.Namespace, c.Name, runningPatience, judgeRunning)
}

// judgeRunning judges a cluster that is to serve.
func judgeRunning(c *v1alpha1.Cluster, exists bool) step {
	if !exists {
		return step{err: missing("cluster is gone")}
	}
	line := clusterPhase(c)
	if r := c.Status.Restore; r != nil && c.Status.Phase == v1alpha1.ClusterRestoring {
		line = string(r.Phase)
	}
	switch c.Status.Phase {
	case v1alpha1.ClusterRunning, v1alpha1.ClusterUpdating, v1alpha1.ClusterAbnormal:
		return step{done: true}
	case v1alpha1.ClusterStopped, v1alpha1.ClusterStopping:
		if !c.Spec.Stopped {
			return step{line: line}
		}
		return step{err: newProblem(exitNoPostgreSQL, "cluster %q is stopped", c.Name).then("kbcli cluster start %s -n %s", c.Name, c.Namespace)}
	case v1alpha1.ClusterDeleting:
		return step{err: conflict("cluster %q is being deleted", c.Name)}
	case v1alpha1.ClusterFailed:
		return step{err: clusterFailed(c)}
	}
	return step{line: line}
}

// reasons are the reasons of a failed Cluster, Backup or BackupRepo that have an exit code
// of their own.
var reasons = map[string]int{
	"NoRepository":       exitNoRepository,
	"RepositoryNotFound": exitNoRepository,

	"RepositoryLocked":   exitLocked,
	"RepositoryLockLost": exitLocked,
	"WrongKey":           exitWrongKey,

	"OutsideWindow":      exitOutside,
	"GapInWAL":           exitGap,
	"RepositoryDamaged":  exitUnverified,
	"VerificationFailed": exitUnverified,
	"TargetNotReached":   exitNotReached,

	"PostgreSQLUnreachable": exitNoPostgreSQL,
	"ServerUnreachable":     exitNoPostgreSQL,
	"ServerStarting":        exitNoPostgreSQL,
	"ServerDenied":          exitNoPostgreSQL,

	"StorageUnreachable": exitNoStorage,
	"StorageDenied":      exitNoStorage,
	"StorageMissing":     exitNoStorage,
	"StorageSlow":        exitNoStorage,
	"StorageUnfit":       exitNoStorage,

	"AnotherServer":      exitConflict,
	"RepositoryConflict": exitConflict,
	"ServerRewound":      exitConflict,
}

// codeOf is the exit code of a reason.
func codeOf(reason string) int {
	if code, ok := reasons[reason]; ok {
		return code
	}
	return exitFailed
}

func clusterFailed(c *v1alpha1.Cluster) error {
	why := c.Status.Message
	if r := c.Status.Restore; why == "" && r != nil {
		why = r.Message
	}
	if why == "" {
		why = c.Status.Reason
	}
	return newProblem(codeOf(c.Status.Reason), "cluster %q failed: %s", c.Name, why).then("kbcli cluster describe %s -n %s", c.Name, c.Namespace)
}

// progressLine tells how far long work is: phase, bytes, rate, time left.
func progressLine(p *v1alpha1.Progress, phase string, now time.Time) string {
	if p == nil {
		return phase
	}
	line := phase
	if p.Phase != "" && p.Phase != phase {
		line += " " + p.Phase
	}
	if p.BytesDone > 0 || p.BytesTotal > 0 {
		line += ": " + v1alpha1.FormatSize(p.BytesDone)
		if p.BytesTotal > 0 {
			line += " of " + v1alpha1.FormatSize(p.BytesTotal)
		}
	}
	if p.SegmentsTotal > 0 {
		line += fmt.Sprintf(", segment %d of %d", p.SegmentsDone, p.SegmentsTotal)
	}
	if p.Message != "" {
		return line + ", held up: " + p.Message
	}
	if spent := now.Sub(p.StartedAt.Time); !p.StartedAt.IsZero() && spent >= time.Second && p.BytesDone > 0 {
		rate := float64(p.BytesDone) / spent.Seconds()
		line += ", " + v1alpha1.FormatSize(int64(rate)) + "/s"
		if left := p.BytesTotal - p.BytesDone; left > 0 {
			line += ", " + about(time.Duration(float64(left)/rate*float64(time.Second))) + " left"
		}
	}
	return line
}

// about is a length of time for people, to two digits or so.
func about(d time.Duration) string {
	switch {
	case d < 90*time.Second:
		return fmt.Sprintf("%d s", max(1, (d+time.Second/2)/time.Second))
	case d < 90*time.Minute:
		return fmt.Sprintf("%d min", (d+time.Minute/2)/time.Minute)
	}
	return fmt.Sprintf("%.1f h", d.Hours())
}
