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

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/engine/pg/client"
	"github.com/kbcli/kbcli/engine/restore"
	"github.com/kbcli/kbcli/runtimes"
	"github.com/kbcli/kbcli/runtimes/agent"
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
		serr := k.restoreLog().Failed(ctx, err)
		return errors.Join(err, serr, k.phase(ctx, v1alpha1.ClusterFailed, agent.RestoreReason(err), err.Error()))
	}
	return k.placed(ctx, s, port)
}

// AwaitCommand is the command of this program that runs archive.Await with the
// arguments that follow it.
const AwaitCommand = "wal-await"

func (k *keeper) restoreLog() *agent.RestoreLog {
	return &agent.RestoreLog{Objects: k.r.objects, Namespace: k.namespace, Cluster: k.name, Event: k.tell, Clock: k.r.clock, Log: k.r.log}
}

// recover does the work: plan, fetch, recover, prove, and put the directory in place.
func (k *keeper) recover(ctx context.Context, c *v1alpha1.Cluster, port int) (*server, error) {
	spec := c.Spec.Restore
	target, err := agent.TargetOf(spec)
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
	if err := k.restoreLog().Planned(ctx, p); err != nil {
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
	var delta *restore.Delta
	if spec.Delta != "" {
		reuse, err := k.takeOver(ctx, p, s, spec.Delta)
		if err != nil {
			return nil, err
		}
		if reuse {
			delta = &restore.Delta{}
		}
	}
	old := []string{tmp, spaces, scratch}
	if delta != nil {
		old = []string{scratch}
	}
	for _, dir := range old {
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
	stop := k.restoreLog().Progress(ctx, p, &done, &total, &fed)
	defer stop()
	held, release := agent.BoundsOf(spec.Limits).Hold()
	defer release()
	into := restore.Into{
		DataDirectory: tmp, Tablespaces: spaces, UID: s.uid, GID: s.gid, Jobs: restoreJobs(), Bounds: held, Delta: delta,
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
	k.restoreLog().Phase(ctx, v1alpha1.RestoreRecovering)
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
	switch {
	case delta != nil:
		reached.Notes = append(reached.Notes, deltaNote(spec.Delta, delta))
	case spec.Limits.IsZero(): // else it went as it was told to, and not as it can
		k.r.learnRates(p, took)
	}
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
	return s, k.restoreLog().Reached(ctx, spec, p, reached)
}

// restoreJobs is how many packs are unpacked at once: on a small machine more than it has
// cores, for those that write wait for the disk.
func restoreJobs() int { return max(4, runtime.NumCPU()) }

// ready waits until the server answers, and notes who it is.
func (k *keeper) ready(ctx context.Context, c *v1alpha1.Cluster, s *server) error {
	ctx, cancel := context.WithTimeout(ctx, settleDown)
	defer cancel()
	// a server that was shut down in order is there at once; each who asks another is a process of it
	for pause := 10 * time.Millisecond; ; pause = min(2*pause, 200*time.Millisecond) {
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
		case <-time.After(pause):
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
