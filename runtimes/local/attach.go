// SPDX-License-Identifier: Apache-2.0

package local

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/engine/checkup"
	"github.com/kbcli/kbcli/engine/pg/client"
	"github.com/kbcli/kbcli/runtimes"
	"github.com/kbcli/kbcli/runtimes/agent"
	"github.com/kbcli/kbcli/runtimes/store"
)

var (
	_ runtimes.Attacher = (*Runtime)(nil)
	_ runtimes.Detacher = (*Runtime)(nil)
)

// attached tells whether somebody else runs the cluster's server.
func attached(c *v1alpha1.Cluster) bool { return c.Spec.Local != nil && c.Spec.Local.Attached }

// patience is how long a server that is looked at may take to answer.
const patience = 15 * time.Second

// CheckAttach looks at the server that c names, as the agent would see it. It makes
// c.Spec.Local.Connect whole, so that it means the same to the agent, whatever its
// environment.
func (r *Runtime) CheckAttach(ctx context.Context, c, was *v1alpha1.Cluster) ([]checkup.Finding, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	l := c.Spec.Local
	if l.Connect == "" && l.DataDirectory == "" {
		return nil, &runtimes.WhichServerError{Found: runningServers()}
	}
	if l.DataDirectory != "" {
		dir, err := filepath.Abs(l.DataDirectory)
		if err != nil {
			return nil, err
		}
		l.DataDirectory = dir
	}
	if was != nil {
		if l.DataDirectory == "" {
			l.DataDirectory = was.Spec.Local.DataDirectory
		}
		if l.Connect == "" {
			l.Connect = cmp.Or(movedFrom(was.Spec.Local.Connect, l.DataDirectory), was.Spec.Local.Connect)
		}
	}
	if l.Connect == "" {
		info, err := connectTo(l.DataDirectory)
		if err != nil {
			return []checkup.Finding{{
				Check: "connection", Level: checkup.Fail, Evidence: err.Error(),
				Next: "# start the server, or give --connect with the host and port it listens on",
			}}, nil
		}
		l.Connect = info
	}
	whole, err := wholeConninfo(l.Connect)
	if err != nil {
		return nil, err
	}
	l.Connect = whole
	f, err := checkup.GatherServer(ctx, checkup.ServerTarget{
		Conninfo: l.Connect, DataDirectory: l.DataDirectory, Slot: agent.SlotName(c.Namespace, c.Name),
	})
	if f == nil {
		return nil, err
	}
	if err != nil {
		return []checkup.Finding{checkup.ServerUnreachable(f, err)}, nil
	}
	findings := checkup.CheckServer(f)
	if was != nil && was.Status.SystemIdentifier != "" && was.Status.SystemIdentifier != f.Server.SystemID.String() {
		findings = append(findings, checkup.Finding{
			Check: runtimes.CheckSameServer, Level: checkup.Fail,
			Evidence: fmt.Sprintf("this server is another one: its system identifier is %s, and that of cluster %s %s", f.Server.SystemID, was.Name, was.Status.SystemIdentifier),
			Next:     "# attach it under a name of its own",
		})
	}
	if secret := os.Getenv("PGPASSWORD"); secret != "" && f.Agent != f.User {
		findings = append([]checkup.Finding{{
			Check: "password", Level: checkup.Fail, Evidence: "PGPASSWORD is set here, and the agent does not see it",
			Next: "# unset PGPASSWORD and put the password into ~/.pgpass of the account that runs kbcli's agent, or into a file named with passfile= in --connect",
		}}, findings...)
	}
	l.DataDirectory = f.Data.Directory
	c.Spec.ClusterVersionRef = fmt.Sprintf("postgresql-%d", f.Server.Version.Major())
	return findings, nil
}

// connectTo is how the server of a data directory is reached.
func connectTo(dir string) (string, error) {
	at, err := listening(dir)
	if err != nil {
		return "", err
	}
	return client.With("", [2]string{"host", at.host()}, [2]string{"port", at.port})
}

// wholeConninfo says in a connection string what libpq would take from its
// surroundings. The user is the one who runs the server, if it is root who asks and
// nobody else was named: no server has a role of that name.
func wholeConninfo(info string) (string, error) {
	if _, err := client.With(info); err != nil {
		return "", err
	}
	config, err := client.Config(info)
	if err != nil {
		return "", err
	}
	if slices.ContainsFunc(config.Fallbacks, func(f *pgconn.FallbackConfig) bool { return f.Host != config.Host || f.Port != config.Port }) {
		return "", errors.New("the connection string names several servers: an attached cluster is one")
	}
	user := config.User
	if _, said := client.Keyword(info, "user"); !said && os.Getenv("PGUSER") == "" && os.Geteuid() == 0 {
		user = initSuperuser
		if o, ok := client.SocketOwner(config); ok && o.UID != 0 {
			user = o.Name
		}
	}
	database := config.Database
	if _, said := client.Keyword(info, "dbname"); !said && os.Getenv("PGDATABASE") == "" || database == "" {
		database = "postgres"
	}
	set := [][2]string{
		{"host", config.Host}, {"port", strconv.Itoa(int(config.Port))}, {"user", user}, {"dbname", database},
	}
	if _, said := client.Keyword(info, "connect_timeout"); !said {
		set = append(set, [2]string{"connect_timeout", "10"})
	}
	return client.With(info, set...)
}

// attachedConninfo is the connection of an attached cluster to a database; to the one
// that its spec names for "".
func attachedConninfo(c *v1alpha1.Cluster, database string) (string, error) {
	if database == "" {
		return client.With(c.Spec.Local.Connect)
	}
	return client.With(c.Spec.Local.Connect, [2]string{"dbname", database})
}

// adminConninfo connects the superuser of any cluster.
func (r *Runtime) adminConninfo(c *v1alpha1.Cluster, database string) (string, error) {
	if attached(c) {
		return attachedConninfo(c, database)
	}
	return ownConninfo(c, database), nil
}

// attachedPsql runs psql over the connection of an attached cluster. Where Connect
// presents another account in root's place, psql runs as that account.
func attachedPsql(psql string, c *v1alpha1.Cluster, user, database string) (runtimes.Command, error) {
	info, err := attachedConninfo(c, database)
	if err != nil {
		return runtimes.Command{}, err
	}
	if user != "" {
		if info, err = client.With(info, [2]string{"user", user}); err != nil {
			return runtimes.Command{}, err
		}
	}
	cmd := runtimes.Command{Path: psql, Args: []string{"-d", info}}
	config, err := client.Config(info)
	if err != nil {
		return runtimes.Command{}, err
	}
	if peer, ok := client.Peer(config); ok {
		cmd.Args = append([]string{
			"--reuid", strconv.Itoa(peer.UID), "--regid", strconv.Itoa(peer.GID), "--clear-groups", "--", psql,
		}, cmd.Args...)
		cmd.Path, cmd.Env = "setpriv", []string{"HOME=" + peer.Home, "USER=" + peer.Name, "LOGNAME=" + peer.Name}
	}
	return cmd, nil
}

// CheckDetach asks the server for its name.
func (r *Runtime) CheckDetach(ctx context.Context, c *v1alpha1.Cluster) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	conn, err := r.Admin(ctx, c, "")
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	var system string
	if err := conn.QueryRow(ctx, "SELECT system_identifier::text FROM pg_control_system()").Scan(&system); err != nil {
		return err
	}
	if want := c.Status.SystemIdentifier; want != "" && system != want {
		return fmt.Errorf("the server that answers is another one: its system identifier is %s, and the cluster's %s", system, want)
	}
	return nil
}

// Leftovers are the slot, and the name that commits wait for in sync mode.
func (r *Runtime) Leftovers(ctx context.Context, c *v1alpha1.Cluster) ([]string, error) {
	slot := agent.SlotName(c.Namespace, c.Name)
	out := []string{fmt.Sprintf("SELECT pg_drop_replication_slot('%s');", slot)} // letters, digits and _ only
	policies, err := store.List[*v1alpha1.BackupPolicy](ctx, r.objects, c.Namespace, nil)
	for _, p := range policies {
		if p.Spec.ClusterRef == c.Name && p.Spec.Archive.Mode == v1alpha1.ArchiveSync {
			return append([]string{"ALTER SYSTEM RESET synchronous_standby_names;", "SELECT pg_reload_conf();"}, out...), nil
		}
	}
	return out, err
}

// Admin connects as the superuser.
func (r *Runtime) Admin(ctx context.Context, c *v1alpha1.Cluster, database string) (*pgx.Conn, error) {
	info, err := r.adminConninfo(c, database)
	if err != nil {
		return nil, fmt.Errorf("connect to cluster %s: %w", c.Name, err)
	}
	config, err := client.Config(info)
	if err != nil {
		return nil, fmt.Errorf("connect to cluster %s: %w", c.Name, err)
	}
	config.RuntimeParams["application_name"] = "kbcli"
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return nil, fmt.Errorf("connect to cluster %s: %w", c.Name, err)
	}
	return conn, nil
}
