// SPDX-License-Identifier: Apache-2.0

package examination

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/engine/checkup"
	"github.com/kbcli/kbcli/engine/pg"
	"github.com/kbcli/kbcli/engine/pg/client"
	"github.com/kbcli/kbcli/runtimes/agent"
)

// Server is a cluster's server as this process sees it.
type Server struct {
	Conninfo func() (string, error) // of its superuser
	Attached bool                   // somebody else made it

	DataDirectory, Spool string
	AgentRuns            bool // the one that archives it

	Revive, Grow string // as checkup.Names has them
}

// Patient is a cluster that was examined.
type Patient struct {
	Names    checkup.Names
	Findings []checkup.Finding
	Asked    *Asked // nil where the server did not answer
}

// Asked is what a server said of itself.
type Asked struct {
	Major       int
	Clock, Here time.Time // its clock, and that of this process when it was asked
	Bytes       int64     // of all databases; 0 when it takes long to tell

	version  string
	slots    []client.Slot
	position pg.LSN
	settings []checkup.Finding
}

type patient struct {
	*Scene
	c      *v1alpha1.Cluster
	policy *v1alpha1.BackupPolicy
	names  checkup.Names
	wanted bool // its WAL is to be archived, and its server to run
	at     Server

	server *Asked
	err    error // of the server
}

// Cluster looks at a cluster and its server.
func (s *Scene) Cluster(ctx context.Context, c *v1alpha1.Cluster, at Server) Patient {
	p := s.patient(c, at)
	if !c.Spec.Stopped {
		p.server, p.err = within(ctx, p.askServer)
	}
	var out []checkup.Finding
	out = append(out, p.wal().Findings()...)
	if p.server != nil {
		out = append(out, p.server.settings...)
	}
	out = append(out, p.archive().Findings()...)
	out = append(out, p.taken().Findings()...)
	return Patient{p.names, out, p.server}
}

// Unseen looks at what the objects say of a cluster whose server cannot be asked, because
// of err.
func (s *Scene) Unseen(c *v1alpha1.Cluster, err error, at Server) Patient {
	p := s.patient(c, at)
	p.err = err
	w := p.wal()
	out := w.Findings()[:1]
	a := p.archive()
	a.SpoolFree = -1
	for _, f := range a.Findings() {
		if f.Check != "spool-space" {
			out = append(out, f)
		}
	}
	return Patient{p.names, append(out, p.taken().Findings()...), nil}
}

func (s *Scene) patient(c *v1alpha1.Cluster, at Server) *patient {
	p := &patient{Scene: s, c: c, policy: s.policy(c), at: at}
	p.names = checkup.Names{Namespace: c.Namespace, Cluster: c.Name, Repository: s.repoOf(p.policy), Revive: at.Revive, Grow: at.Grow}
	if p.policy != nil {
		p.names.Policy = p.policy.Name
		p.wanted = p.policy.Spec.Schedule.Logfile.Enable && !c.Spec.Stopped && c.DeletionTimestamp == nil
	}
	if b := s.unread(v1alpha1.KindBackupPolicy, c.Namespace, v1alpha1.DefaultBackupPolicyName(c.Name)); p.policy == nil && b != nil {
		// What it said is not known: what is done is what was wanted.
		p.names.Policy = b.Key.Name
		st := c.Status.Archive
		p.wanted = !c.Spec.Stopped && c.DeletionTimestamp == nil && st != nil && st.State != v1alpha1.ArchiveStopped
	}
	return p
}

// positionSQL is how far a server has written, or a standby has received, its WAL.
const positionSQL = `SELECT CASE WHEN pg_is_in_recovery() THEN coalesce(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn())
	ELSE pg_current_wal_flush_lsn() END::text`

func (p *patient) askServer(ctx context.Context) (*Asked, error) {
	info, err := p.at.Conninfo()
	if err != nil {
		return nil, err
	}
	conn, err := client.Connect(ctx, info)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	a := &Asked{version: conn.ServerVersion().String(), Major: conn.ServerVersion().Major()}
	before := p.Clock()
	if a.Clock, err = conn.Clock(ctx); err != nil {
		return nil, err
	}
	after := p.Clock()
	a.Here = before.Add(after.Sub(before) / 2)
	if a.slots, err = conn.Slots(ctx); err != nil {
		return nil, err
	}
	var text string
	if err := conn.SQL().QueryRow(ctx, positionSQL).Scan(&text); err != nil {
		return nil, fmt.Errorf("ask how far its WAL is: %w", err)
	}
	if a.position, err = pg.ParseLSN(text); err != nil {
		return nil, err
	}
	a.settings = p.settings(ctx, info)
	// a big server may take longer than it is given
	if err := conn.SQL().QueryRow(ctx, "SELECT coalesce(sum(pg_database_size(oid)), 0)::int8 FROM pg_database").Scan(&a.Bytes); err != nil {
		a.Bytes = 0
	}
	return a, nil
}

// settings are the checks of attaching a server, of one that is protected already. What
// is kept for slots is a check of its own here, and so is the data directory where kbcli
// made it.
func (p *patient) settings(ctx context.Context, info string) []checkup.Finding {
	target := checkup.ServerTarget{Conninfo: info, DataDirectory: p.data(), Slot: agent.SlotName(p.c.Namespace, p.c.Name)}
	if p.policy != nil {
		target.Sync = p.policy.Spec.Archive.Mode == v1alpha1.ArchiveSync
	}
	facts, err := checkup.GatherServer(ctx, target)
	if err != nil {
		return []checkup.Finding{{
			Check: "server-settings", Level: checkup.Warn, Evidence: "they could not be looked at: " + err.Error(),
			Next: fmt.Sprintf("kbcli cluster connect %s -n %s", p.c.Name, p.c.Namespace),
		}}
	}
	var out []checkup.Finding
	for _, f := range checkup.CheckServer(facts) {
		if f.Check == "slot-room" && !p.at.Attached {
			continue
		}
		out = append(out, f)
	}
	return out
}

// data is where the server's settings say that its files are; of one that somebody else made
// it may not be known.
func (p *patient) data() string {
	if p.at.Attached {
		return p.c.Status.DataDirectory
	}
	return p.at.DataDirectory
}

func (p *patient) wal() *checkup.WAL {
	w := &checkup.WAL{Names: p.names, Stopped: p.c.Spec.Stopped, Err: p.err, Wanted: p.wanted, Slot: agent.SlotName(p.c.Namespace, p.c.Name)}
	if p.server != nil {
		w.Version, w.Slots, w.Position = p.server.version, p.server.slots, p.server.position
	} else if w.Err == nil && !w.Stopped {
		w.Err = errors.New("it was not asked")
	}
	dir := filepath.Join(p.at.DataDirectory, "pg_wal")
	if w.Free, w.Total, w.FreeErr = Room(dir); w.FreeErr == nil {
		w.Size = sizeOf(dir)
	}
	return w
}

// sizeOf is what the files in a directory take, not those in directories below it.
func sizeOf(dir string) (n int64) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return 0
	}
	for _, e := range entries {
		if info, err := e.Info(); err == nil && info.Mode().IsRegular() {
			n += info.Size()
		}
	}
	return n
}

// Room is what is free on the file system of a path, for those who are not root, and how
// big it is.
func Room(path string) (free, total int64, err error) {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return 0, 0, fmt.Errorf("%s: %w", path, err)
	}
	return int64(st.Bavail) * st.Bsize, int64(st.Blocks) * st.Bsize, nil
}
