// SPDX-License-Identifier: Apache-2.0

package local

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
)

// layout knows where things lie under a state directory.
type layout struct{ state string }

func (l layout) objects() string             { return filepath.Join(l.state, "objects") }
func (l layout) lock() string                { return filepath.Join(l.state, "agent.lock") }
func (l layout) pid() string                 { return filepath.Join(l.state, "agent.pid") }
func (l layout) log() string                 { return filepath.Join(l.state, "agent.log") }
func (l layout) agentState() string          { return filepath.Join(l.state, "agent.json") }
func (l layout) agentStart() string          { return filepath.Join(l.state, "agent.start") }
func (l layout) agentStopped() string        { return filepath.Join(l.state, "agent.stopped") }
func (l layout) rates() string               { return filepath.Join(l.state, "rates.json") }
func (l layout) copies() string              { return filepath.Join(l.state, "known") }
func (l layout) secrets() string             { return filepath.Join(l.state, "secrets") }
func (l layout) repository() string          { return filepath.Join(l.state, "repository") }
func (l layout) cluster(ns, n string) string { return filepath.Join(l.state, "clusters", ns, n) }
func (l layout) data(ns, n string) string    { return filepath.Join(l.cluster(ns, n), "data") }
func (l layout) recovery(ns, n string) string {
	return filepath.Join(l.cluster(ns, n), "recovery")
}

// maxSocketDir leaves room for "/.s.PGSQL.65535.lock" in the 107 bytes of a socket's path.
const maxSocketDir = 85

// socket is the directory of a server's socket. A state directory with a long path
// gets one under /tmp, by a hash of its own place.
func (l layout) socket(ns, n string) string {
	dir := filepath.Join(l.state, "run", ns+"."+n)
	if len(dir) <= maxSocketDir {
		return dir
	}
	return l.short("s", dir)
}

func (l layout) short(kind, dir string) string {
	sum := sha256.Sum256([]byte(dir))
	return filepath.Join(os.TempDir(), "kbcli-"+strconv.Itoa(os.Geteuid())+"-"+kind+hex.EncodeToString(sum[:6]))
}

// account is who servers run as.
type account struct {
	uid, gid int // -1: as this process
	name     string
}

// serverAccount is user postgres for root, else oneself.
func serverAccount() (account, error) {
	if os.Geteuid() != 0 {
		u, err := user.Current()
		if err != nil {
			return account{}, fmt.Errorf("who runs this: %w", err)
		}
		return account{-1, -1, u.Username}, nil
	}
	u, err := user.Lookup("postgres")
	var unknown user.UnknownUserError
	if errors.As(err, &unknown) {
		return account{}, errors.New("there is no user postgres on this machine, and PostgreSQL does not run as root: install PostgreSQL's packages or make the user")
	}
	if err != nil {
		return account{}, err
	}
	uid, err := strconv.Atoi(u.Uid)
	if err != nil {
		return account{}, err
	}
	gid, err := strconv.Atoi(u.Gid)
	if err != nil {
		return account{}, err
	}
	return account{uid, gid, "postgres"}, nil
}

// dir makes a directory that belongs to the servers' account.
func (a account) dir(path string, mode os.FileMode) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	if err := os.Mkdir(path, mode); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	if err := os.Chmod(path, mode); err != nil {
		return err
	}
	return a.own(path)
}

func (a account) own(path string) error {
	if a.uid < 0 {
		return nil
	}
	return os.Lchown(path, a.uid, a.gid)
}

// file writes a file that belongs to the servers' account.
func (a account) file(path, content string) error {
	tmp := path + ".tmp"
	if err := os.WriteFile(tmp, []byte(content), 0o600); err != nil {
		return err
	}
	if err := a.own(tmp); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}
