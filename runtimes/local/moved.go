// SPDX-License-Identifier: Apache-2.0

package local

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/kbcli/kbcli/api/v1alpha1"
	"github.com/kbcli/kbcli/engine/pg/client"
	"github.com/kbcli/kbcli/runtimes"
	"github.com/kbcli/kbcli/runtimes/store"
)

// address is where a postmaster says that it listens.
type address struct {
	port   string
	socket string // the directory of its first socket; empty for none
	tcp    string // its first address, as it has it; empty for none
}

// listening reads the postmaster.pid of a data directory.
func listening(dir string) (address, error) {
	b, err := os.ReadFile(filepath.Join(dir, "postmaster.pid"))
	if errors.Is(err, os.ErrNotExist) {
		return address{}, fmt.Errorf("no server runs on %s: it has no postmaster.pid", dir)
	}
	if err != nil {
		return address{}, err
	}
	line := strings.Split(string(b), "\n")
	if len(line) < 6 {
		return address{}, fmt.Errorf("the server of %s is starting", dir)
	}
	return address{strings.TrimSpace(line[3]), strings.TrimSpace(line[4]), strings.TrimSpace(line[5])}, nil
}

// host is what to connect to, a socket before anything else.
func (a address) host() string {
	switch {
	case a.socket != "":
		return a.socket
	case a.tcp == "*", a.tcp == "0.0.0.0", a.tcp == "::":
		return "localhost"
	}
	return a.tcp
}

// movedFrom is a connection string like info, to where the server of a data directory
// listens now; empty if it does not run, or listens where info says.
func movedFrom(info, dir string) string {
	config, err := client.Config(info)
	if err != nil || dir == "" || (&server{data: dir}).pid() == 0 {
		return ""
	}
	at, err := listening(dir)
	if err != nil || at.host() == "" {
		return ""
	}
	host, port := at.host(), fmt.Sprint(config.Port)
	switch {
	case filepath.IsAbs(config.Host):
		if at.port == port && samePath(at.socket, config.Host) {
			return ""
		}
	case at.tcp != "":
		if at.port == port {
			return ""
		}
		host = config.Host
	}
	now, err := client.With(info, [2]string{"host", host}, [2]string{"port", at.port})
	if err != nil {
		return ""
	}
	return now
}

func samePath(a, b string) bool {
	x, err := os.Stat(a)
	if err != nil {
		return a == b
	}
	y, err := os.Stat(b)
	return err == nil && os.SameFile(x, y)
}

// elsewhere looks whether the server of an attached cluster listens elsewhere by now, when
// it is not found where it was. It follows where nobody said how to connect, and else
// tells how that is said, in words to be added to what is wrong.
func (k *keeper) elsewhere(ctx context.Context, c *v1alpha1.Cluster, info string, why error) (followed bool, words string) {
	var answered *pgconn.PgError
	if errors.As(why, &answered) {
		return false, "" // it is there, and does not let us in
	}
	now := movedFrom(info, c.Spec.Local.DataDirectory)
	if now == "" {
		return false, ""
	}
	if c.Annotations[runtimes.AnnotationConnect] == runtimes.ConnectFollows {
		server, err := k.askServer(ctx, now)
		if err == nil && (c.Status.SystemIdentifier == "" || c.Status.SystemIdentifier == server.SystemID.String()) {
			_, err = store.Mutate(ctx, k.r.objects, k.namespace, k.name, func(x *v1alpha1.Cluster) error {
				if x.Spec.Local.Connect == info {
					x.Spec.Local.Connect = now
				}
				return nil
			})
			if err == nil {
				k.tell(k.self(), runtimes.EventNormal, "ServerMoved", "the server of "+c.Spec.Local.DataDirectory+" is reached elsewhere now: "+now)
				k.poke()
				return true, ""
			}
		}
		if err != nil && ctx.Err() == nil {
			return false, fmt.Sprintf("; the server of %s listens elsewhere now, and is not reached there either: %v", c.Spec.Local.DataDirectory, err)
		}
	}
	return false, fmt.Sprintf("; the server of %s listens elsewhere now: kbcli cluster attach %s -n %s %s",
		c.Spec.Local.DataDirectory, k.name, k.namespace, runtimes.RunningServer{Connect: now}.Flags())
}
