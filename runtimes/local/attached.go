// SPDX-License-Identifier: Apache-2.0

package local

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/engine/checkup"
	"github.com/kbcli/kbcli/engine/pg/client"
	"github.com/kbcli/kbcli/runtimes/agent"
	"github.com/kbcli/kbcli/runtimes/store"
)

// The reasons of an attached cluster that is not well. All of them mend themselves when
// the server does.
const (
	reasonUnreachable = "PostgreSQLUnreachable"
	reasonOther       = "AnotherServer"
	reasonNeeds       = "NeedsNotMet"
)

// How often a server that somebody else runs is asked. Each time is a connection of its
// own: one that stayed would keep the server from a smart shutdown.
const (
	askWell  = 10 * time.Second
	askIll   = 2 * time.Second
	askNeeds = 15 * time.Second
)

// other is what a keeper knows of a server that somebody else runs.
type other struct {
	conninfo string // that the Protector connects with
	asked    time.Time
	well     bool
	started  time.Time // of the postmaster, by its clock
	checked  time.Time // when its needs were looked at
	needs    string    // those that are not met; empty for none
}

// keepAttached protects a server and tells how it is. It never starts, stops or changes
// the server.
func (k *keeper) keepAttached(ctx context.Context, c *v1alpha1.Cluster) error {
	info, err := attachedConninfo(c, "")
	if err != nil {
		return err
	}
	// before the spool makes it for itself alone: other clusters' servers lie beside it
	if err := os.MkdirAll(k.r.cluster(k.namespace, k.name), 0o755); err != nil {
		return err
	}
	o := &k.other
	if o.conninfo != info {
		k.unprotect()
		*o = other{conninfo: info}
	}
	if c.Status.SystemIdentifier != "" && k.protect == nil && c.Status.Reason != reasonOther {
		// also while the server is down: the spool may hold what the repository has not
		k.startProtector(ctx, info, c.Spec.Local.DataDirectory)
	}
	now := k.r.clock()
	if now.Sub(o.asked) < o.interval(c) && c.Status.ObservedGeneration == c.Generation {
		return nil
	}
	server, err := k.askServer(ctx, info)
	o.asked, o.well = now, false
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil:
		o.started = time.Time{}
		followed, more := k.elsewhere(ctx, c, info, err)
		if followed {
			return nil
		}
		return k.ill(ctx, v1alpha1.ClusterFailed, reasonUnreachable, checkup.Words(err)+more)
	case c.Status.SystemIdentifier != "" && c.Status.SystemIdentifier != server.SystemID.String():
		k.unprotect()
		followed, more := k.elsewhere(ctx, c, info, nil)
		if followed {
			return nil
		}
		return k.ill(ctx, v1alpha1.ClusterFailed, reasonOther, fmt.Sprintf(
			"the server that answers is another one: its system identifier is %s, and that of this cluster %s; nothing is archived from it%s", server.SystemID, c.Status.SystemIdentifier, more))
	}
	if err := k.noteServer(ctx, c, server); err != nil {
		return err
	}
	if k.protect == nil {
		k.startProtector(ctx, info, c.Spec.Local.DataDirectory)
	}
	if !server.Started.Equal(o.started) || (troubled(c) || o.needs != "") && now.Sub(o.checked) >= askNeeds {
		needs, err := k.unmet(ctx, c, info)
		if err != nil {
			return k.ill(ctx, v1alpha1.ClusterFailed, reasonUnreachable, checkup.Words(err))
		}
		o.started, o.checked, o.needs = server.Started, now, needs
	}
	if o.needs != "" {
		return k.ill(ctx, v1alpha1.ClusterAbnormal, reasonNeeds, o.needs)
	}
	o.well = true
	return k.phase(ctx, v1alpha1.ClusterRunning, "", "")
}

func (o *other) interval(c *v1alpha1.Cluster) time.Duration {
	if o.well && !troubled(c) {
		return askWell
	}
	return askIll
}

// troubled tells whether archiving fails.
func troubled(c *v1alpha1.Cluster) bool {
	a := c.Status.Archive
	return a != nil && (a.LastError != "" || a.State == v1alpha1.ArchiveConnecting)
}

// ill notes what is wrong with the server, and logs it when it is news.
func (k *keeper) ill(ctx context.Context, p v1alpha1.ClusterPhase, reason, message string) error {
	c, err := k.get(ctx)
	if err != nil {
		return err
	}
	if c.Status.Reason != reason || c.Status.Message != message {
		k.r.log.Warn("the attached server is not as it should be", "cluster", k.namespace+"/"+k.name, "reason", reason, "message", message)
	}
	return k.phase(ctx, p, reason, message)
}

func (k *keeper) askServer(ctx context.Context, info string) (client.Server, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	conn, err := client.Connect(ctx, info)
	if err != nil {
		return client.Server{}, err
	}
	s, err := conn.Identify(ctx)
	return s, errors.Join(err, conn.Close())
}

// unmet are the needs that the server does not meet, each with what mends it.
func (k *keeper) unmet(ctx context.Context, c *v1alpha1.Cluster, info string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	f, err := checkup.GatherServer(ctx, checkup.ServerTarget{
		Conninfo: info, DataDirectory: c.Spec.Local.DataDirectory, Slot: agent.SlotName(k.namespace, k.name),
	})
	if err != nil {
		return "", err
	}
	var out []string
	for _, n := range checkup.CheckServer(f) {
		if n.Level == checkup.Fail {
			out = append(out, fmt.Sprintf("%s: %s (%s)", n.Check, n.Evidence, strings.Join(strings.Split(n.Next, "\n"), " ")))
		}
	}
	return strings.Join(out, "; "), nil
}

// noteServer writes what the server says of itself, if it is news.
func (k *keeper) noteServer(ctx context.Context, c *v1alpha1.Cluster, s client.Server) error {
	if c.Spec.ClusterVersionRef == "" {
		_, err := store.Mutate(ctx, k.r.objects, k.namespace, k.name, func(c *v1alpha1.Cluster) error {
			c.Spec.ClusterVersionRef = fmt.Sprintf("postgresql-%d", s.Version.Major())
			return nil
		})
		if err != nil {
			return err
		}
	}
	config, err := client.Config(c.Spec.Local.Connect)
	if err != nil {
		return err
	}
	want := c.Status
	want.Version, want.SystemIdentifier = s.Version.String(), s.SystemID.String()
	want.DataDirectory, want.Port = c.Spec.Local.DataDirectory, int32(config.Port)
	want.SocketDirectory = ""
	if filepath.IsAbs(config.Host) {
		want.SocketDirectory = config.Host
	}
	at := server{data: want.DataDirectory}
	want.PID = int64(at.pid())
	if want.Superuser = ""; s.Superuser {
		want.Superuser = config.User
	}
	was := c.Status
	if was.Version == want.Version && was.SystemIdentifier == want.SystemIdentifier && was.DataDirectory == want.DataDirectory &&
		was.Port == want.Port && was.SocketDirectory == want.SocketDirectory && was.PID == want.PID && was.Superuser == want.Superuser {
		return nil
	}
	return k.status(ctx, func(st *v1alpha1.ClusterStatus) {
		st.Version, st.SystemIdentifier, st.PID = want.Version, want.SystemIdentifier, want.PID
		st.DataDirectory, st.Port, st.SocketDirectory, st.Superuser = want.DataDirectory, want.Port, want.SocketDirectory, want.Superuser
	})
}

// claimAttached puts the finalizer into the object.
func (k *keeper) claimAttached(ctx context.Context, c *v1alpha1.Cluster) error {
	if slices.Contains(c.Finalizers, clusterFinalizer) {
		return nil
	}
	_, err := store.Mutate(ctx, k.r.objects, k.namespace, k.name, func(c *v1alpha1.Cluster) error {
		if !slices.Contains(c.Finalizers, clusterFinalizer) {
			c.Finalizers = append(c.Finalizers, clusterFinalizer)
		}
		return nil
	})
	return err
}
